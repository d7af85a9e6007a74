"""maildrop - the files of one session's messages, wherever other programs have moved them by now

IMAP servers and mail programs rename a file when its flags change. A message that isn't found
under its name is looked for by the part before the colon, in one reading of the directory for all
messages (F-CONC-3). What isn't there at all is gone, for itself alone (F-CONC-4).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from courierpop3d import maildir
from courierpop3d.journal import Journal, shown
from courierpop3d.maildir import CHUNK, Stamp, base, close, open_regular, stamp_of
from courierpop3d.measure import kind_of
from courierpop3d.message import Message, Messages
from courierpop3d.quota import Quota

LARGEST_AHEAD = 65536  # octets of a message that is read before it is asked for
LOOKS = 5  # at the directory, to remove what somebody keeps renaming


class Damaged(Exception):
    """A message can't be read to its end, and its beginning may have been sent."""


class Maildrop:
    __slots__ = ("messages", "_journal", "_gone", "_quota")

    def __init__(self, messages: Messages, journal: Journal, env: dict[str, str] | None = None):
        self.messages = messages
        self._journal = journal
        self._quota = Quota(env or {}, journal)
        self._gone: set[Message] = set()

    def read(self, message: Message) -> Iterator[bytes]:
        """The stored octets of a message.

        Raises OSError if it can't be opened or its beginning not be read; while iterating, Damaged.
        """
        stored = self._chunks(message)
        try:
            return chain((next(stored, b""),), stored)
        except OSError as why:
            self._journal.warn(f"cannot open message file {_path(message)}: {why.strerror}")
            raise

    def read_ahead(self, message: Message) -> tuple[bytes, Stamp] | None:
        """The octets of a message as it is now, if it isn't large; None whatever fails."""
        try:
            descriptor = open_regular(message.path)
        except OSError:
            return None
        try:
            octets = os.read(descriptor, LARGEST_AHEAD)
            stamp = stamp_of(os.fstat(descriptor))
            return (octets, stamp) if len(octets) == stamp[1] else None
        except OSError:
            return None
        finally:
            close(descriptor)

    def holds(self, message: Message, stamp: Stamp) -> bool:
        """Whether the message is still the file that was read ahead."""
        try:
            return stamp_of(os.lstat(message.path)) == stamp
        except OSError:
            return False

    def kind(self, message: Message) -> int:
        """PLAIN or UNICODE, from the headers. Raises OSError."""
        descriptor = self._open(message)
        try:
            return kind_of(descriptor)
        finally:
            close(descriptor)

    def _chunks(self, message: Message) -> Iterator[bytes]:
        descriptor = self._open(message)
        try:
            yield os.read(descriptor, CHUNK)
            while chunk := self._read_on(descriptor, message):
                yield chunk
        finally:
            close(descriptor)

    def _read_on(self, descriptor: int, message: Message) -> bytes:
        try:
            return os.read(descriptor, CHUNK)
        except OSError as why:
            text = f"I/O error while reading message file {_path(message)}: {why.strerror}"
            self._journal.err(text)
            raise Damaged from why

    def _open(self, message: Message) -> int:
        try:
            return open_regular(message.path)
        except FileNotFoundError:
            if not self._find_again(message):
                raise
            return open_regular(message.path)

    def _find_again(self, message: Message) -> bool:
        if message not in self._gone:
            self._gone |= self._missing()
        return message not in self._gone

    def _missing(self) -> set[Message]:
        missing = self._look()
        if missing:
            # A rename while the directory is read can hide a file; hardly twice.
            missing &= self._look()
        return missing

    def _look(self) -> set[Message]:
        """Learn the present names of all messages; those that have none."""
        self._fetch_back()
        names = set(maildir.scan(b"cur"))
        known = self.messages.names
        lost = [row for row, name in enumerate(known) if name not in names]
        names.difference_update(known)
        now_called = {base(name): name for name in names}
        missing = set()
        for row in lost:
            name = now_called.pop(base(known[row]), None)
            if name is None:
                missing.add(self.messages[row])
            else:
                known[row] = name
        return missing

    def _fetch_back(self) -> None:
        """Mail programs put a message that is to be unread again back into new/."""
        bases = set(map(base, self.messages.names))
        try:
            for name in maildir.scan(b"new"):
                if base(name) in bases:
                    maildir.take_in(name)
        except OSError:
            pass

    @property
    def logs_removals(self) -> bool:
        return self._journal.logs_deletions

    def mark_seen(self, message: Message) -> None:
        message.name = maildir.mark_seen(message.name)

    def remove(self, marked: list[Message]) -> bool:
        """Remove the files of messages, whatever they are called by now; False if some remain."""
        left = marked
        refused: list[Message] = []
        for _ in range(LOOKS):
            absent = [message for message in left if not self._unlink(message, refused)]
            left = self._still_somewhere(absent)
            if not left:
                break
        for message in left:
            self._journal.err(f"cannot remove {_path(message)}: its name keeps changing")
        self._quota.update()
        return not left and not refused

    def _unlink(self, message: Message, refused: list[Message]) -> bool:
        """False if there is no file of this name."""
        octets = self._quota.octets_of(message.name)
        try:
            os.unlink(message.path)
        except FileNotFoundError:
            return False
        except OSError as why:
            refused.append(message)
            self._journal.err(f"cannot remove {_path(message)}: {why.strerror}")
        else:
            self._quota.subtract(octets)
            self._journal.deleted(message.name)
        return True

    def _still_somewhere(self, absent: list[Message]) -> list[Message]:
        if not absent:
            return absent
        try:
            missing = self._missing()
        except OSError:
            return absent
        return [message for message in absent if message not in missing]


def _path(message: Message) -> str:
    return "cur/" + shown(message.name)
