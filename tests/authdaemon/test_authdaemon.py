"""The module authdaemon, before Debian's original authdaemond and before one that misbehaves."""

from __future__ import annotations

import hmac
import socket
import threading
from base64 import b64decode, b64encode

import pytest

from courierchain import authsocket
from courierchain.authsocket import NoAnswer
from tests.authdaemon.conftest import groups_of
from tests.conftest import Client

STAGES = ("courierpop3login", "authdaemon", "courierpop3d", "./Maildir")
MODERN = ("courierpop3login", "courierpop3d", "Maildir")
FAILED = "-ERR Login failed."
PASSING = b"-ERR Temporary problem, please try again later\r\n"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
CODES = {"POP3_RESPONSE_CODES": "1", "POP3_FAILURE_DELAY": "0"}


def test_accounts_of_the_original_are_served(original, serve, any_mode):
    server = serve(*any_mode, stages=STAGES, tcpd=original.tcpd())
    original.mary.deliver(b"Subject: hello\n\nbody\n")
    for account in (original.john, original.petra, original.mary, original.john):
        with server.client() as client:
            client.login(account)
            count = len(list(account.maildir.glob("*/*.host*")))
            assert client.ask("STAT").startswith(f"+OK {count} ")
            if account is original.petra:
                assert {account.gid, account.gid + 1000} <= groups_of(account)
    server.logged(f"INFO: LOGIN, user=mary, {PEER}")


def test_what_it_says_of_the_account_reaches_the_server(original, serve, script, public):
    public.chmod(0o777)
    show = script("show", f"#!/bin/sh\nenv > {public}/env\n")
    server = serve(stages=[*STAGES[:2], show], tcpd=original.tcpd())
    mary, expected = original.mary, {}
    with server.client() as client:
        client.line()
        client.ask("USER mary")
        client.send(f"PASS {mary.password}\r\n".encode())
        client.rest()
    env = dict(line.split("=", 1) for line in (public / "env").read_text().splitlines())
    expected = {
        "AUTHENTICATED": "mary",
        "AUTHADDR": "mary",
        "MAILDIR": str(mary.maildir),
        "MAILDIRQUOTA": "1000000S",
        "OPTIONS": "disableimap=1,x=y",
        "HOME": str(mary.home),
    }
    assert {name: env[name] for name in expected} == expected


@pytest.mark.parametrize("stages", [STAGES, MODERN])
def test_wrong_passwords_and_unknown_users_are_refused(original, serve, stages):
    server = serve("-uses=5", stages=stages, tcpd=original.tcpd(), env=CODES)
    for name, password in (("john", "wrong"), ("nobody-here", "x"), ("petra", "wrong")):
        with server.client() as client:
            client.line()
            assert client.try_login(name, password) == "-ERR [AUTH] Login failed."
            assert client.try_login("john", original.john.password) == "+OK logged in."


def test_the_next_module_is_asked(original, serve, accounts):
    own = accounts.add("own")
    stages = [*STAGES[:2], "authuserdb", *STAGES[2:]]
    server = serve(stages=stages, tcpd=original.tcpd())
    for account in (own, original.john):
        with server.client() as client:
            client.login(account)


def test_cram_md5_is_passed_on(original, serve):
    env = {"POP3AUTH": "PLAIN CRAM-MD5"}
    for stages in (STAGES, MODERN):
        server = serve(stages=stages, tcpd=original.tcpd(), env=env)
        with server.client() as client:
            client.line()
            assert "SASL PLAIN CRAM-MD5" in client.listing("CAPA")
            challenge = b64decode(client.ask("AUTH CRAM-MD5").removeprefix("+ "))
            digest = hmac.new(b"secret", challenge, "md5").hexdigest()
            answer = b64encode(f"john {digest}".encode()).decode()
            assert client.ask(answer) == "+OK logged in."


def test_AUTHCHAIN_05_uid_0_is_not_served(original, serve):
    env = {"POP3_FAILURE_DELAY": "0"}
    server = serve(stages=STAGES, tcpd=original.tcpd(), env=env)
    with server.client() as client:
        client.line()
        assert client.try_login("root2", "x").startswith("-ERR")


@pytest.mark.parametrize("user", ["*", "john\t", "x' OR '1'='1", "john\\", "é", "john " * 600])
def test_CVE_48_hostile_userids_are_nobody(original, serve, user):
    env = {"POP3_FAILURE_DELAY": "0"}
    server = serve(stages=STAGES, tcpd=original.tcpd(), env=env)
    with server.client() as client:
        client.line()
        assert client.try_login(user, original.john.password) == FAILED


# An authdaemond that misbehaves.

