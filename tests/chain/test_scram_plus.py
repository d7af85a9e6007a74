"""SCRAM with channel binding over the whole chain: port 995 and STLS."""

from __future__ import annotations

import ctypes
import os
import re
import ssl
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from couriertls import binding
from tests.chain.test_scram import (
    ABORTED,
    FAILED,
    REFUSED,
    SECRET,
    SERVED,
    SHA_1,
    SHA_256,
    add_john,
    b64,
    text_of,
)
from tests.chain.test_tls import AUTHUSERDB, COURIERTLS
from tests.chain.test_tls import authority as authority  # a fixture
from tests.chain.test_tls import settings as settings  # another
from tests.chain.test_tls import tls as tls  # a third
from tests.conftest import DEADLINE, ROOT, Client, needs, needs_module

PLUS = "SCRAM-SHA-256-PLUS"
EVERY = f"{PLUS} {SHA_256} SCRAM-SHA-1-PLUS {SHA_1}"
WAYS = {"995": ["-uses=5", "-park=0.001"], "995 executed": ["-coldexec"], "STLS": ["-prefork=4"]}


QUICK = {"POP3_FAILURE_DELAY": "0"}


@pytest.fixture(params=WAYS)
def connect(request, serve, settings, accounts, tls, public):
    """Connect to john's server, inside TLS: connect() or connect(context)."""
    add_john(accounts)
    stages, options = AUTHUSERDB, WAYS[request.param]
    if request.param != "STLS":
        stages = (*COURIERTLS, *(["-user=courier"] if ROOT else []), *AUTHUSERDB)
    server = serve(*options, stages=stages, env={**settings, "POP3AUTH_TLS": EVERY, **QUICK})
    tls.keylog_filename = str(public / "keys")

    def connected(context: ssl.SSLContext = tls) -> Client:
        if request.param != "STLS":
            client = Client(server.port, context)
            assert client.line() == b"+OK Hello there.\r\n"
            return client
        client = Client(server.port)
        assert client.line() == b"+OK Hello there.\r\n"
        return client.start_tls(context)

    return connected


def exported(keys: Path) -> bytes:
    lines = [line for line in keys.read_text().splitlines() if line.startswith("EXPORTER")]
    return binding.exported(bytes.fromhex(lines[-1].split()[-1]), "sha384")


class Bound:
    """scramp with a binding: what a client says, and the last reply that it gets."""

    def __init__(self, client: Client, kind: str, data, mechanism: str = PLUS):
        self.client = client
        self.mechanism = mechanism
        scramp = needs_module("scramp")
        names = scramp.core.CbName  # it can't export itself, and is given the data
        names.SUPPORTED_TYPES, names.UNSUPPORTED_TYPES = (
            {*names.SUPPORTED_TYPES, "tls-exporter"},
            set(),
        )
        self.peer = scramp.ScramClient([mechanism], "john", SECRET, channel_binding=(kind, data))

    def run(self) -> str:
        reply = self.client.ask(f"AUTH {self.mechanism} {b64(self.peer.get_client_first())}")
        if not reply.startswith("+ "):
            return reply
        self.peer.set_server_first(text_of(reply))
        reply = self.client.ask(b64(self.peer.get_client_final()))
        if reply.startswith("+ "):
            self.peer.set_server_final(text_of(reply))
            reply = self.client.ask("")
        return reply


def test_5802_04_7677_04_bound_to_this_connection_or_refused(connect, public, tls):
    with connect() as client:
        assert client.listing("CAPA")[0] == f"SASL {EVERY}"
        data = exported(public / "keys")
        assert Bound(client, "tls-exporter", data[:-1] + b"x").run() == FAILED
        assert Bound(client, "tls-unique", data).run() == REFUSED
        assert Bound(client, "tls-exporter", data).run() == SERVED
    with connect() as client:
        assert Bound(client, "tls-server-end-point", client.socket).run() == SERVED
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect() as client:
        assert Bound(client, "tls-exporter", data).run() == REFUSED
        bound = Bound(client, "tls-unique", client.socket, "SCRAM-SHA-1-PLUS")
        assert bound.run() == SERVED


def test_5802_04_a_downgrade_is_refused(connect):
    with connect() as client:
        for flag, mechanism, reply in (
            ("y", SHA_256, REFUSED),  # who could bind was told that it can't
            ("n", PLUS, REFUSED),
            ("p=tls-exporter", SHA_256, REFUSED),
            ("p=", PLUS, REFUSED),
            ("p=tls-nothing", PLUS, REFUSED),
            ("p", PLUS, ABORTED),
        ):
            first = b64(f"{flag},,n=john,r=nonce")
            assert client.ask(f"AUTH {mechanism} {first}") == reply, flag
        assert client.ask(f"AUTH {SHA_256} {b64('n,,n=john,r=nonce')}").startswith("+ ")


def test_5034_01_without_tls_nothing_is_bound(serve, settings, accounts):
    add_john(accounts)
    forged = {f"TLS_BINDING_{name}": "00" for name in ("EXPORTER", "SERVER_END_POINT", "UNIQUE")}
    server = serve(env={**settings, **forged, "POP3AUTH": EVERY})
    with server.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"
        assert client.listing("CAPA")[0] == f"SASL {SHA_256} {SHA_1}"
        assert client.ask(f"AUTH {PLUS} {b64('p=tls-exporter,,n=john,r=x')}") == REFUSED
        assert client.ask(f"AUTH {SHA_256} {b64('y,,n=john,r=x')}").startswith("+ ")


