"""connection - one client: the handshake, both directions, and a decent end

    network ---- SSL ----> in  ----> plain      the program's end of a UNIX socketpair is beyond
            <---- SSL ---- out <----

What is read and can't be passed on at once is kept, at most loop.PIECE octets, and nothing more is
read on that side until it is gone. While nothing is kept a connection has no buffer of its own.

The end (reference couriertcpd.md 12.2):

    the program closes        what it has sent is sent, then close_notify and FIN; what the client
                              still says is read and dropped until it closes too, 10 seconds at most
    the client closes         the program reads what there is, then the end; what it has to say to
                              that is sent. Without close_notify it is the same: a client that
                              vanishes has not said QUIT (8314-05)
    the connection breaks     both are closed
    the client takes nothing  of what there is, for POP3_SEND_TIMEOUT seconds: both are closed
    the handshake fails       or takes too long: the alert, FIN, and the same 10 seconds

TLS 1.3 and 1.2 without renegotiation never wait for input in order to write.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from socket import (
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_WR,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)
from typing import Protocol

from courierchain import log
from couriertls import binding, peer
from couriertls.failure import Failure, failure, timeout
from couriertls.loop import PIECE, Loop

RECORD = 16384  # octets: the most that TLS gives at a time
TURNS = 8  # pieces of one connection before the others have their turn
LINGER = 10.0  # seconds
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"  # fatal, protocol_version (RFC 8446, 6)
SHAKING, RELAYING, LINGERING, CLOSED = range(4)


class Asker(Protocol):
    """Who is told when the handshake is over: once `shaken`, or `failed`; or `failed` because
    `shaken` has found fault with the client's certificate."""

    def shaken(self, tls: ssl.SSLSocket, variables: dict[str, str]) -> None:
        """variables: for the environment. Raises Failure, Unusable or OSError."""

    def failed(self, why: Failure) -> None: ...


class Limits:
    """Seconds: of a handshake, and that output may be left untaken. lingers: False if others share
    the connection, and close it themselves when the handshake has failed."""

    __slots__ = ("handshake", "send", "lingers")

    def __init__(self, handshake: float, send: float, lingers: bool = True):
        self.handshake = handshake
        self.send = send
        self.lingers = lingers


