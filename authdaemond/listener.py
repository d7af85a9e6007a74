"""listener - the socket, and a process for each question

The process that listens never asks a module: PAM and databases would leave things behind in it. It
forks for each connection, up to `daemons` at a time; who comes then waits in the kernel. A process
has TIME seconds to read the question, to answer and to be heard, and ends. Where it ends without an
answer, the client takes it as a temporary failure.

SIGHUP    read the configuration again; if that can't be, the old stays in force
SIGTERM   remove the socket and end

Everybody may write to the socket who may enter its directory: that must be closed to others than
its owner and its group (CVE-30).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from select import POLLIN, poll
from signal import SIG_DFL, SIGCHLD, SIGHUP, SIGINT, SIGTERM, alarm, set_wakeup_fd, signal
from socket import AF_UNIX, SOCK_STREAM, socket
from stat import S_IRWXO
from time import monotonic

from authdaemond import question
from authdaemond.question import Question
from courierchain import authmodule, handover, log
from courierchain.account import Unusable
from courierchain.authmodule import TemporaryFailure
from courierchain.refusal import Refused, refusal
from courierchain.request import BadRequest

TIME = 35  # seconds; Courier's clients wait for 30
TIME_TO_LIST = 300  # the same for ENUMERATE
READ_TIME = 10.0  # seconds for the whole question
BACKLOG = 256
OWNER = "courier"

Answer = Callable[[Question], bytes]  # raises TemporaryFailure, Unusable


class Listener:
    """`reload` reads the configuration, and gives the number of processes and the way to answer;
    it raises Refused."""

    def __init__(self, path: str, reload: Callable[[], tuple[int, Answer]]):
        self._path = path
        self._reload = reload
        self._most, self._answer = reload()
        self._children: set[int] = set()
        self._ends = False
        self._woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for number in (SIGCHLD, SIGHUP, SIGTERM, SIGINT):
            signal(number, lambda *_: None)
        self._socket = bind(path)

    def run(self) -> None:
        while not self._ends:
            ready = self._wait()
            if self._woken in ready:
                self._obey_signals()
            if self._socket.fileno() in ready and not self._ends:
                self._serve_next()
        os.unlink(self._path)
        for child in self._children:
            os.kill(child, SIGTERM)

    def _wait(self) -> list[int]:
        """The descriptors that have something; the socket's only if a process is to be had."""
        poller = poll()
        poller.register(self._woken, POLLIN)
        if len(self._children) < self._most:
            poller.register(self._socket, POLLIN)
        return [descriptor for descriptor, _ in poller.poll()]

    def _obey_signals(self) -> None:
        numbers = os.read(self._woken, 4096)
        self._reap()
        if SIGHUP in numbers:
            self._read_configuration()
        self._ends = SIGTERM in numbers or SIGINT in numbers

    def _reap(self) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._children.discard(pid)

    def _read_configuration(self) -> None:
        try:
            self._most, self._answer = self._reload()
        except Refused as why:
            log.err(f"authdaemond: {why}; everything stays as it was")

    def _serve_next(self) -> None:
        try:
            connection, _ = self._socket.accept()
            pid = os.fork()
        except OSError as why:  # no memory, no descriptors: the client is not answered
            log.err(f"authdaemond: {why.strerror}")
            return
        if pid == 0:
            self._socket.close()
            os._exit(serve(connection, self._answer))
        connection.close()
        self._children.add(pid)


def bind(path: str) -> socket:
    """Listen at `path`, in a directory that is closed to others. Raises Refused."""
    directory = os.path.dirname(path)
    make_directory(directory)
    if os.stat(directory).st_mode & S_IRWXO:
        raise Refused(f"{directory} is open to everybody (chmod 750 {directory})")
    if answers(path):
        raise Refused(f"{path}: another authdaemond answers there")
    listening = socket(AF_UNIX, SOCK_STREAM)
    aside = f"{path}.{os.getpid()}"
    try:
        listening.bind(aside)
        os.chmod(aside, 0o777)
        listening.listen(BACKLOG)
        os.rename(aside, path)
    except OSError as why:
        raise refusal(path, why) from why
    listening.setblocking(False)
    return listening


def make_directory(directory: str) -> None:
    """Make it for Courier's user and group, where there is none. Raises Refused."""
    try:
        os.mkdir(directory, 0o750)
    except FileExistsError:
        return
    except OSError as why:
        raise refusal(directory, why) from why
    try:
        owner = pwd.getpwnam(OWNER)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
    except (KeyError, PermissionError):
        pass  # ours alone, then


def answers(path: str) -> bool:
    with socket(AF_UNIX, SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(path)
        except BlockingIOError:
            return True  # its queue is full
        except OSError:
            return False
        return True


def serve(connection: socket, answer: Answer) -> int:
    """One question, in a process of its own; the exit status."""
    set_wakeup_fd(-1)
    for number in (SIGCHLD, SIGHUP, SIGTERM, SIGINT):
        signal(number, SIG_DFL)
    alarm(TIME)
    authmodule.opens_sessions = False
    try:
        asked = read(connection)
        if asked:
            if asked.verb == b"ENUMERATE":
                alarm(TIME_TO_LIST)
            connection.settimeout(None)
            connection.sendall(answer(asked))
        return 0
    except (TemporaryFailure, Unusable, BadRequest) as why:
        log.err(f"authdaemond: {why}")
    except OSError:
        pass  # the client has gone
    except Exception as why:
        log.err(f"authdaemond: internal error: {handover.where(why)}")
    return 1


def read(connection: socket) -> Question | None:
    """The question; None if the client goes before it is whole. Raises BadRequest and OSError."""
    deadline = monotonic() + READ_TIME
    octets = b""
    while True:
        connection.settimeout(max(deadline - monotonic(), 0.001))
        part = connection.recv(question.LARGEST)
        if not part:
            return None
        octets += part
        if asked := question.parse(octets):
            return asked
