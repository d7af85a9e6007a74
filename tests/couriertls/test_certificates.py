"""Which certificate is shown, clients' certificates, and what is wrong with the files."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import needs, needs_root
from tests.couriertls.conftest import RELAY, read_all

NAMES = {
    "mail.example": "mail.example",
    "sni.example": "sni.example",
    "SNI.example": "sni.example",
    "sub.sni.example": "sni.example",
    "deep.sub.sni.example": "sni.example",
    "one.two.example": "one.two.example",
    "two.example": "mail.example",
    "example": "mail.example",
}


def shown_to(network: socket.socket, name: str | None) -> str:
    """The name in the certificate that a client gets who asks for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = context.wrap_socket(network, server_hostname=name)
    certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (found,) = [str(name.value) for name in names]
    return found


@pytest.fixture
def many(files):
    for name in ("sni.example", "one.two.example", "192.0.2.1", "2001:db8::1", "bad.example"):
        suffix = f".{name}"
        # The certificate for an address has a name, to be seen.
        files.write(
            {"192.0.2.1": "four.example", "2001:db8::1": "six.example"}.get(name, name), suffix
        )
    files.put(b"nonsense", ".bad.example")
    return files


@pytest.mark.parametrize("name", [*NAMES, "bad.example", "x.bad.example", None])
def test_row_46_a_name_chooses_the_certificate(program, relay, many, name):
    expected = NAMES.get(name, "mail.example")
    cold = program("/bin/true")
    assert shown_to(cold.client, name) == expected
    cold.client.close()
    code, lines = cold.ended()
    assert code == 0 and all("ERR" not in line for line in lines)
    assert shown_to(relay(TLS_RELAYS="1").connect().client, name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(b"../pop3d.pem", b"..", b"../../etc/passwd", b"/.sni.example", b"x" * 250, b"%s%n.b"),
        *(b".sni.example", b"sni.example.", b"." * 40, b"sni.example/../x"),
    ],
)
def test_a_name_leads_nowhere_but_to_names_that_are_there(relay, many, name):
    connection = relay(TLS_RELAYS="1").connect()
    connection.client.sendall(client_hello(name))
    expected = b"sni.example" if name.endswith((b".sni.example", b"e.")) else b"mail.example"
    seen = b""
    while expected not in seen:  # TLS 1.2 shows the certificate in the clear
        octets = connection.client.recv(65536)
        assert octets, seen
        seen += octets


@pytest.mark.parametrize("raw", [b"\xff\xfe.example", b"a\0b.example"])
def test_a_name_that_is_no_text_is_a_failed_handshake(relay, many, raw):
    server = relay(TLS_RELAYS="1")
    connection = server.connect()
    connection.client.sendall(client_hello(raw))
    assert connection.client.recv(5)[0] == 0x15
    connection.close()
    assert server.hello().client.version() == "TLSv1.3"
    lines = [line for line in server.lines() if not line.startswith("WARN: ")]
    assert len(lines) == 1 and lines[0].startswith("couriertls: accept: error:"), lines


def client_hello(name: bytes) -> bytes:
    """A ClientHello of TLS 1.2 that asks for a name of any octets: from one that Python makes."""
    placeholder = ("n" * 50 + ".") * (len(name) // 51) + "n" * (len(name) % 51)
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=placeholder)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    octets = outgoing.read()
    before = b"\0" + len(name).to_bytes(2, "big")
    assert before + placeholder.encode() in octets
    return octets.replace(before + placeholder.encode(), before + name)


@pytest.mark.parametrize(
    "address, expected",
    [
        ("192.0.2.1", "four.example"),
        ("::ffff:192.0.2.1", "four.example"),
        ("2001:db8::1", "six.example"),
        ("192.0.2.2", "mail.example"),
        ("../pop3d.pem", "mail.example"),
    ],
)
def test_row_46_our_address_chooses_the_certificate_unless_a_name_does(
    program, relay, many, address, expected
):
    env = {"TCPLOCALIP": address}
    for name, certificate in ((None, expected), ("sni.example", "sni.example")):
        assert shown_to(program("/bin/true", env=env).client, name) == certificate
        assert shown_to(relay(TLS_RELAYS="1").connect(env).client, name) == certificate


