"""APOP: announced where a module of the chain knows the secret, and taken there."""

from __future__ import annotations

import hashlib
import re

import pytest

CHECKPASSWORD = "courier_modules: authcheckpassword /bin/false\n"
CHALLENGE = re.compile(rb" (<\d+\.\d{10}@mail\.example>)\r\n")


def challenge_of(client) -> bytes:
    found = CHALLENGE.search(client.line())
    return found[1] if found else b""


def digest(challenge: bytes, secret: str) -> str:
    return hashlib.md5(challenge + secret.encode()).hexdigest()


@pytest.fixture
def mary(cyrus):
    mary = cyrus.accounts.add("mary", apoppw="tanstaaf")
    mary.deliver(b"Subject: x\n\n")
    return mary


def test_the_right_digest_logs_in_and_is_logged_without_the_secret(cyrus, mary):
    with cyrus.start() as client:
        challenge = challenge_of(client)
        assert client.ask(f"APOP mary {digest(challenge, 'tanstaaf')}").startswith("+OK Mailbox")
        assert client.ask("STAT") == "+OK 1 14"
        client.ask("QUIT")
        log = client.end()[1]
    assert "INFO: login: [local] mary APOP User logged in SESSIONID=<" in log
    assert "tanstaaf" not in log


def test_the_challenge_stays_after_a_failure_and_is_another_for_another_client(cyrus, mary):
    with cyrus.start() as client, cyrus.start() as other:
        challenge = challenge_of(client)
        assert challenge != challenge_of(other)
        for wrong in ("tanstaa", "", mary.password):
            said = client.ask(f"APOP mary {digest(challenge, wrong)}")
            assert said == "-ERR [AUTH] authenticating: authentication failure"
        assert other.ask(f"APOP mary {digest(challenge, 'tanstaaf')}").startswith("-ERR [AUTH]")
        assert client.ask(f"APOP mary {digest(challenge, 'tanstaaf')}").startswith("+OK Mailbox")


def test_a_user_without_a_clear_secret_is_told_what_nobody_is_told(cyrus):
    with cyrus.start() as client:
        challenge = challenge_of(client)
        told = [client.ask(f"APOP {user} {digest(challenge, 'x')}") for user in ("john", "nobody")]
        assert told == ["-ERR [AUTH] authenticating: authentication failure"] * 2


@pytest.mark.parametrize(
    ("options", "has_challenge"),
    [
        ("", True),
        ("allowapop: no\n", False),
        ("tls_required: yes\n", False),
        ("courier_modules: authshadow authpam\n", False),
        ("courier_modules: authshadow authuserdb\n", True),
        (CHECKPASSWORD, False),
        (f"{CHECKPASSWORD}courier_authcheckpassword_apop: 1\n", True),
        ("allowplaintext: no\n", True),
    ],
)
def test_only_where_it_can_work_there_is_a_challenge(cyrus, options, has_challenge):
    cyrus.configure(options)
    with cyrus.start() as client:
        assert bool(challenge_of(client)) == has_challenge
        if not has_challenge:
            said = client.ask(f"APOP john {'0' * 32}")
            assert said == "-ERR Unrecognized command"
