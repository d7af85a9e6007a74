"""Every system call of a session fails once, in every way: nothing is lost, nobody is told lies.

A session on a mailbox with old, new, renamed and removed mail makes some hundred calls that may
fail. A first run writes them down; then the session is repeated for each of them, and in it this
call fails, or this call and all later ones of its name, as on a disk that stays full. What the
client has been told, what is in the Maildir and what the next session shows must fit together.

The program runs in processes forked from one that has loaded it, with faults.c preloaded.

Reads      COURIERPOP3_FAULTS=all: calls also fail in ways that their manual pages don't know
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.courierpop3d.conftest import ROOT, USER, Box, Connection

EVERYTHING = os.environ.get("COURIERPOP3_FAULTS") == "all"
TIME = 5.0  # seconds after which a session that hangs is killed
SHORT = -1  # instead of an errno, as in faults.c
NO_FAULT = (0, 0, 0)  # number of a call, errno, whether it lasts

# Loads the program and faults.c, and forks sessions. argv: source directory, library. Descriptor 0:
# commands with their arguments in JSON; each is answered.
PARENT = """
import ctypes, gc, importlib, json, os, pkgutil, resource, signal, socket, sys
sys.path.insert(0, sys.argv[1])
import courierpop3d
from courierchain import handover
from courierpop3d.main import main
for module in pkgutil.iter_modules(courierpop3d.__path__):
    importlib.import_module("courierpop3d." + module.name)
faults = ctypes.CDLL(sys.argv[2])
faults.faults_note.restype = ctypes.c_char_p
test = socket.socket(fileno=0)

def start(fds, ahead, **how):
    faults.faults_reset()
    clock(fds, ahead)
    pid = os.fork()
    if not pid:
        try:
            serve(*fds, **how)
        finally:
            os._exit(98)
    for fd in fds:
        os.close(fd)
    return pid

def serve(connection, log, home, uid, env, fault, constants, limit):
    os.chdir(home)
    os.umask(0)
    for number, fd in enumerate((connection, connection, log)):
        os.dup2(fd, number)
    os.closerange(3, 1024)
    for module, name, value in constants:
        setattr(sys.modules[module], name, value)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    signal.setitimer(signal.ITIMER_REAL, limit)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    faults.faults_arm(*fault)
    os._exit(handover.run(main, ["courierpop3d", "./Maildir"], env))

def end(fds, pid):
    _, status, usage = os.wait4(pid, 0)
    counts = faults.faults_calls(), faults.faults_opened(), usage.ru_maxrss
    return os.waitstatus_to_exitcode(status), *counts

def calls(fds):
    numbers = range(1, min(faults.faults_calls(), 1000) + 1)
    return [faults.faults_note(number).decode("latin-1") for number in numbers]

def clock(fds, ahead):
    faults.faults_set_clock_ahead(ctypes.c_long(ahead))

COMMANDS = {command.__name__: command for command in (start, end, calls, clock)}
gc.collect()
gc.freeze()
while True:
    text, fds, _, _ = socket.recv_fds(test, 65536, 2)
    if not text:
        break
    command, arguments = json.loads(text)
    test.send(json.dumps(COMMANDS[command](fds, **arguments)).encode())
