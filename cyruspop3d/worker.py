"""worker - a process of Cyrus's master: one session after another, each in a child

Descriptor 4 is the listening socket, 3 where master is told what we do. CYRUS_SERVICE and CYRUS_ID
name the lock file in socket/ of configdirectory: whoever holds it waits for the next connection,
the other workers of the service wait for the lock (reference cyrus-pop3d.md 2).

A session runs in a child, which becomes the chain; the worker waits for it, and logs its lines. So
whoever the child becomes, this process stays as it was, whether it is root, or has the uid of all
mailboxes, as under Cyrus's master. After a session that QUIT has ended it tells master AVAILABLE
and takes the next one; after another it ends, as Cyrus's does.

    2 3      is sent when a connection has come
    1        when the session is over and another one is wanted

Lines go to syslog; without one, to descriptor 2.

Exits      0 after its last session, the timeout, SIGHUP, and when the program was replaced; 64
           after a client of -k; 71 when it can't accept; 75 after SIGTERM, SIGINT, SIGQUIT
"""

from __future__ import annotations

import fcntl
import gc
import os
from _signal import (
    SIG_BLOCK,
    SIG_DFL,
    SIG_UNBLOCK,
    SIGALRM,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    alarm,
    pthread_sigmask,
    signal,
)
from array import array
from binascii import hexlify
from collections.abc import Callable
from select import POLLIN, poll
from socket import socket
from time import sleep

from courierchain import cyruslines, handover, log, procfile, programs, rehearsal, syslog
from cyruspop3d import environment
from cyruspop3d.commandline import Arguments
from cyruspop3d.config import Config

STATUS, LISTENING = 3, 4  # descriptors
AVAILABLE, UNAVAILABLE, CONNECTION = 1, 2, 3
OK, SYSTEM, TERMINATED = 0, 71, 75
ENDING = (SIGTERM, SIGINT, SIGQUIT)
SIGNALS = {SIGHUP, SIGALRM, *ENDING}
NOTICE = 5  # syslog's severity of the lines that Cyrus logs of sessions
PIECE = 65536  # octets of log lines read at a time
DIALECT = ("courierpop3login.cyrus:CyrusAuthorization", "courierpop3d.cyrus:CyrusTransaction")
SHORT_OF_DESCRIPTORS = 0.1  # seconds until accept is tried again

Environment = dict[str, str]


class Interrupted(Exception):
    """A signal came while we were waiting."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Ended(Exception):
    """This process is to end, with `status`."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class Journal:
    """What the worker and its sessions log."""

    __slots__ = ("_syslog",)

    def __init__(self, service: str, prefix: str = "", facility: str = "mail"):
        name = f"{prefix}/{service}" if prefix else service
        self._syslog: syslog.Syslog | None = None
        if os.path.exists(syslog.SOCKET):
            known = facility if facility in syslog.FACILITIES else "mail"
            self._syslog = syslog.Syslog(f"{name}[{os.getpid()}]", known)

    def lines(self, messages: list[bytes]) -> None:
        """Lines as `log` writes them."""
        if self._syslog:
            syslog.forward(messages, self._write)
        else:
            for message in messages:
                log.plain(os.fsdecode(message))

    def _write(self, severity: int, text: bytes) -> None:
        assert self._syslog
        self._syslog.write(NOTICE if text.startswith(cyruslines.NOTICES) else severity, text)

    def err(self, text: str) -> None:
        self.lines([os.fsencode(f"ERR: {text}")])

    def warn(self, text: str) -> None:
        self.lines([os.fsencode(f"WARN: {text}")])

    def info(self, text: str) -> None:
        self.lines([os.fsencode(f"INFO: {text}")])


