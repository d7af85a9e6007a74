"""TLS to the mail host: on and verified unless the administrator says no. In every refusal here the
password has not left us.
"""

from __future__ import annotations

import datetime
import random
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import needs, needs_root, sha
from tests.courierpop3proxy.conftest import bridge, context_for
from tests.courierpop3proxy.test_proxy import (
    CONNECTED,
    MUCH,
    PEER,
    TEMPORARY,
    answer_to_pass,
    flood,
    log_in,
)


@pytest.fixture
def tls_proxy(proxy, authority):
    """A proxy that demands TLS, which is the default, from hosts that `authority` vouches for."""

    def start(**env: str):
        return proxy(**{"POP3_PROXY_TLS": "", "POP3_PROXY_CAFILE": str(authority.file), **env})

    return start


def refused(server, account, host, why: str) -> None:
    """The client hears that it is to come again, the log why, and the mail host nothing."""
    client, reply = answer_to_pass(server, account)
    with client:
        assert reply == TEMPORARY
        assert client.rest() == b""
    server.logged(rf"WARN: courierpop3proxy: {host}: {why}, user=john")


def test_a_whole_session_within_TLS(tls_proxy, serve, any_mode, accounts, mail_host, certified):
    """The mail host is a chain of ours behind STLS."""
    john = accounts.add("john", listed=False)
    john.deliver(b"Subject: one\n\nbody\n")
    server = serve(*any_mode)
    host = mail_host(bridge(server.port), context=certified)
    fields = {"uid": john.uid, "gid": john.gid, "home": john.home}
    accounts.record("john", **fields, systempw=sha(john.password), options=f"mailhost={host.name}")
    with log_in(tls_proxy(), john) as client:
        client.send(b"STAT\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
        assert client.rest().split(b"\r\n") == [
            b"+OK 1 22",
            b"+OK 22 octets follow.",
            b"Subject: one",
            b"",
            b"body",
            b".",
            b"+OK Deleted.",
            b"+OK Bye-bye.",
            b"",
        ]
    assert host.plain == [b"STLS\r\n"]
    assert john.files() == []


def test_8314_01_port_995_is_TLS_from_the_first_byte(tls_proxy, elsewhere, mail_host, authority):
    needs_root()
    address = "127." + ".".join(str(random.SystemRandom().randrange(1, 255)) for _ in range(3))
    context = context_for(authority.issue_cert(address))
    host = mail_host(context=context, implicit=True, address=(address, 995))
    with log_in(tls_proxy(), elsewhere(host)) as client:
        assert client.ask("NOOP") == "+OK NOOP"
    assert host.lines[0].startswith(b"USER ")


def test_every_octet_arrives_within_TLS(tls_proxy, elsewhere, mail_host, certified):
    taken = []

    def echo(host, client) -> None:
        for _ in range(2):
            host.ask(client)
            client.sendall(b"+OK\r\n")
        try:
            while data := client.recv(65536):
                taken.append(data)
                client.sendall(data)
        except ssl.SSLError:
            pass  # the proxy ends without a close_notify, as a client that has gone does

    server = tls_proxy()
    with log_in(server, elsewhere(mail_host(echo, context=certified))) as client:
        for start in range(0, len(MUCH), 1 << 20):
            client.send(MUCH[start : start + (1 << 20)])
            assert client.file.read(1 << 20) == MUCH[start : start + (1 << 20)]
    server.logged(f"INFO: DISCONNECTED, user=john, {PEER}, rcvd={len(MUCH)}, .*")
    assert b"".join(taken) == MUCH


def test_a_long_reply_and_the_end(tls_proxy, elsewhere, mail_host, certified):
    server = tls_proxy()
    with log_in(server, elsewhere(mail_host(flood, context=certified))) as client:
        client.send(b"RETR 1\r\n")
        assert client.rest() == MUCH
    server.logged(f"INFO: LOGOUT, user=john, {PEER}, rcvd=8, .*")


def test_the_system_does_not_know_this_authority(tls_proxy, elsewhere, mail_host, certified):
    host = mail_host(context=certified)
    server = tls_proxy(POP3_PROXY_CAFILE="")
    why = "TLS: certificate not accepted: unable to get local issuer certificate"
    refused(server, elsewhere(host), host.name, why)
    assert (host.plain, host.lines) == ([b"STLS\r\n"], [])


def test_9525_01_a_certificate_for_another_name(tls_proxy, elsewhere, mail_host, authority):
    context = context_for(authority.issue_cert("mail.example.com", "127.0.0.2"))
    host = mail_host(context=context)
    refused(tls_proxy(), elsewhere(host), host.name, "TLS: certificate not accepted: IP address .*")
    assert host.lines == []


def test_9525_01_the_name_is_found_in_subjectAltName(tls_proxy, elsewhere, mail_host, authority):
    host = mail_host(context=context_for(authority.issue_cert("localhost")))
    with log_in(tls_proxy(), elsewhere(f"localhost:{host.port}")) as client:
        assert client.ask("QUIT") == "+OK Bye."


def test_9525_01_the_CN_is_no_name(tls_proxy, elsewhere, mail_host, authority, public):
    """It is the host's, and there is no subjectAltName."""
    host = mail_host(context=with_common_name_only(authority, "localhost", public))
    name = f"localhost:{host.port}"
    why = "TLS: certificate not accepted: Hostname mismatch, .*"
    refused(tls_proxy(), elsewhere(name), name, why)
    assert host.lines == []


def with_common_name_only(authority, name: str, directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(signer, hashes.SHA256())
    )
    file = directory / "host.pem"
    form = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_a_certificate_that_has_expired(tls_proxy, elsewhere, mail_host, authority):
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    host = mail_host(context=context_for(authority.issue_cert("127.0.0.1", not_after=yesterday)))
    why = "TLS: certificate not accepted: certificate has expired"
    refused(tls_proxy(), elsewhere(host), host.name, why)
    assert host.lines == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_8996_01_no_TLS_before_1_2(tls_proxy, elsewhere, mail_host, certified):
    certified.set_ciphers("ALL:@SECLEVEL=0")
    certified.minimum_version = ssl.TLSVersion.TLSv1
    certified.maximum_version = ssl.TLSVersion.TLSv1_1
    host = mail_host(context=certified)
    refused(tls_proxy(), elsewhere(host), host.name, "TLS: .*")
    assert host.lines == []


def without_tls(*answers: bytes):
    """A mail host's way to answer STLS without TLS behind it."""

    def script(host, client) -> None:
        for text in answers:
            if not host.ask(client):
                return
            client.sendall(text)
        host.ask(client)

    return script


@pytest.mark.parametrize(
    "answer, why",
    [
        (b"-ERR Invalid command.\r\n", r"STLS: -ERR\.Invalid\.command\."),
        (b"+OK\r\n+OK\r\n+OK\r\n", "sends more than it was asked for"),
        (b"+OK\r\n", "(TLS: .*|has closed the connection)"),
    ],
)
def test_CVE_42_without_TLS_no_password(tls_proxy, elsewhere, mail_host, answer, why):
    """Nor is what came in plain text taken for what came within TLS."""
    host = mail_host(without_tls(answer), greeting=b"+OK\r\n")
    refused(tls_proxy(POP3_PROXY_TIMEOUT="1"), elsewhere(host), host.name, why)
    assert host.lines[0] == b"STLS\r\n"
    assert not any(b"secret" in line or b"john" in line for line in host.lines)


def test_the_next_host_is_asked_when_the_first_is_not_what_it_says(
    tls_proxy, elsewhere, mail_host, certified, authority
):
    other = mail_host(context=context_for(authority.issue_cert("127.0.0.2")))
    host = mail_host(context=certified)
    with log_in(tls_proxy(), elsewhere(other, host)) as client:
        assert client.ask("QUIT") == "+OK Bye."
    assert (other.sessions, host.sessions, other.lines) == (1, 1, [])


def test_authorities_in_a_directory_of_hashes(
    tls_proxy, elsewhere, mail_host, certified, authority, public
):
    folder = public / "authorities"
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    subprocess.run([needs("openssl"), "rehash", str(folder)], check=True, capture_output=True)
    server = tls_proxy(POP3_PROXY_CAFILE=str(folder))
    client, reply = answer_to_pass(server, elsewhere(mail_host(context=certified)))
    assert reply == CONNECTED
    client.close()
