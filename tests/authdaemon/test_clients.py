"""Clients of an authdaemond that are neither POP3 nor ours: Debian's courier-imap and maildrop.

The same is asked of Debian's original authdaemond and then of ours.
"""

from __future__ import annotations

import hmac
import subprocess
from base64 import b64decode, b64encode
from contextlib import ExitStack

import pytest

from tests.authdaemon.conftest import LIB
from tests.conftest import BIN, needs

PEERS = "/var/cache/courierpop3-peers"  # where tests/run unpacks what can't be installed
IMAPLOGIN = f"{PEERS}/usr/lib/courier/courier/imaplogin"
IMAPD = f"{PEERS}/usr/bin/imapd"
MAILDROP = f"{PEERS}/usr/bin/maildrop"
IMAP = {"IMAP_CAPABILITY": "IMAP4rev1", "IMAP_ENHANCEDIDLE": "0", "IMAP_USELOCKS": "0"}


@pytest.fixture(scope="module", params=["original", "ours"])
def daemon(site, request):
    """The site, with an authdaemond."""
    site.start(LIB / "authdaemond" if request.param == "original" else BIN / "authdaemond")
    yield site
    site.stop()


@pytest.fixture
def imap(daemon, serve):
    """A listener of ours with courier-imap behind it."""
    for program in (IMAPLOGIN, IMAPD):
        needs(program)
    return serve("-maxperip=9", stages=(IMAPLOGIN, IMAPD, "Maildir"), tcpd=daemon.tcpd(), env=IMAP)


def answer(client, tag: str, command: str) -> str:
    """The last line of the answer to a command."""
    client.send(f"{tag} {command}\r\n".encode())
    return said(client, f"{tag} ".encode(), b"+ ").decode().rstrip()


def said(client, *beginnings: bytes) -> bytes:
    """The next line that begins so. There may be a warning that gamin is missing in front of it."""
    while line := client.line():
        if line.startswith(beginnings):
            break
    return line


def test_courier_imap_lets_in_whom_the_daemon_knows(daemon, imap):
    for account in (daemon.john, daemon.mary, daemon.petra):
        account.deliver(b"Subject: hello\n\nbody\n")
        with imap.client() as client:
            assert b"Courier-IMAP ready" in client.line()
            login = f'LOGIN {account.name} "{account.password}"'
            assert answer(client, "a", login) == "a OK LOGIN Ok."
            if account is daemon.mary:  # her OPTIONS reach it too
                bye = b"* BYE IMAP access disabled for this account.\r\n"
                assert said(client, b"* BYE") == bye
                continue
            messages = len(list(account.maildir.glob("*/*.host*")))
            client.send(b"b STATUS INBOX (MESSAGES)\r\n")
            assert said(client, b"* STATUS") == b'* STATUS "INBOX" (MESSAGES %d)\r\n' % messages
            assert answer(client, "c", "LOGOUT") == "c OK LOGOUT completed"


def test_courier_imap_refuses_wrong_passwords_and_expired_accounts(daemon, imap):
    with ExitStack() as stack:
        clients = []  # all at once: it waits for 5 seconds
        for name in ("john", "petra", "paul", "nobody-here", "root2"):
            client = stack.enter_context(imap.client())
            client.line()
            password = daemon.paul.password if name == "paul" else "wrong"
            client.send(f'a LOGIN {name} "{password}"\r\n'.encode())
            clients.append(client)
        assert {client.line() for client in clients} == {b"a NO Login failed.\r\n"}


def test_courier_imap_with_cram_md5(daemon, imap):
    for secret, expected in ((b"secret", "OK LOGIN Ok."), (b"wrong", "NO Login failed.")):
        with imap.client() as client:
            client.line()
            challenge = b64decode(answer(client, "a", "AUTHENTICATE CRAM-MD5")[2:])
            digest = hmac.new(secret, challenge, "md5").hexdigest()
            client.send(b64encode(f"john {digest}".encode()) + b"\r\n")
            assert said(client, b"a ") == f"a {expected}\r\n".encode()


def drop(site, *words: str) -> subprocess.CompletedProcess:
    message = b"From: a@example.com\nSubject: dropped\n\nbody\n"
    argv = site.inside(needs(MAILDROP), *words)
    return subprocess.run(argv, input=message, capture_output=True, timeout=60)


def test_maildrop_delivers_to_whom_the_daemon_knows(daemon):
    """It asks for the account alone, and takes uid, home and Maildir from the answer."""
    (daemon.mary.maildir / "new").mkdir(exist_ok=True)
    before = len(list((daemon.mary.maildir / "new").iterdir()))
    done = drop(daemon, "-d", "mary")
    assert (done.returncode, done.stderr) == (0, b"")
    new = list((daemon.mary.maildir / "new").iterdir())
    assert len(new) == before + 1
    newest = max(new, key=lambda path: path.stat().st_ctime_ns)
    assert b"Subject: dropped" in newest.read_bytes()
    assert newest.stat().st_uid == daemon.mary.uid


def test_maildrop_knows_nobody_else(daemon):
    done = drop(daemon, "-d", "nobody-here")
    assert done.returncode != 0 and done.stderr
