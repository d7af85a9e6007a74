"""visit - one client's conversation, in one process or in several, one after the other

Commands are read as they come, and answered in their order. A client that is silent has a time
limit; before it is over, the session may be parked (courierchain.parking) and go on in another
process.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from courierchain import parking
from courierchain.client import Client, Gone, TimedOut
from courierpop3d.journal import Journal
from courierpop3d.maildrop import Damaged
from courierpop3d.session import Transaction
from pop3proto.commands import LineReader

INPUT = 4096  # octets read at a time
FULL = 65536  # octets of replies that leave without waiting for more to leave with them
PAUSE = 0.05  # seconds without a command in which other work is done
IO_ERROR = "I/O error disconnect"


class Visit:
    """`started`, `deadline`: on the monotonic clock; the deadline is that of the command which is
    waited for, 0 if none is. `idle_limit`: seconds that a client may take for a command.

    `park` is called when the client is silent. It raises Parked, or it isn't called again.
    """

    __slots__ = ("session", "client", "started", "idle_limit", "deadline", "park")

    def __init__(self, session: Transaction, client: Client, idle_limit: float, *, started: float):
        self.session = session
        self.client = client
        self.idle_limit = idle_limit
        self.started = started
        self.deadline = 0.0
        self.park: Callable[[Visit], None] | None = None

    def converse(self, first: bytes) -> str:
        """Say `first`, and answer the client to the end; the event that ended the session.

        Raises Parked.
        """
        event = "LOGOUT"
        try:
            self.client.send(first)
            self._answer()
            self.client.discard_input()
        except Gone:
            event = "DISCONNECTED"
        except TimedOut:
            event = "TIMEOUT"
        except Damaged:
            event = IO_ERROR
        finally:
            self.session.settle()
        return "LOGOUT" if self.session.quit else event

    def log_end(self, event: str, journal: Journal) -> None:
        sent = max(0, self.client.sent - self.session.uncounted)
        time = int(monotonic() - self.started)
        journal.end(event, **self.session.counts, sent=sent, time=time)

    def _answer(self) -> None:
        """Replies to commands that came together leave together; none waits for a command."""
        reader = LineReader()
        while not self.session.quit:
            ready = b""
            if not self.session.is_settled and not self.client.sends_within(PAUSE):
                self.session.settle()
            for line in self._receive_lines(reader):
                reply = self.session.obey(line)
                if isinstance(reply, bytes):
                    ready += reply
                else:
                    for piece in reply:
                        self.client.send(ready + piece)
                        ready = b""
                if self.session.quit:
                    break
                if len(ready) >= FULL:
                    self.client.send(ready)
                    ready = b""
            self.client.send(ready)

    def _receive_lines(self, reader: LineReader) -> list[bytes | None]:
        """At least one line. The limit is for the whole of it: dribbling octets doesn't prolong
        it."""
        self.deadline = self.deadline or monotonic() + self.idle_limit
        while monotonic() < self.deadline:
            lines = reader.feed(self._receive(reader))
            if lines:
                self.deadline = 0.0
                return lines
        raise TimedOut

    def _receive(self, reader: LineReader) -> bytes:
        if self.park and reader.is_empty and parking.is_due(self.client, self.deadline):
            self.session.settle()
            self.park(self)
            self.park = None
        return self.client.receive(INPUT, self.deadline - monotonic())
