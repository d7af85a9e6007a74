"""single - one connection, from the command line to its end

    couriertls -server -tcpd [-user=U] PROGRAM [ARGUMENT...]
    couriertls -server -remotefd=N -localfd=N [-statusfd=N] [-printx509=N]
    couriertls -host=H -port=P [-protocol=pop3] [-verify=DOMAIN] [PROGRAM...]

In this order: settings and certificates are read, by who started us; the handshake; PROGRAM is
started, with one end of a socketpair on descriptors 0 and 1, our 2, and no other; we become the
user of -user, and relay. Without PROGRAM and -localfd the clear text is on descriptors 0 and 1.

Messages go to -statusfd, or without it to descriptor 2. Reference: couriertcpd.md 12.2, 12.6.
"""

from __future__ import annotations

import os
import ssl
from _signal import SIG_DFL, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ, signal
from socket import socket, socketpair

from courierchain import daemon, log, programs
from courierchain.refusal import Refused, refusal
from courierchain.settings import Settings as ChainSettings
from couriertls import binding, certificates, client, peer, settings
from couriertls.connection import Connection, Limits, prepare
from couriertls.failure import Failure, failure
from couriertls.loop import Loop
from couriertls.options import Options
from couriertls.secrecy import keep_secret

OUTSIDE = 3  # descriptors from here on are not PROGRAM's
HIGHEST = 65536
UNCONFIGURED = "couriertls: TLS is not set up here; the log says why"


class Single:
    """The connection of a command line, and its asker; `run` gives the exit status."""

    __slots__ = ("_options", "_env", "_settings", "_variables", "_loop")

    def __init__(self, options: Options, env: dict[str, str]):
        self._options = options
        self._env = env
        self._variables: dict[str, str] | None = None
        self._loop = Loop()

    def run(self) -> int:
        keep_secret()
        try:
            if self._options.user:
                daemon.user_ids(self._options.user)
            context = self._context()
            network = self._network()
        except Refused as why:
            log.plain(str(why))
            self._write(self._options.statusfd, f"{UNCONFIGURED}\n")
            return 1
        except Failure as why:
            self.failed(why)
            return 1
        return self._relay(context, network)

    def _context(self) -> ssl.SSLContext:
        """Raises Refused."""
        try:
            server = self._options.server
            self._settings = settings.read(self._env, server=server)
            if not server:
                return client.context(self._settings, self._options)
            local = self._env.get("TCPLOCALIP", "")
            found = certificates.load(self._settings, all_names=False)
            found.log_keys()
            return found.context(local)
        except Refused as why:
            raise Refused(certificates.error(why)) from why

    def _network(self) -> socket:
        """The connection. Raises Refused and Failure."""
        number = self._options.remotefd
        if number is None:
            network = client.connect(self._options.host, self._options.port)
        else:
            network = adopt(number, "remotefd")
        if self._options.tcpd:
            os.dup2(2, 1)
        if self._options.protocol:
            client.ask_for_tls(network, self._options.protocol, self._settings.handshake_limit)
        prepare(network)
        return network

    def _relay(self, context: ssl.SSLContext, network: socket) -> int:
        options = self._options
        if options.localfd is None:
            plain, programs_end = socketpair()
        else:
            plain, programs_end = adopt(options.localfd, "localfd"), None
        connection = self._shake_hands(context, network, plain)
        if connection is None or self._variables is None:
            return 1
        if programs_end is not None:
            self._start(programs_end)
        if options.user:
            daemon.change_user(options.user)
            keep_secret()
        self._loop.run(lambda: connection.is_closed)
        return 0

    def _shake_hands(
        self, context: ssl.SSLContext, network: socket, plain: socket
    ) -> Connection | None:
        """None if there was nobody to shake hands with."""
        options, chain = self._options, ChainSettings(self._env)
        limits = Limits(
            self._settings.handshake_limit,
            chain.seconds("POP3_SEND_TIMEOUT"),
            lingers=options.statusfd is None,
        )
        try:
            tls = context.wrap_socket(
                network,
                server_side=options.server,
                do_handshake_on_connect=False,
                server_hostname=None if options.server else options.verify or options.host or None,
            )
        except (OSError, ValueError) as why:
            self.failed(failure(self._doing, why))
            return None
        address = self._env.get("TCPREMOTEIP", "")
        connection = Connection(self._loop, limits, address, tls, plain, self, self._doing)
        self._loop.run(lambda: connection.is_closed or self._variables is not None)
        return connection

    @property
    def _doing(self) -> str:
        return "accept" if self._options.server else "connect"

    def shaken(self, tls: ssl.SSLSocket, variables: dict[str, str]) -> None:
        """Raises Unusable."""
        self._write(self._options.printx509, peer.text(tls))
        self._write(self._options.statusfd, "")
        self._variables = variables
        if self._settings.debug:
            log.debug(f"couriertls: {variables[peer.PROTOCOL]}")

    def failed(self, why: Failure) -> None:
        line = why.line(self._env.get("TCPREMOTEIP", ""))
        if self._options.statusfd is None:
            log.plain(line)
        else:
            self._write(self._options.statusfd, f"{line}\n")
        self._write(self._options.printx509, "")

    def _write(self, descriptor: int | None, text: str) -> None:
        """To -statusfd or -printx509, which is then closed, unless it is one of the first three."""
        if descriptor is None:
            return
        try:
            os.write(descriptor, os.fsencode(text))
        except OSError:
            pass  # closed already, or nobody reads it
        if descriptor >= OUTSIDE:
            os.closerange(descriptor, descriptor + 1)

    def _start(self, end: socket) -> None:
        """Start PROGRAM, or what carries the clear text to our own descriptors 0 and 1."""
        assert self._variables is not None
        if os.fork() == 0:
            try:
                os.dup2(end.fileno(), OUTSIDE)
                os.closerange(OUTSIDE + 1, HIGHEST)
                if self._options.program:
                    become_program(self._options.program, environment(self._env, self._variables))
                else:
                    client.carry(socket(fileno=OUTSIDE))
            finally:
                os._exit(1)
        end.close()
        # A connection is over when everybody has closed it.
        daemon.to_null((0,) if self._options.tcpd else (0, 1))


