"""measure - how large a message is when it is sent, and whether its headers are Unicode

Sizes are those of pop3proto.replies.Measure. A message is read once in its life: what is found goes
into courierpop3dsizelist. Of many messages a second process measures half (threads don't help, and
the client is waiting).

A delivery agent that knows POP3 writes both sizes into the name, `,S=OCTETS,W=OCTETS-WITH-CRLF`.
They are believed if the file ends with a line end where S says that it ends. Then nobody has looked
into the headers, and that is noted too.
"""

from __future__ import annotations

import os
from array import array
from errno import ESTALE

from courierpop3d.headers import eight_bit_headers
from courierpop3d.maildir import CHUNK, base, chunks, open_regular
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN
from pop3proto.replies import Measure

MANY = 2000  # messages that are worth a second process
DIGITS = 18  # of a size in a name
FAILED = 2**64 - 1  # in place of a size

# What scan() has found is a regular file. What took its place since can't be opened so, or read.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def measure(name: bytes) -> tuple[int, int]:
    """Size of a message, and PLAIN, UNICODE or UNKNOWN. Raises OSError."""
    path = b"cur/" + name
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as why:
        if why.errno != ESTALE:
            raise
        descriptor = open_regular(path)
    try:
        return _measure(name, descriptor)
    finally:
        os.close(descriptor)


def _measure(name: bytes, descriptor: int) -> tuple[int, int]:
    if b",W=" in name:
        size = _told(name, descriptor)
        if size:
            return size, UNKNOWN
    first = os.read(descriptor, CHUNK)
    if len(first) < CHUNK and b"\r" not in first and first.isascii() and first[-1:] == b"\n":
        if not os.read(descriptor, 1):  # what nearly every message is
            return len(first) + first.count(b"\n"), PLAIN
    os.lseek(descriptor, 0, os.SEEK_SET)
    octets = Measure()
    ascii_only = True
    for chunk in chunks(descriptor):
        octets.add(chunk)
        ascii_only = ascii_only and chunk.isascii()
    return octets.total, PLAIN if ascii_only else _look_into_headers(descriptor)


def _told(name: bytes, descriptor: int) -> int:
    """The size that the name tells; 0 if it can't be believed."""
    front = base(name)
    stored, sent = _number(front, b",S="), _number(front, b",W=")
    if not 0 < stored <= sent <= 2 * stored:
        return 0
    return sent if os.pread(descriptor, 2, stored - 1) == b"\n" else 0


def _number(front: bytes, key: bytes) -> int:
    digits = front.rpartition(key)[2].partition(b",")[0]
    return int(digits) if digits.isdigit() and len(digits) <= DIGITS else 0


def has_unicode_headers(descriptor: int) -> bool:
    """Whether the open message is a Unicode message. Raises OSError."""
    if all(map(bytes.isascii, chunks(descriptor))):
        return False
    return _look_into_headers(descriptor) == UNICODE


def _look_into_headers(descriptor: int) -> int:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return UNICODE if eight_bit_headers(chunks(descriptor)) else PLAIN


def measure_all(names: list[bytes]) -> tuple[array[int], bytearray]:
    """Sizes and kinds of messages, in the order of `names`; size FAILED if one can't be read."""
    half = len(names) // 2 if len(names) >= MANY and len(os.sched_getaffinity(0)) > 1 else 0
    second = _begin_second(names[:half]) if half else None
    sizes, kinds = _measure_some(names[half:])
    if half:
        first_sizes, first_kinds = _end_second(second, half) or _measure_some(names[:half])
        sizes, kinds = first_sizes + sizes, first_kinds + kinds
    return sizes, kinds


def _measure_some(names: list[bytes]) -> tuple[array[int], bytearray]:
    sizes = array("Q", bytes(8 * len(names)))
    kinds = bytearray(len(names))
    for row, name in enumerate(names):
        try:
            sizes[row], kinds[row] = measure(name)
        except OSError:
            sizes[row] = FAILED
    return sizes, kinds


def _begin_second(names: list[bytes]) -> tuple[int, int] | None:
    """A process that measures messages, and the pipe through which it will tell."""
    reader, writer = os.pipe()
    try:
        process = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        return None
    if not process:
        try:
            sizes, kinds = _measure_some(names)
            with open(writer, "wb") as pipe:
                pipe.write(sizes.tobytes() + kinds)
        finally:
            os._exit(0)
    os.close(writer)
    return process, reader


def _end_second(second: tuple[int, int] | None, count: int) -> tuple[array[int], bytearray] | None:
    """What it found of `count` messages; None if it didn't come to its end."""
    if second is None:
        return None
    process, reader = second
    with open(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(process, 0)
    if len(told) != 9 * count:
        return None
    return array("Q", told[: 8 * count]), bytearray(told[8 * count :])
