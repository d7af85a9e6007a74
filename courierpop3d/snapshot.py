"""snapshot - the messages of one session, as they are at its beginning

What is in cur/ and what is in the list are brought together: a message takes size and id from its
entry, a new message is measured and gets the next number, an entry without a message is dropped.
An entry is a message's if the names are equal up to the colon. With nothing new and nothing dropped
the list is neither written nor locked.

Sessions may begin at the same time, and other programs rename, add and remove messages meanwhile.
So whoever has to change the list first takes the lock: flock(2) on the Maildir directory itself,
which leaves no file behind and ends with its process. Then both are read once more, and nobody
gives out a number twice (F-CONC-6, F-KILL-3).

A list that can't be written gives no ids: then new messages are hidden from this session, and if
there are only new ones, the first is shown under an id made for the occasion (reference 3.7).
"""

from __future__ import annotations

import os
from errno import ETIMEDOUT
from fcntl import LOCK_EX, LOCK_NB, flock
from time import monotonic, sleep

from courierpop3d import sizelist
from courierpop3d.journal import Journal, shown
from courierpop3d.maildir import base, order, scan
from courierpop3d.message import Message, TemporaryMessage, measure
from courierpop3d.sizelist import SizeList

LOCK_TIME = 10.0  # seconds to wait for the logins of others
LOCK_PAUSE = 0.01
UNKNOWN = (0, False)  # size and Unicode flag


class NoCur(Exception):
    """There is no cur/ that can be read; the text says why."""


def take(now: int, journal: Journal) -> list[Message]:
    """The messages in order, and the list brought up to date. Raises NoCur, sizelist.Unreadable."""
    try:
        names = scan(b"cur")
    except OSError as why:
        raise NoCur(why.strerror) from why
    if not names:
        return []
    found = Match(names, sizelist.read(now, journal))
    if found.changes:
        return in_order(renew(names, found, now, journal))
    return in_order(measure_unknown(found.known, journal))


class Match:
    """What is in cur/ and what is in the list, brought together.

    known      messages that have an entry
    new        names that have none, in order
    dropped    entries that have no message
    doubtful   entries that have none now, but had one just before: their base is in `before`
    """

    __slots__ = ("listed", "known", "new", "dropped", "doubtful")

    def __init__(
        self, names: list[bytes], listed: SizeList, before: frozenset[bytes] = frozenset()
    ):
        present = set(names)
        self.listed = listed
        self.known: list[Message] = []
        self.new: list[bytes] = []
        absent: dict[bytes, list[Message]] = {}
        for entry in listed.entries.values():
            if entry.name in present:
                self.known.append(entry)
            else:
                absent.setdefault(base(entry.name), []).append(entry)
        for name in sorted(present.difference(listed.entries), key=order):
            same = absent.get(base(name))
            if same:
                self.known.append(same.pop(0))
                self.known[-1].name = name
            else:
                self.new.append(name)
        left = [entry for same in absent.values() for entry in same]
        self.dropped = [entry for entry in left if base(entry.name) not in before]
        self.doubtful = [entry for entry in left if base(entry.name) in before]

    @property
    def changes(self) -> bool:
        """Whether the list must be written."""
        return bool(self.new or self.dropped or self.listed.outdated)


def renew(names: list[bytes], found: Match, now: int, journal: Journal) -> list[Message]:
    """Give ids to what is new, and write the list; the messages that this session may show.

    The id of a message that one of two looks has seen is not given up.
    """
    measured = measure_ahead(found.new)
    try:
        with MaildirLock():
            listed = sizelist.read(now, journal)
            found = Match(names_now(names), listed, frozenset(map(base, names)))
            fresh = [listed.new_message(name, *measured.get(name, UNKNOWN)) for name in found.new]
            messages = measure_unknown(found.known + fresh, journal)
            if found.changes:
                sizelist.save(in_order(messages + found.doubtful), listed)
            return messages
    except OSError as why:
        journal.save_failed(why)
        return measure_unknown(without_new(found), journal)


def in_order(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: order(message.name))


def names_now(before: list[bytes]) -> list[bytes]:
    """A second look into cur/, which together with the one before is right whatever is renamed.

    readdir may show a file that is being renamed under both names, or under none.
    """
    by_base: dict[bytes, list[bytes]] = {}
    for name in scan(b"cur"):
        by_base.setdefault(base(name), []).append(name)
    for name in before:
        if base(name) not in by_base and is_there(name):
            by_base[base(name)] = [name]
    names: list[bytes] = []
    for same in by_base.values():
        names += same if len(same) == 1 else list(filter(is_there, same)) or same[:1]
    return names


def is_there(name: bytes) -> bool:
    return os.path.lexists(b"cur/" + name)


def measure_ahead(names: list[bytes]) -> dict[bytes, tuple[int, bool]]:
    """What can be measured of new messages while nobody has to wait for the lock."""
    measured = {}
    for name in names:
        try:
            measured[name] = measure(b"cur/" + name)
        except OSError:
            pass  # tried once more later, under the name it has then
    return measured


def measure_unknown(messages: list[Message], journal: Journal) -> list[Message]:
    """The same messages; those whose size isn't known are measured. 0 stays if it can't be read."""
    for message in messages:
        if not message.size:
            try:
                message.size, message.unicode = measure(message.path)
            except OSError as why:
                name = shown(message.name)
                journal.warn(f"cannot read message file cur/{name}: {why.strerror}")
    return messages


def without_new(found: Match) -> list[Message]:
    """What a session may show when new messages can't get their ids."""
    if found.known or not found.new:
        return found.known
    name = found.new[0]
    try:
        status = os.lstat(b"cur/" + name)
    except OSError:
        return []
    return [TemporaryMessage(name, *UNKNOWN, status)]


class MaildirLock:
    """Holds the Maildir's lock in a `with` block. Raises TimeoutError after LOCK_TIME.

    A file system that has no such locks is used without, as Courier uses all.
    """

    __slots__ = ("_maildir",)

    def __enter__(self) -> None:
        self._maildir = os.open(b".", os.O_RDONLY | os.O_DIRECTORY)
        deadline = monotonic() + LOCK_TIME
        while not self._is_taken():
            if monotonic() > deadline:
                os.close(self._maildir)
                raise TimeoutError(ETIMEDOUT, "another session holds the lock")
            sleep(LOCK_PAUSE)

    def _is_taken(self) -> bool:
        try:
            flock(self._maildir, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self._maildir)
