"""front - connections whose clients have not logged in yet, held by one process without rights

    -front    *ours*: no process waits for a client that has sent no complete login

Where the chain begins with our courierpop3login, that is started once more, as `courierpop3login
-front` (see `courierpop3login.front`), and becomes `nobody` where we are root. It gets each
connection that is admitted, and gives it back with the login. What a session is told, and its place
in the limits, stays here: the front is believed what a client is believed, no more.

A front that has ended is started again; the clients that it held are gone, and their places free.
Without a front, or with so many clients in it that it would run out of descriptors, a connection
gets a process at once, as without -front. When the listener executes itself, the front goes on with
the clients it has, for the new listener, which starts another one for those that come.

Front     one process, and what it holds
Fronts    the present one, and those from before a reload
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from resource import RLIMIT_NOFILE, getrlimit
from socket import AF_UNIX, MSG_NOSIGNAL, SOCK_SEQPACKET, recv_fds, send_fds, socket, socketpair
from time import monotonic

from courierchain import front as words
from courierchain import log
from courierchain.daemon import park
from couriertcpd.arrival import Arrival, Variables

USER = "nobody"  # whom it becomes where we are root: courier has the keys of TLS, and authdaemond
PAUSE = 1.0  # seconds from one start of a front to the next
LONG_PAUSE = 60.0  # after one that can't be started, or has said nothing
RESERVE = 64  # descriptors of a front that are not clients
BATCH = 16  # messages read in a row

Dispatch = Callable[[Arrival], None]
Watch = Callable[[socket, Callable[[], None]], None]
Held = list[tuple[int, bytes, bytes]]  # number, 16 octets of address, ends


class Front:
    """held: its connections, by number. has_spoken: whether there has been a message of it."""

    __slots__ = ("channel", "held", "serial", "has_spoken")

    def __init__(self, channel: socket, serial: int = 0):
        """serial: the highest number that a connection has had."""
        self.channel = channel
        self.held: dict[int, Arrival] = {}
        self.serial = serial
        self.has_spoken = False

    def hold(self, arrival: Arrival) -> None:
        """Give it an admitted connection; our descriptor is still to be closed. Raises OSError."""
        self.serial += 1
        self._give(words.HOLD, self.serial, arrival, told(arrival))
        self.keep(self.serial, arrival)

    def hold_again(self, arrival: Arrival, returned: bytes) -> None:
        """The same after a refused login. Raises OSError."""
        self.serial += 1
        rest = words.again(told(arrival), returned)
        self._give(words.AGAIN, self.serial, arrival, rest)
        self.keep(self.serial, arrival)

    def secure(self, arrival: Arrival) -> None:
        """Give back a connection after its handshake. Raises OSError."""
        self._give(words.SECURED, arrival.number, arrival, told(arrival))

    def lose(self, arrival: Arrival) -> None:
        """Say that the handshake has failed."""
        del self.held[arrival.number]
        try:
            self.channel.send(words.message(words.LOST, arrival.number), MSG_NOSIGNAL)
        except OSError:
            pass  # it has ended, or its time will be up

    def _give(self, kind: bytes, number: int, arrival: Arrival, rest: bytes) -> None:
        message = words.message(kind, number, rest)
        if len(message) > words.LONGEST:
            raise OSError("a record of the access file is too long")
        send_fds(self.channel, [message], [arrival.client.fileno()], MSG_NOSIGNAL)

    def keep(self, number: int, arrival: Arrival) -> None:
        arrival.number = number
        arrival.login = None
        self.held[number] = arrival

    def packed(self) -> Held:
        """What it holds, for `adopted`."""
        return [(number, held.address, told(held)) for number, held in self.held.items()]


def told(arrival: Arrival) -> bytes:
    address, port = arrival.local
    here = {"TCPLOCALIP": address, "TCPLOCALPORT": str(port)}
    return words.ends(*arrival.remote, {**arrival.variables, **here})


def adopted(front: Front, number: int, address: bytes, ends: bytes) -> Arrival:
    """Take up again what was packed. Raises ValueError."""
    remote, port, others = words.split_ends(ends)
    variables = words.variables(others)
    local = (variables.pop("TCPLOCALIP", ""), int(variables.pop("TCPLOCALPORT", "0")))
    arrival = Arrival.known(address, (remote, int(port)), local, variables)
    front.keep(number, arrival)
    return arrival


class Fronts:
    """chain: the login program and its arguments. env: what sessions have in common.

    makes_handshakes: whether STLS can be asked for. is_on: whether there is to be one, or only
    those from before a reload are listened to.
    """

    __slots__ = (
        *("_argv", "_env", "_is_on", "_front", "_old", "_most", "_again"),
        *("_watch", "_unwatch", "_serve", "_encrypt", "_release"),
    )

    def __init__(self, chain: list[str], env: Variables, *, makes_handshakes: bool, is_on: bool):
        become = [f"-user={USER}"] if os.geteuid() == 0 else []
        relay = ["-relay"] if makes_handshakes else []
        self._argv = [chain[0], "-front", *become, *relay, *chain]
        self._env = env
        self._is_on = is_on
        self._front: Front | None = None
        self._old: list[Front] = []
        self._most = getrlimit(RLIMIT_NOFILE)[1] - RESERVE
        self._again = 0.0  # when it may be started again

    def serve(
        self,
        watch: Watch,
        unwatch: Callable[[socket], None],
        serve: Dispatch,
        encrypt: Dispatch,
        release: Dispatch,
    ) -> None:
        """watch, unwatch: called with a channel when it is to be read from, or no more. The others
        are called with a connection: for which there is a login, or that is to have a process all
        the same; that is to begin TLS; that is over."""
        self._watch, self._unwatch = watch, unwatch
        self._serve, self._encrypt, self._release = serve, encrypt, release
        self.keep_alive()

    def hold(self, arrival: Arrival) -> bool:
        """Whether a front has taken an admitted connection."""
        front = self._front
        if front is None or len(front.held) >= self._most:
            return False
        try:
            front.hold(arrival)
        except OSError:
            return False  # it has ended, or doesn't keep up
        return True

    def take_back(self, arrival: Arrival, returned: bytes) -> bool:
        """The same, after a refused login."""
        front = self._front
        if front is None or len(front.held) >= self._most:
            return False
        try:
            front.hold_again(arrival, returned)
        except OSError:
            return False
        return True

    def secured(self, arrival: Arrival) -> None:
        """A handshake is over."""
        front = self._holder(arrival)
        try:
            if front:  # else the client's time was up meanwhile
                front.secure(arrival)
        except OSError:
            self.lost(arrival)
        arrival.client.close()

    def lost(self, arrival: Arrival) -> None:
        """A handshake has failed."""
        if front := self._holder(arrival):
            front.lose(arrival)
            self._release(arrival)

    def _holder(self, arrival: Arrival) -> Front | None:
        for front in self.all():
            if front.held.get(arrival.number) is arrival:
                return front
        return None

    def patience(self) -> float:
        """Seconds until `keep_alive` has something to do; infinite if nothing is due."""
        if self._front or not self._is_on:
            return float("inf")
        return max(0.0, self._again - monotonic())

    def keep_alive(self) -> None:
        """Start it if there is none, and not just now."""
        if self._is_on and self._front is None and monotonic() >= self._again:
            self._again = monotonic() + PAUSE
            try:
                self._start()
            except OSError as why:
                self._again = monotonic() + LONG_PAUSE
                log.err(f"{self._argv[0]} -front: {why.strerror}")

    def _start(self) -> None:
        """Raises OSError."""
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        moves = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        defaults = [signal.SIGPIPE, signal.SIGHUP]
        try:
            os.posix_spawn(
                *(self._argv[0], self._argv, self._env),
                file_actions=moves,
                setsigmask=[],
                setsigdef=defaults,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._front = Front(socket(fileno=park(ours.detach())))
        self._hear(self._front)

    def _hear(self, front: Front) -> None:
        front.channel.setblocking(False)
        self._watch(front.channel, lambda: self._heard(front))

    def _heard(self, front: Front) -> None:
        """There are messages, or it has ended."""
        try:
            for _ in range(BATCH):
                data, descriptors, _, _ = recv_fds(front.channel, words.LONGEST, 1)
                if not data:
                    break
                self._obey(front, data, descriptors)
            else:
                return
        except BlockingIOError:
            self._close_if_done(front)
            return
        except (OSError, ValueError):
            pass
        self._ended(front)

    def _obey(self, front: Front, data: bytes, descriptors: list[int]) -> None:
        """Raises ValueError for what no front says."""
        try:
            kind, number, rest = words.parsed(data)
            if kind not in (words.LOGIN, words.PLAIN, words.STLS, words.OVER):
                raise ValueError("an unknown message")
            front.has_spoken = True
            arrival = front.held.get(number)
            if arrival is None:
                return  # told that a handshake has failed when its time was up
            if kind != words.STLS or not descriptors:
                del front.held[number]
            if kind == words.OVER or not descriptors:
                self._drop(arrival, is_lost=kind != words.OVER)
                return
            arrival.client = socket(fileno=descriptors.pop())
            if kind == words.STLS:
                self._encrypt(arrival)
            else:
                arrival.login = rest if kind == words.LOGIN else None
                self._serve(arrival)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _drop(self, arrival: Arrival, *, is_lost: bool) -> None:
        """is_lost: its connection has come without a descriptor, for there was none left here."""
        if is_lost:
            log.err(f"front: {os.strerror(errno.EMFILE)}")
        self._release(arrival)

    def _ended(self, front: Front) -> None:
        log.err(f"{self._argv[0]} -front: has ended, and {len(front.held)} clients with it")
        if front is self._front and not front.has_spoken:
            self._again = monotonic() + LONG_PAUSE
        self._close(front)
        for arrival in front.held.values():
            self._release(arrival)
        front.held.clear()
        self.keep_alive()

    def _close_if_done(self, front: Front) -> None:
        if front is not self._front and not front.held:
            self._close(front)

    def _close(self, front: Front) -> None:
        self._unwatch(front.channel)
        front.channel.close()
        if front is self._front:
            self._front = None
        else:
            self._old.remove(front)

    def all(self) -> list[Front]:
        """Those that hold somebody."""
        return [front for front in (self._front, *self._old) if front and front.held]

    def adopt(self, channel: socket, serial: int, held: Held) -> list[Arrival]:
        """Go on with a front from before a reload; the connections in it."""
        front = Front(channel, serial)
        self._old.append(front)
        self._hear(front)
        return [adopted(front, *one) for one in held]