def test_a_key_of_a_name_in_a_file_of_its_own(program, files):
    key = files.directory / "key.pem"
    for suffix, name in (("", "mail.example"), (".sni.example", "sni.example")):
        issued = files.authority.issue_cert(name)
        files.put(b"".join(blob.bytes() for blob in issued.cert_chain_pems), suffix)
        (files.directory / f"key.pem{suffix}").write_bytes(issued.private_key_pem.bytes())
    relay = program("/bin/true", env={"TLS_PRIVATE_KEYFILE": str(key)})
    assert shown_to(relay.client, "sni.example") == "sni.example"


# Clients' certificates


NAMED = x509.SubjectAlternativeName([x509.DNSName("joe.example")])


def issue(
    authority: trustme.CA, *attributes: tuple[x509.ObjectIdentifier, str], names=NAMED
) -> bytes:
    """A client's certificate and key for a subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    parent = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    subject = x509.Name(
        [x509.NameAttribute(kind, text, _validate=False) for kind, text in attributes]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(parent.not_valid_before_utc)
        .not_valid_after(parent.not_valid_after_utc)
        .add_extension(names, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


JOE = (
    (NameOID.COUNTRY_NAME, "US"),
    (NameOID.ORGANIZATION_NAME, "Org"),
    (NameOID.COMMON_NAME, "joe"),
    (NameOID.EMAIL_ADDRESS, "joe@example.com"),
)
SUBJECT = {
    "TLS_SUBJECT_C": "US",
    "TLS_SUBJECT_O": "Org",
    "TLS_SUBJECT_CN": "joe",
    "TLS_SUBJECT_EMAILADDRESS": "joe@example.com",
}


def with_certificate(files, text: bytes, **versions) -> ssl.SSLContext:
    path = files.directory / "client.pem"
    path.write_bytes(text)
    context = files.client(**versions)
    context.load_cert_chain(path)
    return context


def verifying(files, mode: str) -> dict[str, str]:
    return {"TLS_VERIFYPEER": mode, "TLS_TRUSTCERTS": str(files.trusted)}


def subject_of(answer) -> dict[str, str]:
    return {name: v for name, v in answer.variables.items() if name.startswith("TLS_SUBJECT_")}


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("mode", ["PEER", "REQUIREPEER"])
def test_row_47_8314_08_a_verified_certificate_gives_its_subject(relay, files, mode, version):
    server = relay(**verifying(files, mode))
    wanted = ssl.TLSVersion[version]
    context = with_certificate(
        files, issue(files.authority, *JOE), minimum_version=wanted, maximum_version=wanted
    )
    connection = server.connect()
    connection.client = context.wrap_socket(connection.client, server_hostname="mail.example")
    assert subject_of(connection.answer()) == SUBJECT
    # And again in a session that is resumed.
    connection.program.sendall(b"x")
    assert connection.client.recv(1) == b"x"
    again = server.connect()
    again.client = context.wrap_socket(
        again.client, server_hostname="mail.example", session=connection.client.session
    )
    assert again.client.session_reused
    assert subject_of(again.answer()) == SUBJECT


def test_8314_08_without_verification_there_is_no_subject(relay, files):
    connection = relay().connect()
    context = with_certificate(files, issue(files.authority, *JOE))
    connection.client = context.wrap_socket(connection.client, server_hostname="mail.example")
    answer = connection.answer()
    assert answer.connected and not subject_of(answer)


@pytest.mark.parametrize("mode, accepted", [("PEER", True), ("REQUIREPEER", False)])
def test_row_47_8314_08_a_client_without_a_certificate(relay, files, mode, accepted):
    connection = relay(**verifying(files, mode)).connect()
    connection.client = files.client().wrap_socket(
        connection.client, server_hostname="mail.example"
    )
    answer = connection.answer()
    assert answer.connected == accepted
    assert not subject_of(answer)
    if not accepted:
        assert answer.text.endswith("error:SSL routines:peer did not return a certificate")


@pytest.mark.parametrize("mode", ["PEER", "REQUIREPEER"])
def test_8314_08_a_stranger_s_certificate_ends_the_handshake(relay, files, mode):
    connection = relay(**verifying(files, mode)).connect()
    context = with_certificate(files, issue(trustme.CA(), *JOE))
    connection.client = context.wrap_socket(connection.client, server_hostname="mail.example")
    answer = connection.answer()
    assert (answer.connected, answer.variables) == (False, {})
    assert "certificate" in answer.text
    assert connection.program.recv(1) == b""


@pytest.mark.parametrize("name", ["joe\0@example.com", "joe\nTLS_SUBJECT_CN=root", "joe\x7f"])
def test_cve_50_a_name_with_control_characters_is_refused(relay, program, files, name):
    context = with_certificate(files, issue(files.authority, (NameOID.COMMON_NAME, name)))
    env = verifying(files, "PEER")
    connection = relay(**env).connect()
    connection.client = context.wrap_socket(connection.client, server_hostname="mail.example")
    answer = connection.answer()
    text = "couriertls: accept: Invalid peer certificate: a control character in it"
    assert (answer.connected, answer.text) == (False, text)
    assert connection.program.recv(1) == b""
    cold = program("/bin/echo", "started", env=env)
    assert b"started" not in read_all(cold.hello(context))


def test_a_subject_that_no_answer_holds_is_refused_and_hinders_nobody(relay, files):
    blocks = [(x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.{n}"), "x" * 900) for n in range(20)]
    server = relay(**verifying(files, "PEER"), TLS_RELAYS="1")
    other = server.hello()
    connection = server.connect()
    context = with_certificate(files, issue(files.authority, *blocks))
    connection.client = context.wrap_socket(connection.client, server_hostname="mail.example")
    answer = connection.answer()
    assert (answer.connected, answer.text) == (False, "couriertls: accept: Message too long")
    other.program.sendall(b"x")
    assert other.client.recv(1) == b"x"


def test_statusfd_tells_of_a_certificate_that_cannot_be_printed(program, files):
    status, status_end = os.pipe()
    relay = program(
        *("/bin/echo", "started"),
        options=["-tcpd", f"-statusfd={status_end}"],
        env=verifying(files, "PEER"),
        pass_fds=(status_end,),
    )
    os.close(status_end)
    names = x509.SubjectAlternativeName([x509.DNSName("joe\nVersion: none")])
    relay.hello(with_certificate(files, issue(files.authority, *JOE, names=names)))
    with open(status) as said:
        text = "couriertls: accept: Invalid peer certificate: a control character in it\n"
        assert said.read() == text
    assert relay.ended() == (1, [])


def test_the_subject_is_in_the_program_s_environment_and_printed(program, files):
    text, text_end = os.pipe()
    env = {**verifying(files, "PEER"), "TLS_SUBJECT_OU": "forged", "TLS_SUBJECT_CN": "root"}
    relay = program(
        *("/bin/sh", "-c", "env | grep TLS_SUBJECT_ | sort"),
        options=["-tcpd", f"-printx509={text_end}"],
        env=env,
        pass_fds=(text_end,),
    )
    os.close(text_end)
    tls = relay.hello(with_certificate(files, issue(files.authority, *JOE)))
    found = read_all(tls).decode().splitlines()
    assert found == sorted(f"{name}={value}" for name, value in SUBJECT.items())
    with open(text) as printed:
        lines = printed.read().splitlines()
    assert lines[:7] == [
        "Subject:",
        "   C=US",
        "   O=Org",
        "   CN=joe",
        "   emailAddress=joe@example.com",
        "",
        "Subject-Alt-Name-DNS: joe.example",
    ]
    parent = x509.load_pem_x509_certificate(files.authority.cert_pem.bytes())
    dates = (parent.not_valid_before_utc, parent.not_valid_after_utc)
    assert lines[7] == f"Not-Before: {dates[0]:%Y-%m-%d %H:%M:%S}"
    assert lines[8] == f"Not-After: {dates[1]:%Y-%m-%d %H:%M:%S}"
    assert [line.partition(":")[0] for line in lines[9:]] == ["Version", "Bits", "Cipher"]


@pytest.mark.parametrize("hashed", [False, True])
def test_trustcerts_may_be_a_directory(program, files, hashed):
    folder = files.directory / "trusted"
    folder.mkdir()
    files.authority.cert_pem.write_to_path(folder / "ca.pem")
    if hashed:
        subprocess.run([needs("openssl"), "rehash", str(folder)], check=True)
    env = {"TLS_VERIFYPEER": "REQUIREPEER", "TLS_TRUSTCERTS": str(folder)}
    relay = program("/bin/sh", "-c", "echo $TLS_SUBJECT_CN", env=env)
    tls = relay.hello(with_certificate(files, issue(files.authority, *JOE)))
    assert read_all(tls) == b"joe\n"


def test_alpn_agrees_on_a_protocol(relay, files):
    server = relay(TLS_ALPN="@s, pop3")
    for offered, agreed in ((["imap", "pop3"], "pop3"), ([], None)):
        context = files.client()
        if offered:
            context.set_alpn_protocols(offered)
        assert server.hello(context=context).client.selected_alpn_protocol() == agreed


# couriertls -check


def check(files, **env: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [RELAY, "-check"], env={**files.env, **env}, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_good_settings_have_nothing_to_say(files):
    assert check(files) == (0, [])


def mismatched(files) -> None:
    other = files.authority.issue_cert("mail.example")
    (files.directory / "key").write_bytes(other.private_key_pem.bytes())
    (files.directory / "key").chmod(0o600)


def without_key(files) -> None:
    files.put(files.authority.issue_cert("mail.example").cert_chain_pems[0].bytes())


def encrypted(files) -> None:
    issued = files.authority.issue_cert("mail.example")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    files.put(issued.cert_chain_pems[0].bytes() + text)


ERRORS = [
    (None, {"TLS_CERTFILE": ""}, "TLS_CERTFILE=: not set"),
    (None, {"TLS_CERTFILE": "/no"}, "TLS_CERTFILE=/no: No such file or directory"),
    (None, {"TLS_CERTFILE": "/"}, "TLS_CERTFILE=/: Is a directory"),
    (None, {"TLS_CERTFILE": "/dev/null"}, "TLS_CERTFILE=/dev/null: no certificate in it"),
    (None, {"TLS_CIPHER_LIST": "nonsense"}, "TLS_CIPHER_LIST=nonsense: no cipher in it"),
    (None, {"TLS_VERIFYPEER": "maybe"}, "TLS_VERIFYPEER=maybe: unknown"),
    (None, {"TLS_VERIFYPEER": "PEER"}, "TLS_VERIFYPEER=PEER: TLS_TRUSTCERTS not set"),
    (
        None,
        {"TLS_VERIFYPEER": "PEER", "TLS_TRUSTCERTS": "/no"},
        "TLS_TRUSTCERTS=/no: No such file or directory",
    ),
    (None, {"TLS_HANDSHAKE_TIMEOUT": "soon"}, "TLS_HANDSHAKE_TIMEOUT=soon: not a number"),
    (None, {"TLS_RELAYS": "0"}, "TLS_RELAYS=0: not a number from 1 to 64"),
    (without_key, {}, "TLS_CERTFILE={file}: no private key in it; append the key"),
    (
        mismatched,
        {"TLS_PRIVATE_KEYFILE": "{folder}/key"},
        "TLS_CERTFILE={file}: {folder}/key has the key of another certificate",
    ),
    (encrypted, {}, "TLS_CERTFILE={file}: {file}: the key has a password; remove that with"),
]


@pytest.mark.parametrize("prepare, env, said", ERRORS, ids=[said[:40] for _, _, said in ERRORS])
def test_a_mistake_is_one_line_of_what_and_remedy(files, prepare, env, said):
    if prepare:
        prepare(files)
    places = {"file": files.file, "folder": files.directory}
    code, lines = check(files, **{name: text.format(**places) for name, text in env.items()})
    errors = [line for line in lines if line.startswith("ERR: ")]
    assert code == 1 and len(errors) == 1, lines
    assert errors[0].startswith(f"ERR: couriertls: {said.format(**places)}")
    assert "; " in errors[0]


WARNINGS = [
    ({"TLS_PROTOCOL": "TLSv1"}, "TLS_PROTOCOL=TLSv1: allows versions that RFC 8996 forbids"),
    ({"TLS_PROTOCOL": "SSL3"}, "TLS_PROTOCOL=SSL3: unknown, so TLSv1.2 or later"),
    ({"TLS_PRIORITY": "NORMAL"}, "TLS_PRIORITY=NORMAL: is GnuTLS's and has no effect here"),
    ({"TLS_MIN_DH_BITS": "2048"}, "TLS_MIN_DH_BITS=2048: is GnuTLS's"),
    ({"TLS_DHCERTFILE": "/x"}, "TLS_DHCERTFILE=/x: is no longer read"),
    ({"TLS_DHPARAMS": "/no"}, "TLS_DHPARAMS=/no: No such file or directory, so no DHE ciphers"),
    ({"TLS_PRIVATE_KEYFILE": "/no"}, "TLS_PRIVATE_KEYFILE=/no: cannot be read; the key in"),
]


@pytest.mark.parametrize("env, said", WARNINGS, ids=[said[:24] for _, said in WARNINGS])
def test_what_has_no_effect_is_a_warning(files, env, said):
    code, lines = check(files, **env)
    assert code == 0
    assert len(lines) == 1 and lines[0].startswith(f"WARN: couriertls: {said}"), lines


def test_an_expired_certificate_is_a_warning(files):
    files.write("mail.example", not_after=datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC))
    said = "the certificate has expired; have it renewed"
    assert check(files) == (0, [f"WARN: couriertls: TLS_CERTFILE={files.file}: {said}"])


def test_a_key_that_others_can_read_is_a_warning(files):
    files.file.chmod(0o644)
    said = f"everybody can read the private key in it; chmod o-r {files.file}"
    assert check(files) == (0, [f"WARN: couriertls: {files.file}: {said}"])


def test_a_bad_file_of_a_name_is_a_warning_and_counts_as_absent(files):
    files.put(b"nonsense", ".sni.example")
    files.put(b"nonsense", ".old")
    code, lines = check(files)
    assert code == 0
    assert lines == [
        f"WARN: couriertls: {files.file}.sni.example: no certificate in it; "
        "it needs one in PEM form (counts as absent)"
    ]


def test_what_the_keeper_has_to_say_it_says_once(relay, files):
    server = relay(TLS_PRIORITY="NORMAL", TLS_PROTOCOL="TLSv1")
    server.hello()
    assert len([line for line in server.lines() if "TLS_PRIORITY=NORMAL" in line]) == 1
    assert len([line for line in server.lines() if "TLS_PROTOCOL=TLSv1:" in line]) == 1


def test_courier_s_own_cipher_list_is_taken(program, files):
    ciphers = "TLSv1:HIGH:!LOW:!MEDIUM:!EXP:!NULL:!aNULL@STRENGTH"
    relay = program("/bin/echo", "hello", env={"TLS_CIPHER_LIST": ciphers})
    wanted = ssl.TLSVersion.TLSv1_2
    tls = relay.hello(files.client(maximum_version=wanted))
    assert read_all(tls) == b"hello\n"


def test_dh_parameters_give_dhe_ciphers(program, files):
    parameters = files.directory / "dh.pem"
    text = subprocess.run(
        [
            needs("openssl"),
            "genpkey",
            "-genparam",
            "-algorithm",
            "DH",
            "-pkeyopt",
            "group:ffdhe2048",
        ],
        capture_output=True,
        check=True,
    ).stdout
    parameters.write_bytes(text)
    files.write("mail.example", rsa=True)
    context = files.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("DHE-RSA-AES256-GCM-SHA384")
    relay = program("/bin/echo", "hello", env={"TLS_DHPARAMS": str(parameters)})
    assert read_all(relay.hello(context)) == b"hello\n"


def test_the_files_are_read_by_who_starts_it_and_not_by_the_user(relay, files):
    needs_root()
    files.file.chmod(0o600)
    files.directory.chmod(0o700)
    server = relay(options=["-user=nobody"])
    assert server.hello().client.version() == "TLSv1.3"
    files.directory.chmod(0o755)
