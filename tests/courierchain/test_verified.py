"""Passwords whose slow hash isn't computed again: which, for how long, for whom, and what stays."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import passwords, verified
from courierchain.account import Account, become_user
from courierchain.passwords import verify
from courierchain.refusal import Refused
from tests.chain.test_park import memory
from tests.conftest import DEADLINE, ROOT, needs_root
from tests.courierchain.test_passwords import CRYPT, DIGESTS, PASSLIB

SLOW = {name: form for name, form in CRYPT.items() if name not in ("des", "bsdi", "1", "3")}
QUICK = {**DIGESTS, **{name: form for name, form in CRYPT.items() if name not in SLOW}}
STORED = SLOW["5"]
OTHER = b"$5$courierSalt$deJM2wonxhI8fPvNbklZ08IY8wbvVLM/jq4v2dN1x8C"  # of the secret `other`


@contextmanager
def begun(life: str = "60"):
    verified.configure({"POP3_LOGIN_CACHE": life})
    verified.begin()
    try:
        yield
    finally:
        verified.forget()
        verified.configure({})


@pytest.fixture
def on():
    with begun():
        yield


@pytest.fixture
def computed(monkeypatch):
    """The stored forms that a secret was compared with, by crypt(3) or by passlib."""
    seen = []
    for name in ("crypt_matches", "passlib_matches"):
        function = getattr(passwords, name)

        def compare(*arguments, function=function):
            seen.append(arguments[-1])
            return function(*arguments)

        monkeypatch.setattr(passwords, name, compare)
    return seen


@pytest.fixture
def clock(monkeypatch):
    """now[0]: seconds."""
    now = [1000.0]
    monkeypatch.setattr(verified, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("env", [{}, {"POP3_LOGIN_CACHE": ""}, {"POP3_LOGIN_CACHE": "0"}])
def test_nothing_is_remembered_unless_that_is_wanted(env, computed):
    verified.configure(env)
    verified.begin()
    for _ in range(2):
        assert verify(b"secret", STORED)
    assert computed == [STORED] * 2
    assert not verified._expiry and not any(verified._key)


def test_nor_in_a_process_that_has_not_begun(computed):
    verified.configure({"POP3_LOGIN_CACHE": "60"})
    try:
        for _ in range(2):
            assert verify(b"secret", STORED)
    finally:
        verified.configure({})
    assert computed == [STORED] * 2


@pytest.mark.parametrize("value", ["-1", "x", "3601", "1.5", "9" * 5000])
def test_a_time_that_makes_no_sense_is_refused(value):
    with pytest.raises(Refused, match="^POP3_LOGIN_CACHE=.*: not a number from 0 to 3600$"):
        verified.configure({"POP3_LOGIN_CACHE": value})


@pytest.mark.parametrize("stored", SLOW.values(), ids=SLOW)
def test_a_slow_form_is_computed_once(on, computed, stored):
    if passwords.crypt(b"secret", stored) != stored:
        pytest.skip("not in this libcrypt")
    for braces in (b"", b"{CRYPT}", b"{crypt}"):
        assert verify(b"secret", braces + stored)
    assert computed == [stored]
    assert not verify(b"Secret", stored)
    assert computed == [stored] * 2


def test_so_is_one_of_passlibs(on, computed, monkeypatch):
    """Whether passlib is here or not: it is asked once."""
    stored = PASSLIB["argon2id"]
    asked = []
    monkeypatch.setattr(passwords, "passlib_matches", lambda *given: asked.append(given) or True)
    for form in (stored, b"{ARGON2ID}" + stored, stored):
        assert verify(b"secret", form)
    assert asked == [("argon2", b"secret", stored)]


@pytest.mark.parametrize("stored", QUICK.values(), ids=QUICK)
def test_a_quick_form_is_not_remembered(on, stored):
    if b"{" not in stored and passwords.crypt(b"secret", stored) != stored:
        pytest.skip("not in this libcrypt")
    assert verify(b"secret", stored)
    assert not verified._expiry


def test_a_wrong_secret_is_computed_each_time(on, computed):
    for _ in range(2):
        assert not verify(b"wrong", STORED)
    for _ in range(2):
        assert not verify(b"wrong", None)
    assert computed == [STORED] * 2 + [passwords.DUMMY] * 2
    assert not verified._expiry


def test_what_cannot_be_computed_is_not_remembered_as_right(on, monkeypatch):
    monkeypatch.setattr(passwords, "passlib_matches", lambda *_: None)
    assert not verify(b"secret", PASSLIB["argon2id"])
    assert not verified._expiry


def test_a_changed_or_locked_password_counts_at_once(on, computed):
    assert verify(b"secret", STORED)
    assert not verify(b"secret", OTHER)
    assert not verify(b"secret", b"!" + STORED)
    assert verify(b"other", OTHER)
    assert not verify(b"other", STORED)
    assert not verify(b"secret", STORED + b"x")
    assert not verify(b"", STORED)


def test_after_its_time_a_secret_is_computed_again_however_often_it_was_asked(on, computed, clock):
    assert verify(b"secret", STORED)
    for clock[0] in (1020.0, 1040.0, 1059.9):
        assert verify(b"secret", STORED)
    assert computed == [STORED]
    clock[0] = 1060.0
    assert verify(b"secret", STORED)
    assert computed == [STORED] * 2
    clock[0] = 1119.9
    assert verify(b"secret", STORED)
    assert computed == [STORED] * 2


def test_what_is_over_does_not_stay(on, clock):
    for number in range(9):
        verified.learn(b"secret %d" % number, STORED)
        clock[0] += 10
    assert len(verified._expiry) == 9
    assert not verified.knows(b"another", STORED)
    assert len(verified._expiry) == 5
    clock[0] += 60
    assert not verified.knows(b"another", STORED)
    assert not verified._expiry


def test_what_is_learned_again_goes_behind_the_others(on, clock):
    """Else it would keep those from leaving that are over."""
    for secret in (b"one", b"two", b"one"):
        verified.learn(secret, STORED)
        clock[0] += 25
    clock[0] = 1090.0
    assert not verified.knows(b"two", STORED)
    assert verified.knows(b"one", STORED)


def test_there_is_room_for_so_many_and_the_oldest_goes(on, monkeypatch):
    monkeypatch.setattr(verified, "MOST", 3)
    for number in range(5):
        verified.learn(b"secret %d" % number, STORED)
        assert len(verified._expiry) <= 3
    assert [verified.knows(b"secret %d" % number, STORED) for number in range(5)] == [
        *(False, False),
        *(True, True, True),
    ]


OCTETS = st.binary(max_size=40)


@given(OCTETS, OCTETS, OCTETS, OCTETS)
def test_no_other_pair_is_taken_for_the_one_that_was_learned(secret, stored, other, elsewhere):
    with begun():
        verified.learn(secret, stored)
        assert verified.knows(secret, stored)
        assert verified.knows(other, elsewhere) == ((other, elsewhere) == (secret, stored))


@given(OCTETS, st.integers(0, 40))
def test_where_the_stored_form_ends_matters(octets, cut):
    with begun():
        verified.learn(octets, b"")
        assert verified.knows(octets[cut:], octets[:cut]) == (not octets[:cut])


def test_what_was_forgotten_is_not_remembered_by_beginning_again():
    with begun():
        verified.learn(b"secret", STORED)
    with begun():
        assert not verified.knows(b"secret", STORED)


def test_each_beginning_has_a_key_of_its_own():
    names = set()
    for _ in range(2):
        with begun():
            names.add(verified._name(b"secret", STORED))
    assert len(names) == 2


def test_neither_secret_nor_stored_form_is_in_the_table(on):
    verified.learn(b"secret", STORED)
    held = pickle.dumps(verified._expiry)
    assert b"secret" not in held and STORED[-20:] not in held
    assert [len(name) for name in verified._expiry] == [32]


# Whose it is


class Process:
    """Forked now, takes one step each time it is told to, and tells what the step returns."""

    def __init__(self, *steps: Callable[[], bytes]):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.socket.close()
                for step in steps:
                    if theirs.recv(1):
                        theirs.send(step())
                theirs.recv(1)
            finally:
                os._exit(0)
        theirs.close()

    def step(self) -> bytes:
        self.socket.send(b".")
        return self.socket.recv(4096)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()
        os.waitpid(self.pid, 0)


def log_in() -> bytes:
    """The key: the object itself, so that there is no copy."""
    verified.configure({"POP3_LOGIN_CACHE": "60"})
    verified.begin()
    assert verify(b"secret", STORED)
    assert verified.knows(b"secret", STORED)
    return verified._key


def fork() -> bytes:
    """Go on as a child of this process; its id."""
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
    return b"%d" % os.getpid()


def become() -> bytes:
    """Become john, as a module does that has accepted him."""
    uid = os.getuid() or 20001
    become_user(Account(user="john", uid=uid, gid=os.getgid() or uid, home="/"))
    return b"%d" % os.getuid()


def state() -> bytes:
    known = verified.knows(b"secret", STORED)
    verified.learn(b"secret", STORED)
    return b"%d %d" % (known, verified.knows(b"secret", STORED))


def test_a_process_that_is_forked_remembers_nothing_and_has_no_key():
    with Process(log_in, fork, state) as process:
        key = process.step()
        assert key in memory(process.pid)  # so it would be found
        child = int(process.step())
        assert key not in memory(child)
        assert key in memory(process.pid)
        assert process.step() == b"0 0"


def test_CVE_37_a_process_that_becomes_a_user_remembers_nothing_and_has_no_key():
    needs_root()
    with Process(log_in, become, state) as process:
        key = process.step()
        assert key in memory(process.pid)
        assert process.step() == b"20001"
        assert key not in memory(process.pid)
        assert process.step() == b"0 0"


def test_a_process_that_is_that_user_already_goes_on():
    """Where all mailboxes are of one uid, it serves one after another."""

    def drop_root() -> bytes:
        if os.getuid() == 0:
            os.setresgid(20001, 20001, 20001)
            os.setresuid(20001, 20001, 20001)
        return b"."

    with Process(drop_root, log_in, become, state) as process:
        process.step()
        assert any(process.step())
        assert int(process.step()) == (20001 if ROOT else os.getuid())
        assert process.step() == b"1 1"
