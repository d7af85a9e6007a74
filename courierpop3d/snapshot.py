"""snapshot - the messages of one session, as they are at its beginning

What is in cur/ and what is in the list are brought together: a message takes size and id from its
entry, a new message is measured and gets the next number, an entry without a message is dropped.
An entry is a message's if the names are equal up to the colon. With nothing new and nothing dropped
the list is neither written nor locked.

Sessions may begin at the same time, and other programs rename, add and remove messages meanwhile.
So whoever has to change the list first takes the lock on the Maildir. Then both are looked at once
more, and nobody gives out a number twice (F-CONC-6, F-KILL-3).

A list that can't be written gives no ids: then new messages are hidden from this session, and if
there are only new ones, the first is shown under an id made for the occasion (reference 3.7).
"""

from __future__ import annotations

import os
from errno import ENOENT

from courierpop3d import firstids, index, sizelist
from courierpop3d.journal import Journal, shown
from courierpop3d.lock import DirectoryLock
from courierpop3d.maildir import Stamp, base, has_just, in_order, scan
from courierpop3d.measure import FAILED, measure, measure_all
from courierpop3d.message import Entry, Messages
from courierpop3d.sizelist import SizeList

LOCK_TIME = 10.0  # seconds to wait for the logins of others


class NoCur(Exception):
    """There is no cur/ that can be read; the text says why."""


def take(now: int, journal: Journal, env: dict[str, str] | None = None) -> Messages:
    """The messages in order, and the list brought up to date.

    Raises NoCur, sizelist.Unreadable, firstids.Unusable.
    """
    try:
        cur = index.stamp_of_cur()
        messages = index.load(cur)
        if messages is not None:
            return messages
        names = in_order(scan(b"cur"))
    except OSError as why:
        raise NoCur(why.strerror) from why
    if not names:
        return Messages([])
    found = Match(names, sizelist.read(now, journal))
    if found.changes:
        found = renew(found, cur, now, journal, env or {})
    measure_rest(found, journal)
    if found.is_whole and found.listed.stamp:
        found.messages.stamps = cur + found.listed.stamp
    return found.messages


class Match:
    """What is in cur/ and what is in the list, brought together.

    messages   all that are in cur/, in order
    new        rows of those that have no entry
    dropped    entries that have no message
    doubtful   entries that have none now, but had one just before: their base is in `before`
    unmeasured rows of messages whose size isn't known
    is_whole   nothing is missing in the messages: ids, sizes, or messages
    """

    __slots__ = ("listed", "messages", "new", "dropped", "doubtful", "unmeasured", "is_whole")

    def __init__(
        self, names: list[bytes], listed: SizeList, before: frozenset[bytes] = frozenset()
    ):
        self.listed = listed
        self.messages = Messages(names)
        self.unmeasured: list[int] = []
        if listed.is_first:
            self.new, absent = list(range(len(names))), []
        else:
            rows = {name: row for row, name in enumerate(names)}
            absent = [entry for entry in listed.entries() if not self._take(entry, rows)]
            self.new = list(rows.values())
        if absent and self.new:
            absent = self._match_renamed(absent)
        self.dropped = [entry for entry in absent if base(entry[0]) not in before]
        self.doubtful = [entry for entry in absent if base(entry[0]) in before]
        self.is_whole = not self.doubtful

    def _take(self, entry: Entry, rows: dict[bytes, int]) -> bool:
        """Give a message what its entry says; False if the entry has none."""
        row = rows.pop(entry[0], None)
        if row is None:
            return False
        self.messages.put(row, entry)
        if not entry[1]:
            self.unmeasured.append(row)
        return True

    def _match_renamed(self, absent: list[Entry]) -> list[Entry]:
        """Find messages under the names that they have now; the entries that have none."""
        by_base: dict[bytes, list[int]] = {}
        for row in self.new:
            by_base.setdefault(base(self.messages.names[row]), []).append(row)
        left = []
        for entry in absent:
            same = by_base.get(base(entry[0]))
            if same:
                self._take(entry, {entry[0]: same.pop(0)})
            else:
                left.append(entry)
        self.new = sorted([row for same in by_base.values() for row in same])
        return left

    @property
    def changes(self) -> bool:
        """Whether the list must be written."""
        return bool(self.new or self.dropped or self.listed.outdated)


