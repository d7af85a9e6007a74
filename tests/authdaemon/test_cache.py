"""The table of accounts that authdaemond remembers: what is in it, for how long, and what never."""

from __future__ import annotations

import os
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authdaemond import cache, question
from authdaemond.cache import ANSWER, PLACE, STATE, Cache
from authdaemond.configuration import Configuration
from authdaemond.question import Question
from courierchain.authmodule import TemporaryFailure
from courierchain.refusal import Refused
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.conftest import sha, wait_until

FOUND = b"UID=1\nGID=2\nHOME=/h\nADDRESS=john\nPASSWD2=secret\nOPTIONS=a=1\n.\n"


def auth(user: str = "john", password: str = "secret", *, service="pop3", ip="") -> Question:
    record = f"{service}\nlogin\n{user}\n{password}\n".encode()
    asked = question.parse(b"TCPREMOTEIP=%s\nAUTH %d\n%s" % (ip.encode(), len(record), record))
    assert asked
    return asked


def other(octets: bytes) -> Question:
    asked = question.parse(octets)
    assert asked
    return asked


class Modules:
    """Answers, and counts who has asked."""

    def __init__(self, answer: bytes = FOUND):
        self.answer = answer
        self.asked = 0

    def __call__(self, asked: Question) -> bytes:
        self.asked += 1
        if not self.answer:
            raise TemporaryFailure("nobody can say")
        return self.answer


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = monotonic()

    monkeypatch.setattr(cache, "monotonic", lambda: Clock.now)
    return Clock


def test_the_second_question_reaches_no_module():
    modules = Modules()
    reply = Cache(10, 100).before(modules)
    assert [reply(auth()) for _ in range(3)] == [FOUND] * 3
    assert modules.asked == 1


PRE = b"PRE . pop3 john\n"


@pytest.mark.parametrize(
    "another",
    [
        auth(password="wrong"),
        auth(password=""),
        auth(user="mary"),
        auth(user="john\nsecret", password=""),
        auth(service="imap"),
        auth(ip="192.0.2.1"),
        other(PRE),
    ],
)
def test_another_question_is_not_that_one(another):
    modules = Modules()
    reply = Cache(10, 1).before(modules)  # both have the same place
    reply(auth())
    modules.answer = b"FAIL\n"
    assert reply(another) == b"FAIL\n"
    assert modules.asked == 2


def test_an_account_that_is_only_asked_for_is_remembered_by_module():
    modules = Modules(FOUND.replace(b"PASSWD2=secret\n", b""))
    reply = Cache(10, 100).before(modules)
    assert reply(other(PRE)) == reply(other(PRE)) == modules.answer
    assert modules.asked == 1
    reply(other(PRE.replace(b".", b"authuserdb")))
    assert modules.asked == 2


def test_it_is_forgotten_when_its_life_is_over_however_often_it_is_asked_for(clock):
    modules = Modules()
    reply = Cache(10, 100).before(modules)
    for _ in range(10):
        reply(auth())
        clock.now += 0.9999
    assert modules.asked == 1
    clock.now += 0.01
    modules.answer = b"FAIL\n"
    assert reply(auth()) == b"FAIL\n"


def test_its_life_begins_before_the_modules_are_asked(clock):
    def slow(asked: Question) -> bytes:
        clock.now += 10
        return FOUND

    table = Cache(10, 100)
    table.before(slow)(auth())
    assert table.before(Modules(b"FAIL\n"))(auth()) == b"FAIL\n"


@pytest.mark.parametrize("answer", [b"FAIL\n", b""])
def test_a_no_is_not_remembered_nor_a_failure(answer):
    modules = Modules(answer)
    reply = Cache(10, 100).before(modules)
    for _ in range(2):
        try:
            assert reply(auth()) == b"FAIL\n"
        except TemporaryFailure:
            assert not answer
    assert modules.asked == 2


@pytest.mark.parametrize(
    "octets", [b"AUTH 24\npop3\ncram-md5\nYQ==\nYWFh\n", b"ENUMERATE\n", b"PRE .  john\n"]
)
def test_other_questions_go_through(octets):
    modules = Modules()
    reply = Cache(10, 100).before(modules)
    assert reply(other(octets)) == reply(other(octets)) == FOUND
    assert modules.asked == 2


