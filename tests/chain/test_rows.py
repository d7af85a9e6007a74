"""What the checklists of the references ask for and no other file of tests looks at."""

from __future__ import annotations

import time

import pytest

from authdaemond import question
from authmodules.authshadow import expired
from tests.chain.test_pam import add_user as add_user  # a fixture
from tests.chain.test_pam import command
from tests.chain.test_record import ask, dumped
from tests.chain.test_record import dump as dump  # another
from tests.chain.test_sasl import ABORTED, LOGIN_FAILED, SERVED, greeted, plain
from tests.conftest import children_of, needs, needs_root, sha, wait_until

DEFAULT = {"POP3_FAILURE_DELAY": "", "POP3AUTH": "PLAIN"}
DELAY, LOGIN_TIME = 5, 60  # seconds, Courier's


def test_a_refused_login_is_answered_after_five_seconds_and_user_is_to_be_said_again(serve, john):
    server = serve(env=DEFAULT)
    with greeted(server) as typed, greeted(server) as sasl, greeted(server) as quick:
        assert typed.ask("USER john") == "+OK Password required."
        begin = time.monotonic()
        typed.send(b"PASS wrong\r\n")
        sasl.send(plain("john", "wrong").encode() + b"\r\n")
        assert quick.ask("AUTH PLAIN =") == ABORTED
        assert quick.ask(plain("john", john.password)) == SERVED
        for client in (typed, sasl):
            assert client.line().decode() == LOGIN_FAILED + "\r\n"  # no greeting
            assert time.monotonic() - begin >= DELAY
        assert typed.ask(f"PASS {john.password}") == "-ERR USER/PASS required."
        assert typed.ask("USER john") == "+OK Password required."
        assert typed.ask(f"PASS {john.password}") == SERVED


def test_all_tries_together_have_sixty_seconds(serve, mode, public, dump):
    server = serve(*mode, stages=["courierpop3login", dump, "courierpop3d"])
    begin = int(time.time())
    assert ask(server) == b"+OK dumped\r\n"
    expires = int(dumped(public)["AUTHEXPIRE"])
    assert begin + LOGIN_TIME <= expires <= time.time() + LOGIN_TIME


@pytest.fixture
def note(public, script) -> str:
    """A stage that writes its process id down."""
    pids = public / "pids"
    pids.touch()
    pids.chmod(0o666)
    return script("note", f'#!/bin/sh\necho $$ >> {pids}\nexec "$@"\n')


def test_one_process_goes_from_the_login_to_the_server_and_leaves_no_zombie(
    serve, mode, john, public, note
):
    stages = ["courierpop3login", note, "authuserdb", note, "courierpop3d", "./Maildir"]
    server = serve(*mode, stages=stages)
    with server.client() as client:
        client.line()
        client.ask("USER john")
        assert client.ask("PASS wrong") == LOGIN_FAILED
        client.ask("USER john")
        assert client.ask(f"PASS {john.password}") == SERVED
        pids = {int(line) for line in (public / "pids").read_text().split()}
        assert len(pids) == 1 and pids <= set(server.children())
        assert len((public / "pids").read_text().split()) == 4
        assert children_of(*pids) == []  # who wrote descriptor 3 has gone
    wait_until(lambda: not pids & set(server.children()), "the process has been waited for")


def test_pop3pw_is_the_password_and_systempw_is_not(serve, accounts):
    john = accounts.add("john", pop3pw=sha("for POP3"))
    with greeted(serve(env={**DEFAULT, "POP3_FAILURE_DELAY": "0"})) as client:
        assert client.ask(plain("john", john.password)) == LOGIN_FAILED
        assert client.ask(plain("john", "for POP3")) == SERVED


TODAY = 20000  # days since 1970
NAMES = "name hash last_change least greatest warning inactive expire reserved".split()
AGES = {
    "none": ({}, False),
    "expires today": ({"expire": TODAY}, False),
    "has expired": ({"expire": TODAY - 1}, True),
    "0 is never": ({"expire": 0}, False),
    "is as old as it may be": ({"last_change": TODAY - 90, "greatest": 90}, False),
    "is too old": ({"last_change": TODAY - 91, "greatest": 90}, True),
    "may be of any age": ({"last_change": 1, "greatest": ""}, False),
    "no change is known": ({"last_change": "", "greatest": 1}, False),
    "the least age": ({"last_change": TODAY, "least": 99}, False),
    "warning and inactive": (
        {"last_change": TODAY - 9, "greatest": 9, "warning": 30, "inactive": 0},
        False,
    ),
    "junk": ({"expire": "-1", "last_change": "x", "greatest": "9" * 99}, False),
}


@pytest.mark.parametrize("ages, over", AGES.values(), ids=AGES)
def test_authshadow_minds_the_day_of_the_account_and_the_age_of_the_password(ages, over):
    fields = [str(ages.get(name, "")).encode() for name in NAMES]
    assert expired(fields, TODAY) is over


def test_cve_30_authshadow_refuses_who_has_expired(serve, add_user):
    needs_root()
    needs("chage")
    user = add_user()
    stages = ["courierpop3login", "authshadow", "courierpop3d", "./Maildir"]
    server = serve(stages=stages, env={**DEFAULT, "POP3_FAILURE_DELAY": "0"})

    def answer() -> str:
        with greeted(server) as client:
            return client.ask(plain(user.name, user.password))

    assert answer() == SERVED
    command("chage", "-E", "2020-01-01", user.name)
    assert answer() == LOGIN_FAILED
    command("chage", "-E", "-1", user.name)
    assert answer() == SERVED
    command("chage", "-d", "2020-01-01", "-M", "30", user.name)
    assert answer() == LOGIN_FAILED


@pytest.mark.parametrize("record", [b"pop3\nlogin\njohn\nsecret\n\n", b"pop3\nlogin\njohn\nx\n"])
def test_authdaemond_takes_a_request_counted_with_and_without_its_last_line_end(record):
    for counted in (record, record[:-1]):
        asked = question.parse(b"AUTH %d\n%s" % (len(counted), counted))
        assert asked is not None and asked.request is not None
        assert asked.request.login is not None and asked.request.login[0] == b"john"