ACCOUNT = b"UID=5000\nGID=5000\nHOME=/\nADDRESS=john\n.\n"
JUNK = [
    b"",
    b"FAIL",
    b"FAILED\n",
    b"OK\n",
    ACCOUNT[:-1],
    ACCOUNT.replace(b"UID=5000\n", b""),
    ACCOUNT.replace(b"UID=5000", b"UID=-1"),
    ACCOUNT.replace(b"UID=5000", b"UID=0"),
    ACCOUNT.replace(b"GID=5000", b"GID=0"),
    ACCOUNT.replace(b"HOME=/", b"HOME=relative"),
    ACCOUNT.replace(b"ADDRESS=john\n", b""),
    ACCOUNT.replace(b"UID=5000", b"USERNAME=no such user"),
    ACCOUNT + b"more\n",
    b"\xff\0\n" * 100,
    b"x" * 100_000,
]


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """fake.answer: what is answered to all; None: nothing, ever. fake.asked: what was asked."""

    class Fake:
        path = str(tmp_path_factory.mktemp("fake") / "socket")
        answer: bytes | None = b""
        asked: list[bytes] = []
        listening = socket.socket(socket.AF_UNIX)

        def serve(self) -> None:
            held = []
            while True:
                try:
                    client, _ = self.listening.accept()
                except OSError:
                    return
                self.asked.append(client.recv(65536))
                if self.answer is None:
                    held.append(client)
                    continue
                try:
                    client.sendall(self.answer)
                except OSError:
                    pass
                client.close()

    fake = Fake()
    fake.listening.bind(fake.path)
    fake.listening.listen()
    threading.Thread(target=fake.serve, daemon=True).start()
    yield fake
    fake.listening.shutdown(socket.SHUT_RDWR)
    fake.listening.close()


@pytest.fixture
def served_by_fake(serve, fake):
    def start(stages=STAGES, **env):
        env = {"AUTHDAEMON_SOCKET": fake.path, **CODES, **env}
        return serve("-uses=20", stages=stages, env=env)

    return start


def test_3206_02_junk_is_a_temporary_failure(served_by_fake, fake):
    server = served_by_fake()
    for answer in JUNK:
        fake.answer = answer
        with server.client() as client:
            client.line()
            said = client.try_login("john", "x")
            assert said.startswith(("-ERR [SYS/TEMP] ", "-ERR [SYS/PERM] ")), answer
    server.logged("ERR: authdaemon: authdaemond: not a whole answer")
    server.logged("ERR: authdaemon: authdaemond: no answer")


def test_an_authdaemond_that_hangs_or_has_gone_is_a_temporary_failure(served_by_fake, fake):
    fake.answer = None
    for env in ({"TIMEOUT_READ": "1"}, {"AUTHDAEMON_SOCKET": fake.path + "gone"}):
        server = served_by_fake(**env)
        with server.client() as client:
            client.line()
            assert client.try_login("john", "x").startswith("-ERR [SYS/TEMP] ")
        server.logged("ERR: authdaemon: .*(no answer in time|is authdaemond running.*)")


def test_it_is_asked_what_the_login_program_was_told(served_by_fake, fake):
    fake.answer = b"FAIL\n"
    del fake.asked[:]
    server = served_by_fake()
    with server.client() as client:
        client.line()
        assert client.try_login("john", " a  b ") == "-ERR [AUTH] Login failed."
    record = b"pop3\nlogin\njohn\n a  b \n"
    expected = b"TCPREMOTEIP=::ffff:127.0.0.1\nAUTH %d\n%s" % (len(record), record)
    assert fake.asked == [expected], "and nothing at the start"


def test_the_modern_login_program_gives_up_at_a_temporary_problem(served_by_fake, fake):
    """Reference auth.md 1.4: no delay, no second try."""
    fake.answer = b""
    server = served_by_fake(MODERN, POP3_RESPONSE_CODES="", POP3_FAILURE_DELAY="30")
    with server.client() as client:
        client.line()
        client.ask("USER john")
        client.send(b"PASS x\r\n")
        assert client.rest() == PASSING
    server.logged(f"INFO: LOGIN FAILED, user=john, {PEER}")


def test_the_original_login_program_says_the_same(original, serve, fake):
    """Where nobody answers: the same bytes from Debian's courierpop3login and from ours."""
    said = []
    for login in ("/usr/lib/courier/courier/courierpop3login", "courierpop3login"):
        stages = (login, "/usr/lib/courier/courier/courierpop3d", "Maildir")
        server = serve(stages=stages, env={"AUTHDAEMON_SOCKET": fake.path + "gone"})
        with Client(server.port) as client:
            client.send(b"USER john\r\nPASS x\r\n")
            said.append(client.rest())
    assert said[0] == said[1] and said[1].endswith(PASSING)


@pytest.mark.parametrize("answer", [b"", b"FAIL", b"FAIL\n\n", b".", b"A\n.\n", b"A=1\n.\n\n"])
def test_what_is_no_whole_answer_raises(answer):
    with pytest.raises(NoAnswer):
        authsocket.fields(answer)


def test_fields_of_an_answer():
    assert authsocket.fields(b"FAIL\n") is None
    assert authsocket.fields(b".\n") == {}
    assert authsocket.fields(b"A=1\nB==x\nC=\n.\n") == {b"A": b"1", b"B": b"=x", b"C": b""}
