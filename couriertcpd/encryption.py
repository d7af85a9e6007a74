"""encryption - TLS for the connections of a listener, by one relay

    couriertcpd 995 couriertls -server -tcpd [-user=USER] courierpop3login ...

If that couriertls is ours, it isn't started for each connection but once, as a relay (reference
couriertcpd.md 12; `courierchain.relay`). It gets each connection as it comes, and makes the
handshake; then a process is found for the session, with one end of a socketpair in the place of
the connection. A client that doesn't finish its handshake costs no process: it has its place in
the limits, until the relay's time limit (CVE-23, 2595-09).

The login programs of the same listener ask the relay too, for STLS. With -coldexec, or options of
couriertls beyond those above, it is a program like any other.

A relay that has gone is started again, for the next client at the latest; the handshakes that it
was at are lost.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from errno import EPIPE
from pwd import getpwnam
from select import EPOLLHUP, EPOLLIN, poll
from socket import AF_UNIX, SOCK_SEQPACKET, socket, socketpair
from time import monotonic

from courierchain import log, programs, relay
from courierchain.daemon import park
from courierchain.refusal import Refused
from couriertcpd.arrival import Arrival
from couriertcpd.installation import is_relay

PAUSE = 1.0  # seconds before a relay that has ended is started again
USERS = ("courier", "nobody")  # whom a relay becomes if nobody has been named: the first there is

Watch = Callable[[socket, Callable[[], None], int], None]


class Relay:
    """One relay, of the program at `path`; `user` is whom it becomes, where we are root.

    channel    to the relay; a login program may use a copy of it
    on_demand  whether it is for STLS; else all connections begin with a handshake
    """

    __slots__ = (
        *("channel", "on_demand", "_argv", "_env", "_again", "_waiting", "_serial"),
        *("_watch", "_unwatch", "_connected", "_lost"),
    )

    def __init__(self, path: str, user: str | None, env: dict[str, str], *, on_demand: bool):
        self.channel: socket | None = None
        self.on_demand = on_demand
        user = user or next((name for name in USERS if exists(name)), None)
        become = [f"-user={user}"] if user and os.geteuid() == 0 else []
        self._argv = [path, "-server", *become]
        self._env = env
        self._again = 0.0  # when it may be started again
        self._waiting: dict[bytes, tuple[Arrival, socket]] = {}  # with the session's end
        self._serial = 0

    def check(self) -> None:
        """Let the program say what is wrong with the settings. Raises Refused."""
        status = os.waitpid(self._spawn("-check", None), 0)[1]
        if status:
            raise Refused(f"{self._argv[0]}: no TLS with these settings")

    def start(self) -> None:
        """Raises OSError."""
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        with theirs:
            self._spawn("-relay", theirs)
        self.channel = socket(fileno=park(ours.detach()))
        self.channel.setblocking(False)

    def serve(
        self,
        watch: Watch,
        unwatch: Callable[[socket], None],
        connected: Callable[[Arrival], None],
        lost: Callable[[Arrival], None],
    ) -> None:
        """watch: has a socket looked at, and calls back when an event of those given comes.
        connected, lost: are called with a connection whose handshake is over."""
        self._watch, self._unwatch = watch, unwatch
        self._connected, self._lost = connected, lost
        self._hear()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, arrival: Arrival) -> None:
        """Make the handshake of an admitted connection, which is ours from now on. Raises OSError
        if that can't be."""
        ours, theirs = socketpair()
        ident = b"%x" % self._serial
        self._serial += 1
        with theirs:
            try:
                self._ask(ident, arrival, theirs.fileno())
            except OSError:
                ours.close()
                raise
        arrival.client.close()
        self._waiting[ident] = (arrival, ours)
        # The relay's own end goes if the relay goes.
        self._watch(ours, lambda: self._may_have_gone(ident), EPOLLHUP)

    def cancel(self, arrival: Arrival) -> None:
        """Let go of a connection, if its handshake is not over yet."""
        for ident, (waiting, ours) in self._waiting.items():
            if waiting is arrival:
                del self._waiting[ident]
                self._unwatch(ours)
                ours.close()
                return

    def _ask(self, ident: bytes, arrival: Arrival, plain: int) -> None:
        """Raises OSError if there is no relay, nor one to be had, or no room in its channel."""
        env = {"TCPREMOTEIP": arrival.remote[0], "TCPLOCALIP": arrival.local[0]}
        self.keep_alive()
        try:
            relay.ask(self._present(), ident, env, arrival.client.fileno(), plain)
        except (BrokenPipeError, ConnectionResetError):
            self._heard()  # its end, which nobody has told us yet
            relay.ask(self._present(), ident, env, arrival.client.fileno(), plain)

    def _present(self) -> socket:
        if self.channel is None:
            raise OSError(EPIPE, "the relay has gone")
        return self.channel

    def keep_alive(self) -> None:
        """Start it again if it has gone, and not just now."""
        if self.channel is None and monotonic() >= self._again:
            self._again = monotonic() + PAUSE
            try:
                self.start()
                self._hear()
            except OSError as why:
                log.err(f"{self._argv[0]}: {why.strerror}")

    def _hear(self) -> None:
        if self.channel:
            self._watch(self.channel, self._heard, EPOLLIN)

    def _heard(self) -> None:
        """There are answers, or the relay has gone."""
        if self.channel is None:
            return
        try:
            while message := self.channel.recv(relay.LARGEST):
                self._obey(relay.answered(message))
        except BlockingIOError:
            return
        except (OSError, relay.BadMessage):
            pass
        log.err(f"{self._argv[0]}: has ended; starting it again")
        self._unwatch(self.channel)
        self.channel.close()
        self.channel = None
        self.keep_alive()

    def _obey(self, answer: relay.Answer) -> None:
        if answer.ident not in self._waiting:
            return  # its plain end has gone already
        if not answer.connected:
            self._fail(answer.ident)
            return
        arrival, ours = self._waiting.pop(answer.ident)
        self._unwatch(ours)
        arrival.client = ours
        arrival.variables.update(answer.variables)
        self._connected(arrival)

    def _may_have_gone(self, ident: bytes) -> None:
        """An event may be that of a socket closed just now, whose number this one has got."""
        look = poll()
        look.register(self._waiting[ident][1], 0)
        if look.poll(0):
            self._fail(ident)

    def _fail(self, ident: bytes) -> None:
        arrival, ours = self._waiting.pop(ident)
        self._unwatch(ours)
        ours.close()
        self._lost(arrival)

    def _spawn(self, mode: str, channel: socket | None) -> int:
        moves = [(os.POSIX_SPAWN_DUP2, 2, 1)]
        if channel:
            moves.append((os.POSIX_SPAWN_DUP2, channel.fileno(), 0))
        defaults = [signal.SIGPIPE, signal.SIGHUP]
        argv = [*self._argv, mode]
        return os.posix_spawn(
            argv[0], argv, self._env, file_actions=moves, setsigmask=[], setsigdef=defaults
        )


def of_every_connection(program: list[str], env: dict[str, str]) -> tuple[Relay | None, list[str]]:
    """The relay that a command line asks for, if there is one, and the program behind it."""
    path = programs.locate(program[0], env)
    if path is None or not is_relay(path):
        return None, program
    options, rest = [], program[1:]
    while rest and rest[0].startswith("-"):
        options.append(rest.pop(0))
    users = [option[len("-user=") :] for option in options if option.startswith("-user=")]
    if not rest or {"-server", "-tcpd"} != set(options) - {f"-user={user}" for user in users}:
        return None, program
    return Relay(path, users[-1] if users else None, env, on_demand=False), rest


def on_demand(env: dict[str, str]) -> Relay | None:
    """The relay for STLS, if the settings offer it and the program that they name is ours."""
    if env.get("POP3_STARTTLS", "")[:1] not in ("y", "Y") or not env.get("TLS_CERTFILE"):
        return None
    path = programs.locate(env.get("COURIERTLS") or "couriertls", env)
    return Relay(path, None, env, on_demand=True) if path and is_relay(path) else None


def exists(user: str) -> bool:
    try:
        return bool(getpwnam(user))
    except KeyError:
        return False
