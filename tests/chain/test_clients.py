"""Mail programs that people use fetch byte-exact mail through the chain, and delete it."""

from __future__ import annotations

import os
import poplib
import subprocess

import pytest

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
    needs("getmail")
    server = serve(*any_mode)
    inbox = home / "inbox"
    (home / "getmailrc").write_text(
        f"[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {server.port}\n"
        f"username = john\npassword = {mailbox.password}\n"
        f"[destination]\ntype = Maildir\npath = {inbox}/\n"
        "[options]\ndelete = true\ndelivered_to = false\nreceived = false\nverbose = 0\n"
    )
    run("getmail", "--getmaildir", str(home), "--rcfile", "getmailrc", home=home)
    added = b"Return-Path: <unknown>\n"  # getmail's own
    got = sorted(letter.removeprefix(added) for letter in contents(inbox / "new"))
    assert got == sorted(LETTERS)
    assert mailbox.files() == []
