"""userdb - the text of a userdb: its lines, and how one of them is changed

    NAME TAB FIELD=VALUE|FIELD=VALUE|FIELD...
    UID= TAB NAME                               which name a uid has
    # ...                                       a comment; empty lines are none either

Everything is octets, without control characters (reference auth.md 2.3). Who changes a text holds
`.lock.FILE` in its directory, as Courier's userdb does, so the two can't lose each other's changes;
`.tmp.FILE` is written and takes the text's place, with its mode and owner.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, LOCK_NB, flock
from stat import S_IMODE

from courierchain import gdbm
from courierchain.refusal import Refused, refusal

Fields = dict[bytes, bytes]  # name: the field as it is written, `name=value` or `name`

NEW_MODE = 0o600


class Busy(Refused):
    """Somebody else is changing the text."""


def records(text: bytes, file: str) -> Iterator[tuple[int, bytes, bytes]]:
    """Number of the line, name and fields of each line. Raises Refused for one that can't be."""
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line or line.startswith(b"#"):
            continue
        name, tab, fields = line.partition(b"\t")
        wrong = ""
        if not tab:
            wrong = "no TAB in it (write NAME, a TAB, and fields with | between them)"
        elif not name:
            wrong = "no name in front of the TAB"
        elif has_controls(name + fields):
            wrong = "a control character in it, such as a CR or a second TAB"
        if wrong:
            raise Refused(f"{file} line {number}: {wrong}")
        yield number, name, fields


def has_controls(octets: bytes) -> bool:
    return any(octet < 0x20 or octet == 0x7F for octet in octets)


def is_name(name: bytes) -> bool:
    """Whether it can be a userid of a userdb."""
    return bool(name) and not (name.startswith(b"#") or b"|" in name or has_controls(name))


def is_field(field: bytes) -> bool:
    return field[:1] not in (b"", b"=") and not (b"|" in field or has_controls(field))


def parse(fields: bytes) -> Fields:
    return {field.partition(b"=")[0]: field for field in fields.split(b"|") if field}


def find(text: bytes, name: bytes) -> Fields | None:
    """The fields of the first line of this name; None if there is none."""
    for line in text.split(b"\n"):
        if is_of(line, name):
            return parse(line[len(name) + 1 :])
    return None


def is_of(line: bytes, name: bytes) -> bool:
    return line.partition(b"\t")[0] == name and not line.startswith(b"#") and line != b""


def with_fields(text: bytes, name: bytes, fields: Fields) -> bytes:
    """The text, with a line that has these fields in the place of the first one of this name, or at
    the end."""
    line = name + b"\t" + b"|".join(fields.values())
    lines = text.split(b"\n")
    for index, old in enumerate(lines):
        if is_of(old, name):
            lines[index] = line
            return b"\n".join(lines)
    if lines[-1]:
        lines.append(b"")  # the last line has no LF
    return b"\n".join([*lines[:-1], line, b""])


def without(text: bytes, name: bytes) -> bytes:
    return b"\n".join(line for line in text.split(b"\n") if not is_of(line, name))


def edit(file: str, change: Callable[[bytes], bytes], *, waits: bool = True) -> None:
    """Put what `change` makes of the text in its place. Raises Refused, Busy, if it doesn't wait
    for others, and what `change` does."""
    folder, name = os.path.split(os.path.realpath(file))
    lock, aside = f"{folder}/.lock.{name}", f"{folder}/.tmp.{name}"
    held = locked(lock, waits=waits)
    try:
        before = read(file)
        after = change(before)
        if after != before:
            write(after, aside, f"{folder}/{name}")
            gdbm.rename(aside, f"{folder}/{name}")
    finally:
        gdbm.remove(aside)
        os.close(held)


def locked(lock: str, mode: int = NEW_MODE, *, waits: bool = True) -> int:
    """A descriptor that holds the lock until it is closed. Raises Refused and Busy."""
    try:
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, mode)
        flock(descriptor, LOCK_EX if waits else LOCK_EX | LOCK_NB)
    except BlockingIOError as why:
        os.close(descriptor)
        raise Busy(f"{lock}: somebody has it") from why
    except OSError as why:
        raise Refused(f"Can't open {lock}: {why.strerror}", why.errno or 1) from why
    return descriptor


def read(file: str) -> bytes:
    """The text; empty if there is no such file. Raises Refused."""
    try:
        if os.path.isdir(file):
            raise Refused(f"{file}: not a file.", 25)
        with open(file, "rb") as opened:
            return opened.read()
    except FileNotFoundError:
        return b""
    except OSError as why:
        raise Refused(f"{file}: {why.strerror}", why.errno or 1) from why


def write(text: bytes, aside: str, file: str) -> None:
    """`aside` gets the text, and mode and owner of `file`. Raises Refused."""
    gdbm.remove(aside)
    try:
        with open(aside, "xb", opener=private) as opened:
            if os.path.exists(file):
                status = os.stat(file)
                os.fchown(opened.fileno(), status.st_uid, status.st_gid)
                os.fchmod(opened.fileno(), S_IMODE(status.st_mode))
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as why:
        raise refusal(aside, why) from why


def private(path: str, flags: int) -> int:
    return os.open(path, flags, NEW_MODE)