"""


class Faults:
    """A process that has loaded the program, and forks sessions whose calls may fail."""

    def __init__(self, directory: Path):
        library = directory / "faults.so"
        source = Path(__file__).with_name("faults.c")
        compiler = ["cc", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-o", library, source]
        subprocess.run(compiler, check=True)
        self._socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", PARENT, str(ROOT), str(library)],
                stdin=there,
                env={"LD_PRELOAD": str(library)},
            )

    def ask(self, command: str, fds: tuple[int, ...] = (), **arguments):
        text = json.dumps([command, arguments]).encode()
        socket.send_fds(self._socket, [text], list(fds))
        answer = self._socket.recv(1 << 20)
        assert answer, "the process that forks sessions has ended"
        return json.loads(answer)

    def calls(self) -> list[str]:
        """The first calls of the last session: name, object; flags and mode of opens."""
        return self.ask("calls")

    def set_clock_ahead(self, seconds: int) -> None:
        """Set the clock of day, while the present session lasts."""
        self.ask("clock", ahead=seconds)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class Session(Connection):
    """courierpop3d in a process of its own.

    constants: of the program, to be set before it begins: module, name -> value.
    ahead: seconds that the clock of day is wrong.
    limit: seconds that it may last, and use the processor; then it is killed.

    After `end`: exit status; the numbers of its calls, and of opened files in cur/; memory in KB.
    """

    def __init__(
        self,
        faults: Faults,
        box: Box,
        *,
        fault: tuple[int, int, int] = NO_FAULT,
        constants: dict[tuple[str, str], int] | None = None,
        ahead: int = 0,
        limit: float = TIME,
        **env: str,
    ):
        super().__init__(box)
        self._faults = faults
        with self.server, self.log.open("wb") as log:
            self._pid = faults.ask(
                "start",
                (self.server.fileno(), log.fileno()),
                home=str(box.home),
                uid=USER if os.geteuid() == 0 else 0,
                env={"AUTHENTICATED": "joe", "UTF8": "1", **env},
                fault=fault,
                constants=[(*name, value) for name, value in (constants or {}).items()],
                ahead=ahead,
                limit=limit,
            )

    def end(self) -> None:
        self.hang_up()
        numbers = self._faults.ask("end", pid=self._pid)
        self.status, self.calls, self.opened, self.memory = numbers


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    faults = Faults(tmp_path_factory.mktemp("faults"))
    yield faults
    faults.close()


# The mailbox, and its messages, which are known by their subjects: the paths that they came by

OLD = {"cur/0.z:2,S", "cur/1.a:2,S", "cur/2.b:2,S", "cur/4.d:2,"}
REMOVED = "cur/0.z:2,S"
SOME = {"new/5.e", "cur/7.g:2,S"}
MUCH = {"cur/3.c:2,F", "new/5.e", "new/6.f", "cur/7.g:2,S", "new/7.g:2,S"}
BARRED = "new/7.g:2,S"  # stays in new/: its name in cur/ is another message's
VICTIMS = {"cur/2.b:2,S", "cur/4.d:2,", "new/5.e"}  # deleted when the client has got them
LARGE = (b"123456789 " * 999 + b"\n") * 7  # more than the program reads at a time
FOREIGN = {
    "courierimapuiddb": b"1 2 3\n",
    ".Sent/cur/1.a:2,S": b"Subject: sent\n\n",
    "tmp/8.h": b"Subject: being deliv",
    "cur/.hidden": b"x\n",
}
QUOTA = b"10000000S,1000C\n      200000           12\n"


def mail(path: str) -> bytes:
    first = b"Subject: %s\n" % path.encode()
    if path == "new/6.f":
        return first + b"From: \xc3\xa9\n\n\xe9\n"
    if path == "cur/3.c:2,F":
        return first + b"\n" + LARGE
    return first + b"\n.\n..dots\n" + b"octets" * len(path) + b"\n"


def sent(path: str) -> bytes:
    return mail(path).replace(b"\n", b"\r\n")


class Mailbox(Box):
    """A Maildir with old messages that have ids, a quota, and things of others."""

    def __init__(self, home: Path):
        super().__init__(home)
        (self.path / ".Sent/cur").mkdir(parents=True)
        self.put("maildirsize", QUOTA)
        self.own()  # and whose the messages are doesn't matter
        for path, content in FOREIGN.items():
            self.put(path, content)
        lines = [b"/3 6 200\n"]
        self.present = OLD
        self.ids: dict[str, bytes] = {}
        for number, path in enumerate(sorted(OLD), 1):
            self.put(path, mail(path))
            self.ids[path] = b"UID%d-200" % number
            lines.append(b"%s %d %d:200:0\n" % (path[4:].encode(), len(sent(path)), number))
        self.put("courierpop3dsizelist", b"".join(lines))

    def change(self, added: set[str]) -> None:
        """Do what other programs do between sessions."""
        os.rename(self.path / "cur/4.d:2,", self.path / "cur/4.d:2,R")
        os.unlink(self.path / REMOVED)
        for path in added:
            self.put(path, mail(path))
        self.present = (OLD | added) - {REMOVED}

    def messages(self) -> set[str]:
        """Those that are there, which are whole and have the names that they should."""
        found = []
        for folder in ("new", "cur"):
            for name in self.names(folder):
                if f"{folder}/{name}" not in FOREIGN:
                    content = (self.path / folder / name).read_bytes()
                    path = subject(content)
                    assert content == mail(path), f"{folder}/{name} is damaged"
                    assert f"{folder}/{name}" in names_of(path), f"{path} is {folder}/{name}"
                    found.append(path)
        assert len(found) == len(set(found)), f"twice: {found}"
        return set(found)

    def check_the_rest(self, *, may_leave_files: bool) -> None:
        for path, content in FOREIGN.items():
            assert (self.path / path).read_bytes() == content, path
        assert may_leave_files or self.names("tmp") == ["8.h"], self.names("tmp")
        if (self.path / "maildirsize").exists():
            limits, *lines = (self.path / "maildirsize").read_bytes().splitlines()
            assert limits == QUOTA.splitlines()[0]
            assert all(re.fullmatch(rb"[-0-9 ]*", line) for line in lines), lines


def subject(content: bytes) -> str:
    return content.splitlines()[0].decode().removeprefix("Subject: ")


def names_of(path: str) -> set[str]:
    """Where a message may be: where it came, or in cur/, with flags."""
    base = path[4:].partition(":")[0]
    return {path, *(f"cur/{base}:2,{flags}" for flags in ("", "S", "F", "FS", "R", "RS"))}


# The client


class Cut(Exception):
    """The server has ended the connection."""


class Client:
    """A client that fetches everything and deletes the victims, and what it has been told."""

    def __init__(self, session: Session):
        self._session = session
        self.ids: dict[int, bytes] = {}
        self.sizes: dict[int, int] = {}
        self.got: dict[int, str] = {}  # what came whole
        self.marked: set[str] = set()
        self.has_quit = False
        self.goodbye = b""
        self.log: list[str] = []

    def talk(self, victims: set[str]) -> None:
        """Raises AssertionError when it is told what isn't so, or isn't POP3."""
        try:
            if self._status().startswith(b"+OK"):
                self._fetch()
                self._leave(victims)
            assert self._session.rest() == b""
        except (Cut, BrokenPipeError, ConnectionResetError):
            pass

    def _fetch(self) -> None:
        retrs = b"".join(b"RETR %d\r\n" % number for number in range(1, 9))
        self._session.send(b"UIDL\r\nLIST\r\n" + retrs + b"TOP 1 2\r\n")
        self.ids = self._listing()
        self.sizes = {number: int(size) for number, size in self._listing().items()}
        for number in range(1, 9):
            body = self._text()
            if body:
                path = subject(body)
                assert body == sent(path), f"{path} is sent damaged"
                self.got[number] = path
        top = self._text()
        if top and 1 in self.got:
            head, _, body = sent(self.got[1]).partition(b"\r\n\r\n")
            assert top == b"\r\n".join([head, b"", *body.split(b"\r\n")[:2], b""])

    def _leave(self, victims: set[str]) -> None:
        numbers = [number for number, path in self.got.items() if path in victims]
        self.marked = {self.got[number] for number in numbers}
        self.has_quit = True
        self._session.send(b"".join(b"DELE %d\r\n" % number for number in numbers) + b"QUIT\r\n")
        for _ in numbers:
            assert self._status().startswith(b"+OK")
        self.goodbye = self._status()

    def _line(self) -> bytes:
        line = self._session.line()
        assert b"Traceback" not in line
        if not line.endswith(b"\r\n"):
            raise Cut
        return line

    def _status(self) -> bytes:
        line = self._line()
        assert line.startswith((b"+OK", b"-ERR ")), line
        return line

    def _text(self) -> bytes:
        """A multi-line reply without its dots; nothing for an error."""
        lines = []
        if self._status().startswith(b"+OK"):
            while (line := self._line()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _listing(self) -> dict[int, bytes]:
        lines = [line.split() for line in self._text().splitlines()]
        return {int(number): word for number, word in lines}

    def was_served(self, messages: set[str]) -> bool:
        """Whether everything was as it should be: these messages, their ids and sizes."""
        return (
            set(self.got.values()) == messages
            and self.ids.keys() == self.got.keys()
            and self.sizes == {number: len(sent(path)) for number, path in self.got.items()}
            and self.goodbye.startswith(b"+OK")
        )

    def known_ids(self) -> dict[str, bytes]:
        """The lasting ids of messages, as far as the client can know which message has which."""
        return {
            path: self.ids[number]
            for number, path in self.got.items()
            if number in self.ids and not self.ids[number].startswith(b"ENOMEM-")
        }


# Every call in every way

# Some mail came a while ago, and an index is made; nothing came, and there is an index; there is an
# index, and much mail came just now.
MAILBOXES = ["some", "index", "old index"]
A_WHILE = 0.02  # seconds, more than a tick of a file system's clock
CONSTANTS = {  # what is large, and when is a while ago
    ("courierpop3d.index", "WORTH"): 1,
    ("courierpop3d.index", "SETTLED"): int(A_WHILE * 1e9),
    ("courierpop3d.measure", "MANY"): 2,
}

# What may happen to a call, by its manual page; to one that isn't here, everything.
FAILURES = {
    "create": "ENOSPC EIO ESTALE EACCES EINTR ENOMEM EMFILE",
    "open64": "EIO ESTALE EACCES EINTR ENOMEM EMFILE",
    "opendir": "EIO ESTALE EACCES EINTR ENOMEM EMFILE",
    "read": "EIO ESTALE EINTR ENOMEM short",
    "pread64": "EIO ESTALE EINTR ENOMEM short",
    "readdir64": "EIO ESTALE ENOMEM",
    "recv": "EIO EINTR ENOMEM short",
    "send": "EIO EINTR ENOMEM short",
    "write": "ENOSPC EIO ESTALE EINTR ENOMEM short",
    "fsync": "ENOSPC EIO ESTALE EINTR",
    "close": "ENOSPC EIO EINTR",
    "rename": "ENOSPC EIO ESTALE EACCES ENOMEM",
    "unlink": "EIO ESTALE EACCES ENOMEM",
    "chdir": "EIO ESTALE EACCES ENOMEM",
    "stat64": "EIO ESTALE EACCES ENOMEM",
    "lstat64": "EIO ESTALE EACCES ENOMEM",
    "fstatat64": "EIO ESTALE EACCES ENOMEM",
    "fstat64": "EIO ESTALE ENOMEM",
    "lseek64": "EIO ESTALE",
    "flock": "EIO ESTALE EINTR ENOMEM",
    "poll": "EINTR ENOMEM",
    "setsockopt": "ENOMEM",
    "pipe2": "ENOMEM EMFILE",
    "fork": "ENOMEM",
    "waitpid": "EINTR",
}
ALL = "ENOSPC EIO ESTALE EACCES EINTR ENOMEM EMFILE short"
MOVES = ("read", "write", "recv", "send", "pread64", "pwrite64", "sendfile64", "copy_file_range")


def may_happen(failure: str, call: str) -> bool:
    if failure == "short":
        return call in MOVES
    return EVERYTHING or failure in FAILURES.get(call, ALL).split()


LASTING = "ENOSPC EIO EACCES EMFILE"


@pytest.mark.parametrize(
    "failure, lasting",
    [
        *[pytest.param(name, False, id=name) for name in ALL.split()],
        *[pytest.param(name, True, id=f"{name}-lasting") for name in LASTING.split()],
    ],
)
@pytest.mark.parametrize("mailbox", MAILBOXES)
def test_F_DISK_1_F_DISK_3_F_FILE_11_F_FILE_12_any_call_may_fail(
    faults, tmp_path, mailbox, failure, lasting
):
    how = SHORT if failure == "short" else getattr(errno, failure)
    first = Case(faults, tmp_path / "none", mailbox)
    time.sleep(2 * A_WHILE)
    first.run(NO_FAULT)
    cases = {
        number: Case(faults, tmp_path / str(number), mailbox)
        for number, call in enumerate(first.calls, 1)
        if may_happen(failure, call.split()[0])
    }
    time.sleep(2 * A_WHILE)
    wrong = []
    for number, case in cases.items():
        try:
            case.run((number, how, lasting))
        except AssertionError as why:
            wrong.append(f"{number}: {case.failed}: {str(why).partition(chr(10))[0]}")
    assert not wrong, "\n".join(wrong)


class Case:
    """A mailbox, a session on it in which a call fails, and one in which none does.

    After `run`: all calls of the first session, and the one that failed.
    """

    def __init__(self, faults: Faults, directory: Path, kind: str):
        self.faults = faults
        self.directory = directory
        self.kind = kind
        self.constants = dict(CONSTANTS)
        self.box = Mailbox(directory / "home")
        if kind == "some":
            self.box.change(SOME)

    def run(self, fault: tuple[int, int, int]) -> None:
        """Raises AssertionError. A mailbox that is all right is removed."""
        number, how, self.lasting = fault
        if self.kind != "some":
            self.make_index()
        if self.kind == "old index":
            self.box.change(MUCH)
            self.constants["courierpop3d.index", "SETTLED"] = int(3600e9)
        client = self.talk(VICTIMS, fault)
        self.calls = self.faults.calls()
        self.failed = self.calls[number - 1] if 0 < number <= len(self.calls) else ""
        if how == errno.EACCES and self.lasting and "courierpop3dsizelist" in self.failed:
            self.box.ids = {}  # a list that is not for us to read is made anew, as Courier does
        self.check_what_is_left(client)
        self.check_log(client)
        self.check_next_session(client.known_ids())
        shutil.rmtree(self.directory)

    def begin(self, fault=NO_FAULT) -> Session:
        return Session(self.faults, self.box, fault=fault, constants=self.constants)

    def make_index(self) -> None:
        session = self.begin()
        session.send(b"QUIT\r\n")
        session.rest()
        session.end()
        assert (self.box.path / "courierpop3dindex").exists()

    def talk(self, victims=frozenset(), fault=NO_FAULT) -> Client:
        """A session. What its client is told is whole, and true as far as it goes."""
        session = self.begin(fault)
        client = Client(session)
        try:
            client.talk(victims)
        finally:
            session.end()
        assert session.status in (0, 1), f"exit status {session.status}"
        client.log = session.logged()
        return client

    def check_what_is_left(self, client: Client) -> None:
        lost = self.box.present - self.box.messages()
        assert lost <= client.marked, f"lost: {lost - client.marked}"
        assert client.has_quit or not lost, "removed without QUIT"
        if client.goodbye.startswith(b"+OK"):
            assert lost == client.marked, "+OK, but not removed"
        may_leave_files = self.failed.startswith("unlink " if self.lasting else "unlink tmp/")
        self.box.check_the_rest(may_leave_files=may_leave_files)

    def check_log(self, client: Client) -> None:
        text = " ".join(client.log)
        assert "Traceback" not in text and "internal error" not in text, text
        usual = ("INFO: LOGIN", "INFO: LOGOUT")
        is_explained = not all(line.startswith(usual) for line in client.log)
        served = client.was_served(self.box.present - {BARRED})
        assert served or is_explained or self.is_speechless(), f"not explained: {text}"

    def is_speechless(self) -> bool:
        """Whether the log or the connection itself is what failed."""
        call, _, where = self.failed.partition(" ")
        if call == "poll" or self.lasting and call == "write":
            return True
        return where.startswith("socket:") or "/log" in where

    def check_next_session(self, shown: dict[str, bytes]) -> None:
        client = self.talk()
        there = self.box.messages() - {BARRED}
        assert client.was_served(there)
        ids = client.known_ids()
        assert ids.keys() == there, "temporary ids in the next session"
        owners: dict[bytes, set[str]] = {}
        for path, uid in [*self.box.ids.items(), *shown.items(), *ids.items()]:
            owners.setdefault(uid, set()).add(path)
        assert all(len(paths) == 1 for paths in owners.values()), f"one id for two: {owners}"
        for path, uid in ids.items():
            first = self.box.ids.get(path) or shown.get(path) or uid
            assert uid == first == shown.get(path, uid), f"new id of {path}"
