"""dovecot - the unique ids that a Dovecot has shown, from the dovecot-uidlist it left in a Maildir

    3 V1319538903 N23 G0f1e...
    22 P1234-abc W3100 S3000 :1319538904.M1P2.host,S=3000

A line is a message: its IMAP UID, extensions, its file's name. P is the id given by the server that
was there before Dovecot. Without it the id is made by Dovecot's setting pop3_uidl_format, in which

    %u UID   %v UIDVALIDITY (V)   %f the name up to the colon   %g the GUID (G, else the name)

may have a zero with a width, and u and v an X for hexadecimal, before the letter: %08Xu%08Xv is
Dovecot's default. A format with anything else in it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from courierpop3d.maildir import base, chunks, open_regular

FILE = b"dovecot-uidlist"
DIGITS = 10  # of an UID
WIDTH = 3  # digits of a width

Piece = Callable[[dict[bytes, bytes]], bytes]


def ids(form: str) -> dict[bytes, bytes]:
    """Ids by file names up to the colon; none if there is no such file.

    Raises OSError, and ValueError if the file or the form makes no sense.
    """
    pieces = parse_form(os.fsencode(form))
    try:
        descriptor = open_regular(FILE)
    except FileNotFoundError:
        return {}
    try:
        header, *lines = b"".join(chunks(descriptor)).split(b"\n")
    finally:
        os.close(descriptor)
    validity = _validity(header)
    found = {}
    for line in lines:
        front, _, name = line.partition(b" :")
        uid, *extensions = front.split(b" ")
        if name and uid.isdigit() and len(uid) <= DIGITS:
            keys = {extension[:1]: extension[1:] for extension in extensions}
            values = {b"u": uid, b"v": validity, b"f": base(name), b"g": keys.get(b"G", base(name))}
            found[base(name)] = keys.get(b"P") or b"".join([piece(values) for piece in pieces])
    return found


def _validity(header: bytes) -> bytes:
    version, *fields = header.split(b" ")
    values = [field[1:] for field in fields if field.startswith(b"V")]
    if version != b"3" or not values or not values[0].isdigit() or len(values[0]) > DIGITS:
        raise ValueError("dovecot-uidlist: not a list of version 3")
    return values[0]


def parse_form(form: bytes) -> list[Piece]:
    """What the parts of a pop3_uidl_format make of a message's values. Raises ValueError."""
    text, *variables = form.split(b"%")
    pieces = [_constant(text)]
    for variable in variables:
        rest = variable.lstrip(b"0123456789")
        width = variable[: len(variable) - len(rest)]
        is_hex = rest.startswith(b"X")
        rest = rest.removeprefix(b"X")
        is_known = rest[:1] in ((b"u", b"v") if is_hex else (b"u", b"v", b"f", b"g"))
        if not is_known or (width and not width.startswith(b"0")) or len(width) > WIDTH:
            raise ValueError(f"POP3_DOVECOT_UIDL_FORMAT={os.fsdecode(form)}: can't be followed")
        pieces += [_variable(rest[:1], int(width or b"0"), is_hex=is_hex), _constant(rest[1:])]
    return pieces


def _constant(text: bytes) -> Piece:
    return lambda values: text


def _variable(key: bytes, width: int, *, is_hex: bool) -> Piece:
    def piece(values: dict[bytes, bytes]) -> bytes:
        return (b"%x" % int(values[key]) if is_hex else values[key]).rjust(width, b"0")

    return piece