class Worker:
    """serve: becomes the chain for the client on descriptors 0 and 1, with this environment."""

    __slots__ = (
        *("_arguments", "_service", "_journal", "_serve", "_listening", "_lock", "_lines"),
        *("_log", "_log_end", "_program", "_known", "_hung_up", "_env", "_procfile"),
    )

    def __init__(
        self,
        arguments: Arguments,
        found: Config,
        program: str,
        env: Environment,
        serve: Callable[[Environment], int],
    ):
        self._arguments = arguments
        self._serve = serve
        self._env = env
        service = env["CYRUS_SERVICE"]
        prefix = env.get("CYRUS_SYSLOG_PREFIX") or found.text("syslog_prefix")
        self._journal = Journal(service, prefix, found.text("syslog_facility"))
        self._listening = socket(fileno=LISTENING)
        self._listening.setblocking(False)
        proc = found.text("proc_path") or f"{found.text('configdirectory')}/proc"
        self._procfile = f"{proc}/{os.getpid()}"
        place = f"{found.text('configdirectory')}/socket/{service}-{env['CYRUS_ID']}.lock"
        self._lock = self._open_lock(place)
        self._lines = syslog.Lines()
        self._log, self._log_end = os.pipe()
        self._program = program
        self._known = identity(program)
        self._hung_up = False
        if env.get("COURIER_COLDEXEC") != "1":
            self._warm_up(environment.command(found))
        for descriptor in (STATUS, LISTENING):
            os.set_inheritable(descriptor, False)

    def _warm_up(self, command: list[str]) -> None:
        """Load the programs of the chain that are ours, once for all sessions."""
        for word in command:
            path = programs.locate(word, self._env)
            if path:
                handover.preload(path)
        for entry in DIALECT:
            handover.load(entry)
        is_plain = not (self._arguments.is_tls or self._arguments.is_kerberos)
        if is_plain and self._arguments.uses > rehearsal.ROUNDS:
            nobody = b"nobody-" + hexlify(os.urandom(16))
            env = {**self._env, "POP3_FAILURE_DELAY": "0"}
            rehearsal.rehearse(lambda: self._run(env), nobody)
        gc.collect()
        gc.freeze()

    def _run(self, env: Environment) -> int:
        return handover.run(lambda argv, env: self._serve(env), [self._program], env)

    def _open_lock(self, path: str) -> int | None:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as why:
            text = f"locking disabled: couldn't open socket lockfile {path}: {why.strerror}"
            self._journal.err(text)
            return None

    def work(self) -> int:
        """Serve sessions; the exit status."""
        pthread_sigmask(SIG_BLOCK, SIGNALS)
        for number in SIGNALS:
            signal(number, interrupt)
        try:
            for use in range(1, self._arguments.uses + 1):
                client = self._next_client(has_served=use > 1)
                self._tell(UNAVAILABLE)
                self._tell(CONNECTION)
                status = self._session(client)
                if self._arguments.is_kerberos:
                    return status
                if status != 0 or self._hung_up or use == self._arguments.uses:
                    return OK
                self._tell(AVAILABLE)
        except Ended as why:
            return why.status
        return OK

    def _next_client(self, *, has_served: bool) -> socket:
        """Wait for the lock, then for a connection. Raises Ended."""
        ready = poll()
        ready.register(LISTENING, POLLIN)
        patience = self._arguments.patience
        try:
            if has_served and patience:
                alarm(patience)
            if self._lock is not None:
                self._interruptible(lambda: fcntl.lockf(self._lock or 0, fcntl.LOCK_EX))
            while True:
                self._interruptible(ready.poll)
                if identity(self._program) != self._known:
                    self._journal.info("process file has changed")
                    raise Ended(OK)
                client = self._accept()
                if client:
                    return client
        except Interrupted as why:
            if why.number in ENDING:
                self._journal.info("graceful shutdown")
                raise Ended(TERMINATED) from why
            raise Ended(OK) from why
        finally:
            alarm(0)
            if self._lock is not None:
                fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _accept(self) -> socket | None:
        """None if the client has gone meanwhile. Raises Ended."""
        try:
            return self._listening.accept()[0]
        except (BlockingIOError, ConnectionError, InterruptedError):
            return None
        except OSError as why:
            self._journal.err(f"accept failed: {why.strerror}")
            sleep(SHORT_OF_DESCRIPTORS)
            raise Ended(SYSTEM) from why

    def _session(self, client: socket) -> int:
        """The exit status of one. Raises Ended."""
        child = os.fork()
        if child == 0:
            self._become(client)
        client.close()
        ended = os.pidfd_open(child)
        ready = poll()
        ready.register(self._log, POLLIN)
        ready.register(ended, POLLIN)
        try:
            while not self._is_over(ready, ended):
                pass
        except Interrupted as why:
            os.kill(child, SIGTERM)
            self._journal.info("graceful shutdown")
            raise Ended(TERMINATED) from why
        finally:
            os.close(ended)
            procfile.remove(self._procfile)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _is_over(self, ready: poll, ended: int) -> bool:
        """Log what has come. Raises Interrupted."""
        try:
            events = dict(self._interruptible(ready.poll))
        except Interrupted as why:
            if why.number != SIGHUP:
                raise
            self._hung_up = True  # the session may finish
            return False
        if self._log in events:
            self._journal.lines(self._lines.feed(os.read(self._log, PIECE)))
            return False
        return ended in events

    def _become(self, client: socket) -> None:
        """In the child. Never returns."""
        try:
            for number in SIGNALS:
                signal(number, SIG_DFL)
            pthread_sigmask(SIG_UNBLOCK, SIGNALS)
            os.dup2(client.fileno(), 0)
            os.dup2(client.fileno(), 1)
            os.dup2(self._log_end, 2)
            os.closerange(STATUS, handover.HIGHEST)
            os._exit(self._run({**self._env, "CYRUS_PROCFILE": self._procfile}))
        finally:
            os._exit(SYSTEM)

    @staticmethod
    def _interruptible(wait: Callable[[], object]) -> list[tuple[int, int]]:
        """What `wait` gives; signals come only here. Raises Interrupted."""
        try:
            pthread_sigmask(SIG_UNBLOCK, SIGNALS)
            return wait()  # type: ignore[return-value]
        finally:
            pthread_sigmask(SIG_BLOCK, SIGNALS)

    def _tell(self, message: int) -> None:
        """One message to master: two C ints, the message and our process id."""
        try:
            os.write(STATUS, array("i", (message, os.getpid())).tobytes())
        except OSError as why:
            self._journal.err(f"unable to tell master {message}: {why.strerror}")


def interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


def identity(program: str) -> tuple[int, ...]:
    """What changes when the file of a program is replaced; empty if there is none."""
    try:
        there = os.stat(program)
    except OSError:
        return ()
    return there.st_ino, there.st_size, there.st_mtime_ns
