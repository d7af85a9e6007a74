"""What black-box tests share: accounts with Maildirs, a listening chain, and a client.

Everything runs on 127.0.0.1, from the programs beside the Python that runs the tests. As root each
account has a uid of its own; otherwise all have the tester's.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import settings

BIN = Path(sys.executable).parent
ROOT = os.geteuid() == 0
DEADLINE = 20.0  # seconds that a test waits for anything at the most

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

MODES = {"resident": [], "coldexec": ["-coldexec"], "prefork": ["-prefork=4"]}
ANY_MODE = {
    **MODES,
    "reused": ["-uses=5"],
    # All of them at once. Sessions that are parked before the login are in test_park.
    "parked": ["-uses=5", "-park=0.001", "-front"],
}
WITH_PROCESSES = {**MODES, "reused": ["-uses=5"], "parked": ["-uses=5", "-park=60"]}


def has_newer_courier() -> bool:
    """Whether Debian's Courier is that of Debian 13 or later: it announces LANG, says stls=1 at
    LOGIN, has TLS_ALPN, and no -noidentlookup."""
    try:
        return "TLS_ALPN=" in Path("/etc/courier/pop3d-ssl").read_text()
    except FileNotFoundError:
        return False


def needs(program: str) -> str:
    """The path of a peer program. Without it the test is skipped, or fails where CI=true."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")


def needs_module(name: str):
    """A module of Python's that not everybody has. Without it as without a program."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail(f"Python has no {name}")
        pytest.skip(f"Python has no {name}", allow_module_level=True)


def needs_root() -> None:
    if not ROOT:
        pytest.skip("only root can do this")


def wait_until(condition, what: str = "condition"):
    """The first true value of `condition`; fails after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {DEADLINE} s: {what}")


def sha(password: str) -> str:
    """A fast password hash; real ones are tested where they matter."""
    return "{SHA}" + b64encode(hashlib.sha1(password.encode()).digest()).decode()


class Account:
    """A mailbox with its owner. `Account.deliver` puts a message into new/."""

    def __init__(self, name: str, home: Path, uid: int, gid: int):
        self.name = name
        self.password = f"secret of {name}"
        self.home = home
        self.maildir = home / "Maildir"
        self.uid = uid
        self.gid = gid
        for folder in ("new", "cur", "tmp"):
            (self.maildir / folder).mkdir(parents=True)
        self.own()

    def own(self) -> None:
        if ROOT:
            for path in (self.home, *self.home.rglob("*")):
                os.lchown(path, self.uid, self.gid)

    def deliver(self, body: bytes, name: str | None = None) -> str:
        self.serial = getattr(self, "serial", 0) + 1
        name = name or f"{1700000000 + self.serial}.m{self.serial}.host"
        aside = self.maildir / "tmp" / name
        aside.write_bytes(body)
        if ROOT:
            os.chown(aside, self.uid, self.gid)
        aside.rename(self.maildir / "new" / name)
        return name

    def files(self) -> list[str]:
        return sorted(entry.name for entry in (self.maildir / "cur").iterdir())


class Accounts:
    """A userdb and the accounts in it, in a directory that every user may enter."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.userdb = directory / "userdb"
        self.userdb.touch(0o600)
        self.number = 0

    def add(self, name: str = "john", *, listed: bool = True, **fields: str) -> Account:
        self.number += 1
        uid = 20000 + self.number if ROOT else os.getuid()
        gid = 20000 + self.number if ROOT else os.getgid()
        home = self.directory / f"home{self.number}"
        home.mkdir()
        account = Account(name, home, uid, gid)
        record = {"uid": uid, "gid": gid, "home": home, "systempw": sha(account.password)}
        if listed:
            self.record(name, **{**record, **fields})
        return account

    def record(self, name: str, **fields) -> None:
        with self.userdb.open("a") as file:
            file.write(f"{name}\t" + "|".join(f"{k}={v}" for k, v in fields.items()) + "\n")


@pytest.fixture
def public():
    """A directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def accounts(public):
    return Accounts(public)


@pytest.fixture
def john(accounts):
    return accounts.add("john")


def free_port() -> int:
    """One that no client is given meanwhile: the kernel gives them ports from 32768 on."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port


class Server:
    """A running couriertcpd (or another listener) and what it has logged."""

    def __init__(self, argv: list[str], env: dict[str, str], port: int, log: Path):
        self.port = port
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True
            )
        wait_until(self._answers, f"{argv[0]} listens on {port}")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the listener has ended: {self.lines()}")
        wanted = f":{self.port:04X} "
        return any(
            wanted in line and line.split()[3] == "0A"
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text().splitlines()[1:]
        )

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a log line that matches from its beginning to its end."""

        def search():
            return next((m for line in self.lines() if (m := re.fullmatch(pattern, line))), None)

        return wait_until(search, f"{pattern!r} in {self.lines()}")

    def children(self) -> list[int]:
        return children_of(self.process.pid)

    def client(self) -> Client:
        return Client(self.port)

    def answer(self, user: str, password: str) -> str:
        """The reply to PASS, in a connection of its own."""
        with self.client() as client:
            client.line()
            return client.try_login(user, password)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise


