"""keeper - keep processes relaying, with the certificates as they are now

    couriertls -server -relay [-user=U]        requests come on descriptor 0: courierchain.relay

The keeper reads certificates and keys, as the user that started it, and forks TLS_RELAYS workers,
who become U before they see the first octet of a network; it reads none itself.

Once a second it looks whether a file of TLS_... has been changed, added or removed, and then reads
all of them: if they are good, it forks new workers, and tells the old ones to take no more requests
and to end with their last connection; if not, there is one ERR line, the old ones go on, and the
next change is waited for (8314-07). A worker that ends is replaced; not before a second has passed
if it has lived for less.

SIGHUP looks at the files now, SIGTERM ends everything at once. When nobody has the other end of
descriptor 0 any more, the workers end with their connections, and the keeper, with 0, after them.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from math import ceil
from select import POLLIN, poll
from socket import SO_TYPE, SOCK_SEQPACKET, SOL_SOCKET, socket
from time import monotonic

from courierchain import daemon, log
from courierchain.daemon import park
from courierchain.handover import where
from courierchain.refusal import Refused
from courierchain.settings import Settings as ChainSettings
from couriertls import certificates, settings
from couriertls.connection import Limits
from couriertls.options import Options
from couriertls.secrecy import keep_secret
from couriertls.worker import CHANNEL, RETIRE, Worker

LOOK_AGAIN = 1.0  # seconds between two looks at the files
SHORTEST_LIFE = 1.0  # seconds; a worker that has lived less is replaced so much later
CAUGHT = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
FORK_FAILED = "couriertls: fork"


class Keeper:
    __slots__ = (
        *("_options", "_env", "_settings", "_limits", "_certificates", "_stamp", "_workers"),
        *("_leashes", "_births", "_start_at", "_look_at", "_is_over", "_signals", "_poll"),
        *("_wakeup", "_wakeup_writer"),
    )

    def __init__(self, options: Options, env: dict[str, str]):
        """Raises Refused."""
        self._options = options
        self._env = env
        check_channel()
        if options.user:
            daemon.user_ids(options.user)
        keep_secret()
        try:
            self._settings = settings.read(env)
            self._stamp = certificates.stamp(self._settings)
            self._certificates = certificates.load(self._settings)
        except Refused as why:
            raise Refused(certificates.error(why)) from why
        send_limit = ChainSettings(env).seconds("POP3_SEND_TIMEOUT")
        self._limits = Limits(self._settings.handshake_limit, send_limit)
        self._workers: set[int] = set()  # all of them, by pid
        self._leashes: dict[int, int] = {}  # of those that take requests: pid, descriptor
        self._births: dict[int, float] = {}
        self._start_at = 0.0
        self._look_at = monotonic() + LOOK_AGAIN
        self._is_over = False  # nobody can ask any more
        self._signals: list[int] = []

    def run(self) -> int:
        """The exit status."""
        certificates.report(self._certificates.warnings)
        daemon.to_null((1,))
        self._poll = poll()
        self._wakeup = self._catch_signals()
        self._poll.register(self._wakeup, POLLIN)
        self._poll.register(CHANNEL, 0)  # its end is reported unasked
        self._fill_up()
        while self._workers or not self._is_over:
            for descriptor, _ in self._poll.poll(self._patience()):
                if descriptor == self._wakeup:
                    os.read(descriptor, 512)
                else:
                    self._poll.unregister(CHANNEL)
                    self._is_over = True
            while self._signals:
                self._HANDLERS[self._signals.pop(0)](self)
            self._keep_time()
        return 0

    def _catch_signals(self) -> int:
        """The descriptor that becomes readable when a signal has come."""
        reader, self._wakeup_writer = map(park, os.pipe2(os.O_NONBLOCK))
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, lambda caught, _: self._signals.append(caught))
        return reader

    def _patience(self) -> int | None:
        """Milliseconds to the next thing to be done by the clock."""
        if self._is_over:
            return None
        times = [self._look_at, *([self._start_at] if self._start_at else [])]
        return max(0, ceil(1000 * (min(times) - monotonic())))

    def _keep_time(self) -> None:
        now = monotonic()
        if self._is_over:
            return
        if self._start_at and now >= self._start_at:
            self._start_at = 0.0
            self._fill_up()
        if now >= self._look_at:
            self._look_at = now + LOOK_AGAIN
            self._look_at_files()

    def _look_at_files(self) -> None:
        stamp = certificates.stamp(self._settings)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._certificates = certificates.load(self._settings, previous=self._certificates)
        except Refused as why:
            log.plain(f"{certificates.error(why)} (the certificates read before stay in use)")
            return
        certificates.report(self._certificates.warnings)
        old, self._leashes = self._leashes, {}
        self._fill_up()
        for leash in old.values():
            retire(leash)
        log.info("couriertls: certificates read again")

    def handle_sigchld(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._worker_ended(pid, os.waitstatus_to_exitcode(status))
        except ChildProcessError:
            pass

    def _worker_ended(self, pid: int, code: int) -> None:
        self._workers.discard(pid)
        lived = monotonic() - self._births.pop(pid, 0.0)
        leash = self._leashes.pop(pid, None)
        if leash is None:
            return
        os.close(leash)
        if not self._is_over:
            log.err(f"couriertls: relay {pid} has ended ({code}), and its connections; replaced")
            self._start_at = monotonic() + (SHORTEST_LIFE if lived < SHORTEST_LIFE else 0.001)

    def handle_sigterm(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        os._exit(0)

    def handle_sighup(self) -> None:
        self._look_at = monotonic()

    _HANDLERS: dict[int, Callable[[Keeper], None]] = {
        signal.SIGHUP: handle_sighup,
        signal.SIGCHLD: handle_sigchld,
        signal.SIGTERM: handle_sigterm,
        signal.SIGINT: handle_sigterm,
    }

    def _fill_up(self) -> None:
        """Have as many workers that take requests as there are to be."""
        gc.unfreeze()  # certificates that have been replaced are to go
        gc.collect()
        gc.freeze()  # what is here now is every worker's, and stays
        while len(self._leashes) < self._settings.relays:
            if not self._start_worker():
                self._start_at = monotonic() + SHORTEST_LIFE
                return

    def _start_worker(self) -> bool:
        """Whether there was a process to be had."""
        leash, end = map(park, os.pipe())
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)  # until the child's are at their defaults
        try:
            pid = os.fork()
        except OSError as why:
            os.close(end)
            log.err(f"{FORK_FAILED}: {why.strerror}")
            return False
        else:
            if pid == 0:
                self._become_worker(leash)
            self._workers.add(pid)
            self._leashes[pid] = end
            self._births[pid] = monotonic()
            return True
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            os.close(leash)

    def _become_worker(self, leash: int) -> None:
        """In the child, to its end."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in CAUGHT:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            # Those of the other workers too: a leash ends with its last copy.
            os.closerange(3, leash)
            os.closerange(leash + 1, 65536)
            if self._options.user:
                daemon.change_user(self._options.user)
            keep_secret()
            worker = Worker(self._certificates, self._limits, leash, debug=self._settings.debug)
            status = worker.run()
        except Refused as why:
            log.err(f"couriertls: {why}")
        except Exception as why:
            log.err(f"couriertls: internal error: {where(why)}")
        finally:
            os._exit(status)


def retire(leash: int) -> None:
    try:
        os.write(leash, RETIRE)
    except OSError:
        pass  # the worker has gone already
    os.close(leash)


def check_channel() -> None:
    """Raises Refused if descriptor 0 is not what requests can come on."""
    try:
        with socket(fileno=os.dup(CHANNEL)) as channel:
            if channel.getsockopt(SOL_SOCKET, SO_TYPE) == SOCK_SEQPACKET:
                return
    except OSError:
        pass
    raise Refused(
        "ERR: couriertls: -relay: descriptor 0 is not a UNIX SOCK_SEQPACKET socket; "
        "this is started by couriertcpd"
    )