def adopt(number: int, option: str) -> socket:
    """A socket that came as a descriptor; of 0, 1 and 2 a copy is taken. Raises Refused."""
    try:
        if number >= OUTSIDE:
            return socket(fileno=number)
        copy = socket(fileno=os.dup(number))
        daemon.to_null((number,))
        return copy
    except OSError as why:
        raise refusal(f"couriertls: -{option}={number}", why) from why


def environment(env: dict[str, str], variables: dict[str, str]) -> dict[str, str]:
    """The environment of PROGRAM: what was inherited of such variables is none of this client's."""
    kept = {
        name: value
        for name, value in env.items()
        if not name.startswith((peer.PREFIX, binding.PREFIX)) and name != peer.PROTOCOL
    }
    return {**kept, **variables}


def become_program(argv: list[str], env: dict[str, str]) -> None:
    """Execute it, with descriptor 3 on 0 and 1. Returns if it can't be.

    Never a resident program: what TLS knows is in this process's memory.
    """
    for descriptor in (0, 1):
        os.dup2(OUTSIDE, descriptor)
    os.closerange(OUTSIDE, OUTSIDE + 1)
    for caught in (SIGPIPE, SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGXFSZ):
        signal(caught, SIG_DFL)
    path = programs.locate(argv[0], env)
    if path is None:
        log.plain(f"{argv[0]}: No such file or directory")
        return
    try:
        os.execve(path, [path, *argv[1:]], env)
    except (OSError, ValueError) as why:
        log.plain(f"{argv[0]}: {why.strerror if isinstance(why, OSError) else why}")