def renew(found: Match, cur: Stamp, now: int, journal: Journal, env: dict[str, str]) -> Match:
    """Give ids to what is new, and write the list; what this session may show.

    The id of a message that one of two looks has seen is not given up.
    """
    measure_new(found)
    try:
        with DirectoryLock(b".", LOCK_TIME):
            again = look_again(found, cur, now, journal)
            firstids.give(again.messages, again.new, again.listed, env)
            measure_rest(again, journal)
            if again.changes:
                again.listed.stamp = sizelist.save(with_doubtful(again), again.listed)
            return again
    except OSError as why:
        journal.save_failed(why)
        return without_new(found, journal)


def measure_new(found: Match) -> None:
    """Measure new messages while nobody has to wait for the lock."""
    sizes, kinds = measure_all([found.messages.names[row] for row in found.new])
    for row, size, kind in zip(found.new, sizes, kinds, strict=True):
        if size == FAILED:
            found.unmeasured.append(row)
        else:
            found.messages.sizes[row] = size
            found.messages.unicode[row] = kind


def measure_rest(found: Match, journal: Journal) -> None:
    """Measure what isn't known; a message that can't be read keeps the size 0."""
    messages = found.messages
    for row in found.unmeasured:
        try:
            messages.sizes[row], messages.unicode[row] = measure(messages.names[row])
        except OSError as why:
            found.is_whole = False
            name = shown(messages.names[row])
            journal.warn(f"cannot read message file cur/{name}: {why.strerror}")
    found.unmeasured = []


def look_again(found: Match, cur: Stamp, now: int, journal: Journal) -> Match:
    """The same match, if cur/ and the list are as they were; else a new one."""
    before = found.messages.names
    if len(before) >= index.WORTH and sizelist.stamp() == found.listed.stamp:
        if index.is_settled(cur) or has_just(b"cur", before):
            return found
    present = scan(b"cur")
    names = in_order(united(before, present))
    listed = sizelist.read(now, journal)
    if found.listed.stamp and not listed.stamp:
        raise OSError(ENOENT, "courierpop3dsizelist has just gone")
    again = Match(names, listed, frozenset(map(base, before)))
    unmeasured = set(found.unmeasured)
    measured = {before[row]: row for row in found.new if row not in unmeasured}
    for row in again.new:
        old = measured.get(names[row])
        if old is None:
            again.unmeasured.append(row)
        else:
            again.messages.sizes[row] = found.messages.sizes[old]
            again.messages.unicode[row] = found.messages.unicode[old]
    return again


def united(before: list[bytes], present: list[bytes]) -> list[bytes]:
    """What two looks into cur/ have found, right whatever is renamed meanwhile.

    readdir may show a file that is being renamed under both names, or under none.
    """
    by_base: dict[bytes, list[bytes]] = {}
    for name in present:
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


def with_doubtful(found: Match) -> Messages:
    """What the list is to hold: the messages, and entries whose message may be there again."""
    if not found.doubtful:
        return found.messages
    messages = found.messages
    entries = {name: messages.entry(row) for row, name in enumerate(messages.names)}
    entries |= {entry[0]: entry for entry in found.doubtful}
    every = Messages(in_order(list(entries)))
    for row, name in enumerate(every.names):
        every.put(row, entries[name])
    return every


def without_new(found: Match, journal: Journal) -> Match:
    """What a session may show when new messages can't get their ids."""
    measure_rest(found, journal)
    found.is_whole = False
    new = set(found.new)
    known = [row for row in range(len(found.messages)) if row not in new]
    if known or not new:
        found.messages = found.messages.picked(known)
    else:
        first = found.messages.picked(found.new[:1])
        found.messages = first if give_temporary_id(first) else Messages([])
    return found


def give_temporary_id(messages: Messages) -> bool:
    """Make the first message's id of its file, for this session; False if there is no file."""
    try:
        status = os.lstat(messages[0].path)
    except OSError:
        return False
    words = (int(status.st_mtime), status.st_dev, status.st_ino)
    messages.given[0] = b"ENOMEM-%016X-%016X-%016X" % tuple(word & (2**64 - 1) for word in words)
    return True
