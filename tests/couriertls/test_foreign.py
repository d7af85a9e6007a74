"""In the place of the original couriertls: Debian's couriertcpd in front, its courierpop3login
behind; and the client's side of ours against the server's."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, DEADLINE, Client, needs, wait_until
from tests.couriertls.conftest import ENVIRONMENT, RELAY, USER

ORIGINAL = Path("/usr/lib/courier/courier/courierpop3login")


def original_login() -> str:
    return needs(str(ORIGINAL))


def secured(client: Client, files) -> Client:
    """The same client, speaking TLS from here on."""
    client.file.close()
    client.socket = files.client().wrap_socket(client.socket, server_hostname="mail.example")
    client.file = client.socket.makefile("rb")
    return client


def test_the_original_couriertcpd_in_front(serve, john, files):
    tcpd = needs("couriertcpd") if not Path("/usr/sbin/couriertcpd").exists() else None
    stages = [RELAY, "-server", "-tcpd", *([f"-user={USER}"] if USER else [])]
    chain = [str(BIN / stage) for stage in ("courierpop3login", "authuserdb", "courierpop3d")]
    server = serve(
        stages=[*stages, *chain, "./Maildir"],
        tcpd=tcpd or "/usr/sbin/couriertcpd",
        env={"TLS_CERTFILE": str(files.file)},
    )
    john.deliver(b"Subject: x\n\nbody\n")
    with secured(server.client(), files).login(john) as client:
        assert client.listing("RETR 1")[-1] == "body"
        assert client.ask("QUIT") == "+OK Bye-bye."
    with server.client() as client:
        client.send(b"USER john\r\n")
        assert client.rest()[:1] == b"\x15"
    server.logged(r"ip=\[::ffff:127\.0\.0\.1\], couriertls: accept: error:SSL .*wrong version.*")


@pytest.fixture
def stls(serve, files):
    """Debian's courierpop3login, which starts our couriertls for STLS."""
    login = original_login()
    return serve(
        stages=[login, str(BIN / "courierpop3d"), "Maildir"],
        env={"TLS_CERTFILE": str(files.file), "COURIERTLS": RELAY, "POP3_STARTTLS": "YES"},
    )


def test_stls_of_the_original_login_program(stls, files):
    # It starts the relay as Debian's mail user, who has to be able to read the key.
    files.file.chmod(0o644)
    client = stls.client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert "STLS" in client.listing("CAPA")
    assert client.ask("STLS") == "+OK Begin SSL/TLS negotiation now."
    with secured(client, files):
        assert "STLS" not in client.listing("CAPA")
        assert client.ask("USER john") == "+OK Password required."


def test_stls_of_the_original_login_program_with_plain_text(stls, files):
    files.file.chmod(0o644)
    with stls.client() as client:
        client.line()
        assert client.ask("STLS") == "+OK Begin SSL/TLS negotiation now."
        client.send(b"NOOP NOOP NOOP\r\n")
        said = client.file.read(7)
        assert said[:1] == b"\x15"
        reply = client.line()
        expected = b"couriertls: accept: error:SSL routines:wrong version number\r\n"
        assert reply == b"-ERR STARTTLS failed: ip=[::ffff:127.0.0.1], " + expected


def test_stls_of_the_original_login_program_without_a_certificate(stls, files):
    files.file.unlink()
    with stls.client() as client:
        client.line()
        client.send(b"STLS\r\n")
        client.line()
        assert client.line().startswith(b"-ERR STARTTLS failed: couriertls: TLS is not set up here")


# The client's side


