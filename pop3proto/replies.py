"""replies - what the server says, as bytes; and messages in the form they travel in

Replies are one status line, or a status line and lines ended by a dot (RFC 1939 section 3). A
message travels with CRLF line ends, a dot doubled where a line begins with one, and ends with a
line end even if the file does not (1939-06, 1939-23). A stored CRLF is one line end (ROB-11); a CR
without LF, a NUL and a line of any length pass as they are (ROB-12).

`stuff` and `Measure` are two sides of one rule: `Measure` counts the octets a client has after
taking the doubled dots away again, which is the size in STAT, LIST and RETR (1939-24).
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Iterator

CRLF = b"\r\n"
END = b".\r\n"
MAX_STATUS = 512  # octets of a status line, CRLF included (1939-04)


def ok(text: bytes = b"") -> bytes:
    return b"+OK %s\r\n" % text if text else b"+OK\r\n"


def err(text: bytes) -> bytes:
    return b"-ERR %s\r\n" % text[: MAX_STATUS - len(b"-ERR \r\n")]


def challenge(octets: bytes) -> bytes:
    """What a SASL mechanism says to the client; the space stays also behind nothing (5034-04)."""
    return b"+ %s\r\n" % b2a_base64(octets, newline=False)


def listing(status: bytes, lines: Iterable[bytes]) -> bytes:
    """A multi-line reply. None of the lines may begin with a dot or hold a line end."""
    return b"".join([status, *(line + CRLF for line in lines), END])


def stuff(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of a stored message as they are sent, without the dot that ends the reply.

    Correct wherever a chunk ends, even between CR and LF or before a dot. An empty message is sent
    as it is: nothing.
    """
    line_start, held_cr, last = True, b"", b""
    for chunk in chunks:
        if not chunk:
            continue
        last = chunk[-1:]
        chunk = held_cr + chunk
        held_cr = b""
        if last == b"\r":
            chunk, held_cr = chunk[:-1], b"\r"
        if not chunk:
            continue
        dot = b"." if line_start and chunk.startswith(b".") else b""
        line_start = chunk.endswith(b"\n")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        # In this order: the longer a text is, the faster it is searched for.
        yield dot + chunk.replace(b"\n", CRLF).replace(b"\r\n.", b"\r\n..")
    if last and last != b"\n":
        yield held_cr + CRLF


def top(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The stored octets of the header, the blank line and `count` lines of the body (TOP).

    A message without a blank line is all header (1939-46). Stops reading where it has enough.
    """
    in_header, line = True, b""  # `line`: up to two octets of the header line under way
    for chunk in chunks:
        start = 0
        while in_header:
            end = chunk.find(b"\n", start)
            line = (line + chunk[start : start + 2 if end < 0 else min(end, start + 2)])[:2]
            if end < 0:
                break
            in_header = line not in (b"", b"\r")
            start, line = end + 1, b""
        if not in_header:
            found = chunk.count(b"\n", start)
            if found >= count:
                yield chunk[: _after_lines(chunk, start, count)]
                return
            count -= found
        yield chunk


def _after_lines(chunk: bytes, position: int, count: int) -> int:
    for _ in range(count):
        position = chunk.index(b"\n", position) + 1
    return position


def with_crlf(text: bytes) -> int:
    """Octets of the text with CR in front of each LF. To replace them is faster than to count."""
    return len(text.replace(b"\n", CRLF))


class Measure:
    """Counts, chunk by chunk, the octets that a stored message has when it is sent."""

    __slots__ = ("octets", "_last")

    def __init__(self) -> None:
        self.octets = 0
        self._last = b""

    def add(self, chunk: bytes) -> None:
        if not chunk:
            return
        joined = int(self._last == b"\r" and chunk.startswith(b"\n"))
        if b"\r" in chunk:
            joined += chunk.count(b"\r\n")
        self.octets += with_crlf(chunk) - joined
        self._last = chunk[-1:]

    @property
    def total(self) -> int:
        """Octets of the message if no chunk comes any more."""
        return self.octets + (2 if self._last and self._last != b"\n" else 0)
