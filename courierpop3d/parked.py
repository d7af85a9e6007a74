"""parked - what a session knows, as octets, while no process serves it

    place         the Maildir: its path, device and inode
    numbers       milliseconds of the monotonic clock: beginning, deadline; octets sent
    session       marks, counts, settings of the client (Transaction.columns)
    messages      names, sizes, ids... (Messages.columns, or those of the index)

Netstrings, nested. What a process has only to be faster is left out: a message read ahead, and
which messages could not be found.
"""

from __future__ import annotations

import os
from errno import ESTALE

from courierchain import netstrings
from courierpop3d.index import SECTIONS, IndexedMessages
from courierpop3d.message import Messages
from courierpop3d.visit import Visit

Columns = list[bytes]


class Parcel:
    """An unpacked session: what `pack` has found in the visit."""

    __slots__ = ("place", "started", "deadline", "sent", "session", "messages")

    def __init__(self, state: bytes):
        """Raises ValueError."""
        place, numbers, session, messages = netstrings.decode(state)
        self.place = netstrings.decode(place)
        started, deadline, self.sent = map(int, numbers.split())
        self.started = started / 1000
        self.deadline = deadline / 1000
        self.session = netstrings.decode(session)
        self.messages = messages_of(netstrings.decode(messages))

    @property
    def boundary(self) -> bytes:
        return self.session[-1]

    def enter_place(self) -> None:
        """Raises OSError, also if there is another directory by now."""
        path, *ids = self.place
        os.chdir(path)
        if ids_of_here() != ids:
            raise OSError(ESTALE, "another directory is in its place")

    def resume(self, visit: Visit) -> None:
        """Give a new visit what the old one had. Raises ValueError."""
        visit.started = self.started
        visit.deadline = self.deadline
        visit.client.sent = self.sent
        visit.session.resume(self.session)


def pack(visit: Visit) -> bytes:
    """Raises OSError when the Maildir has no path any more."""
    place = [os.getcwdb(), *ids_of_here()]
    times = (int(visit.started * 1000), int(visit.deadline * 1000))
    columns = (place, visit.session.columns(), visit.session.messages.columns())
    here, session, messages = map(netstrings.encode, columns)
    numbers = netstrings.numbers((*times, visit.client.sent))
    return netstrings.encode((here, numbers, session, messages))


def ids_of_here() -> Columns:
    status = os.stat(".")
    return [b"%d" % status.st_dev, b"%d" % status.st_ino]


def messages_of(columns: Columns) -> Messages:
    """Raises ValueError."""
    kind = IndexedMessages if len(columns) == SECTIONS + 1 else Messages
    return kind.from_columns(columns)
