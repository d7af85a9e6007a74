"""A Maildir, a session on it without descriptors, and the program itself on a socketpair."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from signal import SIGKILL

import pytest

from courierchain import handover
from courierpop3d import maildir, parked, snapshot
from courierpop3d.journal import Journal
from courierpop3d.maildrop import Maildrop
from courierpop3d.main import main
from courierpop3d.message import Messages
from courierpop3d.session import Transaction
from courierpop3d.visit import Visit
from courierpop3d.wrapper import Wrapper

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 20.0  # seconds that a test waits for anything at the most
USER = 29999  # who the program runs as when the tester is root
NOW = 200  # the clock of sessions without descriptors

# The program as after a login: loaded as whoever runs the tests, then run as the user in the home.
# argv: source directory, uid or 0, descriptor of the record or -1, program, arguments
START = """
import os, sys
sys.path.insert(0, sys.argv[1])
import courierpop3d.main, courierchain.start
uid, record = int(sys.argv[2]), int(sys.argv[3])
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
if record < 0:
    os.closerange(3, 64)
else:
    os.dup2(record, 3)
del sys.argv[1:4]
courierchain.start.program()
"""


class Box:
    """A home with a Maildir in it, which is the current directory of the test."""

    def __init__(self, home: Path):
        self.home = home
        self.path = home / "Maildir"
        for folder in ("new", "cur", "tmp"):
            (self.path / folder).mkdir(parents=True)

    def put(self, name: str | bytes, content: bytes = b"Subject: x\n\nLine 1\n") -> None:
        """Store a message as "new/..." or "cur/..."."""
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(content)

    def deliver(self, name: str, content: bytes) -> None:
        """Put a message into new/ as a mail server does while sessions run."""
        self.put("tmp/" + name, content)
        os.rename(self.path / "tmp" / name, self.path / "new" / name)

    def names(self, folder: str = "cur") -> list[str]:
        return sorted(os.listdir(self.path / folder))

    def contents(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in (self.path / "cur").iterdir())

    @property
    def list(self) -> Path:
        return self.path / "courierpop3dsizelist"

    @staticmethod
    def as_owner() -> dict:
        """What makes subprocess run a program as the owner."""
        if os.geteuid() != 0:
            return {}
        return {"user": USER, "group": USER, "extra_groups": []}

    def own(self) -> None:
        """Give everything to the user that the program runs as."""
        if os.geteuid() == 0:
            for path in (self.home, *self.home.rglob("*")):
                try:
                    os.lchown(path, USER, USER)
                except FileNotFoundError:
                    pass  # a running session has moved it


@pytest.fixture
def box(tmp_path, monkeypatch):
    box = Box(tmp_path / "home")
    monkeypatch.chdir(box.path)
    return box


class Talk:
    """A session without descriptors. Attributes: the Transaction and its Maildrop."""

    def __init__(self, *, utf8: bool = True, now: int = NOW, parks: bool = False, **env: str):
        self.journal = Journal({"AUTHENTICATED": "joe", **env})
        self.env = env
        self.parks = parks
        maildir.move_new_to_cur(self.journal)
        self.begin(snapshot.take(now, self.journal, env), b"=_1-200", utf8)

    def begin(self, messages: Messages, boundary: bytes, utf8: bool) -> None:
        self.maildrop = Maildrop(messages, self.journal, self.env)
        self.wrapper = Wrapper(boundary, b"message/global")
        self.session = Transaction(self.maildrop, self.wrapper, utf8=utf8)

    def park(self) -> None:
        """Go on with what is left of the session where all else is forgotten."""
        parcel = parked.Parcel(parked.pack(Visit(self.session, Silent(), 300, started=1.5)))
        self.begin(parcel.messages, parcel.boundary, False)
        parcel.resume(Visit(self.session, Silent(), 300, started=0))

    def say(self, line: bytes | str | None) -> bytes:
        """The whole reply to one line, after which the client pauses."""
        if self.parks:
            self.park()
        line = line.encode() if isinstance(line, str) else line
        reply = self.session.obey(line)
        text = reply if isinstance(reply, bytes) else b"".join(reply)
        self.session.settle()
        return text

    def ids(self) -> list[bytes]:
        return [line.split(b" ", 1)[1] for line in self.lines("UIDL")]

    def lines(self, command: str) -> list[bytes]:
        """The lines of a listing, without status and dot."""
        reply = self.say(command)
        assert reply.startswith(b"+OK") and reply.endswith(b"\r\n.\r\n"), reply
        return reply.split(b"\r\n")[1:-2]

    def body(self, command: str) -> bytes:
        """A message as the client has it after taking dots away."""
        reply = self.say(command)
        assert reply.startswith(b"+OK") and reply.endswith(b"\r\n.\r\n"), reply
        text = reply.partition(b"\r\n")[2].removesuffix(b".\r\n")
        lines = text.split(b"\r\n")
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


class Silent:
    """A client that isn't there."""

    sent = 0


