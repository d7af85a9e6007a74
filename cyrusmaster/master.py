"""master - the loop: it starts workers, hears what they do, and takes leave of them

Signal handlers only note the signal; the loop then calls handle_sighup, handle_sigterm, ....

    SIGHUP     cyrus.conf is read again, and the signal passed on to all workers: those that wait
               leave and are replaced, the others finish their session. What is wrong with the file
               is one line of log, and all stays as it was
    SIGTERM    is the end of all workers; those left after 10 seconds get SIGKILL. So are SIGINT and
               SIGQUIT
    SIGCHLD    what the worker has said last is read, and then it is gone

Each socket of a service has a `Pool`, which says whom to start; a daemon has one without a socket.
Clients are never accepted here: a socket is only watched while nobody else waits for a client.
Reference: cyrus-pop3d.md 3.
"""

from __future__ import annotations

import os
import signal
from array import array
from collections.abc import Callable
from math import ceil
from select import POLLIN, poll
from socket import SHUT_RDWR, socket
from time import monotonic

from courierchain.daemon import park
from cyrusmaster import child
from cyrusmaster.places import Place, Unusable, listening, places
from cyrusmaster.pool import Pool
from cyrusmaster.services import Service

CAUGHT = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
KILL_AFTER = 10.0  # seconds
FORK_AGAIN = 1.0  # seconds until the system is asked again for what it refused
MESSAGE = 8  # octets: two C ints, the message and the process that sends it
PIECE = 4096

Environment = dict[str, str]
Say = Callable[[str], None]
Read = Callable[[], list[Service]]


class Post:
    """A pool with its socket and its pipe; a daemon has neither."""

    __slots__ = ("service", "number", "pool", "key", "socket", "reader", "writer", "is_watched")

    def __init__(
        self, service: Service, number: int, pool: Pool, key: object, sock: socket | None = None
    ):
        self.service = service
        self.number = number
        self.pool = pool
        self.key = key
        self.socket = sock
        self.reader = self.writer = -1
        self.is_watched = False
        if sock:
            self.reader, self.writer = map(park, os.pipe2(os.O_NONBLOCK))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.writer, self.socket.fileno()) if self.socket else ()


