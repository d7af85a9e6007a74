"""SCRAM through the whole chain: the module that knows the account talks with the client itself."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from courierchain import authmodule, request, scram
from courierchain.handover import load
from courierchain.programs import ENTRIES
from courierchain.settings import Settings
from tests.conftest import BIN, Accounts, Client, Server, free_port, needs_module

SHA_1, SHA_256 = "SCRAM-SHA-1", "SCRAM-SHA-256"
EVERY = f"PLAIN {SHA_1} {SHA_256}"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
SERVED = "+OK logged in."
FAILED = "-ERR Login failed."
ABORTED = "-ERR Authentication aborted."
REFUSED = "-ERR Authentication failed."
SECRET = "a \u00e9 secret"  # two ways to write it, until it is prepared
FIRST = b64encode(b"n=john,r=nonce")
ALGORITHMS = {SHA_1: "sha1", SHA_256: "sha256"}


def stored(mechanism: str, rounds: int = 4096) -> str:
    secret = scram.secret_of(ALGORITHMS[mechanism], SECRET.encode(), random.randbytes(16), rounds)
    return scram.form(secret).decode()


def b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def text_of(challenge: str) -> str:
    assert challenge.startswith("+ "), challenge
    return b64decode(challenge[2:]).decode()


def greeted(server) -> Client:
    client = server.client()
    assert client.line() == b"+OK Hello there.\r\n"
    return client


class Dialogue:
    """scramp, the independent peer, says what a client has to say; `send` gives the reply."""

    def __init__(
        self, client: Client, name: str, password: str, mechanism: str = SHA_256, nonce=None
    ):
        scramp = needs_module("scramp")
        self.client = client
        self.mechanism = mechanism
        self.peer = scramp.ScramClient([mechanism], name, password, c_nonce=nonce)

    def first(self) -> str:
        """The reply to the first message: the server's."""
        return self.client.ask(f"AUTH {self.mechanism} {b64(self.peer.get_client_first())}")

    def final(self) -> str:
        """The client's last message, when the server has said its first one."""
        reply = self.first()
        self.peer.set_server_first(text_of(reply))
        return self.peer.get_client_final()

    def run(self) -> str:
        """The last status line."""
        reply = self.client.ask(b64(self.final()))
        if reply.startswith("+ "):
            self.peer.set_server_final(text_of(reply))  # raises if the server hasn't the secret
            reply = self.client.ask("")
        return reply


def add_john(accounts: Accounts):
    forms = {f"{name.lower()}pw": stored(name) for name in (SHA_1, SHA_256)}
    return accounts.add("john", **forms)


