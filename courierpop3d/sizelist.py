"""sizelist - courierpop3dsizelist, the list that keeps unique ids and sizes stable

    /3 NEXT UIDV
    NAME SIZE N:V:U          one line a message, in the order of the messages

NAME is the file's name in cur/ when the list was written; it may hold blanks, so fields are taken
from the right. N and V are the unique id, U is 1 for a Unicode message; without U nobody has looked
into the headers. NEXT is the number for the next new message, UIDV the validity it gets. All are
unsigned decimal (reference courierpop3d.md 3).

    NAME SIZE N:V:U:=ID      ours: the id is ID, which another server gave. Courier's server reads
    NAME SIZE N:V:0:?ID      N:V:U, and drops the rest when it next writes the list. With `?`
                             nobody has looked into the headers

Written by older versions, and read here with the meaning they had there:

    /2 NEXT UIDV             NAME SIZE N:V
    /1 NEXT                  NAME SIZE N
    (no such line)           NAME SIZE         the name is the unique id

Of a version that isn't known the numbers in the first line are kept, the entries not. What isn't an
entry is passed over: its message is a new one. A name with a line end in it is written with NUL in
its place, which no name can hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EACCES, EINVAL, ELOOP, ENOENT, ENXIO
from io import SEEK_END, BytesIO
from itertools import takewhile

from courierchain import wholefile
from courierpop3d.aside import Aside, new_path
from courierpop3d.journal import Journal
from courierpop3d.maildir import Stamp, base, close, open_regular, stamp_of
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN, Entry, Messages

FILE = b"courierpop3dsizelist"
VERSION = 3
LARGEST = 2**28  # octets: entries of some two million messages. More is a sparse file of somebody's
DIGITS = 19  # of a number; more is garbage, and int() of a megabyte takes seconds (CVE-46)
LONGEST_ID = 70  # RFC 1939 section 7

# With these the list is not for us to read, now and later: a new one is made, as Courier does.
# After any other failure it may be there again at the next login, with everybody's ids in it.
LOST = (EACCES, ELOOP, EINVAL, ENXIO)

_UNKNOWN = b"2"  # what stands here for a U that isn't there
_KINDS = {b"0": PLAIN, b"1": UNICODE, _UNKNOWN: UNKNOWN}
_ENDS = {PLAIN: b":0", UNICODE: b":1", UNKNOWN: b""}

NO_STAMP: Stamp = ()


class Unreadable(Exception):
    """The list is there, and the system fails to read it."""


class SizeList:
    """What the list says.

    next_number, validity    for new messages; next_number is right after entries() has ended
    outdated    the file is not of the present version
    is_first    there has never been a list
    stamp       tells this file from one that replaces it
    """

    __slots__ = ("next_number", "validity", "outdated", "is_first", "stamp", "_version", "_lines")

    def __init__(self, validity: int, *, is_first: bool = False):
        self.next_number = 1
        self.validity = validity
        self.outdated = False
        self.is_first = is_first
        self.stamp = NO_STAMP
        self._version: int | None = VERSION
        self._lines = BytesIO()

    def entries(self) -> Iterator[Entry]:
        """The entries in the order of the file."""
        ids: set[object] = set()
        parse = _old_entry if self._version == 0 else _entry
        for line in self._lines:
            entry = parse(line, self._version)
            if not entry:
                continue
            name, _, number, validity, _, given = entry
            # A list that somebody has edited must not give one id to two messages (1939-38), ...
            if validity == self.validity and number and not given:
                identity: object = number
            else:
                identity = given or ((number, validity) if number else base(name))
            if not identity or identity in ids:
                continue
            ids.add(identity)
            # ... nor make a new message's id of one that is in it (1939-40).
            if number >= self.next_number and validity == self.validity:
                self.next_number = number + 1
            yield entry


def stamp() -> Stamp:
    """Of the list on disk."""
    try:
        return stamp_of(os.lstat(FILE))
    except OSError:
        return NO_STAMP


def read(now: int, journal: Journal) -> SizeList:
    """The list on disk; an empty one if there is none for us. Raises Unreadable."""
    try:
        descriptor = open_regular(FILE)
    except OSError as why:
        if why.errno in LOST:
            journal.err(f"failed to open courierpop3dsizelist file: {why.strerror}")
        elif why.errno != ENOENT:
            raise Unreadable(why.strerror) from why
        return SizeList(now, is_first=why.errno == ENOENT)
    try:
        status = os.fstat(descriptor)
        if status.st_size > LARGEST:
            journal.err(f"courierpop3dsizelist is not read: it has {status.st_size} octets")
            return SizeList(now)
        listed = parse(wholefile.read(descriptor, status.st_size), now)
        listed.stamp = stamp_of(status)
        return listed
    except OSError as why:
        raise Unreadable(why.strerror) from why
    finally:
        close(descriptor)


def parse(text: bytes, now: int) -> SizeList:
    if not text.endswith(b"\n"):
        text = text[: text.rfind(b"\n") + 1]  # what follows the last line end was cut off
    listed = SizeList(now)
    listed._lines = BytesIO(text)
    listed._version = _version(listed)
    listed.outdated = listed._version != VERSION
    if listed._version not in (0, 1, 2, 3, None):
        listed._lines.seek(0, SEEK_END)
    return listed


def _version(listed: SizeList) -> int | None:
    """Take off the first line and what it says; None if it makes no sense, as entries still may."""
    first = listed._lines.readline()
    if first and not first.startswith(b"/"):
        listed._lines.seek(0)
        return 0 if first.rstrip(b"\r\n").rpartition(b" ")[2].isdigit() else None
    words = list(takewhile(_is_number, first[1:].split()[:3]))
    if len(words) < 2:
        return None
    version, following, *validity = map(int, words)
    listed.next_number = max(1, following)
    if validity and validity[0]:
        listed.validity = validity[0]
    return version


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) <= DIGITS


def _entry(line: bytes, version: int | None) -> Entry | None:
    """NAME SIZE N:V:U, with what is less or more of it in some lists."""
    try:
        name, octets, uid = line.rstrip(b"\r\n").rsplit(b" ", 2)
        parts = uid.split(b":", 3)
        given = b"" if len(parts) == 3 else _complete(parts, version)
        number, validity, kind = parts
        if not (octets + number + validity + kind).isdigit() or not name or not kind:
            return None
        if len(octets) > DIGITS or len(number) > DIGITS or len(validity) > DIGITS:
            return None
        if b"\0" in name:
            name = name.replace(b"\0", b"\n")
        return name, int(octets), int(number), int(validity), _KINDS.get(kind, UNICODE), given
    except ValueError:
        return None


def _complete(parts: list[bytes], version: int | None) -> bytes:
    """Make N:V:U of what stands in their place; the id that was given by another server."""
    before_unicode = version in (1, 2)
    given = parts.pop() if len(parts) == 4 else b""
    if len(parts) == 1 and before_unicode:
        parts.append(b"0")
    if len(parts) == 2:
        parts.append(b"0" if before_unicode else _UNKNOWN)
    if given.startswith(b"?") and len(parts) == 3:
        parts[2] = _UNKNOWN
    return given[1:] if given.startswith((b"=", b"?")) and is_legal(given[1:]) else b""


def _old_entry(line: bytes, version: int | None) -> Entry | None:
    name, _, octets = line.rstrip(b"\r\n").rpartition(b" ")
    if not (name and octets.isdigit() and len(octets) <= DIGITS):
        return None
    return name, int(octets), 0, 0, PLAIN, b""


def is_legal(uidl: bytes) -> bool:
    """1 to 70 characters, each 0x21 to 0x7E (1939-37)."""
    return 0 < len(uidl) <= LONGEST_ID and min(uidl) > 0x20 and max(uidl) < 0x7F


def save(messages: Messages, listed: SizeList) -> Stamp:
    """Replace the list on disk by these messages; the stamp of the new one. Raises OSError."""
    with Aside(new_path()) as aside:
        aside.write(b"/%d %d %d\n" % (VERSION, listed.next_number, listed.validity))
        for rows in messages.batches():
            aside.write(b"".join(_lines(messages, rows)))
        return stamp_of(aside.replace(FILE))


def _lines(messages: Messages, rows: range) -> list[bytes]:
    part = slice(rows.start, rows.stop)
    names = [name.replace(b"\n", b"\0") for name in messages.names[part]]
    ids = messages.numbers[part], messages.validities[part]
    if messages.given:
        ends = [_end(messages.unicode[row], messages.given.get(row)) for row in rows]
    else:
        ends = [_ENDS[kind] for kind in messages.unicode[part]]
    columns = zip(names, messages.sizes[part], *ids, ends, strict=True)
    return [b"%s %d %d:%d%s\n" % line for line in columns]


def _end(kind: int, given: bytes | None) -> bytes:
    """What stands behind N:V."""
    if not given:
        return _ENDS[kind]
    return b":0:?" + given if kind == UNKNOWN else _ENDS[kind] + b":=" + given