def test_a_changed_password_voids_what_is_remembered_and_what_is_being_asked():
    table = Cache(10, 100)
    table.before(Modules())(auth())
    asked_before: list[bytes] = []

    def slow(asked: Question) -> bytes:
        table.before(Modules(b"OK\n"))(other(b"PASSWD pop3\tmary\tx\ty\n"))
        asked_before.append(FOUND)
        return FOUND

    table.before(slow)(auth(user="mary"))
    assert asked_before
    for user in ("john", "mary"):
        assert table.before(Modules(b"FAIL\n"))(auth(user=user)) == b"FAIL\n"


def test_no_password_is_in_it_nor_a_plain_hash():
    table = Cache(10, 100)
    table.before(Modules())(auth())
    octets = table._table[:]
    assert b"ADDRESS=john" in octets and b"secret" not in octets
    assert table._name(auth()) != Cache(10, 100)._name(auth())
    assert table._name(auth()) not in octets


def test_its_size_is_bounded_and_the_last_ones_stay():
    table = Cache(10, 4)
    modules = Modules()
    reply = table.before(modules)
    for number in range(100):
        reply(auth(user=f"user{number}"))
    assert reply(auth(user="user99")) == FOUND and modules.asked == 100
    assert len(table._table) == STATE + 4 * PLACE


def test_a_long_answer_is_not_remembered():
    modules = Modules(b"HOME=/" + b"x" * ANSWER + b"\n.\n")
    reply = Cache(10, 100).before(modules)
    assert reply(auth()) == reply(auth()) == modules.answer
    assert modules.asked == 2


@settings(max_examples=50)
@given(st.integers(STATE, STATE + PLACE - 1), st.integers(1, 255))
def test_a_place_that_is_not_whole_is_none(at, change):
    """As when two processes write at once."""
    table = Cache(10, 1)
    table.before(Modules())(auth())
    size = table._table[: STATE + PLACE].rstrip(b"\0")
    table._table[at] ^= change
    found = table.before(Modules(b"FAIL\n"))(auth())
    assert found == (b"FAIL\n" if at < len(size) else FOUND)


def test_processes_share_it():
    table = Cache(10, 100)
    child = os.fork()
    if child == 0:
        table.before(Modules())(auth())
        os._exit(0)
    os.waitpid(child, 0)
    assert table.before(Modules(b"FAIL\n"))(auth()) == FOUND


def passwords(userdb, account, password: str) -> None:
    fields = f"uid={account.uid}|gid={account.gid}|home={account.home}|systempw={sha(password)}"
    userdb.write_text(f"{account.name}\t{fields}\n")


@pytest.mark.parametrize("life", ["", "0", "3600"])
def test_the_whole_daemon(authdaemond, john, accounts, life):
    daemon = authdaemond(
        authmodulelist="authuserdb",
        AUTHUSERDB_FILE=accounts.userdb,
        authcachelife=life,
        daemons="2",
    )
    was = john.password
    assert daemon.login("john", was).endswith(b".\n")
    passwords(accounts.userdb, john, "another")
    assert daemon.login("john", was).endswith(b".\n" if life == "3600" else b"FAIL\n")
    assert daemon.login("john", "another").endswith(b"\nPASSWD2=another\n.\n")
    assert daemon.login("john", "wrong") == b"FAIL\n"
    lines = daemon.log.read_text().count("INFO: modules=")
    daemon.process.send_signal(1)
    wait_until(lambda: daemon.log.read_text().count("INFO: modules=") > lines, "SIGHUP is obeyed")
    assert daemon.login("john", was) == b"FAIL\n"


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("authcachelife", "x", "0 to 3600"),
        ("authcachelife", "-1", "0 to 3600"),
        ("authcachelife", "3601", "0 to 3600"),
        ("authcachelife", "9" * 5000, "0 to 3600"),
        ("authcachesize", "0", "1 to 100000"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told(name, value, range_):
    with pytest.raises(Refused, match=f"rc: {name}={value}: not a number from {range_}"):
        Configuration("rc", {"authmodulelist": "authuserdb", name: value})