@pytest.mark.parametrize("suite", ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_9266_openssl_exports_the_same(serve, settings, script, suite):
    show = script("show", "#!/bin/sh\nenv\n")
    server = serve(stages=[*COURIERTLS, show], env=settings)
    connect = ["-connect", f"127.0.0.1:{server.port}", "-ciphersuites", suite, "-ign_eof"]
    export = ["-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"]
    said = subprocess.run(
        [needs("openssl"), "s_client", *connect, *export],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
    ).stdout.decode()
    (theirs,) = re.findall(r"Keying material: ([0-9A-F]{64})", said)
    (ours,) = re.findall(r"TLS_BINDING_EXPORTER=([0-9a-f]*)", said)
    assert bytes.fromhex(ours) == bytes.fromhex(theirs)


class GnuSasl:
    """GNU SASL's library, by which mpop and others speak SCRAM; Debian 12's mpop has no -PLUS."""

    AUTHID, PASSWORD, UNIQUE, EXPORTER = 1, 3, 18, 25  # gsasl.h
    OK, NEEDS_MORE = 0, 1

    def __init__(self, mechanism: str, properties: dict[int, bytes]):
        needs("mpop")  # whose package brings it
        self.library = ctypes.CDLL("libgsasl.so.18")
        self.context, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        assert self.library.gsasl_init(ctypes.byref(self.context)) == self.OK
        name, session = mechanism.encode(), ctypes.byref(self.session)
        assert self.library.gsasl_client_start(self.context, name, session) == self.OK
        for number, value in properties.items():
            self.library.gsasl_property_set(self.session, number, value)

    def step(self, said: str) -> str:
        """What to say to the server's words, both in base64."""
        output = ctypes.c_char_p()
        status = self.library.gsasl_step64(self.session, said.encode(), ctypes.byref(output))
        assert status in (self.OK, self.NEEDS_MORE), status
        return (output.value or b"").decode()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_5802_01_gnu_sasl_bound_to_the_connection(serve, settings, accounts, tls, public, version):
    add_john(accounts)
    server = serve(env={**settings, "POP3AUTH_TLS": EVERY, **QUICK})
    tls.keylog_filename = str(public / "keys")
    tls.maximum_version = ssl.TLSVersion[version]
    with server.client() as client:
        client.line()
        client.start_tls(tls)
        kind, data = GnuSasl.UNIQUE, client.socket.get_channel_binding("tls-unique")
        if version == "TLSv1_3":
            kind, data = GnuSasl.EXPORTER, exported(public / "keys")
        for password, last in (("wrong", FAILED), (SECRET, SERVED)):
            known = {GnuSasl.AUTHID: b"john", GnuSasl.PASSWORD: password.encode()}
            peer = GnuSasl(PLUS, {**known, kind: b64encode(data)})
            reply = client.ask(f"AUTH {PLUS} {peer.step('')}")
            while reply.startswith("+ "):
                reply = client.ask(peer.step(reply[2:]))
            assert reply == last


@pytest.mark.parametrize("mechanism", [PLUS, "SCRAM-SHA-1-PLUS"])
@pytest.mark.parametrize("way", ["995", "STLS"])
def test_5802_04_mpop_bound_to_the_connection(
    serve, settings, accounts, authority, public, way, mechanism
):
    known = subprocess.run([needs("mpop"), "--version"], capture_output=True, text=True).stdout
    if mechanism.lower() not in known:
        pytest.skip(f"this mpop has no {mechanism}")
    add_john(accounts).deliver(b"Subject: one\n\nbody\n")
    stages = AUTHUSERDB
    if way == "995":
        stages = (*COURIERTLS, *(["-user=courier"] if ROOT else []), *AUTHUSERDB)
    server = serve(stages=stages, env={**settings, "POP3AUTH_TLS": mechanism, **QUICK})
    inbox, config, trusted = public / "inbox", public / "mpoprc", public / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    for folder in ("new", "cur", "tmp"):
        (inbox / folder).mkdir(parents=True)

    def fetched(password: str) -> list[bytes]:
        config.write_text(
            f"account demo\nhost localhost\nport {server.port}\nuser john\ntls on\n"
            f"tls_starttls {'on' if way == 'STLS' else 'off'}\ntls_trust_file {trusted}\n"
            f'auth {mechanism.lower()}\npassword "{password}"\nkeep on\nreceived_header off\n'
            f"uidls_file {public}/uidls\ndelivery maildir {inbox}\n"
        )
        config.chmod(0o600)
        argv = ["mpop", "-C", str(config), "-Q", "demo"]
        env = {"HOME": str(public), "PATH": os.environ["PATH"]}
        subprocess.run(argv, env=env, capture_output=True, timeout=DEADLINE, check=False)
        return [path.read_bytes() for path in (inbox / "new").iterdir()]

    assert fetched("wrong") == []
    server.logged(rf"INFO: LOGIN FAILED, method={mechanism}, .*")
    assert fetched(SECRET) == [b"Subject: one\n\nbody\n"]
