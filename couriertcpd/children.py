"""children - the processes that serve connections, as their parent sees them

Without -prefork and -uses there is one new process for each connection. With them there are workers
(see `worker`), which are given connections on a channel of their own.

    -prefork=N   N workers wait, so that a greeting does not wait for a fork
    -uses=N      a worker serves up to N sessions. Where sessions change the uid (we are root) there
                 are two kinds: those that log people in, and, for each user, those that have become
                 the user and serve the mailbox. No process ever comes back to root
    -maxidle=N   N processes wait for their next session at most; who has waited longest goes first.
                 Each takes 3 MB at most: without the option there are as many as have a thirteenth
                 of the machine's memory, from 20 to 300
    -front       nobody has a process before there is a login (see `front`); a new process has a
                 channel too, on which a refused login goes back until somebody is accepted
    -park=S      the session of a silent client comes back to the parent (see `parkinglot`), and its
                 worker is free; another one of the same kind goes on with it

The parent accepts, counts and refuses, so the limits are exact in all cases; a connection's place
is free again when its process has gone, or its worker has said that it is done. All processes are
forked from the parent, which knows nothing of any session. A worker whose channel closes ends: so
do all of them when the parent goes, whatever ended it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import islice
from socket import AF_UNIX, SHUT_RD, SOCK_SEQPACKET, recv_fds, socket, socketpair
from time import monotonic

from courierchain import handover, log, netstrings, relay
from courierchain.request import RECORD
from courierchain.reuse import take_over
from couriertcpd.arrival import Arrival, announce
from couriertcpd.encryption import Relay
from couriertcpd.front import Fronts
from couriertcpd.limits import Limits
from couriertcpd.parkinglot import Parked, ParkingLot, Terms, unpacked
from couriertcpd.reload import ParkedSessions, Sessions
from couriertcpd.worker import (
    AND,
    BACK,
    DONE,
    HEARD,
    KEEP,
    LONGEST,
    MOST_DESCRIPTORS,
    PARK,
    RELAY,
    RESUME,
    STAYS,
    Serve,
    UserWorker,
    Worker,
    send,
    signals_to_default,
)

IDLE_LIFE = 60.0  # seconds that a worker beyond -prefork waits for its next session
PARKING_LIFE = 10.0  # with -park, which is there to spare memory
FOR_EACH = 40_000_000  # octets of the machine's memory
FEWEST_IDLE, MOST_IDLE = 20, 300


class Child:
    """A process: its channel if it is a worker, and the address it serves just now, if any.

    arrival: the connection that began here, as long as nobody is logged in.

    key: the user whose sessions it serves, as `parcel.key` has it; empty if it logs people in.
    """

    __slots__ = ("pid", "channel", "key", "address", "arrival", "idle_since")

    def __init__(self, pid: int, channel: socket | None, key: bytes):
        self.pid = pid
        self.channel = channel
        self.key = key
        self.address: bytes | None = None
        self.arrival: Arrival | None = None
        self.idle_since = monotonic()


def usual_idle() -> int:
    """-maxidle where nobody has set it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(FEWEST_IDLE, min(MOST_IDLE, memory // FOR_EACH))


class Children:
    """All processes of one listener.

    serve: runs one session in the child, with the client on descriptors 0 and 1, and gives its
    exit status; its arguments are the client's address, ours, and variables for the session.

    watch, unwatch: called with a worker's channel when it is to be read from, with what to call
    then, and when no more.

    tls: what login programs may ask for STLS. terms: of -park; None without it. fronts: who takes
    connections back; None without -front.
    """

    def __init__(
        self,
        serve: Serve,
        limits: Limits,
        watch: Callable[[socket, Callable[[], None]], None],
        unwatch: Callable[[socket], None],
        *,
        prefork: int,
        uses: int,
        most_idle: int,
        tls: Relay | None = None,
        terms: Terms | None = None,
        fronts: Fronts | None = None,
    ):
        self._serve = serve
        self._limits = limits
        self._prefork = prefork
        self._uses = uses
        self._most_idle = most_idle
        self._terms = terms
        self._fronts = fronts
        self._idle_life = PARKING_LIFE if terms else IDLE_LIFE
        self.parked = ParkingLot()
        self._watch = watch
        self._unwatch = unwatch
        self._tls = tls
        self._children: dict[int, Child] = {}
        self._idle: dict[Child, None] = {}  # in the order of their waiting, the longest first
        self._idle_of: dict[bytes, list[Child]] = {}  # the same, by key; none is empty

    @property
    def serving(self) -> int:
        """Processes that are not waiting for a session."""
        return len(self._children) - len(self._idle)

    def dispatch(self, arrival: Arrival) -> None:
        """Give an admitted connection to a process. Raises OSError if there can't be one."""
        message = announce(arrival)
        if arrival.login is not None:
            message = HEARD + netstrings.encode((message, arrival.login))
        child = None
        if len(message) <= LONGEST:  # else the channel would cut it; a new process has it all
            child = self._give(b"", message, [arrival.client.fileno()])
        if child is None:
            child = self._fork(b"", arrival)
        child.address = arrival.address
        if arrival.login is not None:
            child.arrival = arrival

    def _give(self, key: bytes, message: bytes, descriptors: Sequence[int]) -> Child | None:
        """An idle worker that has taken it; the last to come is the first to go: it is warm."""
        while waiting := self._idle_of.get(key):
            child = waiting[-1]
            self._remove_idle(child)
            if child.channel and send(child.channel, message, descriptors):
                return child
        return None

    def _add_idle(self, child: Child) -> None:
        self._idle[child] = None
        self._idle_of.setdefault(child.key, []).append(child)

    def _remove_idle(self, child: Child) -> None:
        del self._idle[child]
        waiting = self._idle_of[child.key]
        waiting.remove(child)
        if not waiting:
            del self._idle_of[child.key]

    def replenish(self) -> None:
        """Have -prefork workers waiting, and let go of those that waited long beyond them.

        Raises OSError if there can't be one more process.
        """
        while self._waiting < self._prefork:
            self._add_idle(self._fork(b""))
        for child in self._superfluous():
            self._remove_idle(child)
            self._hang_up(child)

    def _superfluous(self) -> list[Child]:
        """Who has waited too long, or longest where too many wait, but then not the last to come;
        nor those of -prefork."""
        horizon = monotonic() - self._idle_life
        excess = len(self._idle) - self._most_idle
        spare = self._waiting - self._prefork
        found = []
        for child in islice(self._idle, len(self._idle) - (excess > 0)):
            if child.idle_since > horizon and excess <= 0:
                break
            if child.key or spare > 0:
                spare -= not child.key
                excess -= 1
                found.append(child)
        return found

    @property
    def _waiting(self) -> int:
        """How many wait to log people in."""
        return len(self._idle_of.get(b"", ()))

    def heard(self, child: Child) -> None:
        """A worker's channel is readable: it is done, it delivers a session, or it has ended."""
        assert child.channel
        try:
            message, descriptors, _, _ = recv_fds(child.channel, LONGEST, MOST_DESCRIPTORS)
        except BlockingIOError:
            return
        except ConnectionError:
            message, descriptors = b"", []
        # A process that runs as a user can say that its session is over, or give it back, and
        # nothing else.
        about_its_own = message.startswith((DONE, PARK)) and child.address is not None
        if message and (not child.key or about_its_own):
            self._obey(child, message, descriptors)
        else:
            self._hang_up(child)
        for descriptor in descriptors:
            os.close(descriptor)

    def _obey(self, child: Child, message: bytes, descriptors: list[int]) -> None:
        address, child.address = child.address, None
        arrival, child.arrival = child.arrival, None
        if not message.startswith((STAYS, BACK)):
            child.idle_since = monotonic()
            self._add_idle(child)
        if address is None:
            return
        if message.startswith(DONE):
            self._limits.release(address)
        elif message.startswith(BACK):
            self._take_back(arrival, message.removeprefix(BACK), descriptors, address)
        elif message.startswith(PARK):
            self._park(child.key, message.removeprefix(PARK), descriptors, address)
        else:  # a module has accepted somebody
            session = message.removeprefix(STAYS)
            self._hand_over(session.partition(AND)[0], session, descriptors, address)

    def _take_back(
        self, arrival: Arrival | None, returned: bytes, descriptors: list[int], address: bytes
    ) -> None:
        """Give a connection whose login was refused to the front, or lose it: it has just gone."""
        if arrival and descriptors and self._fronts:
            arrival.client = socket(fileno=descriptors.pop())
            taken = self._fronts.take_back(arrival, returned)
            arrival.client.close()
            if taken:
                return
        self._limits.release(address)

    def _hand_over(
        self, key: bytes, message: bytes, descriptors: Sequence[int], address: bytes
    ) -> None:
        """Give a session that has begun elsewhere to a process of that user."""
        try:
            child = self._give(key, message, descriptors)
            if child is None:
                child = self._fork(key)
                if not (child.channel and send(child.channel, message, descriptors)):
                    raise OSError("the process has ended")
            child.address = address
        except OSError as why:
            self._limits.release(address)
            log.err(f"fork: {why}")

    def _park(self, key: bytes, text: bytes, descriptors: list[int], address: bytes) -> None:
        """Keep a session until its client or its time demands a process. The key is that of the
        process which gives it: it may run as a user, and what it says may be nonsense."""
        deadline, _, content = text.partition(b" ")
        try:
            if not (self._terms and descriptors and deadline.isdigit() and len(deadline) < 16):
                raise OSError("not a session")
            if max(descriptors) > self._terms.most:  # soon there would be none for anything else
                self._hand_over(key, KEEP + content, descriptors, address)
                return
            self.parked.add(Parked(tuple(descriptors), content, key, address, int(deadline)))
            descriptors.clear()  # they are the session's now
        except OSError as why:
            self._limits.release(address)
            log.err(f"park: {why}")

    def resume(self) -> None:
        """Give processes to the parked sessions that need one."""
        for parked in self.parked.leaving():
            message = RESUME + parked.content
            self._hand_over(parked.key, message, parked.descriptors, parked.address)
            parked.close()

    def adopt(self, sessions: Sessions, parked: ParkedSessions) -> None:
        """Count the processes that this one had before it executed itself; keep the sessions that
        were parked, or give them processes if that is over."""
        for descriptors, rest in parked:
            self._adopt_parked(descriptors, rest)
        for pid, address in sessions:
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                continue  # has ended, and been taken leave of
            child = Child(pid, None, b"")
            child.address = address
            self._limits.take(address)
            self._children[pid] = child

    def _adopt_parked(self, descriptors: list[int], rest: bytes) -> None:
        try:
            session = unpacked(descriptors, rest, self._terms.base if self._terms else {})
            if self._terms:
                self.parked.add(session)
        except (OSError, ValueError) as why:
            log.err(f"park: {why}")
            for descriptor in descriptors:
                os.close(descriptor)
            return
        self._limits.take(session.address)
        if not self._terms:
            message = KEEP + session.content
            self._hand_over(session.key, message, session.descriptors, session.address)
            session.close()

    def retire(self) -> Sessions:
        """Hang up on all workers; pid and address of the processes that serve somebody.

        What workers have sent before is obeyed; afterwards they can send nothing, and see that.
        """
        for child in list(self._children.values()):
            if child.channel:
                child.channel.shutdown(SHUT_RD)
            while child.channel:
                self.heard(child)
        self._idle.clear()
        self._idle_of.clear()
        for child in list(self._children.values()):
            self._hang_up(child)
        serving = self._children.items()
        return [(pid, child.address) for pid, child in serving if child.address is not None]

    def packed(self) -> ParkedSessions:
        """The parked sessions, for `adopt`. One whose content is nonsense is left behind: it comes
        from a process of its user."""
        base = self._terms.base if self._terms else {}
        found = []
        for parked in self.parked.all():
            try:
                found.append(parked.pack(base))
            except (OSError, ValueError) as why:
                log.err(f"park: {why}")
        return found

    def reap(self) -> list[tuple[int, int]]:
        """Take leave of the processes that have ended; pid and status of those not begun here."""
        others = []
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid = ended[0]
                child = self._children.pop(pid, None)
                if child:
                    while child.channel:
                        self.heard(child)  # what it has said before, to the end
                    if child.address is not None:
                        self._limits.release(child.address)
                    if child in self._idle:
                        self._remove_idle(child)
                else:
                    others.append(ended)
        except ChildProcessError:
            pass
        return others

    def _hang_up(self, child: Child) -> None:
        if child.channel:
            self._unwatch(child.channel)
            child.channel.close()
            child.channel = None

    def _fork(self, key: bytes, arrival: Arrival | None = None) -> Child:
        """A new process, that begins with `arrival` if there is one."""
        ours = theirs = None
        if arrival is None or arrival.login is not None or self._uses > 1:
            ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            for end in (ours, theirs):
                if end:
                    end.close()
            raise
        if pid == 0:
            self._in_child(key, arrival, theirs)
        child = Child(pid, ours, key)
        self._children[pid] = child
        if ours and theirs:
            theirs.close()
            ours.setblocking(False)
            self._watch(ours, lambda: self.heard(child))
        return child

    def _in_child(self, key: bytes, arrival: Arrival | None, channel: socket | None) -> None:
        status = 1
        try:
            if self._terms:
                self._terms.leave()
            signals_to_default()
            tls = self._tls.channel if self._tls and self._tls.on_demand and not key else None
            ends = None
            if arrival:
                take_over(arrival.client.detach())
                ends = (arrival.remote, arrival.local, arrival.variables, arrival.login)
            if channel:
                kind = UserWorker if key else Worker
                worker = kind(channel, self._serve, self._uses, self._terms, key, tls)
                status = worker.work(ends)
            elif ends:
                os.closerange(RECORD, RELAY)
                if tls:
                    relay.lend(tls, RELAY, for_one_program=True)
                os.closerange(RELAY + 1 if tls else RELAY, handover.HIGHEST)
                status = self._serve(*ends)
        finally:
            os._exit(status)