@pytest.fixture(params=["in one process", "parked before each line"])
def talk(request, box):
    """Begin a session on the box: talk(utf8=True, now=200)."""
    return partial(Talk, parks=request.param != "in one process")


@pytest.fixture(scope="session")
def talk_about(tmp_path_factory):
    """Begin a session on a new box with these contents: for tests that hypothesis repeats."""

    def begin(*contents: bytes) -> Talk:
        box = Box(tmp_path_factory.mktemp("home"))
        os.chdir(box.path)
        for number, content in enumerate(contents, 1):
            box.put(f"cur/{number}.a:2,", content)
        return Talk()

    return begin


@pytest.fixture(autouse=True)
def _back_to_where_the_tests_began():
    before = os.getcwd()
    yield
    os.chdir(before)


class Connection:
    """The client's end of a connection, with what the server logs beside it."""

    def __init__(self, box: Box):
        self.log = box.home.parent / f"log{len(os.listdir(box.home.parent))}"
        self.log.touch()
        self.socket, self.server = socket.socketpair()
        self.socket.settimeout(DEADLINE)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        return self.file.readline()

    def ask(self, command: str) -> bytes:
        """The status line that answers a command."""
        self.send(command.encode() + b"\r\n")
        return self.line()

    def many(self, command: str) -> list[bytes]:
        """The lines of a multi-line reply, without status and dot; for an error, none."""
        if not self.ask(command).startswith(b"+OK"):
            return []
        lines = []
        while (line := self.line()) not in (b".\r\n", b""):
            lines.append(line)
        assert line == b".\r\n"
        return lines

    def rest(self) -> bytes:
        """What comes until the server closes."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b""

    def hang_up(self) -> None:
        self.file.close()
        self.socket.close()

    def logged(self) -> list[str]:
        return self.log.read_text().splitlines()


class Program(Connection):
    """courierpop3d started alone."""

    def __init__(
        self, box: Box, env: dict[str, str], record: bytes | None, argv: list[str], uid: int
    ):
        super().__init__(box)
        reader, writer = os.pipe()
        os.write(writer, record or b"")
        os.close(writer)
        command = [sys.executable, "-I", "-B", "-c", START, str(ROOT)]
        with self.log.open("wb") as stderr, self.server:
            self.process = subprocess.Popen(
                [*command, str(uid), str(-1 if record is None else reader), *argv],
                stdin=self.server,
                stdout=self.server,
                stderr=stderr,
                cwd=box.home,
                env=env,
                pass_fds=[reader],
            )
        os.close(reader)

    def end(self) -> tuple[int, list[str]]:
        """Exit status and log, once the program has ended."""
        return self.process.wait(DEADLINE), self.logged()


@pytest.fixture
def program(box):
    """Start the program: program(MAILDIR argument, record=..., ENV=...)."""
    running: list[Program] = []

    def start(
        *arguments: str,
        record: bytes | None = b"pop3\nauthenticated\njoe\n",
        uid: int = USER if os.geteuid() == 0 else 0,
        **env: str | None,
    ) -> Program:
        settings = {"AUTHENTICATED": "joe", "UTF8": "1", **env}
        box.own()
        argv = ["courierpop3d", *(arguments or ("./Maildir",))]
        given = {name: value for name, value in settings.items() if value is not None}
        running.append(Program(box, given, record, argv, uid))
        return running[-1]

    yield start
    for server in running:
        server.process.kill()
        server.process.wait()
        server.hang_up()


class Resident(Connection):
    """courierpop3d in a forked process that has loaded it, as under couriertcpd: starts at once."""

    def __init__(self, box: Box, gate: int):
        super().__init__(box)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._serve(box, gate)
            finally:
                os._exit(99)
        self.server.close()

    def _serve(self, box: Box, gate: int) -> None:
        os.chdir(box.home)
        for descriptor in (0, 1):
            os.dup2(self.server.fileno(), descriptor)
        os.dup2(os.open(self.log, os.O_WRONLY), 2)
        os.dup2(gate, 3)
        os.closerange(4, 1024)
        gate = 3
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
        os.read(gate, 1)
        os.close(gate)
        argv = ["courierpop3d", "./Maildir"]
        os._exit(handover.run(main, argv, {"AUTHENTICATED": "joe", "UTF8": "1"}))

    def kill(self) -> None:
        os.kill(self.pid, SIGKILL)
        self.wait()

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def residents(box):
    """Serve the box from forked processes that begin at once; the caller ends each of them."""

    def start(count: int) -> list[Resident]:
        box.own()
        gate, opener = os.pipe()
        servers = [Resident(box, gate) for _ in range(count)]
        os.close(gate)
        os.close(opener)
        return servers

    return start


@pytest.fixture
def resident(residents):
    """One of them."""
    return lambda: residents(1)[0]
