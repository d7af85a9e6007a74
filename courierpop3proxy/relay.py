"""relay - copy bytes between the client and its mail host, until one of them has had enough

    INFO: LOGOUT, user=U, ip=[I], port=[P], rcvd=A, sent=B, time=S    after QUIT, or by the host
    INFO: DISCONNECTED, ...                                           the client has just gone
    INFO: TIMEOUT, ...                                                see `Relay.run`

(the program's log lines; rcvd and sent are octets from and to the client.) Each direction holds at
most one read of CHUNK octets, and reads no more before that is taken. An end that has finished
sending may still receive: the client's end of input is passed on, and the host's replies come back.
"""

from __future__ import annotations

from select import POLLIN, POLLOUT, poll
from time import monotonic

from courierchain.client import Client, Gone, TimedOut
from courierpop3proxy.hostlogin import MailHost

CHUNK = 65536  # octets
QUIT = b"QUIT\r\n"


class LocalClient(Client):
    __slots__ = ()
    readable = (0, POLLIN)
    writable = (1, POLLOUT)


class Flow:
    """One direction.

    held     octets that have been read and not yet been written
    ended    nothing more is to be read
    stopped  nothing more can be written
    octets   that have been written
    last     the last few of those that have been read
    moved    the time of the last progress, on the monotonic clock
    """

    __slots__ = ("_source", "_sink", "held", "ended", "stopped", "octets", "last", "moved")

    def __init__(
        self, source: LocalClient | MailHost, sink: LocalClient | MailHost, held: bytes = b""
    ):
        self._source = source
        self._sink = sink
        self.held = memoryview(held)
        self.ended = self.stopped = False
        self.octets = 0
        self.last = b""
        self.moved = monotonic()

    @property
    def is_over(self) -> bool:
        return self.stopped or (self.ended and not self.held)

    def waits_for(self) -> tuple[int, int]:
        """The descriptor, and what to poll it for."""
        return self._sink.writable if self.held else self._source.readable

    def move(self) -> None:
        """One read or one write. Raises Gone if the sink is."""
        try:
            if self.held:
                taken = self._sink.write_some(self.held)
                self.held = self.held[taken:]
                self.octets += taken
            else:
                self._read()
        except BlockingIOError:
            return
        self.moved = monotonic()

    def _read(self) -> None:
        try:
            data = self._source.read_some(CHUNK)
        except Gone:
            self.ended = True
        else:
            self.held = memoryview(data)
            self.last = (self.last + data[-len(QUIT) :])[-len(QUIT) :]


class Relay:
    """first: what the client is told before all that comes from the host."""

    __slots__ = ("_client", "_host", "_up", "_down")

    def __init__(self, client: LocalClient, host: MailHost, first: bytes):
        self._client = client
        self._host = host
        self._up = Flow(client, host)
        self._down = Flow(host, client, first)

    @property
    def received(self) -> int:
        return self._up.octets

    @property
    def sent(self) -> int:
        return self._down.octets

    def run(self, idle_limit: float) -> str:
        """The event that ended it; TIMEOUT after `idle_limit` seconds without a byte, or when one
        end has left bytes untaken for the client's `send_limit`."""
        self._client.hurry()
        try:
            while not self._down.is_over:
                ready = self._wait(idle_limit)
                if not ready:
                    return "TIMEOUT"
                for flow in ready:
                    self._move(flow)
        except Gone:
            self._up.ended = True
        except TimedOut:
            return "TIMEOUT"
        finally:
            self._host.close()
        self._client.discard_input()
        has_just_gone = self._up.ended and self._up.last.upper() != QUIT
        return "DISCONNECTED" if has_just_gone else "LOGOUT"

    def _move(self, flow: Flow) -> None:
        """Raises Gone if the client is."""
        try:
            flow.move()
        except Gone:
            if flow is self._down:
                raise
            flow.stopped = True  # the host takes no more; what it has said before still comes
            return
        if flow is self._up and flow.is_over:
            self._host.finish()

    def _wait(self, idle_limit: float) -> list[Flow]:
        """The flows that may move now; none when the time is up."""
        flows = [flow for flow in (self._down, self._up) if not flow.is_over]
        ready = poll()
        wanted: dict[int, int] = {}
        for flow in flows:
            descriptor, event = flow.waits_for()
            wanted[descriptor] = wanted.get(descriptor, 0) | event
        for descriptor, events in wanted.items():
            ready.register(descriptor, events)
        found = dict(ready.poll(max(0, self._deadline(idle_limit) - monotonic()) * 1000))
        return [flow for flow in flows if is_ready(flow, found)]

    def _deadline(self, idle_limit: float) -> float:
        untaken = [flow.moved for flow in (self._down, self._up) if flow.held and not flow.stopped]
        if untaken:
            return min(untaken) + self._client.send_limit
        return max(self._down.moved, self._up.moved) + idle_limit


def is_ready(flow: Flow, found: dict[int, int]) -> bool:
    """Also when the descriptor has an error, which reading or writing will tell."""
    descriptor, event = flow.waits_for()
    return bool(found.get(descriptor, 0) & ~(POLLIN | POLLOUT) | found.get(descriptor, 0) & event)
