"""listener - the socket, and the processes that answer questions

The process that listens never asks a module: PAM and databases would leave things behind in it. It
keeps `daemons` others, which accept connections, each with one question; who comes while all are
busy waits in the kernel. Such a process has TIME seconds to read a question, to answer and to be
heard, or is killed; after USES questions it ends, and another takes its place. Where it ends
without an answer, the client takes it as a temporary failure.

SIGHUP    read the configuration again; if that can't be, the old stays in force
SIGTERM   remove the socket and end

Everybody may write to the socket who may enter its directory: that must be closed to others than
its owner and its group (CVE-30).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from select import POLLIN, poll
from signal import SIG_DFL, SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGTERM, alarm, set_wakeup_fd, signal
from socket import AF_UNIX, SOCK_STREAM, socket
from stat import S_IRWXO
from time import monotonic, sleep

from authdaemond import question
from authdaemond.question import Question
from courierchain import authmodule, connections, handover, log, verified
from courierchain.account import Unusable
from courierchain.authmodule import TemporaryFailure
from courierchain.refusal import Refused, refusal
from courierchain.request import BadRequest

TIME = 35  # seconds; Courier's clients wait for 30
TIME_TO_LIST = 300  # the same for ENUMERATE
READ_TIME = 10.0  # seconds for the whole question
USES = 100  # questions that one process answers
RETRY = 1000  # milliseconds after a fork that failed
BACKLOG = 256
OWNER = "courier"

Answer = Callable[[Question], bytes]  # raises TemporaryFailure, Unusable


class Service:
    """How questions are answered; daemons: by how many processes; summary: a line for the log."""

    __slots__ = ("daemons", "answer", "summary")

    def __init__(self, daemons: int, answer: Answer, summary: str):
        self.daemons = daemons
        self.answer = answer
        self.summary = summary


class Listener:
    """`reload` reads the configuration, and raises Refused if that can't be. Raises Refused."""

    def __init__(self, path: str, reload: Callable[[], Service]):
        self._path = path
        self._reload = reload
        self._service = reload()
        self._workers: set[int] = set()
        self._leaving: set[int] = set()
        self._ends = False
        self._woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for number in (SIGCHLD, SIGHUP, SIGTERM, SIGINT):
            signal(number, lambda *_: None)
        self._socket = bind(path)
        self._stay, self._staying = os.pipe()
        log.info(self._service.summary)

    def run(self) -> None:
        woken = poll()
        woken.register(self._woken, POLLIN)
        while not self._ends:
            enough = self._start_workers()
            if woken.poll(None if enough else RETRY):
                self._obey_signals()
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        for worker in self._workers | self._leaving:
            os.kill(worker, SIGTERM)

    def _start_workers(self) -> bool:
        """Whether there are as many as there shall be."""
        while len(self._workers) < self._service.daemons:
            try:
                pid = os.fork()
            except OSError as why:
                log.err(f"authdaemond: fork: {why.strerror}")
                return False
            if pid == 0:
                os.close(self._staying)
                os._exit(work(self._socket, self._stay, self._service.answer))
            self._workers.add(pid)
        return True

    def _obey_signals(self) -> None:
        numbers = os.read(self._woken, 4096)
        self._reap()
        if SIGHUP in numbers:
            self._read_configuration()
        self._ends = SIGTERM in numbers or SIGINT in numbers

    def _reap(self) -> None:
        while self._workers or self._leaving:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._workers.discard(pid)
            self._leaving.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                slow = ", a module or a client took too long" if code == -SIGALRM else ""
                log.err(f"authdaemond: a process has been killed: signal {-code}{slow}")

    def _read_configuration(self) -> None:
        try:
            self._service = self._reload()
        except Refused as why:
            log.err(f"authdaemond: {why}; everything stays as it was")
            return
        os.write(self._staying, b".")  # a process that is only just forked holds this end too
        os.close(self._stay)
        os.close(self._staying)
        self._stay, self._staying = os.pipe()
        self._leaving |= self._workers
        self._workers = set()
        log.info(self._service.summary)


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


def work(listening: socket, stay: int, answer: Answer) -> int:
    """Answer up to USES questions, until `stay` has something or its end; the exit status."""
    set_wakeup_fd(-1)
    for number in (SIGCHLD, SIGHUP, SIGTERM, SIGINT):
        signal(number, SIG_DFL)
    authmodule.opens_sessions = False
    connections.allowed = True
    verified.begin()
    rights = os.getresuid(), os.getresgid()
    ready = poll()
    ready.register(listening, POLLIN)
    ready.register(stay, POLLIN)
    for _ in range(USES):
        connection = accept(listening, stay, ready)
        if connection is None:
            break
        with connection:
            alarm(TIME)
            serve(connection, answer)
            alarm(0)
        if (os.getresuid(), os.getresgid()) != rights:
            break  # a module has left something behind
    connections.drop()
    return 0


def accept(listening: socket, stay: int, ready: poll) -> socket | None:
    """The next client; None if there shall be none."""
    while True:
        if any(descriptor == stay for descriptor, _ in ready.poll()):
            return None
        try:
            return listening.accept()[0]
        except BlockingIOError:
            pass  # another process was faster
        except OSError as why:
            log.err(f"authdaemond: accept: {why.strerror}")
            sleep(RETRY / 1000)
            return None


def serve(connection: socket, answer: Answer) -> None:
    """One question. What fails leaves the client without an answer."""
    try:
        asked = read(connection)
        if asked:
            if asked.verb == b"ENUMERATE":
                alarm(TIME_TO_LIST)
            connection.settimeout(None)
            connection.sendall(answer(asked))
    except (TemporaryFailure, Unusable, BadRequest) as why:
        log.err(f"authdaemond: {why}")
    except OSError:
        pass  # the client has gone
    except Exception as why:
        log.err(f"authdaemond: internal error: {handover.where(why)}")


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
