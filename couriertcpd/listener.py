"""listener - wait for clients, signals and workers, and act on each in turn

Signal handlers only note the signal; the loop then calls handle_sigchld, handle_sigterm,
handle_sighup. Nothing here may stop it: no descriptor or no process left for a client is logged,
once a minute, and tried again after a pause (F-NET-5, F-NET-6). While all places are taken nobody
is accepted: clients wait in the kernel's queue (reference couriertcpd.md 5, 6).
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket
from time import monotonic

from courierchain import log
from couriertcpd.access import Access, Denied, Variables
from couriertcpd.children import Child, Children
from couriertcpd.limits import Limits
from couriertcpd.listen import address_bytes, peer_name
from couriertcpd.worker import Address, Serve

PAUSE = 0.2  # seconds without accepting after the system had nothing left
BATCH = 8  # clients accepted in a row
TICK = 5.0  # seconds after which workers that wait too long are looked for
QUIET = 60.0  # seconds between two log lines about the same shortage
PASSING = (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM)


class Listener:
    def __init__(
        self,
        sockets: list[socket],
        access: Access,
        limits: Limits,
        serve: Serve,
        *,
        prefork: int,
        uses: int,
    ):
        self._sockets = sockets
        self._access = access
        self._limits = limits
        self._epoll = select.epoll()
        self._channels: dict[int, Child] = {}
        self._signals: list[int] = []
        self._accepting = False
        self._resume = 0.0  # when clients are accepted again
        self._refill = 0.0  # when workers are forked again
        self._complained: dict[str, float] = {}
        self._children = Children(
            serve, limits, prefork=prefork, uses=uses, watch=self._watch, unwatch=self._unwatch
        )

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        wakeup = self._catch_signals()
        listening = {sock.fileno(): sock for sock in self._sockets}
        while True:
            self._replenish()
            self._accept_or_not()
            for descriptor, _ in self._epoll.poll(self._patience()):
                if descriptor in listening:
                    self._accept(listening[descriptor])
                elif descriptor in self._channels:
                    self._children.heard(self._channels[descriptor])
                elif descriptor == wakeup:
                    os.read(wakeup, 512)
            while self._signals:
                if self._HANDLERS[self._signals.pop(0)](self):
                    return 0

    def _catch_signals(self) -> int:
        """The descriptor that becomes readable when a signal has come."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self._HANDLERS:
            signal.signal(number, lambda caught, _: self._signals.append(caught))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        self._epoll.register(reader, select.EPOLLIN)
        return reader

    def handle_sigchld(self) -> bool:
        self._children.reap()
        return False

    def handle_sighup(self) -> bool:
        self._access.reload()
        return False

    def handle_sigterm(self) -> bool:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        return True

    _HANDLERS: dict[int, Callable[[Listener], bool]] = {
        signal.SIGCHLD: handle_sigchld,
        signal.SIGHUP: handle_sighup,
        signal.SIGINT: handle_sigterm,
        signal.SIGTERM: handle_sigterm,
    }

    def _accept(self, listening: socket) -> None:
        """Accept who is waiting, then find a process for each: between two forks the less happens
        the better, because each leaves the parent to copy every page that it writes to."""
        admitted: list[tuple[socket, Address, bytes, Variables]] = []
        for _ in range(BATCH):
            if self._limits.full:
                break
            try:
                client, sockaddr = listening.accept()
            except OSError as why:
                if why.errno not in PASSING:
                    self._shortage("accept", why)
                break
            address = address_bytes(sockaddr)
            variables = self._admit(client, address)
            if variables is None:
                client.close()
            else:
                remote = (peer_name(sockaddr), sockaddr[1])
                admitted.append((client, remote, address, variables))
            for line in self._limits.notices():
                log.plain(line)
        for client, remote, address, variables in admitted:
            self._dispatch(client, remote, address, variables)

    def _admit(self, client: socket, address: bytes) -> Variables | None:
        """What the access file has for the session; None if there is to be no session."""
        try:
            variables = self._access.admit(address, client)
        except Denied as why:
            reply(client, why.reply)
            return None
        refused = self._limits.admit(address, self._access.maxperip(variables))
        return variables if refused is None else None

    def _dispatch(
        self, client: socket, remote: Address, address: bytes, variables: Variables
    ) -> None:
        try:
            self._children.dispatch(client, remote, address, variables)
        except OSError as why:
            self._limits.release(address)
            self._shortage("fork", why)
        client.close()

    def _replenish(self) -> None:
        if monotonic() < self._refill:
            return
        try:
            self._children.replenish()
        except OSError as why:
            self._refill = monotonic() + PAUSE
            self._complain("fork", why)

    def _shortage(self, what: str, why: OSError) -> None:
        self._resume = monotonic() + PAUSE
        self._complain(what, why)

    def _complain(self, what: str, why: OSError) -> None:
        now = monotonic()
        if now > self._complained.get(what, now - QUIET - 1) + QUIET:
            self._complained[what] = now
            log.err(f"{what}: {why.strerror}")

    def _accept_or_not(self) -> None:
        accepting = not self._limits.full and monotonic() >= self._resume
        if accepting != self._accepting:
            for sock in self._sockets:
                if accepting:
                    self._epoll.register(sock, select.EPOLLIN)
                else:
                    self._epoll.unregister(sock)
            self._accepting = accepting

    def _patience(self) -> float:
        return PAUSE if monotonic() < max(self._resume, self._refill) else TICK

    def _watch(self, channel: socket, child: Child) -> None:
        self._channels[channel.fileno()] = child
        self._epoll.register(channel, select.EPOLLIN)

    def _unwatch(self, channel: socket) -> None:
        del self._channels[channel.fileno()]
        self._epoll.unregister(channel)


def reply(client: socket, text: bytes) -> None:
    """Nobody waits for the client: it has room for a line, or goes without."""
    try:
        client.send(text, MSG_DONTWAIT | MSG_NOSIGNAL)
    except OSError:
        pass