def ask(port: int, *options: str, lines: bytes, env=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [RELAY, "-host=localhost", f"-port={port}", *options],
        input=lines,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture
def pop3s(serve, files):
    files.write("localhost")
    stages = ["couriertls", "-server", "-tcpd", "courierpop3login", "authuserdb", "courierpop3d"]
    return serve(stages=stages, env={"TLS_CERTFILE": str(files.file)})


def test_the_client_s_side_from_a_shell(pop3s):
    done = ask(pop3s.port, lines=b"CAPA\r\nQUIT\r\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == (b"+OK Hello there.", b"+OK Better luck next time.")


def test_the_client_s_side_with_a_program(pop3s, files):
    script = 'read -r greeting; echo "$greeting" > "$1"; echo "$TLS_SUBJECT_O" >> "$1"; echo QUIT'
    seen = files.directory / "seen"
    done = ask(
        *(pop3s.port, "-verify=localhost", "/bin/sh", "-c", script, "sh", str(seen)),
        lines=b"",
        env={"TLS_TRUSTCERTS": str(files.trusted)},
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: seen.read_bytes().count(b"\n") == 2)
    assert seen.read_bytes().startswith(b"+OK Hello there.\r\ntrustme ")


@pytest.mark.parametrize("domain, accepted", [("localhost", True), ("mail.example", False)])
def test_9525_01_verify_demands_the_name(pop3s, files, domain, accepted):
    env = {"TLS_TRUSTCERTS": str(files.trusted)}
    done = ask(pop3s.port, f"-verify={domain}", lines=b"QUIT\r\n", env=env)
    assert (done.returncode == 0) == accepted, done.stderr
    if not accepted:
        assert done.stderr.startswith(b"couriertls: connect: error:Hostname mismatch")


def test_9525_01_verify_demands_an_authority(pop3s):
    done = ask(pop3s.port, "-verify=localhost", lines=b"QUIT\r\n")
    assert done.returncode == 1
    assert b"TLS_TRUSTCERTS not set" in done.stderr
    other = "/etc/ssl/certs/ca-certificates.crt"
    if os.path.exists(other):
        env = {"TLS_TRUSTCERTS": other}
        done = ask(pop3s.port, "-verify=localhost", lines=b"QUIT\r\n", env=env)
        assert done.returncode == 1 and b"certificate" in done.stderr


DIALOGUES = {
    "pop3": [(b"+OK hello\r\n", b"STLS\r\n"), (b"+OK\r\n", None)],
    "imap": [
        (b"* OK hello\r\n", b"a STARTTLS\r\n"),
        (b"* CAPABILITY X\r\na OK go\r\n", None),
    ],
    "smtp": [
        (b"220-x\r\n220 x\r\n", b"EHLO localhost\r\n"),
        (b"250-x\r\n250 STARTTLS\r\n", b"STARTTLS\r\n"),
        (b"220 go\r\n", None),
    ],
}


@pytest.mark.parametrize("protocol", DIALOGUES)
def test_protocol_says_what_begins_tls(files, protocol):
    files.write("localhost")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [
                *(RELAY, "-host=127.0.0.1", f"-port={listener.getsockname()[1]}"),
                *(f"-protocol={protocol}", "-verify=localhost"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**ENVIRONMENT, "TLS_TRUSTCERTS": str(files.trusted)},
        )
        network, _ = listener.accept()
    network.settimeout(DEADLINE)
    for said, expected in DIALOGUES[protocol]:
        network.sendall(said)
        if expected:
            assert network.recv(1000) == expected
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.file)
    with context.wrap_socket(network, server_side=True) as tls:
        tls.sendall(b"secret\r\n")
    stdout, _ = process.communicate(timeout=DEADLINE)
    assert stdout == b"secret\r\n"


def test_a_refusal_of_tls_is_said(files):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [
                *(RELAY, "-host=127.0.0.1", f"-port={listener.getsockname()[1]}"),
                "-protocol=pop3",
            ],
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        network, _ = listener.accept()
    with network:
        network.sendall(b"+OK hello\r\n")
        assert network.recv(100) == b"STLS\r\n"
        network.sendall(b"-ERR no\r\n")
        _, stderr = process.communicate(timeout=DEADLINE)
    assert (process.returncode, stderr) == (1, b"-ERR no\n")


@pytest.mark.parametrize(
    "host, port, said",
    [
        ("no.such.host.invalid", "110", b"no.such.host.invalid: not found.\n"),
        ("127.0.0.1", "1", b"connect: Connection refused\n"),
    ],
)
def test_nobody_to_connect_to(host, port, said):
    done = subprocess.run(
        [RELAY, f"-host={host}", f"-port={port}"], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, said)
