"""lookups - what the DNS says about a client, before the client gets a process

    without -nodnslookup    TCPREMOTEHOST, TCPLOCALHOST, see `hostname`
    -block, -allow          see `dnslists`
    -dnstimeout=SECONDS     *ours*: for all of it together
    -nameservers=LIST       *ours*: ADDRESS or ADDRESS:PORT, commas; whom to ask about the lists

The listener never waits (F-NET-7): it sends a question to a process of its own, `resolver`, keeps
the connection, and goes on with it when the answer has come, or time is up, or the resolver has
ended. Then a name is `softdnserr`, and a list says nothing: as after any temporary failure of the
DNS. A resolver that has ended is started again after a pause. On the channel (SOCK_SEQPACKET), in
strings with NULs between them:

    number, deadline (of the monotonic clock), client's address, ours, names of variables set
    number, NAME=VALUE...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SOCK_SEQPACKET,
    inet_pton,
    socket,
    socketpair,
)
from time import monotonic

from courierchain import handover, log
from courierchain.refusal import Refused
from courierchain.request import RECORD
from couriertcpd.arrival import Arrival, Variables
from couriertcpd.dnslists import DnsList
from couriertcpd.hostname import UNDECIDED
from couriertcpd.options import Options
from couriertcpd.worker import signals_to_default

LARGEST = 65536  # octets of a message
GRACE = 0.5  # seconds more than the resolver has, for its answer to come
PAUSE = 5.0  # seconds before a resolver that has ended is started again
LONG_PAUSE = 60.0  # and before one that hasn't answered once
DNS_PORT = 53

Server = tuple[str, int]
Question = tuple[str, float, str, str, list[str]]
Watch = Callable[[socket, Callable[[], None]], None]


class Plan:
    """What is looked up for each client. names: of the addresses. seconds: for all of it.

    servers: who is asked about the lists; empty: those of resolv.conf. preset: variables that are
    set in every session.
    """

    __slots__ = ("lists", "names", "seconds", "servers", "preset")

    def __init__(
        self,
        lists: list[DnsList],
        *,
        names: bool,
        seconds: float,
        servers: list[Server],
        preset: Iterable[str],
    ):
        self.lists = lists
        self.names = names
        self.seconds = seconds
        self.servers = servers
        self.preset = set(preset)


class Lookups:
    """The connections that wait, each with its deadline, and the process that they wait for."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._channel: socket | None = None
        self._start = 0.0  # when the resolver is started again
        self._pause = LONG_PAUSE
        self._number = 0
        self._waiting: dict[str, tuple[Arrival, float]] = {}  # in the order of their deadlines
        self._failed: Variables = {}
        if plan.names:
            self._failed = {"TCPREMOTEHOST": UNDECIDED, "TCPLOCALHOST": UNDECIDED}

    def serve(
        self, watch: Watch, unwatch: Callable[[socket], None], done: Callable[[Arrival], None]
    ) -> None:
        """watch, unwatch: called with the channel when it is to be read from, or no more.
        done: called with a connection when its variables have what was found."""
        self._watch, self._unwatch, self._done = watch, unwatch, done

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, arrival: Arrival) -> None:
        """Give a connection to `done` in a while; or at once, if nobody can say."""
        self._number += 1
        number, until = str(self._number), monotonic() + self._plan.seconds
        ends = (arrival.remote[0], arrival.local[0])
        if self._send(question(number, until, *ends, arrival.variables)):
            self._waiting[number] = (arrival, until + GRACE)
        else:
            self._go_on(arrival, self._failed)

    def keep_up(self) -> None:
        """Go on with those who have waited long enough, and have a resolver."""
        now = monotonic()
        while self._waiting:
            number, (arrival, deadline) = next(iter(self._waiting.items()))
            if deadline > now:
                break
            del self._waiting[number]
            self._go_on(arrival, self._failed)
        if self._channel is None and now >= self._start:
            self._start_resolver()

    def patience(self) -> float:
        """Seconds until `keep_up` has something to do; infinite if nothing is due."""
        due = next((deadline for _, deadline in self._waiting.values()), float("inf"))
        if self._channel is None:
            due = min(due, self._start)
        return max(0.0, due - monotonic())

    def _send(self, message: bytes) -> bool:
        try:
            return bool(self._channel and self._channel.send(message, MSG_DONTWAIT | MSG_NOSIGNAL))
        except OSError:
            return False  # it has ended, or so much is waiting for it that one more can't

    def _heard(self) -> None:
        """The channel is readable: there is an answer, or the resolver has ended."""
        assert self._channel
        try:
            message = self._channel.recv(LARGEST, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if not message:
            self._ended()
            return
        self._pause = PAUSE
        number, found = answered(message)
        if number in self._waiting:
            self._go_on(self._waiting.pop(number)[0], found)

    def _ended(self) -> None:
        assert self._channel
        self._unwatch(self._channel)
        self._channel.close()
        self._channel = None
        self._start = monotonic() + self._pause
        log.err(f"the DNS resolver has ended; another one is started in {self._pause:.0f} seconds")
        self._pause = LONG_PAUSE
        waiting, self._waiting = self._waiting, {}
        for arrival, _ in waiting.values():
            self._go_on(arrival, self._failed)

    def _go_on(self, arrival: Arrival, found: Variables) -> None:
        arrival.variables.update(found)
        self._done(arrival)

    def _start_resolver(self) -> None:
        try:
            ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        except OSError as why:
            self._postpone(why)
            return
        try:
            if os.fork() == 0:
                be_resolver(theirs, self._plan)
        except OSError as why:
            ours.close()
            self._postpone(why)
            return
        finally:
            theirs.close()
        self._channel = ours
        self._watch(ours, self._heard)

    def _postpone(self, why: OSError) -> None:
        self._start = monotonic() + PAUSE
        log.err(f"DNS resolver: {why.strerror}")


def of_command_line(options: Options, env: dict[str, str]) -> Lookups | None:
    """What a command line asks for, if anything. Raises Refused."""
    lists = [DnsList(option, text) for option, text in options.lists]
    servers = [server(word) for word in options.nameservers.split(",") if word]
    if len(dict(servers)) < len(servers):
        raise Refused(f"-nameservers={options.nameservers}: an address is there twice")
    if lists and not has_dnspython():
        raise Refused(
            "-block and -allow need dnspython, which is not installed "
            "(pip install 'courierpop3[dns]'; Debian: python3-dnspython)"
        )
    names = not options.nodnslookup
    if not lists and not names:
        return None
    seconds = options.dnstimeout
    return Lookups(Plan(lists, names=names, seconds=seconds, servers=servers, preset=env))


def has_dnspython() -> bool:
    """Asked without loading it: it is larger than the listener."""
    return any(finder.find_spec("dns", None) for finder in sys.meta_path)


def server(word: str) -> Server:
    """192.0.2.1, 192.0.2.1:53, 2001:db8::1 or [2001:db8::1]:53. Raises Refused."""
    address, port = word, str(DNS_PORT)
    if word.startswith("["):
        address, _, port = word[1:].partition("]:")
    elif word.count(":") == 1:
        address, _, port = word.partition(":")
    try:
        inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError as why:
        raise Refused(f"-nameservers={word}: Invalid IP address: {address}") from why
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise Refused(f"-nameservers={word}: Invalid port: {port}")
    return address, int(port)


def be_resolver(channel: socket, plan: Plan) -> None:
    """In the new process: let go of all that is the listener's, and answer until it hangs up."""
    try:
        signals_to_default()
        os.dup2(channel.detach(), 0)
        os.closerange(RECORD, handover.HIGHEST)
        from couriertcpd import resolver

        resolver.run(socket(fileno=0), plan)
    except Refused as why:
        log.err(f"DNS resolver: {why}")
    except Exception as why:
        log.err(f"DNS resolver: {handover.where(why)}: {why}")
    finally:
        os._exit(1)


def question(number: str, until: float, remote: str, local: str, variables: Iterable[str]) -> bytes:
    return os.fsencode("\0".join((number, repr(until), remote, local, *variables)))


def questioned(message: bytes) -> Question:
    number, until, remote, local, *variables = os.fsdecode(message).split("\0")
    return number, float(until), remote, local, variables


def answer(number: str, found: Variables) -> bytes:
    return os.fsencode("\0".join((number, *(f"{name}={found[name]}" for name in found))))


def answered(message: bytes) -> tuple[str, Variables]:
    number, *assignments = os.fsdecode(message).split("\0")
    pairs = (assignment.partition("=") for assignment in assignments)
    return number, {name: value for name, _, value in pairs}
