"""Mail programs that people use fetch byte-exact mail through the chain, and delete it."""

from __future__ import annotations

import os
import poplib
import subprocess
from base64 import b64encode

import pytest

from courierchain import scram
from courierchain.cram import state_of
from tests.conftest import DEADLINE, ROOT, needs

LETTERS = [
    b"From: a@example.com\nSubject: plain\n\nOne line.\n",
    b"From: b@example.com\nSubject: dots\n\n.\n..\n.hidden\n\nend\n",
    b"From: c@example.com\nSubject: 8-bit body\n\n\xc3\xa4\xff\n" + b"x" * 900 + b"\n",
    b"From: d@example.com\nSubject: large\n\n" + b"0123456789 abcdef\n" * 20000,
]


@pytest.fixture
def mailbox(john):
    for letter in LETTERS:
        john.deliver(letter)
    return john


NOBODY = 65534  # some of the programs refuse to run as root


@pytest.fixture
def home(public):
    """The home of the person who reads mail."""
    home = public / "reader"
    for folder in ("new", "cur", "tmp"):
        (home / "inbox" / folder).mkdir(parents=True)
    own(home)
    return home


def own(home) -> None:
    if ROOT:
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def run(*argv, home) -> bytes:
    own(home)
    reader = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if ROOT else {}
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    done = subprocess.run(
        argv, env=env, capture_output=True, timeout=DEADLINE, check=False, cwd=home, **reader
    )
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def contents(folder) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.iterdir())


def test_curl(serve, any_mode, mailbox, home):
    needs("curl")
    server = serve(*any_mode)
    url = f"pop3://127.0.0.1:{server.port}/"
    login = ["curl", "-sS", "--user", f"john:{mailbox.password}"]
    listing = run(*login, url, home=home)
    assert len(listing.split(b"\r\n")) == len(LETTERS) + 1
    for number, letter in enumerate(LETTERS, 1):
        assert run(*login, f"{url}{number}", home=home) == letter.replace(b"\n", b"\r\n")
    run(*login, "--request", "DELE 1", "--head", url, home=home)
    assert len(mailbox.files()) == len(LETTERS) - 1


def test_pythons_poplib(serve, any_mode, mailbox):
    server = serve(*any_mode)
    client = poplib.POP3("127.0.0.1", server.port, timeout=DEADLINE)
    client.user("john")
    client.pass_(mailbox.password)
    assert client.stat()[0] == len(LETTERS)
    assert len({line.split()[1] for line in client.uidl()[1]}) == len(LETTERS)
    for number, letter in enumerate(LETTERS, 1):
        _, lines, octets = client.retr(number)
        assert b"\n".join(lines) + b"\n" == letter
        listed = int(client.list(number).split()[2])
        assert listed == len(letter) + letter.count(b"\n")
        client.dele(number)
    client.quit()
    assert mailbox.files() == []


def test_mpop(serve, any_mode, mailbox, home):
    needs("mpop")
    server = serve(*any_mode)
    inbox = home / "inbox"
    config = home / "mpoprc"
    config.write_text(
        f"account demo\nhost 127.0.0.1\nport {server.port}\nuser john\nauth user\ntls off\n"
        f'password "{mailbox.password}"\nkeep off\nreceived_header off\n'
        f"uidls_file {home}/uidls\ndelivery maildir {inbox}\n"
    )
    config.chmod(0o600)
    run("mpop", "-C", str(config), "-Q", "demo", home=home)
    assert contents(inbox / "new") == sorted(LETTERS)
    assert mailbox.files() == []


def test_fetchmail(serve, any_mode, mailbox, home):
    needs("fetchmail")
    server = serve(*any_mode)
    config = home / "fetchmailrc"
    config.write_text(
        f"set invisible\npoll 127.0.0.1 service {server.port} proto pop3\n"
        f" user john password \"{mailbox.password}\" sslproto '' no rewrite fetchall\n"
        f' mda "cat > {home}/got.$$"\n'
    )
    config.chmod(0o600)
    run("fetchmail", "-f", str(config), "-i", f"{home}/ids", "--nosyslog", home=home)
    assert sorted(path.read_bytes() for path in home.glob("got.*")) == sorted(LETTERS)
    assert mailbox.files() == []


def test_getmail6(serve, any_mode, mailbox, home):
    getmail = needs("/usr/bin/getmail")  # Debian's
    server = serve(*any_mode)
    inbox = home / "inbox"
    (home / "getmailrc").write_text(
        f"[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {server.port}\n"
        f"username = john\npassword = {mailbox.password}\n"
        f"[destination]\ntype = Maildir\npath = {inbox}/\n"
        "[options]\ndelete = true\ndelivered_to = false\nreceived = false\nverbose = 0\n"
    )
    run(getmail, "--getmaildir", str(home), "--rcfile", "getmailrc", home=home)
    added = b"Return-Path: <unknown>\n"  # getmail's own
    got = sorted(letter.removeprefix(added) for letter in contents(inbox / "new"))
    assert got == sorted(LETTERS)
    assert mailbox.files() == []


