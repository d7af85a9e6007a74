"""sizelist - courierpop3dsizelist, the list that keeps unique ids and sizes stable

    /3 NEXT UIDV
    NAME SIZE N:V:U          one line a message, in the order of the messages

NAME is the file's name in cur/ when the list was written; it may hold blanks, so fields are taken
from the right. N and V are the unique id, U is 1 for a Unicode message. NEXT is the number for the
next new message, UIDV the validity it gets. All are unsigned decimal (reference courierpop3d.md 3).

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
from collections.abc import Iterable
from errno import EACCES, EINVAL, EISDIR, ELOOP, ENOENT, ENXIO
from time import time_ns

from courierpop3d.journal import Journal
from courierpop3d.maildir import base, chunks, open_regular
from courierpop3d.message import Message

FILE = b"courierpop3dsizelist"
VERSION = 3
DIGITS = 19  # of a number; more is garbage, and int() of a megabyte takes seconds (CVE-46)

# What makes an entry of a version, or of a list with a first line that makes no sense, a whole one:
# what is tried first is the usual form.
COMPLETIONS = {
    0: (b" 0:0:0",),
    1: (b":0:0", b":0"),
    2: (b":0", b"", b":0:0"),
    3: (b"", b":0"),
    None: (b"", b":0"),
}

# With these the list is not for us to read, now and later: a new one is made, as Courier does.
# After any other failure it may be there again at the next login, with everybody's ids in it.
LOST = (EACCES, ELOOP, EINVAL, ENXIO)


class Unreadable(Exception):
    """The list is there, and the system fails to read it."""


class SizeList:
    """The entries by name, in their order. `outdated`: the file is not of the present version."""

    __slots__ = ("entries", "next_number", "validity", "outdated")

    def __init__(self, validity: int):
        self.entries: dict[bytes, Message] = {}
        self.next_number = 1
        self.validity = validity
        self.outdated = False

    def new_message(self, name: bytes, size: int, unicode: bool) -> Message:
        number = self.next_number
        self.next_number += 1
        return Message(name, size, number, self.validity, unicode)


def read(now: int, journal: Journal) -> SizeList:
    """The list on disk; an empty one if there is none for us. Raises Unreadable."""
    try:
        descriptor = open_regular(FILE)
    except OSError as why:
        if why.errno in LOST:
            journal.err(f"failed to open courierpop3dsizelist file: {why.strerror}")
        elif why.errno != ENOENT:
            raise Unreadable(why.strerror) from why
        return SizeList(now)
    try:
        return parse(b"".join(chunks(descriptor)), now)
    except OSError as why:
        raise Unreadable(why.strerror) from why
    finally:
        os.close(descriptor)


def parse(text: bytes, now: int) -> SizeList:
    lines = text.split(b"\n")
    lines.pop()  # what follows the last line end was cut off
    listed = SizeList(now)
    version = _version(lines, listed)
    if version in COMPLETIONS:
        _read_entries(lines, COMPLETIONS[version], listed)
    listed.outdated = version != VERSION
    return listed


def _version(lines: list[bytes], listed: SizeList) -> int | None:
    """Take off the first line and what it says; None if it makes no sense, as entries still may."""
    if lines and not lines[0].startswith(b"/"):
        return 0 if lines[0].rpartition(b" ")[2].isdigit() else None
    words = lines.pop(0)[1:].split() if lines else []
    if len(words) < 2 or not b"".join(words).isdigit() or max(map(len, words)) > DIGITS:
        return None
    version, following, *validity = map(int, words)
    listed.next_number = max(1, following)
    if validity and validity[0]:
        listed.validity = validity[0]
    return version


def _read_entries(lines: list[bytes], completions: tuple[bytes, ...], listed: SizeList) -> None:
    ids: set[object] = set()
    for line in lines:
        for completion in completions:
            entry = _entry(line + completion)
            if entry:
                break
        else:
            continue
        # A list that somebody has edited must not give one id to two messages (1939-38), ...
        identity = (entry.number, entry.validity) if entry.number else base(entry.name)
        if identity and identity not in ids:
            ids.add(identity)
            listed.entries.setdefault(entry.name, entry)
            # ... nor make a new message's id of one that is in it (1939-40).
            if entry.number >= listed.next_number and entry.validity == listed.validity:
                listed.next_number = entry.number + 1


def _entry(line: bytes) -> Message | None:
    try:
        name, octets, uid = line.rsplit(b" ", 2)
        number, validity, unicode = uid.split(b":")
        if not (octets + number + validity + unicode).isdigit():
            return None
        if len(octets) > DIGITS or len(number) > DIGITS or len(validity) > DIGITS or not name:
            return None
        name = name.replace(b"\0", b"\n")
        return Message(name, int(octets), int(number), int(validity), unicode != b"0")
    except ValueError:
        return None


def save(messages: Iterable[Message], listed: SizeList) -> None:
    """Replace the list on disk: written aside and made durable first (F-KILL-7). Raises OSError."""
    lines = [b"/%d %d %d\n" % (VERSION, listed.next_number, listed.validity)]
    for message in messages:
        name = message.name.replace(b"\n", b"\0")
        numbers = (message.size, message.number, message.validity, message.unicode)
        lines.append(b"%s %d %d:%d:%d\n" % (name, *numbers))
    aside = _name_aside()
    try:
        _write(aside, b"".join(lines))
        _replace_list(aside)
    except OSError:
        try:
            os.unlink(aside)
        except OSError:
            pass
        raise


def _name_aside() -> bytes:
    seconds, nanoseconds = divmod(time_ns(), 10**9)
    host = os.uname().nodename.replace("/", "_")
    return os.fsencode(f"tmp/{seconds}.M{nanoseconds // 1000}P{os.getpid()}_pop3.{host}")


def _write(path: bytes, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        view = memoryview(text)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_list(aside: bytes) -> None:
    try:
        os.rename(aside, FILE)
    except OSError as why:
        if why.errno != EISDIR:
            raise
        # Somebody's directory in the list's place: out of the way, and nothing of it is lost.
        os.rename(FILE, aside + b"_dir")
        os.rename(aside, FILE)
    _sync_directory()


def _sync_directory() -> None:
    try:
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # the list is in place; there are file systems that can't do this for a directory
    finally:
        os.close(descriptor)