class Master:
    """services: what to run. read: reads cyrus.conf again; raises ValueError with a line for the
    log. say: takes a log line. Signals are caught from here on."""

    def __init__(
        self, services: list[Service], read: Read, env: Environment, backlog: int, say: Say
    ):
        self._read = read
        self._env = env
        self._backlog = backlog
        self._say = say
        self._posts: list[Post] = []
        self._leaving: list[Post] = []  # without a socket; their last workers are not waited for
        self._kill_at: float | None = None  # SIGTERM has come
        self._signals: list[int] = []
        self._poll = poll()
        self._reads: dict[int, Callable[[], None]] = {}
        self._catch_signals()
        self._take(services)

    @property
    def has_work(self) -> bool:
        return bool(self._posts)

    def _catch_signals(self) -> None:
        reader, writer = map(park, os.pipe2(os.O_NONBLOCK))
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, lambda caught, _: self._signals.append(caught))
        self._on(reader, lambda: os.read(reader, 512))

    def _on(self, descriptor: int, do: Callable[[], object]) -> None:
        """Have `do` called whenever the descriptor is readable."""
        self._reads[descriptor] = do  # type: ignore[assignment]
        self._poll.register(descriptor, POLLIN)

    def _off(self, descriptor: int) -> None:
        del self._reads[descriptor]
        self._poll.unregister(descriptor)

    def run(self) -> int:
        """Until SIGTERM has ended all; the exit status."""
        while self._kill_at is None or self._pids():
            if self._kill_at is None:
                self._start_workers()
            for descriptor, _ in self._poll.poll(self._patience()):
                if descriptor in self._reads:
                    self._reads[descriptor]()
            while self._signals:
                self._HANDLERS[self._signals.pop(0)](self)
            if self._kill_at is not None and monotonic() >= self._kill_at:
                self._signal_all(signal.SIGKILL)
                self._kill_at = monotonic() + KILL_AFTER
        self._say("INFO: all children have exited, closing down")
        return 0

    def _patience(self) -> int | None:
        """Milliseconds to the next thing to be done by the clock."""
        now = monotonic()
        if self._kill_at is not None:
            times = [self._kill_at]
        else:
            dues = [post.pool.wake_at(now) for post in self._posts]
            times = [due for due in dues if due is not None]
        return max(0, ceil(1000 * (min(times) - now))) if times else None

    def _pids(self) -> list[int]:
        return [pid for post in (*self._posts, *self._leaving) for pid in post.pool.workers]

    def _start_workers(self) -> None:
        for post in self._posts:
            for _ in range(post.pool.wanted(monotonic())):
                if post.pool.wanted(monotonic()):  # a fork may have used up the rate
                    self._start(post)
            self._watch(post, post.pool.watches(monotonic()))

    def _watch(self, post: Post, wanted: bool) -> None:
        """Look at the door, or leave that to the workers."""
        if post.socket is None or post.is_watched == wanted:
            return
        post.is_watched = wanted
        if wanted:
            self._on(post.socket.fileno(), lambda: self._knock(post))
        else:
            self._off(post.socket.fileno())

    def _knock(self, post: Post) -> None:
        """A client is at the door, and who has just become free takes him."""
        self._hear(post)
        if post.pool.watches(monotonic()) and self._kill_at is None:
            self._start(post)

    def _start(self, post: Post) -> None:
        """Fork one worker."""
        env = child.environment(post.service, post.number, self._env)
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)  # until the child's are at their defaults
        try:
            pid = os.fork()
            if pid == 0:
                child.become(post.service, env, CAUGHT, post.descriptors)
            post.pool.started(pid, monotonic())
        except OSError as why:
            self._say(f"ERR: {post.pool.shown}: fork: {why.strerror}")
            post.pool.hold(monotonic() + FORK_AGAIN)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)

    def _hear(self, post: Post) -> None:
        """What workers have said."""
        try:
            octets = os.read(post.reader, PIECE)
        except BlockingIOError:
            return
        if len(octets) % MESSAGE:
            self._say(f"ERR: {post.pool.shown}: {len(octets)} octets are no messages; dropped")
            return
        numbers = array("i", octets)
        for message, pid in zip(numbers[::2], numbers[1::2], strict=True):
            post.pool.told(pid, message)

    def handle_sigchld(self) -> None:
        """A worker is heard to the end before it is gone."""
        while ended := self._next_ended():
            for post in (*self._posts, *self._leaving):
                if ended.si_pid in post.pool.workers:
                    self._hear_out(post)
                    code = os.waitstatus_to_exitcode(os.waitpid(ended.si_pid, 0)[1])
                    post.pool.ended(ended.si_pid, code, monotonic())
                    break
            else:
                os.waitpid(ended.si_pid, 0)
        for post in [post for post in self._leaving if not post.pool.workers]:
            self._forget(post)
        for post in self._posts:
            if post.pool.is_closed:
                self._close(post)

    @staticmethod
    def _next_ended():  # type: ignore[no-untyped-def]  # waitid's result
        try:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None

    def _hear_out(self, post: Post) -> None:
        ready = poll()
        if post.socket or post.reader >= 0:
            ready.register(post.reader, POLLIN)
        while ready.poll(0):
            self._hear(post)

    def _close(self, post: Post) -> None:
        """Nobody is served there any more; those who are being served stay."""
        if post.socket:
            self._watch(post, False)
            try:
                post.socket.shutdown(SHUT_RDWR)  # workers hold it too
            except OSError:
                pass
            post.socket.close()
            post.socket = None

    def _forget(self, post: Post) -> None:
        self._leaving.remove(post)
        if post.reader >= 0:
            self._off(post.reader)
            os.close(post.reader)
            os.close(post.writer)

    def handle_sighup(self) -> None:
        if self._kill_at is not None:
            return
        try:
            services = self._read()
        except ValueError as why:
            self._say(f"ERR: {why}; all stays as it was")
            return
        self._signal_all(signal.SIGHUP)
        self._take(services)
        self._say("INFO: configuration read again")

    def _take(self, services: list[Service]) -> None:
        """Run these, and no others."""
        before = {post.key: post for post in self._posts if post.socket or not post.service.listen}
        closed = [post for post in self._posts if post.key not in before]
        wanted: list[tuple[Service, int, Place | None]] = []
        for service in services:
            try:
                found = places(service) if service.listen else [None]
            except Unusable as why:
                self._say(f"ERR: {why}; this service does not run")
                continue
            wanted += [(service, number, place) for number, place in enumerate(found)]
        kept = {key_of(service, place) for service, _, place in wanted}
        for post in (*closed, *(post for key, post in before.items() if key not in kept)):
            post.pool.close()
            self._close(post)
            self._leaving.append(post)
        self._posts = []
        for service, number, place in wanted:
            self._open(service, number, place, before)
        for post in [post for post in self._leaving if not post.pool.workers]:
            self._forget(post)

    def _open(
        self,
        service: Service,
        number: int,
        place: Place | None,
        before: dict[object, Post],
    ) -> None:
        """Go on with what there was before, or begin."""
        key = key_of(service, place)
        post = before.get(key)
        if post in self._posts:
            self._say(f"ERR: {service.place}: {service.name}: another service listens there")
            return
        if post:
            post.service, post.number = service, number
            post.pool.shown = place.shown if place else service.name
            post.pool.change(service)
            self._posts.append(post)
            return
        try:
            sock = listening(place, self._backlog) if place else None
        except Unusable as why:
            self._say(f"ERR: {why}")
            return
        shown = place.shown if place else service.name
        post = Post(service, number, Pool(shown, service, self._say), key, sock)
        if sock:
            self._on(post.reader, lambda: self._hear(post))
        self._posts.append(post)

    def handle_end(self) -> None:
        if self._kill_at is None:
            self._say("INFO: attempting clean shutdown on signal")
            self._kill_at = monotonic() + KILL_AFTER
            for post in self._posts:
                post.pool.close()
                self._close(post)
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for pid in self._pids():
            try:
                os.kill(pid, number)
            except OSError as why:
                self._say(f"ERR: cannot signal process {pid}: {why.strerror}")

    _HANDLERS: dict[int, Callable[[Master], None]] = {
        signal.SIGCHLD: handle_sigchld,
        signal.SIGHUP: handle_sighup,
        signal.SIGTERM: handle_end,
        signal.SIGINT: handle_end,
        signal.SIGQUIT: handle_end,
    }


def key_of(service: Service, place: Place | None) -> object:
    """What stays the same when a service goes on after SIGHUP."""
    return place.key if place else service.name