class Connection:
    """address: TCPREMOTEIP, for the log. doing: accept or connect. It owns both sockets."""

    __slots__ = (
        *("_loop", "_limits", "_address", "_network", "_plain", "_asker", "_doing", "_phase"),
        "_secret",
        *("_in", "_out", "_network_ended", "_plain_ended", "_deaf", "_read_waits_to_write"),
    )

    def __init__(
        self,
        loop: Loop,
        limits: Limits,
        address: str,
        network: ssl.SSLSocket,
        plain: socket,
        asker: Asker,
        doing: str = "accept",
    ):
        self._loop = loop
        self._limits = limits
        self._address = address
        self._network: socket = network
        self._plain = plain
        self._asker: Asker | None = asker
        self._doing = doing
        self._phase = SHAKING
        self._secret = b""  # until the handshake is over: what channel bindings are made of
        self._in: memoryview | None = None  # what the program hasn't taken yet
        self._out: memoryview | None = None  # what the client hasn't
        self._network_ended = False
        self._plain_ended = False
        self._deaf = False  # the program hears no more
        self._read_waits_to_write = False
        plain.setblocking(False)
        loop.connections.add(self)
        loop.limit(self, limits.handshake)
        self._shake()

    @property
    def is_closed(self) -> bool:
        return self._phase == CLOSED

    def expire(self) -> None:
        if self._phase == SHAKING:
            self._fail(timeout(self._doing))
        elif self._phase == RELAYING:
            self._break(timeout("write"))
        else:
            self._close()

    # The handshake

    def give_up(self) -> None:
        """End it, if it isn't over."""
        if self._phase == SHAKING:
            self._fail(Failure(f"couriertls: {self._doing}: the relay has ended"))

    def _shake(self) -> None:
        tls = self._tls
        try:
            self._take_step(tls)
            variables = {**peer.variables(tls), **binding.variables(tls, self._secret)}
            self._secret = b""
            if self._asker:
                self._asker.shaken(tls, variables)
        except ssl.SSLWantReadError:
            self._loop.watch(self._network.fileno(), EPOLLIN, self._network_ready)
        except ssl.SSLWantWriteError:
            self._loop.watch(self._network.fileno(), EPOLLOUT, self._network_ready)
        except (Failure, OSError, ValueError) as why:
            self._fail(failure(self._doing, why))
        else:
            self._asker = None
            self._loop.limit(self, None)
            self._phase = RELAYING
            self._settle()

    def _take_step(self, tls: ssl.SSLSocket) -> None:
        """As far as the handshake comes now. Raises OSError."""
        try:
            tls.do_handshake()
        finally:
            self._secret = binding.logged_secret() or self._secret

    @property
    def _tls(self) -> ssl.SSLSocket:
        assert isinstance(self._network, ssl.SSLSocket)
        return self._network

    def _fail(self, why: Failure) -> None:
        if why.needs_alert:
            send_alert(self._network)
        asker, self._asker = self._asker, None
        if asker:
            asker.failed(why)
        if self._limits.lingers:
            self._linger()
        else:
            self._close()

    # Both directions

    def _network_ready(self, events: int) -> None:
        if self._phase == SHAKING:
            self._shake()
            return
        if self._phase == LINGERING:
            self._drop_input()
            return
        try:
            if self._out is not None:
                self._send(self._out)
            if self._hears and self._may_read(events):
                self._inward()
        except (OSError, ValueError) as why:
            self._break(failure("read", why))
        self._settle()

    @property
    def _hears(self) -> bool:
        return not (self._network_ended or self._deaf) and self._in is None

    def _may_read(self, events: int) -> bool:
        return self._read_waits_to_write or bool(events & ~EPOLLOUT)

    def _plain_ready(self, events: int) -> None:
        if self._in is not None:
            self._deliver(self._in)
        try:
            if not self._plain_ended and self._out is None and events & ~EPOLLOUT:
                self._outward()
        except (OSError, ValueError) as why:
            self._break(failure("write", why))
        self._settle()

    def _inward(self) -> None:
        """From the client to the program. Raises OSError.

        TLS keeps nothing back that fits into the buffer, so epoll knows of all that is left.
        """
        tls, view = self._tls, self._loop.view
        self._read_waits_to_write = False
        for _ in range(TURNS):
            try:
                size = tls.recv_into(view)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self._read_waits_to_write = True
                return
            if not size:
                self._network_ended = True
                return
            self._deliver(view[:size])
            if size < RECORD or not self._hears:
                return

    def _deliver(self, octets: memoryview) -> None:
        """Give the program what there is, and keep the rest; if it hears no more, drop it."""
        try:
            sent = self._plain.send(octets, MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._deaf, sent = True, len(octets)  # what it has said before is still to be sent
        self._in = kept(octets, sent, self._in)

    def _outward(self) -> None:
        """From the program to the client. Raises OSError."""
        view = self._loop.view
        for _ in range(TURNS):
            try:
                size = self._plain.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                size = 0  # it has closed, and left unread what we gave it
            if not size:
                self._plain_ended = True
                return
            self._send(view[:size])
            if self._out is not None or size < PIECE:
                return

    def _send(self, octets: memoryview) -> None:
        """Give the client what there is, and keep the rest. Raises OSError."""
        tls = self._tls
        size, sent = len(octets), 0
        try:
            while sent < size:
                sent += tls.send(octets[sent:])
        except ssl.SSLWantWriteError:
            pass
        if sent or self._out is None:
            self._loop.limit(self, self._limits.send if sent < size else None)
        self._out = kept(octets, sent, self._out)

    def _settle(self) -> None:
        """See to the end of either side, and wait for what can happen next."""
        if self._phase != RELAYING:
            return
        if self._plain_ended and self._out is None:
            self._say_goodbye()
            return
        if self._network_ended and self._in is None and not self._plain_ended:
            end_output(self._plain)
        reads = self._hears and not self._read_waits_to_write
        writes = self._out is not None or self._read_waits_to_write
        self._watch(self._network, reads, writes, self._network_ready)
        reads = not self._plain_ended and self._out is None
        self._watch(self._plain, reads, self._in is not None, self._plain_ready)

    def _watch(self, side: socket, reads: bool, writes: bool, ready: Callable[[int], None]) -> None:
        mask = (EPOLLIN if reads else 0) | (EPOLLOUT if writes else 0)
        self._loop.watch(side.fileno(), mask, ready)

    # The end

    def _say_goodbye(self) -> None:
        """close_notify; comes again when there is room for it."""
        self._in = None
        self._loop.watch(self._plain.fileno(), 0, self._plain_ready)
        try:
            self._tls.unwrap()
        except ssl.SSLWantWriteError:
            self._loop.limit(self, LINGER)
            self._watch(self._network, False, True, self._network_ready)
            return
        except (OSError, ValueError):
            pass  # sent, and not answered yet; or there is nobody any more
        if self._network_ended:
            self._close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close in a way that lets the client read all that was sent: with input unread the
        connection would be reset."""
        self._phase = LINGERING
        self._in = self._out = None
        self._close_plain()
        self._loop.watch(self._network.fileno(), 0, self._network_ready)
        family, kind = self._network.family, self._network.type
        self._network = socket(family, kind, 0, fileno=self._network.detach())
        end_output(self._network)
        self._loop.limit(self, LINGER)
        self._watch(self._network, True, False, self._network_ready)

    def _drop_input(self) -> None:
        try:
            if self._network.recv_into(self._loop.view, 0, MSG_DONTWAIT):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close()

    def _break(self, why: Failure) -> None:
        if not why.is_noise:
            log.plain(why.line(self._address))
        self._close()

    def _close(self) -> None:
        if self._phase == CLOSED:
            return
        self._phase = CLOSED
        self._loop.connections.discard(self)
        self._in = self._out = None
        self._close_plain()
        self._loop.limit(self, None)
        self._loop.watch(self._network.fileno(), 0, self._network_ready)
        self._network.close()

    def _close_plain(self) -> None:
        if self._plain.fileno() >= 0:
            self._loop.watch(self._plain.fileno(), 0, self._plain_ready)
            self._plain.close()


def kept(octets: memoryview, done: int, before: memoryview | None) -> memoryview | None:
    """What is left, in memory of its own; None if nothing is. before: what was kept already, of
    which `octets` then is all that is left."""
    if done == len(octets):
        return None
    rest = octets[done:]
    return rest if before is not None else memoryview(bytes(rest))


def send_alert(network: socket) -> None:
    try:
        os.write(network.fileno(), ALERT)
    except OSError:
        pass  # gone


def end_output(side: socket) -> None:
    try:
        side.shutdown(SHUT_WR)
    except OSError:
        pass  # the other end has gone


def prepare(network: socket) -> None:
    """Make a connection one that doesn't block, notices a peer that has vanished, and sends small
    records at once."""
    network.setblocking(False)
    for level, option in ((SOL_SOCKET, SO_KEEPALIVE), (IPPROTO_TCP, TCP_NODELAY)):
        try:
            network.setsockopt(level, option, 1)
        except OSError:
            pass  # not TCP
