"""measure - how large a message is when it is sent, and whether its headers are Unicode

Sizes are those of pop3proto.replies.Measure. A message is read once in its life: what is found goes
into courierpop3dsizelist. Of many messages a second process measures half (threads don't help, and
the client is waiting).

A delivery agent that knows POP3 writes both sizes into the name, `,S=OCTETS,W=OCTETS-WITH-CRLF`. A
few messages are measured all the same. Of many, a sample is: if it bears the names out, the others
are believed. Then nobody has looked into their headers, and that is noted.
"""

from __future__ import annotations

import os
from array import array

from courierpop3d.headers import eight_bit_headers
from courierpop3d.maildir import base, chunks, close, open_scanned
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN
from pop3proto.replies import Measure, with_crlf

MANY = 2000  # messages that are worth a second process
SAMPLE = 100  # messages; of more, sizes in names are believed
MOST = 65536  # octets that most messages don't have
DIGITS = 18  # of a size in a name
FAILED = 2**64 - 1  # in place of a size


def measure(name: bytes) -> tuple[int, int]:
    """Size of a message, and PLAIN, UNICODE or UNKNOWN. Raises OSError."""
    descriptor = open_scanned(b"cur/" + name)
    try:
        return _measure(descriptor)
    finally:
        close(descriptor)


def _measure(descriptor: int) -> tuple[int, int]:
    first = os.read(descriptor, MOST)
    if len(first) < MOST and b"\r" not in first and first.isascii() and first[-1:] == b"\n":
        if not os.read(descriptor, 1):  # what nearly every message is
            return with_crlf(first), PLAIN
    os.lseek(descriptor, 0, os.SEEK_SET)
    octets = Measure()
    ascii_only = True
    for chunk in chunks(descriptor):
        octets.add(chunk)
        ascii_only = ascii_only and chunk.isascii()
    return octets.total, PLAIN if ascii_only else _look_into_headers(descriptor)


def kind_of(descriptor: int) -> int:
    """PLAIN or UNICODE, of an open message. Raises OSError."""
    if all(map(bytes.isascii, chunks(descriptor))):
        return PLAIN
    return _look_into_headers(descriptor)


def _look_into_headers(descriptor: int) -> int:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return UNICODE if eight_bit_headers(chunks(descriptor)) else PLAIN


def measure_all(names: list[bytes]) -> tuple[array[int], bytearray]:
    """Sizes and kinds of messages, in the order of `names`; size FAILED if one can't be read."""
    told = sizes_in(names) if len(names) > SAMPLE else array("Q")
    if not any(told):
        return _measure_in_two(names)
    rows = [row for row, size in enumerate(told) if not size]
    sizes, kinds = _measure_in_two([names[row] for row in rows])
    every = bytearray([UNKNOWN]) * len(names)
    for row, size, kind in zip(rows, sizes, kinds, strict=True):
        told[row] = size
        every[row] = kind
    return told, every


def sizes_in(names: list[bytes]) -> array[int]:
    """The sizes that names tell, 0 where they don't; nowhere, if a sample shows another one."""
    told = array("Q", map(size_in, names))
    for row in range(0, len(names), len(names) // SAMPLE):
        if told[row] and not _is_true(names[row], told[row]):
            return array("Q", bytes(8 * len(names)))
    return told


def size_in(name: bytes) -> int:
    front = base(name)
    stored, sent = _number(front, b",S="), _number(front, b",W=")
    return sent if stored <= sent <= 2 * stored else 0


def _number(front: bytes, key: bytes) -> int:
    digits = front.rpartition(key)[2].partition(b",")[0]
    return int(digits) if digits.isdigit() and len(digits) <= DIGITS else 0


def _is_true(name: bytes, size: int) -> bool:
    try:
        return measure(name)[0] == size
    except OSError:
        return False


def _measure_in_two(names: list[bytes]) -> tuple[array[int], bytearray]:
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
    try:
        reader, writer = os.pipe()
    except OSError:
        return None
    try:
        process = os.fork()
    except OSError:
        close(reader)
        close(writer)
        return None
    if not process:
        try:
            sizes, kinds = _measure_some(names)
            with open(writer, "wb") as pipe:
                pipe.write(sizes.tobytes() + kinds)
        finally:
            os._exit(0)
    close(writer)
    return process, reader


def _end_second(second: tuple[int, int] | None, count: int) -> tuple[array[int], bytearray] | None:
    """What it found of `count` messages; None if it didn't come to its end."""
    if second is None:
        return None
    process, reader = second
    try:
        with open(reader, "rb") as pipe:
            told = pipe.read()
    except OSError:
        told = b""
    try:
        os.waitpid(process, 0)
    except OSError:
        pass
    if len(told) != 9 * count:
        return None
    return array("Q", told[: 8 * count]), bytearray(told[8 * count :])
