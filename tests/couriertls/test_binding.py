"""What couriertls says of a TLS connection, for logins that are bound to it."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from pathlib import Path

import pytest

from couriertls import binding
from tests.conftest import needs, needs_root
from tests.couriertls.conftest import ENVIRONMENT, read_all
from tests.couriertls.test_tcpd import SHOW, shown

PREFIX = binding.PREFIX


def bindings(variables: dict[str, str]) -> dict[str, bytes]:
    return {
        name.removeprefix(PREFIX): bytes.fromhex(value)
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }


def logging(context: ssl.SSLContext, log: Path) -> ssl.SSLContext:
    context.keylog_filename = str(log)
    return context


def exported_by(tls: ssl.SSLSocket, log: Path) -> bytes:
    """What the client's own log of keys makes of it."""
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("EXPORTER")]
    algorithm = "sha384" if tls.cipher()[0].endswith("SHA384") else "sha256"
    return binding.exported(bytes.fromhex(line.split()[-1]), algorithm)


def shown_certificate(tls: ssl.SSLSocket) -> bytes:
    """Its hash; those of trustme are signed with SHA-256."""
    return hashlib.sha256(tls.getpeercert(binary_form=True)).digest()


def test_5929_9266_the_bindings_of_tls_1_3(relay, files):
    log = files.directory / "keys"
    connection = relay().connect()
    tls = logging(files.client(), log).wrap_socket(
        connection.client, server_hostname="mail.example"
    )
    connection.client = tls
    assert bindings(connection.answer().variables) == {
        "EXPORTER": exported_by(tls, log),
        "SERVER_END_POINT": shown_certificate(tls),
    }


def test_9266_each_of_two_handshakes_that_overlap_has_its_own(relay, files):
    server = relay(TLS_RELAYS="1")
    pairs = []
    for number in range(2):
        log = files.directory / f"keys{number}"
        context = logging(files.client(), log)
        connection = server.connect()
        tls = context.wrap_bio(inward := ssl.MemoryBIO(), outward := ssl.MemoryBIO(), False)
        step(tls)
        connection.client.sendall(outward.read())
        pairs.append((connection, tls, inward, outward, log))
    for connection, tls, inward, outward, _ in pairs:
        while not step(tls):
            inward.write(connection.client.recv(65536))
        connection.client.sendall(outward.read())
    for connection, tls, *_, log in reversed(pairs):
        assert bindings(connection.answer().variables)["EXPORTER"] == exported_by(tls, log)


def step(tls: ssl.SSLObject) -> bool:
    """Whether the handshake is over."""
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def test_5929_the_bindings_of_tls_1_2_and_of_a_session_resumed(relay, files):
    server = relay(TLS_RELAYS="1")
    context = files.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    session = None
    for names in ({"UNIQUE", "SERVER_END_POINT"}, {"SERVER_END_POINT"}):
        connection = server.connect()
        connection.client = tls = context.wrap_socket(
            connection.client, server_hostname="mail.example", session=session
        )
        found = bindings(connection.answer().variables)
        assert set(found) == names
        assert found["SERVER_END_POINT"] == shown_certificate(tls)
        if session is None:
            assert found["UNIQUE"] == tls.get_channel_binding("tls-unique")
        assert tls.session_reused == (session is not None)
        session = tls.session


def test_9266_a_session_resumed_in_tls_1_3_exports_anew(relay, files):
    server = relay(TLS_RELAYS="1")
    context, session, seen = files.client(), None, set()
    for number in range(2):
        log = files.directory / f"keys{number}"
        logging(context, log)
        connection = server.connect()
        connection.client = tls = context.wrap_socket(
            connection.client, server_hostname="mail.example", session=session
        )
        found = bindings(connection.answer().variables)
        assert found["EXPORTER"] == exported_by(tls, log)
        seen.add(found["EXPORTER"])
        connection.program.sendall(b"+OK\r\n")
        assert tls.recv(10) == b"+OK\r\n"  # and the ticket has come
        assert tls.session_reused == (session is not None)
        session = tls.session
    assert len(seen) == 2


def test_5929_the_certificate_is_that_of_the_name(relay, files):
    files.write("other.example", ".other.example")
    server = relay()
    for name in ("mail.example", "other.example"):
        connection = server.connect()
        connection.client = tls = files.client().wrap_socket(
            connection.client, server_hostname=name
        )
        found = bindings(connection.answer().variables)
        assert found["SERVER_END_POINT"] == shown_certificate(tls)
        assert "EXPORTER" in found


@pytest.mark.parametrize("name", ["mail.example", "other.example"])
def test_a_program_has_them_in_its_environment_and_none_of_others(program, files, name):
    files.write("other.example", ".other.example")
    log = files.directory / "keys"
    forged = {PREFIX + "UNIQUE": "00", PREFIX + "EXPORTER": "00", PREFIX + "OTHER": "00"}
    started = program(*SHOW, env=forged)
    tls = started.hello(logging(files.client(), log), name)
    assert bindings(shown(tls)) == {
        "EXPORTER": exported_by(tls, log),
        "SERVER_END_POINT": shown_certificate(tls),
    }


def test_the_log_of_keys_is_nobody_elses(program, files):
    """It has no name in any directory, and is empty when the handshake is over."""
    needs_root()  # others can't look into couriertls at all
    script = """
        for fd in /proc/$PPID/fd/*; do
            case "$(readlink $fd)" in */memfd:keys*) cat $fd; echo "[$fd]";; esac
        done
    """
    started = program("/bin/sh", "-c", script, env={"SSLKEYLOGFILE": str(files.directory / "x")})
    lines = read_all(started.hello(files.client())).decode().splitlines()
    assert lines
    assert all(line.startswith("[") for line in lines)
    assert not (files.directory / "x").exists()


CERTIFICATES = {
    "rsa with sha1": (["rsa:2048", "-sha1"], "sha256"),
    "rsa with sha256": (["rsa:2048", "-sha256"], "sha256"),
    "rsa with sha512": (["rsa:2048", "-sha512"], "sha512"),
    "ec with sha384": (["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha384"], "sha384"),
    "ec with sha1": (["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1"], "sha256"),
    "pss with sha384": (["rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sha384"], "sha384"),
    "ed25519": (["ed25519"], None),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_5929_the_hash_is_that_of_the_signature(kind, tmp_path):
    options, name = CERTIFICATES[kind]
    pem = tmp_path / "pem"
    subprocess.run(
        [needs("openssl"), "req", "-x509", "-nodes", "-subj", "/CN=x", "-newkey", *options]
        + ["-keyout", str(tmp_path / "key"), "-out", str(pem)],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    der = ssl.PEM_cert_to_DER_cert(pem.read_text())
    expected = hashlib.new(name, der).digest() if name else b""
    assert binding.end_point(pem.read_bytes()) == expected


@pytest.mark.parametrize("text", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"x" * 100])
def test_what_is_no_certificate_has_no_binding(text):
    assert binding.end_point(text) == b""
