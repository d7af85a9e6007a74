"""The stored states of CRAM secrets, and the hash functions that go on from them."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import cram
from courierchain.hashblocks import ALGORITHMS
from courierchain.request import encode, parse

NAMES = sorted(ALGORITHMS)
CHALLENGE = b"<1896.697170952@mail.example.com>"
SECRET_MD5 = b"cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"  # auth.md 2.3


def answered(secret: bytes, name: str = "md5", challenge: bytes = CHALLENGE) -> cram.Answer:
    digest = hmac.new(secret, challenge, name).hexdigest().encode()
    found = cram.answer(b"cram-" + name.encode(), challenge, b"john " + digest)
    assert found
    return found


@pytest.mark.parametrize("name", NAMES)
@given(text=st.binary(max_size=300))
def test_a_digest_is_that_of_hashlib(name, text):
    algorithm = ALGORITHMS[name]
    assert algorithm.digest(algorithm.start, 0, text) == hashlib.new(name, text).digest()


@pytest.mark.parametrize("name", NAMES)
@given(secret=st.binary(min_size=1, max_size=130), challenge=st.binary(max_size=130))
def test_2195_01_who_has_the_secret_is_let_in(name, secret, challenge):
    state = cram.state_of(name, secret)
    is_empty = not (secret if len(secret) <= 64 else b"x").strip(b"\0")
    assert cram.verify(answered(secret, name, challenge), state) == (not is_empty)
    assert not cram.verify(answered(b"not" + secret, name, challenge), state)


def test_the_state_is_the_one_that_couriers_userdbpw_makes():
    assert cram.state_of("md5", b"secret") == SECRET_MD5
    assert cram.verify(answered(b"secret"), SECRET_MD5)
    assert cram.verify(answered(b"secret"), SECRET_MD5.upper())


def test_the_documented_record_is_answered():
    """chain-protocol.md 13."""
    response = b"am9obiBjNmRhNjg3NjlmMzM1ZDY2MDRkMjc0ZjcxYzhlMTJmYw=="
    asked = cram.asked(
        parse(encode(b"pop3", b"cram-md5", cram.base64(CHALLENGE), response)),
    )
    assert asked and asked.user == b"john"
    assert cram.verify(asked, SECRET_MD5)


@pytest.mark.parametrize("name", NAMES)
def test_CVE_09_an_empty_secret_lets_nobody_in(name):
    assert not cram.verify(answered(b"", name), cram.state_of(name, b""))
    assert not cram.verify(answered(b"", name), None)
    assert not cram.verify(answered(b"", name), b"")


@pytest.mark.parametrize(
    "state",
    [b"x", b"00", SECRET_MD5[:-1], SECRET_MD5 + b"00", b"\xff" * 64, b"zz" * 32, b"\0" * 64],
)
def test_CVE_49_a_broken_state_lets_nobody_in(state):
    for secret in (b"secret", b""):
        assert not cram.verify(answered(secret), state)


def test_CVE_43_an_old_response_does_not_fit_a_new_challenge():
    old = answered(b"secret")
    replayed = cram.Answer(old.algorithm, old.user, b"<another@host>", old.digest)
    assert not cram.verify(replayed, SECRET_MD5)


def test_CVE_43_digests_are_compared_in_constant_time(monkeypatch):
    compared = []

    def same(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(cram, "same", same)
    answer = answered(b"wrong")
    assert not cram.verify(answer, SECRET_MD5)
    assert [pair[1] for pair in compared] == [answer.digest]


@pytest.mark.parametrize(
    "fields", [(b"*", b"*"), (b"YQ==", b"YQ=="), (b"YQ==",), (b"a", b"b", b"c")]
)
def test_AUTHCHAIN_02_a_broken_record_is_nobodys(fields):
    assert cram.asked(parse(encode(b"pop3", b"cram-md5", *fields))) is None


def test_a_record_of_another_kind_is_nobodys():
    assert cram.asked(parse(encode(b"pop3", b"login", b"john", b"x"))) is None
    assert cram.asked(parse(encode(b"pop3", b"cram-md4", b"YQ==", b"YQ=="))) is None


def digest(secret: bytes, challenge: bytes, user: bytes = b"john") -> cram.Answer:
    text = hashlib.md5(challenge + secret).hexdigest().encode()
    found = cram.answer(b"apop", challenge, user + b" " + text)
    assert found
    return found


def test_1939_apop_of_the_standard_is_answered():
    """Section 7's example."""
    challenge = b"<1896.697170952@dbc.mtview.ca.us>"
    said = b"mrose c4c9334bac560ecc979e58001b3e22fb"
    answer = cram.answer(b"apop", challenge, said)
    assert answer and answer.user == b"mrose"
    assert cram.verify(answer, cram.state_of("apop", b"tanstaaf"))
    assert not cram.verify(answer, cram.state_of("apop", b"tanstaa"))
    record = parse(encode(b"pop", b"apop", *cram.lines(answer, b"mrose")))
    asked = cram.asked(record)
    assert asked and (asked.user, asked.challenge) == (b"mrose", challenge)


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=60))
def test_CVE_09_apop_lets_in_who_has_the_secret_unless_it_is_empty(secret, other, challenge):
    answer = digest(secret, challenge)
    assert cram.verify(answer, cram.state_of("apop", secret)) == (secret != b"")
    assert cram.verify(answer, cram.state_of("apop", other)) == (other == secret != b"")
    for nothing in (None, b"", b"not hex"):
        assert not cram.verify(answer, nothing)
