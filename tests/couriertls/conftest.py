"""What tests of the TLS relay share: certificates, and both ways to have a connection relayed.

program(...)    couriertls -server -tcpd, a connection to it, and what became of it
relay(...)      couriertls -server -relay, and connections that it is asked to shake hands on
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from courierchain import relay as protocol
from tests.conftest import BIN, DEADLINE, ROOT, children_of, wait_until

RELAY = str(BIN / "couriertls")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
USER = "nobody" if ROOT else None


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


class Files:
    """A directory of certificates, as TLS_CERTFILE and its kin name them."""

    def __init__(self, directory: Path, authority: trustme.CA):
        self.directory = directory
        self.authority = authority
        self.file = directory / "pop3d.pem"
        self.trusted = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.trusted)

    def write(self, host: str, suffix: str = "", **details) -> bytes:
        """Put a new certificate for `host` into the place of TLS_CERTFILE.SUFFIX, as one file."""
        kind = trustme.KeyType.ECDSA if not details.pop("rsa", False) else trustme.KeyType.RSA
        issued = self.authority.issue_cert(host, key_type=kind, **details)
        text = issued.private_key_and_cert_chain_pem.bytes()
        self.put(text, suffix)
        return text

    def put(self, text: bytes, suffix: str = "") -> None:
        aside = self.directory / "aside"
        aside.write_bytes(text)
        aside.chmod(0o600)
        aside.rename(f"{self.file}{suffix}")

    @property
    def env(self) -> dict[str, str]:
        return {**ENVIRONMENT, "TLS_CERTFILE": str(self.file)}

    def client(self, **versions) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.trusted)
        for name, version in versions.items():
            setattr(context, name, version)
        return context


@pytest.fixture
def files(public, authority):
    found = Files(public, authority)
    found.write("mail.example")
    return found


def hello(context: ssl.SSLContext, network: socket.socket, name: str = "mail.example"):
    """Shake hands as a client."""
    network.settimeout(DEADLINE)
    return context.wrap_socket(network, server_hostname=name)


def read_all(side: socket.socket) -> bytes:
    """What comes to the end, however that is."""
    found = b""
    try:
        while data := side.recv(65536):
            found += data
    except (ConnectionResetError, ssl.SSLError):
        pass
    return found


def connected() -> tuple[socket.socket, socket.socket]:
    """A TCP connection: the client's end, and the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    client.settimeout(DEADLINE)
    return client, accepted


class Program:
    """A couriertls for one connection; `client` is the other end of its network."""

    def __init__(self, arguments, env: dict[str, str], pass_fds=(), **popen):
        self.client, network = connected()
        with network:
            self.process = subprocess.Popen(
                [RELAY, "-server", *map(str, arguments)],
                **{"stdin": network, "stdout": network, "stderr": subprocess.PIPE, **popen},
                env=env,
                pass_fds=pass_fds,
            )

    def hello(self, context: ssl.SSLContext, name: str = "mail.example") -> ssl.SSLSocket:
        return hello(context, self.client, name)

    def ended(self) -> tuple[int, list[str]]:
        """Exit status and log."""
        _, log = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, log.decode().splitlines()


@pytest.fixture
def program(files):
    """Start couriertls -server -tcpd ARGUMENT..."""
    started = []

    def start(*arguments, env=None, options=("-tcpd",), **popen) -> Program:
        found = Program([*options, *arguments], {**files.env, **(env or {})}, **popen)
        started.append(found)
        return found

    yield start
    for each in started:
        each.client.close()
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


class Connection:
    """What was asked of the relay: the client's end, the program's end, and where it answers."""

    def __init__(self, client: socket.socket, program: socket.socket, reply: socket.socket):
        self.client = client
        self.program = program
        self.reply = reply

    def answer(self) -> protocol.Answer:
        message = self.reply.recv(protocol.LARGEST)
        assert message, "the relay has gone"
        assert not self.reply.recv(1)
        return protocol.answered(message)

    def close(self) -> None:
        for side in (self.client, self.program, self.reply):
            side.close()


class Relay:
    """A couriertls -server -relay."""

    def __init__(self, files: Files, log: Path, env: dict[str, str], options=()):
        self.log = log
        self.files = files
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(DEADLINE)
        self.asked: list[Connection] = []
        with theirs, log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [RELAY, "-server", "-relay", *options],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**files.env, "TLS_RELAYS": "2", **env},
            )
        wait_until(lambda: self.ended() or len(self.workers()) == self.size(env), "workers")

    def size(self, env: dict[str, str]) -> int:
        return int(env.get("TLS_RELAYS", "2"))

    def ended(self) -> bool:
        return self.process.poll() is not None

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def connect(self, env: dict[str, str] | None = None) -> Connection:
        """Have a connection accepted by the relay; nobody has said anything on it yet."""
        client, network = connected()
        ours, plain = socket.socketpair()
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for side in (ours, reply):
            side.settimeout(DEADLINE)
        with network, plain, theirs:
            protocol.ask(
                self.channel, b"1", env or {}, network.fileno(), plain.fileno(), theirs.fileno()
            )
        self.asked.append(Connection(client, ours, reply))
        return self.asked[-1]

    def hello(self, name: str = "mail.example", context=None, env=None) -> Connection:
        """The same, with the handshake done; `client` speaks TLS."""
        connection = self.connect(env)
        connection.client = hello(context or self.files.client(), connection.client, name)
        assert connection.answer().connected
        return connection

    def hang_up(self) -> None:
        self.channel.close()
        for connection in self.asked:
            connection.close()

    def stop(self) -> None:
        self.hang_up()
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)


@pytest.fixture
def relay(files):
    """Start couriertls -server -relay: relay(VARIABLE=..., options=[...])."""
    started = []

    def start(*, options=(), **env: str) -> Relay:
        found = Relay(files, files.directory / f"relay{len(started)}", env, options)
        started.append(found)
        return found

    yield start
    for each in started:
        each.stop()


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