@pytest.fixture(scope="module")
def house():
    """One server for all that needs no other: john has secrets for SCRAM, and mary has none."""
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    accounts = Accounts(directory)
    add_john(accounts).deliver(b"Subject: one\n\nbody\n")
    accounts.add("mary")
    accounts.add("weak", **{"scram-sha-256pw": stored(SHA_256, 4095)})
    accounts.add("kurt", systempw="{SCRAM-SHA-256}" + stored(SHA_256).partition("$")[2])
    accounts.add("lock", systempw="!" + stored(SHA_256), **{"scram-sha-256pw": stored(SHA_256)})
    port = free_port()
    argv = [str(BIN / "couriertcpd"), "-address=127.0.0.1", "-nodnslookup", "-maxperip=100"]
    stages = ["courierpop3login", "authpwd", "authuserdb", "courierpop3d", "./Maildir"]
    env = {
        "PATH": "/usr/bin:/bin",
        "AUTHUSERDB_FILE": str(accounts.userdb),
        "POP3AUTH": EVERY,
        "POP3_FAILURE_DELAY": "0",
    }
    server = Server([*argv, str(port), *stages], env, port, directory / "log")
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("mechanism", [SHA_1, SHA_256])
def test_5802_01_7677_01_scram_lets_in_and_the_server_proves_itself(
    serve, any_mode, accounts, mechanism
):
    add_john(accounts).deliver(b"Subject: one\n\nbody\n")
    stages = ["courierpop3login", "authpwd", "authuserdb", "courierpop3d", "./Maildir"]
    server = serve(*any_mode, stages=stages, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert client.listing("CAPA")[0] == f"SASL {EVERY}"
        assert Dialogue(client, "john", "wrong", mechanism).run() == FAILED
        assert Dialogue(client, "jane", SECRET, mechanism).run() == FAILED
        assert Dialogue(client, "john", SECRET, mechanism).run() == SERVED
        assert client.listing("LIST") == ["1 22"]
        assert client.ask("QUIT") == "+OK Bye-bye."
    server.logged(rf"INFO: LOGIN FAILED, method={mechanism}, {PEER}")
    server.logged(rf"INFO: LOGIN, user=john, {PEER}")


def test_a_form_in_the_password_field_is_for_plain_logins_too(house):
    with greeted(house) as client:
        assert Dialogue(client, "kurt", SECRET).run() == SERVED
    with greeted(house) as client:
        assert client.ask("AUTH PLAIN " + b64(f"\0kurt\0{SECRET}")) == SERVED


def test_4616_03_a_password_typed_in_another_way_is_the_same(house):
    with greeted(house) as client:
        decomposed = SECRET.replace("\u00e9", "e\u0301")
        assert client.ask("AUTH PLAIN " + b64(f"\0kurt\0{decomposed}")) == SERVED


def test_2449_08_what_is_sent_ahead_is_obeyed_after_the_login(house):
    with greeted(house) as client:
        dialogue = Dialogue(client, "john", SECRET)
        reply = client.ask(b64(dialogue.final()))
        dialogue.peer.set_server_final(text_of(reply))
        client.send(b"\r\nSTAT\r\nNOOP\r\nQUIT\r\n")
        assert client.rest().splitlines()[1:] == [
            b"+OK 1 22",
            b"+OK Yup.",
            b"+OK Bye-bye.",
        ]


@pytest.mark.parametrize("mechanism", [SHA_1, SHA_256])
def test_5802_02_7677_02_a_wrong_proof_gets_no_signature(house, mechanism):
    with greeted(house) as client:
        dialogue = Dialogue(client, "john", "wrong", mechanism)
        assert client.ask(b64(dialogue.final())) == FAILED


def salt_and_rounds(server, name: str, mechanism: str) -> tuple[str, str]:
    with greeted(server) as client:
        attributes = text_of(Dialogue(client, name, "any", mechanism).first()).split(",")
        assert client.ask("*") == ABORTED
        return attributes[1], attributes[2]


@pytest.mark.parametrize("mechanism", [SHA_1, SHA_256])
def test_5802_03_7677_03_an_unknown_name_has_a_salt_of_its_own_and_keeps_it(house, mechanism):
    names = ("nobody", "no-one", "mary", "root", "john")
    salts = {name: salt_and_rounds(house, name, mechanism) for name in names}
    assert len(set(salts.values())) == len(names)
    for salt, rounds in salts.values():
        assert (len(b64decode(salt[2:])), rounds) == (16, "i=4096")
    assert salts == {name: salt_and_rounds(house, name, mechanism) for name in names}


@pytest.mark.parametrize("name", ["john", "nobody", "lock", "mary"])
class TestKnownOrNot:
    """What a client is told is the same, whether there is such an account or not (CVE-07)."""

    def test_a_wrong_password(self, house, name):
        with greeted(house) as client:
            assert Dialogue(client, name, "wrong").run() == FAILED
            assert client.ask("QUIT") == "+OK Better luck next time."

    @pytest.mark.parametrize(
        "response", ["*", "?", "AAA", "", "=", b64("c=biws"), b64("p="), b64(b"\xff\0")]
    )
    def test_5034_07_5034_08_what_is_no_response_aborts(self, house, name, response):
        with greeted(house) as client:
            Dialogue(client, name, SECRET).first()
            assert client.ask(response) == ABORTED
            assert client.ask("NOOP") == "-ERR Invalid command."

    @pytest.mark.parametrize("size", [12288, 12300, 70000])
    def test_5034_12_a_long_response_is_read_whole_and_never_obeyed(self, house, name, size):
        with greeted(house) as client:
            Dialogue(client, name, SECRET).first()
            reply = client.ask("A" * size)
            assert reply == ABORTED
            assert client.ask("QUIT") == "+OK Better luck next time."

    def test_5802_04_another_nonce_or_binding_is_refused(self, house, name):
        with greeted(house) as client:
            final = Dialogue(client, name, SECRET).final()
            assert client.ask(b64(re.sub("r=[^,]*", "r=other", final))) == FAILED
            final = Dialogue(client, name, SECRET).final()
            assert client.ask(b64(final.replace("c=biws", "c=eSws"))) == FAILED

    def test_CVE_43_a_response_of_before_is_refused(self, house, name):
        with greeted(house) as client:
            old = Dialogue(client, name, SECRET, nonce="once").final()
            assert client.ask("*") == ABORTED
            Dialogue(client, name, SECRET, nonce="once").first()
            assert client.ask(b64(old)) == FAILED

    def test_CVE_23_who_leaves_in_the_middle_is_logged(self, house, name):
        with greeted(house) as client:
            port = client.socket.getsockname()[1]
            Dialogue(client, name, SECRET).first()
        who = rf"ip=\[::ffff:127\.0\.0\.1\], port=\[{port}\]"
        house.logged(rf"INFO: LOGIN FAILED, method={SHA_256}, {who}")
        house.logged(rf"DEBUG: Disconnected, {who}")


def test_who_has_got_in_and_says_more_is_not_served(house):
    with greeted(house) as client:
        dialogue = Dialogue(client, "john", SECRET)
        assert client.ask(b64(dialogue.final())).startswith("+ ")
        assert client.ask(b64("more")) == ABORTED


def test_every_split_of_a_clients_lines(house):
    for cut in range(0, 100, 9):
        with greeted(house) as client:
            dialogue = Dialogue(client, "john", SECRET)
            final = b64(dialogue.final()).encode() + b"\r\n"
            client.send(final[:cut])
            client.send(final[cut:])
            client.send(b"\r")
            dialogue.peer.set_server_final(text_of(client.line().decode()))
            client.send(b"\nQUIT\r\n")
            assert client.rest().startswith(b"+OK logged in.\r\n")


@pytest.mark.parametrize(
    "first, reply",
    [
        *(("n,,n=john,r=", ABORTED), ("n,,n=john", ABORTED), ("n,n=john,r=x", ABORTED)),
        *(("n,,m=1,n=john,r=x", ABORTED), ("x,,n=john,r=x", ABORTED), ("", ABORTED)),
        *(("n,,n=jo=hn,r=x", ABORTED), ("n,,n=,r=x", ABORTED), ("n,,n=j\0,r=x", ABORTED)),
        *(("n,,n=jo\nhn,r=x", ABORTED), (b"n,,n=\xff,r=x", ABORTED), ("n,,r=x,n=john", ABORTED)),
        *(("n,z=john,n=john,r=x", ABORTED), ("n,a=,n=john,r=x", ABORTED)),
        # 4616-02: for somebody else; 5802-04: bound to what isn't there
        *(("n,a=jane,n=john,r=x", REFUSED), ("p=tls-exporter,,n=john,r=x", REFUSED)),
    ],
)
def test_5802_04_CVE_48_first_messages_that_lead_nowhere(house, first, reply):
    with greeted(house) as client:
        assert client.ask(f"AUTH {SHA_256} {b64(first) or '='}") == reply


def test_5034_03_without_an_initial_response(house):
    with greeted(house) as client:
        assert client.ask(f"AUTH {SHA_256}") == "+ "
        dialogue = Dialogue(client, "john", SECRET)
        reply = client.ask(b64(dialogue.peer.get_client_first()))
        dialogue.peer.set_server_first(text_of(reply))
        reply = client.ask(b64(dialogue.peer.get_client_final()))
        dialogue.peer.set_server_final(text_of(reply))
        assert client.ask("") == SERVED


def test_5802_04_who_thinks_that_there_is_no_binding_is_right_here(house):
    with greeted(house) as client:
        assert client.ask(f"AUTH {SHA_256} {b64('y,a=john,n=john,r=x')}").startswith("+ ")


def test_too_few_rounds_are_the_administrators_trouble(house):
    with greeted(house) as client:
        assert Dialogue(client, "weak", SECRET).first() == FAILED
    house.logged(r"ERR: authuserdb: user=weak: a SCRAM form of 4095 rounds, at least 4096 .*")


def test_a_wrong_proof_is_not_for_the_next_module(serve, accounts, script):
    add_john(accounts)
    asked = script("asked", '#!/bin/sh\ncat <&3 >"$0.record"\nexec "$@" 3<"$0.record"\n')
    stages = ["courierpop3login", "authuserdb", asked, "courierpop3d", "./Maildir"]
    server = serve(stages=stages, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert Dialogue(client, "john", "wrong").run() == FAILED
        assert not Path(f"{asked}.record").exists()
        assert Dialogue(client, "jane", "wrong").run() == FAILED
    lines = Path(f"{asked}.record").read_bytes().split(b"\n")
    assert lines[:3] == [b"pop3", b"scram-sha-256", b"jane"]
    assert b64decode(lines[3]).startswith(b"n=jane,r=")
    assert lines[4:] == [b64encode(b"n,,"), b"", b""]


def test_5034_01_scram_is_not_announced_where_no_module_takes_it(serve, john):
    stages = ["courierpop3login", "authpwd", "courierpop3d", "./Maildir"]
    server = serve(stages=stages, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert client.listing("CAPA")[0] == "SASL PLAIN"
        assert client.ask(f"AUTH {SHA_256}") == REFUSED


def test_who_was_locked_out_can_not_tell(serve, accounts):
    add_john(accounts)
    server = serve("-maxfailsperuser=1", env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert Dialogue(client, "john", "wrong").run() == FAILED
        assert Dialogue(client, "john", SECRET).run() == FAILED


def test_the_time_for_logins_ends_the_dialogue_too(serve, accounts):
    add_john(accounts)
    server = serve(env={"POP3AUTH": EVERY, "POP3_LOGIN_TIMEOUT": "4"})
    clients = [greeted(server), greeted(server)]
    for client, name in zip(clients, ("john", "jane"), strict=True):
        assert Dialogue(client, name, SECRET).first().startswith("+ ")
    for client in clients:
        with client:
            assert client.rest() in (b"", ABORTED.encode() + b"\r\n")


def test_3206_01_the_code_for_wrong_credentials(serve, accounts):
    add_john(accounts)
    server = serve(env={"POP3AUTH": EVERY, "POP3_RESPONSE_CODES": "1"})
    with greeted(server) as client:
        for name in ("john", "jane"):
            assert Dialogue(client, name, "wrong").run() == "-ERR [AUTH] Login failed."


def test_5034_01_scram_is_not_for_authpipe_nor_for_authdaemon(serve, john):
    for module in ("authpipe", "authdaemon"):
        stages = ["courierpop3login", module, "courierpop3d", "./Maildir"]
        with greeted(serve(stages=stages, env={"POP3AUTH": EVERY})) as client:
            assert client.listing("CAPA")[0] == "SASL PLAIN"


@pytest.mark.parametrize("module", ["authuserdb", "authpipe", "authdaemon"])
def test_who_can_not_talk_with_the_client_rejects(module, accounts, monkeypatch):
    add_john(accounts)
    record = request.encode(b"pop3", b"scram-sha-256", b"john", FIRST, b64encode(b"n,,"))
    verify = load(ENTRIES[module]).verify
    monkeypatch.setattr(authmodule, "opens_sessions", False)  # as in authdaemond
    with pytest.raises(authmodule.Rejected) as rejected:
        verify(request.parse(record), Settings({"AUTHUSERDB_FILE": str(accounts.userdb)}))
    assert rejected.type is authmodule.Rejected


CUSTOM = """
from courierchain import proof, scram
from courierchain.account import Account

def authcustom(request, settings):
    question = scram.asked(request)
    if question and question.user == b"john":
        proof.demand(question, [], "CLEAR".encode(), settings)
        return Account(user="john", uid=UID, gid=GID, home="HOME")
"""


def test_a_function_of_the_sites_own(serve, accounts, public):
    john = accounts.add("john", listed=False)
    rule = public / "custom.py"
    shown = {"CLEAR": SECRET, "UID": john.uid, "GID": john.gid, "HOME": john.home}
    text = CUSTOM
    for name, value in shown.items():
        text = text.replace(name, str(value))
    rule.write_text(text)
    rule.chmod(0o644)
    stages = ["courierpop3login", "authcustom", "courierpop3d", "./Maildir"]
    env = {"POP3AUTH": EVERY, "AUTHCUSTOM": f"{rule}:authcustom", "POP3_FAILURE_DELAY": "0"}
    with greeted(serve(stages=stages, env=env)) as client:
        assert Dialogue(client, "john", "wrong").run() == FAILED
        assert Dialogue(client, "jane", SECRET).run() == FAILED
        assert Dialogue(client, "john", SECRET).run() == SERVED


def test_the_dialect_of_cyrus(serve, accounts):
    add_john(accounts)
    env = {"POP3AUTH": EVERY, "POP3_DIALECT": "cyrus", "POP3_FAILURE_DELAY": "0"}
    server = serve(env=env)
    for name in ("john", "jane"):
        with server.client() as client:
            client.line()
            Dialogue(client, name, SECRET).first()
            reply = client.ask("*")
            assert reply == "-ERR [AUTH] authenticating: bad protocol / cancel"
            reply = Dialogue(client, name, "wrong").run()
            assert reply == "-ERR [AUTH] authenticating: authentication failure"
    with server.client() as client:
        client.line()
        assert Dialogue(client, "john", SECRET).run().startswith("+OK")