def children_of(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        found = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in tasks]
    except OSError:
        return []
    return [int(child) for text in found for child in text.split()]


def freeze(*pids: int) -> None:
    """Stop processes, until SIGCONT; not before all their threads are still is it done."""

    def runs(stat: Path) -> bool:
        try:
            return stat.read_text().rpartition(")")[2].split()[0] not in "TZ"
        except OSError:
            return False  # it has ended

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for tasks in [Path(f"/proc/{pid}/task") for pid in pids]:
        wait_until(lambda t=tasks: not any(map(runs, t.glob("*/stat"))), f"{tasks} are stopped")


def has_client(pid: int) -> bool:
    """Whether a process has a connection on descriptor 0."""
    try:
        return os.readlink(f"/proc/{pid}/fd/0").startswith("socket:")
    except OSError:
        return False


def is_front(pid: int) -> bool:
    try:
        return b"courierpop3login\0-front\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Client:
    """A POP3 client that shows its bytes; with `tls` its connection begins with a handshake."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def start_tls(self, tls: ssl.SSLContext) -> Client:
        """STLS, and what follows it; raises ssl.SSLError or OSError if that fails."""
        assert self.ask("STLS") == "+OK Begin SSL/TLS negotiation now."
        self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line with its CRLF; empty when the server has closed."""
        try:
            return self.file.readline()
        except ConnectionResetError:
            return b""

    def ask(self, command: str) -> str:
        """The status line that answers a command."""
        self.send(command.encode() + b"\r\n")
        return self.line().decode().removesuffix("\r\n")

    def listing(self, command: str) -> list[str]:
        """The lines of a multi-line reply, without its status line."""
        status = self.ask(command)
        assert status.startswith("+OK"), status
        lines = []
        while (line := self.line()) not in (b".\r\n", b""):
            lines.append(line.decode().removesuffix("\r\n"))
        assert line == b".\r\n"
        return lines

    def login(self, account: Account) -> Client:
        assert self.line() == b"+OK Hello there.\r\n"
        assert self.ask(f"USER {account.name}") == "+OK Password required."
        assert self.ask(f"PASS {account.password}") == "+OK logged in."
        return self

    def try_login(self, user: str, password: str) -> str:
        """The reply to PASS, after the greeting or a refusal."""
        self.ask(f"USER {user}")
        return self.ask(f"PASS {password}")

    def rest(self) -> bytes:
        """What comes until the server closes."""
        try:
            return self.file.read()
        except (ConnectionResetError, ssl.SSLError):
            return b""

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()


@pytest.fixture(params=MODES)
def mode(request) -> list[str]:
    """The options of couriertcpd that choose how stages are started; the suite runs all ways."""
    return MODES[request.param]


@pytest.fixture(params=ANY_MODE)
def any_mode(request) -> list[str]:
    """The same, and processes that are used again: for tests that don't look at processes."""
    return ANY_MODE[request.param]


@pytest.fixture(params=WITH_PROCESSES)
def process_mode(request) -> list[str]:
    """The same for tests that look for the process of a silent client: it isn't parked so soon."""
    return WITH_PROCESSES[request.param]


@pytest.fixture
def environment(accounts) -> dict[str, str]:
    """A small environment for programs: no setting of the tester's, no long waits."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "AUTHUSERDB_FILE": str(accounts.userdb),
        "POP3_FAILURE_DELAY": "1",
    }


@pytest.fixture
def serve(public, environment):
    """Start a listener: serve(option..., stages=[...]); ended after the test."""
    running: list[Server] = []

    def start(
        *options: str,
        stages=("courierpop3login", "authuserdb", "courierpop3d", "./Maildir"),
        env=None,
        tcpd: str = str(BIN / "couriertcpd"),
        port: int = 0,
        also: int | None = None,
    ) -> Server:
        port = port or free_port()
        ports = f"{port},{also}" if also else str(port)
        log = public / f"log{len(running)}"
        argv = [tcpd, "-address=127.0.0.1", "-nodnslookup", *options, ports, *map(str, stages)]
        server = Server(argv, {**environment, **(env or {})}, port, log)
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def script(public):
    """Write an executable script and give its path."""

    def write(name: str, text: str) -> str:
        path = public / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return write
