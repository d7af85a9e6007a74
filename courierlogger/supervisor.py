"""supervisor - keep a program running, and log what it writes on descriptor 2

Signal handlers only note the signal; the loop then calls handle_sighup, handle_sigterm, ....

    SIGHUP     is passed on to the program. If it ends after that, then or later, it is started once
               more. The log file is opened again
    SIGUSR2    is passed on, and nothing else: a listener executes itself anew
    SIGTERM    is passed on; after 8 seconds SIGKILL follows. Without a program we end at once

Each program started has a pipe of its own, which is read until all who write to it have gone: the
sessions of a listener outlive it, and their last lines count. They keep nobody from being started
again. Reference: couriertcpd.md 13.1.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from math import ceil
from select import POLLIN, poll
from time import monotonic

from courierchain import programs
from courierchain.daemon import park, to_null
from courierchain.syslog import Lines, Write, forward

RESPAWN_AFTER = 5.0  # seconds
KILL_AFTER = 8.0  # seconds
CAUGHT = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2)
NOT_STARTED = 127


class Supervisor:
    """write: takes a message; reopen: called at SIGHUP. Signals are caught from here on."""

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        write: Write,
        *,
        respawn: bool,
        reopen: Callable[[], None] | None,
    ):
        self._argv = argv
        self._env = env
        self._write = write
        self._respawn = respawn
        self._reopen = reopen
        self._directory = _directory()
        self._program: int | None = None
        self._pipes: dict[int, Lines] = {}
        self._again = False  # SIGHUP has come
        self._start_at: float | None = None
        self._kill_at: float | None = None  # SIGTERM has come
        self._leave = False  # whatever comes on the pipes
        self._signals: list[int] = []
        self._poll = poll()
        self._wakeup = self._catch_signals()

    def _catch_signals(self) -> int:
        """The descriptor that becomes readable when a signal has come."""
        reader, writer = map(park, os.pipe2(os.O_NONBLOCK))
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in CAUGHT:
            signal.signal(number, lambda caught, _: self._signals.append(caught))
        self._poll.register(reader, POLLIN)
        return reader

    def run(self) -> int:
        """Log until there is nobody left; the exit status."""
        while not self._is_over():
            for descriptor, _ in self._poll.poll(self._patience()):
                if descriptor == self._wakeup:
                    os.read(descriptor, 512)
                else:
                    self._read(descriptor)
            while self._signals:
                self._HANDLERS[self._signals.pop(0)](self)
            self._reap()
            self._keep_time()
        return 0

    def _is_over(self) -> bool:
        if self._program or self._start_at:
            return False
        return self._leave or not self._pipes

    def _patience(self) -> int | None:
        """Milliseconds to the next thing to be done by the clock."""
        times = [time for time in (self._start_at, self._kill_at) if time]
        return max(0, ceil(1000 * (min(times) - monotonic()))) if times else None

    def _read(self, pipe: int) -> None:
        data = os.read(pipe, 65536)
        lines = self._pipes[pipe]
        forward(lines.feed(data) if data else lines.last(), self._write)
        if not data:
            self._poll.unregister(pipe)
            os.close(pipe)
            del self._pipes[pipe]

    def _reap(self) -> None:
        """Take leave of what has ended: the program, and whom it left to us if we are process 1."""
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid == self._program:
                    self._program = None
                    self._program_ended()
        except ChildProcessError:
            pass

    def _program_ended(self) -> None:
        if self._kill_at:
            return
        if self._again:
            self._again = False
            self._start_at = monotonic()
        elif self._respawn:
            self._start_at = monotonic() + RESPAWN_AFTER

    def _keep_time(self) -> None:
        now = monotonic()
        if self._start_at and now >= self._start_at:
            self._start_at = None
            self.start()
        if self._kill_at and now >= self._kill_at:
            self._send(signal.SIGKILL)
            self._kill_at = now + KILL_AFTER
            self._leave = True

    def handle_sigchld(self) -> None:
        """Nothing: the program is looked after in every turn."""

    def handle_sighup(self) -> None:
        if self._reopen:
            self._reopen()
        if self._program:
            self._again = True
            self._send(signal.SIGHUP)
        elif self._start_at:
            self._start_at = monotonic()

    def handle_sigterm(self) -> None:
        self._start_at = None
        if self._program is None:
            self._leave = True
        elif self._kill_at is None:
            self.end()

    def handle_sigusr2(self) -> None:
        self._send(signal.SIGUSR2)

    _HANDLERS: dict[int, Callable[[Supervisor], None]] = {
        signal.SIGCHLD: handle_sigchld,
        signal.SIGHUP: handle_sighup,
        signal.SIGTERM: handle_sigterm,
        signal.SIGUSR2: handle_sigusr2,
    }

    def end(self) -> None:
        """Ask the program to end; what is still there after 8 seconds is killed."""
        self._kill_at = monotonic() + KILL_AFTER
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        if self._program is None:
            return
        try:
            os.kill(self._program, number)
        except ProcessLookupError:
            pass
        except OSError as why:  # -user without -droproot
            self._say(f"ERR: courierlogger: cannot signal pid {self._program}: {why.strerror}")

    def _say(self, line: str) -> None:
        forward([os.fsencode(line)], self._write)

    def start(self) -> None:
        """Start the program; its pipe is read by `run`."""
        reader, writer = map(park, os.pipe())
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)  # until the child's are at their defaults
        try:
            self._program = os.fork()
        except OSError as why:
            self._say(f"ERR: courierlogger: fork: {why.strerror}")
            self._program_ended()
        if self._program == 0:
            self._become_program(writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        os.close(writer)
        self._pipes[reader] = Lines()
        self._poll.register(reader, POLLIN)

    def _become_program(self, stderr: int) -> None:
        """In the child: what stops it is said on its descriptor 2."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (*CAUGHT, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
            to_null((0, 1))
            os.dup2(stderr, 2)
            _execute(self._argv, self._env, self._directory)
        except OSError as why:
            os.write(2, os.fsencode(f"exec: {why.strerror}\n"))  # Courier's words
        finally:
            os._exit(NOT_STARTED)


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"  # somebody has removed it


def _execute(argv: list[str], env: dict[str, str], directory: str) -> None:
    """Never returns. Raises OSError."""
    try:
        os.chdir(directory)
    except OSError:
        pass  # it is gone, or closed to the user that we are by now
    path = argv[0] if "/" in argv[0] else programs.locate(argv[0], env)
    if path is None:
        raise FileNotFoundError(2, "No such file or directory")
    os.execve(path, argv, env)