MECHANISMS = ["PLAIN", "LOGIN", "CRAM-MD5"]
SCRAM = ["SCRAM-SHA-1", "SCRAM-SHA-256"]  # by GNU SASL in mpop; Debian's curl is built without it
OFFERED = {"POP3AUTH": "CRAM-MD5 PLAIN LOGIN"}


@pytest.fixture
def by_sasl(accounts):
    """An account whose password does for every mechanism."""
    state = state_of("md5", b"secret of john").decode()
    forms = {
        f"scram-sha-{bits}pw": scram.form(
            scram.secret_of(algorithm, b"secret of john", b"sixteen octets..", 4096)
        ).decode()
        for bits, algorithm in ((1, "sha1"), (256, "sha256"))
    }
    john = accounts.add("john", **{"hmac-md5pw": state}, **forms)
    for letter in LETTERS:
        john.deliver(letter)
    return john


def assert_used(server, mechanism: str) -> None:
    """The mechanism was asked for, so it is what a wrong password fails with."""
    server.logged(rf"INFO: LOGIN FAILED, method={mechanism}, .*")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_5034_curl_by_sasl(serve, any_mode, by_sasl, home, mechanism):
    needs("curl")
    server = serve(*any_mode, env=OFFERED)
    url = f"pop3://127.0.0.1:{server.port}/"
    options = ["curl", "-sS", "--login-options", f"AUTH={mechanism}"]
    for more in ([], ["--sasl-ir"]):
        fetched = run(*options, *more, "--user", f"john:{by_sasl.password}", f"{url}2", home=home)
        assert fetched == LETTERS[1].replace(b"\n", b"\r\n")
    with pytest.raises(AssertionError):
        run(*options, "--user", "john:wrong", url, home=home)
    assert_used(server, mechanism)


@pytest.mark.parametrize("mechanism", [*MECHANISMS, *SCRAM])
def test_5034_mpop_by_sasl(serve, by_sasl, home, mechanism):
    needs("mpop")
    server = serve(env={"POP3AUTH": " ".join([*SCRAM, *MECHANISMS])})
    inbox, config = home / "inbox", home / "mpoprc"

    def fetch(password: str) -> None:
        config.write_text(
            f"account demo\nhost 127.0.0.1\nport {server.port}\nuser john\ntls off\n"
            f'auth {mechanism.lower()}\npassword "{password}"\nkeep off\nreceived_header off\n'
            f"uidls_file {home}/uidls\ndelivery maildir {inbox}\n"
        )
        config.chmod(0o600)
        run("mpop", "-C", str(config), "-Q", "demo", home=home)

    with pytest.raises(AssertionError):
        fetch("wrong")
    assert_used(server, mechanism)
    fetch(by_sasl.password)
    assert contents(inbox / "new") == sorted(LETTERS)
    assert by_sasl.files() == []


def test_2195_01_fetchmail_by_cram_md5(serve, by_sasl, home):
    needs("fetchmail")
    server = serve(env=OFFERED)
    config = home / "fetchmailrc"

    def fetch(password: str) -> None:
        config.write_text(
            f"set invisible\npoll 127.0.0.1 service {server.port} proto pop3 auth cram-md5\n"
            f" user john password \"{password}\" sslproto '' no rewrite fetchall\n"
            f' mda "cat > {home}/got.$$"\n'
        )
        config.chmod(0o600)
        run("fetchmail", "-f", str(config), "-i", f"{home}/ids", "--nosyslog", home=home)

    with pytest.raises(AssertionError):
        fetch("wrong")
    assert_used(server, "CRAM-MD5")
    fetch(by_sasl.password)
    assert sorted(path.read_bytes() for path in home.glob("got.*")) == sorted(LETTERS)


def test_5034_pythons_poplib_reads_the_mechanisms_and_logs_in_by_one(serve, any_mode, by_sasl):
    server = serve(*any_mode, env=OFFERED)
    client = poplib.POP3("127.0.0.1", server.port, timeout=DEADLINE)
    assert client.capa()["SASL"] == ["CRAM-MD5", "PLAIN", "LOGIN"]
    response = b64encode(f"\0john\0{by_sasl.password}".encode()).decode()
    assert client._shortcmd(f"AUTH PLAIN {response}") == b"+OK logged in."
    assert client.stat()[0] == len(LETTERS)
    client.quit()
