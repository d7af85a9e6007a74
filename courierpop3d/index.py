"""index - courierpop3dindex, which spares a large mailbox that hasn't changed its login

    /index1 CRC COUNT OCTETS CUR LIST LENGTHS     filled up to 512 octets
    names, lines of LIST, lines of UIDL, kinds of messages

What a session found out, as replies that are ready to be sent; it is written when the session is
over, if it has changed nothing. Good as long as cur/ and the size list are the very ones that it
was made from, to the nanosecond of their times; else, or if it is damaged or not there, everything
is done without it, and slower. Nothing is known from here alone: it may be deleted at any time.

A file system's clock may stand still for some milliseconds, so a directory that was changed just
before the index is made might be changed once more without a sign. Then no index is made.
"""

from __future__ import annotations

import os
from array import array
from binascii import crc32

from courierpop3d import sizelist
from courierpop3d.aside import Aside, new_path
from courierpop3d.maildir import Stamp, close, open_regular, stamp_of
from courierpop3d.message import Messages
from courierpop3d.sizelist import LARGEST, NO_STAMP

FILE = b"courierpop3dindex"
MAGIC = b"/index1"  # what is written in another form gets another number
SECTIONS = 4
WORTH = 1000  # messages; the list of fewer is read in no time
SETTLED = 2 * 10**9  # nanoseconds since the last change of cur/
HEADER = 512  # octets
MODE = 0o600


def stamp_of_cur() -> Stamp:
    """What tells cur/ as it is from what it may become. Raises OSError."""
    return stamp_of(os.stat(b"cur"))


def save(messages: Messages) -> None:
    """Write the index if it pays, and if nothing has changed since the stamps. Never fails."""
    stamps = messages.stamps
    if len(messages) < WORTH or not stamps:
        return
    try:
        with Aside(new_path(), MODE) as aside:
            if not _is_settled(stamps[: len(stamps) // 2], aside):
                return
            aside.write(bytes(HEADER))
            length, check = _write_names(messages, aside)
            texts = [messages.size_lines(), messages.uidl_lines(), bytes(messages.unicode)]
            for text in texts:
                aside.write(text)
                check = crc32(text, check)
            lengths = length, *map(len, texts)
            aside.rewrite(_header((len(messages), messages.octets, *stamps, *lengths), check))
            aside.replace(FILE, durable=False)
    except OSError:
        pass


def _write_names(messages: Messages, aside: Aside) -> tuple[int, int]:
    """Length and checksum of what is written, which is never in memory as one."""
    length = check = 0
    for rows in messages.batches():
        text = b"\0".join([b"", *messages.names[rows.start : rows.stop]])
        aside.write(text)
        length += len(text)
        check = crc32(text, check)
    return length, check


def is_settled(cur: Stamp) -> bool:
    """Whether cur/ is as it was stamped, and is going to tell when it changes. Raises OSError."""
    with Aside(new_path(), MODE) as aside:
        return _is_settled(cur, aside)


def _is_settled(cur: Stamp, aside: Aside) -> bool:
    return aside.status.st_mtime_ns - max(cur[-2:]) >= SETTLED and stamp_of_cur() == cur


def _header(numbers: tuple[int, ...], check: int) -> bytes:
    text = b" ".join([b"%d" % number for number in numbers])
    return b"%s %d %s" % (MAGIC, crc32(text, check), text)


def load(cur: Stamp) -> Messages | None:
    """The messages, if the index is good for the present cur/ and size list."""
    try:
        descriptor = open_regular(FILE)
    except OSError:
        return None
    try:
        return _read(descriptor, cur + sizelist.stamp())
    except (OSError, ValueError):
        return None
    finally:
        close(descriptor)


def _read(descriptor: int, stamps: Stamp) -> Messages | None:
    """Raises OSError, and ValueError if it isn't an index."""
    magic, check, text = os.read(descriptor, HEADER).rstrip(b"\0").split(b" ", 2)
    if magic != MAGIC:
        return None
    count, octets, *numbers = map(int, text.split())
    found, lengths = tuple(numbers[:-SECTIONS]), numbers[-SECTIONS:]
    size = HEADER + sum(lengths)
    if found != stamps or min(lengths) < 0 or size > LARGEST:
        return None
    if os.fstat(descriptor).st_size != size:
        return None
    found_check = 0
    sections = [_exactly(descriptor, length) for length in lengths]
    for data in (*sections, text):
        found_check = crc32(data, found_check)
    if found_check != int(check) or b"/" in sections[0]:
        return None
    return IndexedMessages(count, octets, sections)


def _exactly(descriptor: int, length: int) -> bytes:
    """So many octets. Raises ValueError if there are fewer."""
    data = os.read(descriptor, length)
    if len(data) != length:
        raise ValueError("cut off")
    return data


class IndexedMessages(Messages):
    """The messages as the index has them, taken apart when somebody asks for one of them."""

    __slots__ = (
        *("_count", "_octets", "_names_text", "_list_text", "_uidl_text"),
        *("_names", "_sizes", "_uidls"),
    )

    def __init__(self, count: int, octets: int, sections: list[bytes]):
        self._count = count
        self._octets = octets
        self._names_text, self._list_text, self._uidl_text, unicode = sections
        self.unicode = bytearray(unicode)
        self.stamps = NO_STAMP  # there is an index
        self._names: list[bytes] = []
        self._sizes = array("Q")
        self._uidls: list[bytes] = []

    def columns(self) -> list[bytes]:
        names = b"\0".join([b"", *self._names]) if self._names else self._names_text
        octets = b"%d" % self._octets
        return [names, self._list_text, self._uidl_text, bytes(self.unicode), octets]

    @classmethod
    def from_columns(cls, columns: list[bytes]) -> Messages:
        names, list_text, uidl_text, unicode, octets = columns
        count = len(unicode)
        lengths = {names.count(b"\0"), list_text.count(b"\n"), uidl_text.count(b"\n"), count}
        if len(lengths) != 1:
            raise ValueError("columns of different lengths")
        return cls(count, int(octets), [names, list_text, uidl_text, unicode])

    def __len__(self) -> int:
        return self._count

    @property
    def octets(self) -> int:
        return self._octets

    @property
    def names(self) -> list[bytes]:  # type: ignore[override]
        self._names = self._names or self._names_text.split(b"\0")[1:]
        return self._names

    @property
    def sizes(self) -> array[int]:  # type: ignore[override]
        self._sizes = self._sizes or array("Q", map(int, self._list_text.split()[1::2]))
        return self._sizes

    def uidl(self, row: int) -> bytes:
        self._uidls = self._uidls or self._uidl_text.split()[1::2]
        return self._uidls[row]

    def size_lines(self) -> bytes:
        return self._list_text

    def uidl_lines(self) -> bytes:
        return self._uidl_text
