"""listener - wait for clients, signals and workers, and act on each in turn

Signal handlers only note the signal; the loop then calls handle_sigchld, handle_sigterm,
handle_sighup, handle_sigusr2. Nothing here may stop it: no descriptor or no process left for a
client is logged, once a minute, and tried again after a pause (F-NET-5, F-NET-6). While all places
are taken nobody is accepted: clients wait in the kernel's queue (reference couriertcpd.md 5, 6).
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from functools import partial
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket
from time import monotonic

from courierchain import log
from courierchain.processors import Processors
from couriertcpd.access import Access, Denied
from couriertcpd.arrival import Arrival
from couriertcpd.children import Children
from couriertcpd.encryption import Relay
from couriertcpd.front import Fronts
from couriertcpd.limits import Limits
from couriertcpd.lookups import Lookups
from couriertcpd.parkinglot import Terms
from couriertcpd.proxies import Proxies
from couriertcpd.queue import Queue
from couriertcpd.reload import Inheritance, Reload
from couriertcpd.systemd import Notifier
from couriertcpd.throttle import TOO_MANY_FAILURES, Throttle
from couriertcpd.worker import Serve

PAUSE = 0.2  # seconds without accepting after the system had nothing left
BATCH = 8  # clients accepted in a row
TICK = 5.0  # seconds after which workers that wait too long are looked for
LEAVING = 5.0  # seconds that a reload waits for headers and handshakes of clients
QUIET = 60.0  # seconds between two log lines about the same shortage
PASSING = (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM)


class Listener:
    def __init__(
        self,
        sockets: list[socket],
        proxies: Proxies,
        access: Access,
        limits: Limits,
        lookups: Lookups | None,
        tls: Relay | None,
        throttle: Throttle | None,
        serve: Serve,
        *,
        prefork: int,
        uses: int,
        most_idle: int,
        terms: Terms | None,
        fronts: Fronts | None,
        notifier: Notifier,
        reload: Reload,
        before: Inheritance | None,
    ):
        """before: what goes on from before a reload."""
        self._sockets = sockets
        self._proxies = proxies
        self._access = access
        self._limits = limits
        self._lookups = lookups
        self._tls = tls
        self._throttle = throttle
        self._fronts = fronts
        self._notifier = notifier
        self._reload = reload
        self._epoll = select.epoll()
        self._queue = Queue(Processors())
        self._callbacks: dict[int, Callable[[], object]] = {}  # by descriptor
        self._signals: list[int] = []
        self._accepting = False
        self._resume = 0.0  # when clients are accepted again
        self._leave = 0.0  # when this process executes itself at the latest; 0: it needn't
        self._refill = 0.0  # when workers are forked again
        self._complained: dict[str, float] = {}
        watching = (self._watch, self._unwatch)
        self._children = Children(
            *(serve, limits, *watching),
            prefork=prefork,
            uses=uses,
            most_idle=most_idle,
            tls=tls,
            terms=terms,
            fronts=fronts,
        )
        if before:
            self._children.adopt(before.sessions, before.parked)
        self._epoll.register(self._children.parked, select.EPOLLIN)  # resumed at each turn
        proxies.serve(*watching, self._introduce)
        if lookups:
            lookups.serve(*watching, self._looked_up)
        if fronts:
            fronts.serve(*watching, self._queue.add, self._encrypt_late, self._has_left)
            if before:
                self._adopt(fronts, before)
        if tls and fronts and tls.on_demand:
            tls.serve(*watching, fronts.secured, fronts.lost)
        elif tls:
            tls.serve(*watching, self._dispatch, self._release)
        if throttle:
            self._watch(throttle.socket, throttle.heard)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status."""
        self._catch_signals()
        self._open_control()
        self._children.reap()  # who ended while this process executed itself
        self._notifier.ready()
        while True:
            self._replenish()
            self._accept_or_not()
            for descriptor, _ in self._epoll.poll(self._patience()):
                if callback := self._callbacks.get(descriptor):
                    callback()
            self._children.resume()
            self._serve_next()
            while self._signals:
                if self._HANDLERS[self._signals.pop(0)](self):
                    return 0
            self._notifier.turn(self._limits.total, self._limits.maxprocs)
            self._execute_if_due()

    def _adopt(self, fronts: Fronts, before: Inheritance) -> None:
        for front in before.fronts:
            for arrival in fronts.adopt(*front):
                self._limits.take(arrival.address)

    def _execute_if_due(self) -> None:
        """After a reload's trial: as soon as everybody who has been accepted has a process."""
        if not self._leave:
            return
        rooms = (self._proxies, self._lookups, self._tls)
        waiting = self._queue or any(room and room.waiting for room in rooms)
        if not waiting or monotonic() >= self._leave:
            self._leave = 0.0
            serving = self._children.retire()
            fronts = self._fronts.all() if self._fronts else []
            held = [(front.channel, front.serial, front.packed()) for front in fronts]
            self._reload.execute(serving, self._children.packed(), held, self._signals)
            self._notifier.ready()  # it could not be

    def _catch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self._HANDLERS:
            signal.signal(number, lambda caught, _: self._signals.append(caught))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._HANDLERS)
        self._callbacks[reader] = partial(os.read, reader, 512)
        self._epoll.register(reader, select.EPOLLIN)

    def _open_control(self) -> None:
        self._reload.open()
        if self._reload.control:
            self._watch(self._reload.control, self._hear_control)

    def _hear_control(self) -> None:
        if self._reload.answer():
            self._notifier.reloading()

    def handle_sigchld(self) -> bool:
        for pid, status in self._children.reap():
            passed = self._reload.is_settled(pid, status)
            if passed:
                self._leave = monotonic() + LEAVING
            elif passed is False:
                self._notifier.ready()
        return False

    def handle_sighup(self) -> bool:
        self._notifier.reloading()
        self._access.reload()
        self._notifier.ready()
        return False

    def handle_sigusr2(self) -> bool:
        if self._reload.begin():
            self._notifier.reloading()
        return False

    def handle_sigterm(self) -> bool:
        self._notifier.stopping()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        return True

    _HANDLERS: dict[int, Callable[[Listener], bool]] = {
        signal.SIGCHLD: handle_sigchld,
        signal.SIGHUP: handle_sighup,
        signal.SIGINT: handle_sigterm,
        signal.SIGTERM: handle_sigterm,
        signal.SIGUSR2: handle_sigusr2,
    }

    def _accept(self, listening: socket) -> None:
        """Accept who is waiting, then find a process for each: between two forks the less happens
        the better, because each leaves the parent to copy every page that it writes to."""
        admitted: list[Arrival] = []
        for _ in range(BATCH):
            if self._is_full():
                break
            try:
                arrival = Arrival(*listening.accept())
            except OSError as why:
                if why.errno not in PASSING:
                    self._shortage("accept", why)
                break
            if not self._proxies.take(arrival) and self._admit(arrival):
                admitted.append(arrival)
        for arrival in admitted:
            self._look_up(arrival)

    def _introduce(self, arrival: Arrival) -> None:
        """A proxy has said whose connection it is."""
        if self._admit(arrival):
            self._look_up(arrival)

    def _admit(self, arrival: Arrival) -> bool:
        """Whether there is to be a session; it is told what the access file has for it."""
        admitted = self._may_come_in(arrival)
        if not admitted:
            arrival.client.close()
        for line in self._limits.notices():
            log.plain(line)
        return admitted

    def _may_come_in(self, arrival: Arrival) -> bool:
        try:
            arrival.variables.update(self._access.admit(arrival.address, arrival.client))
        except Denied as why:
            reply(arrival.client, why.reply)
            return False
        if self._throttle and self._throttle.refuses(arrival.address, arrival.variables):
            reply(arrival.client, TOO_MANY_FAILURES)
            return False
        maxperip = self._access.maxperip(arrival.variables)
        return self._limits.admit(arrival.address, maxperip) is None

    def _look_up(self, arrival: Arrival) -> None:
        if self._lookups:
            self._lookups.take(arrival)
        else:
            self._encrypt(arrival)

    def _looked_up(self, arrival: Arrival) -> None:
        """The DNS has been asked about an admitted client."""
        try:
            self._access.drop_blocked(arrival.address, arrival.variables)
        except Denied as why:
            self._release(arrival)
            reply(arrival.client, why.reply)
            arrival.client.close()
            return
        self._encrypt(arrival)

    def _encrypt(self, arrival: Arrival) -> None:
        if self._tls is None or self._tls.on_demand:
            self._dispatch(arrival)
            return
        try:
            self._tls.take(arrival)
        except OSError as why:
            arrival.client.close()
            self._release(arrival)
            self._complain("couriertls", why)

    def _encrypt_late(self, arrival: Arrival) -> None:
        """A client of the front's has said STLS."""
        assert self._fronts
        try:
            if self._tls is None or not self._tls.on_demand:
                raise OSError(errno.EPIPE, "there is no relay")
            self._tls.take(arrival)
        except OSError as why:
            arrival.client.close()
            self._fronts.lost(arrival)
            self._complain("couriertls", why)

    def _has_left(self, arrival: Arrival) -> None:
        """A client of the front's is there no more, perhaps in the middle of a handshake."""
        if self._tls and self._tls.on_demand:
            self._tls.cancel(arrival)
        self._release(arrival)

    def _dispatch(self, arrival: Arrival) -> None:
        if self._fronts and self._fronts.hold(arrival):
            arrival.client.close()
        else:
            self._queue.add(arrival)

    def _serve_next(self) -> None:
        """Find processes for those whose turn it is."""
        while arrival := self._queue.next(self._children.serving):
            try:
                self._children.dispatch(arrival)
            except OSError as why:
                self._release(arrival)
                self._shortage("fork", why)
            arrival.client.close()

    def _release(self, arrival: Arrival) -> None:
        self._limits.release(arrival.address)

    def _replenish(self) -> None:
        self._proxies.expire()
        if self._lookups:
            self._lookups.keep_up()
        if self._tls:
            self._tls.keep_alive()
        if self._fronts:
            self._fronts.keep_alive()
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

    def _is_full(self) -> bool:
        # Who waits for a proxy's header has no place yet: there are as many of these at the most.
        return self._limits.full or self._proxies.waiting >= self._limits.maxprocs

    def _accept_or_not(self) -> None:
        accepting = not self._is_full() and not self._leave and monotonic() >= self._resume
        if accepting != self._accepting:
            for sock in self._sockets:
                if accepting:
                    self._watch(sock, partial(self._accept, sock))
                else:
                    self._unwatch(sock)
            self._accepting = accepting

    def _patience(self) -> float:
        patience = TICK
        if self._leave or monotonic() < max(self._resume, self._refill):
            patience = PAUSE
        if self._lookups:
            patience = min(patience, self._lookups.patience())
        if self._fronts:
            patience = min(patience, self._fronts.patience())
        patience = self._children.parked.patience(min(patience, self._queue.patience()))
        return min(patience, self._notifier.patience or TICK)

    def _watch(
        self, sock: socket, callback: Callable[[], None], events: int = select.EPOLLIN
    ) -> None:
        self._callbacks[sock.fileno()] = callback
        self._epoll.register(sock, events)

    def _unwatch(self, sock: socket) -> None:
        del self._callbacks[sock.fileno()]
        self._epoll.unregister(sock)


def reply(client: socket, text: bytes) -> None:
    """Nobody waits for the client: it has room for a line, or goes without."""
    try:
        client.send(text, MSG_DONTWAIT | MSG_NOSIGNAL)
    except OSError:
        pass
