"""What the tests of the proxy share: mail hosts, with certificates and without."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import trustme

from tests.conftest import DEADLINE

GREETING = b"+OK A mail host.\r\n"


class MailHost:
    """A mail host in a thread, that talks to one client after another.

    With a `context` it knows STLS (or speaks TLS from the first byte). `script` is called with the
    socket once a client is there, and TLS if that is; it has said the greeting before. `lines` are
    the commands that came, of all clients; `sessions` counts clients.
    """

    def __init__(
        self, script, *, context=None, implicit=False, address=("127.0.0.1", 0), greeting=GREETING
    ):
        self.script = script
        self.context = context
        self.implicit = implicit
        self.greeting = greeting
        self.lines: list[bytes] = []
        self.plain: list[bytes] = []  # what came before TLS
        self.sessions = 0
        self.listener = socket.create_server(address)
        self.name = "{}:{}".format(*self.listener.getsockname())
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            self.sessions += 1
            client.settimeout(DEADLINE)
            try:
                self._serve(client)
            except OSError:
                pass
            finally:
                client.close()

    def _serve(self, client: socket.socket) -> None:
        if self.implicit:
            client = self.context.wrap_socket(client, server_side=True)
        client.sendall(self.greeting)
        if self.context and not self.implicit:
            line = read_line(client)
            self.plain.append(line)
            if line != b"STLS\r\n":
                return
            client.sendall(b"+OK Begin TLS\r\n")
            client = self.context.wrap_socket(client, server_side=True)
        with client:
            self.script(self, client)

    def ask(self, client: socket.socket) -> bytes:
        """The next command of the client; empty when it has gone."""
        line = read_line(client)
        self.lines.append(line)
        return line

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(DEADLINE)


def read_line(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        octet = client.recv(1)
        if not octet:
            break
        line += octet
    return line


def replies(*texts: bytes):
    """A script that answers each command with the next of `texts`, then waits for the end."""

    def script(host: MailHost, client: socket.socket) -> None:
        for text in texts:
            if not host.ask(client):
                return
            client.sendall(text)
        while client.recv(4096):
            pass

    return script


def mailbox(host: MailHost, client: socket.socket) -> None:
    """A script: lets everybody in, and answers until QUIT."""
    while (line := host.ask(client)).upper() not in (b"", b"QUIT\r\n"):
        client.sendall(b"+OK %s\r\n" % line.split()[0])
    if line:
        client.sendall(b"+OK Bye.\r\n")


def bridge(port: int):
    """A script: what is said from now on is said to the server on `port`, without its greeting."""

    def script(host: MailHost, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as server:
            read_line(server)
            back = threading.Thread(target=copy, args=(server, client))
            back.start()
            copy(client, server)
            back.join(DEADLINE)

    return script


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        if isinstance(sink, ssl.SSLSocket):
            sink.unwrap()
        else:
            sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def mail_host():
    """Start a mail host: mail_host(script, ...); ended after the test."""
    running: list[MailHost] = []

    def start(script=mailbox, **options) -> MailHost:
        host = MailHost(script, **options)
        running.append(host)
        return host

    yield start
    for host in running:
        host.stop()


@pytest.fixture
def authority(public) -> trustme.CA:
    """Who certifies mail hosts; `authority.file` is its certificate."""
    ca = trustme.CA()
    ca.file = public / "ca.pem"
    ca.cert_pem.write_to_path(ca.file)
    return ca


def context_for(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def certified(authority) -> ssl.SSLContext:
    """Of a host that is what it says: 127.0.0.1."""
    return context_for(authority.issue_cert("127.0.0.1"))


@pytest.fixture
def proxy(serve, any_mode):
    """Start a chain with POP3_PROXY: proxy(option..., NAME=value...); without TLS to the mail host
    unless it says more."""

    def start(*options: str, stages=None, port: int = 0, **env: str):
        found = {"POP3_PROXY": "1", "POP3_PROXY_TLS": "no", **env}
        more = {"stages": stages} if stages else {}
        return serve(*any_mode, *options, env=found, port=port, **more)

    return start


@pytest.fixture
def elsewhere(accounts):
    """An account whose home does not exist here: elsewhere(HOST...)."""

    def add(*hosts: object, name: str = "john", **fields: str):
        options = ",".join(f"mailhost={getattr(host, 'name', host)}" for host in hosts)
        account = accounts.add(name, options=options, home="/nonexistent", **fields)
        return account

    return add
