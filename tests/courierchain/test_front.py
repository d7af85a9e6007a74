"""The messages between a listener and its front, and what a login program believes of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from courierchain import authtypes, front
from courierchain.request import AUTHENTICATED, encode
from courierpop3login.sasl import Offer
from courierpop3login.session import Authorization

TEXT = some.text(some.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
NUMBER = some.integers(0, 10**18 - 1)
JOHN = b"john"


@settings(max_examples=50)
@given(some.sampled_from((front.HOLD, front.LOGIN)), NUMBER, some.binary(max_size=50))
def test_a_message_is_what_was_said(kind, number, rest):
    assert front.parsed(front.message(kind, number, rest)) == (kind, number, rest)


@settings(max_examples=50)
@given(NUMBER, some.booleans(), some.binary(), some.binary(), some.binary())
def test_a_login_is_what_was_said(expire, utf8, user, method, request):
    login = front.Login(expire, utf8, user, method, request)
    found = front.Login.decode(login.encode())
    assert [getattr(found, name) for name in front.Login.__slots__] == [
        *(expire, utf8, user, method, request)
    ]
    returned = front.Return.decode(front.Return(expire, utf8, user).encode())
    assert (returned.expire, returned.utf8, returned.reply) == (expire, utf8, user)


NAME = some.text("ABCXYZ_", min_size=1, max_size=9)


@settings(max_examples=50)
@given(some.dictionaries(NAME, TEXT))
def test_the_variables_of_a_session_are_what_was_said(variables):
    address, port, others = front.split_ends(front.ends("::1", 110, variables))
    assert (address, port, front.variables(others)) == ("::1", "110", variables)


@settings(max_examples=100)
@given(some.binary(max_size=40))
def test_nonsense_is_a_value_error(data):
    for read in (front.parsed, front.Login.decode, front.Return.decode, front.split_ends):
        try:
            read(data)
        except ValueError:
            pass


def login(record: bytes, method: bytes = b"", user: bytes = JOHN) -> front.Login:
    return front.Login(1, False, user, method, record)


def session(**terms) -> Authorization:
    offer = Offer(b"PLAIN CRAM-MD5 EXTERNAL", (b"PLAIN", b"CRAM-MD5", b"EXTERNAL"), b"mary")
    return Authorization(offer=offer, **terms)


def test_a_login_that_this_session_could_have_heard_is_taken():
    record = encode(b"pop3", authtypes.LOGIN, JOHN, b"secret")
    for method in (b"", b"PLAIN"):
        heard = session()
        heard.claim(login(record, method))
        assert (heard.request, heard.user, heard.method) == (record, JOHN, method)
    nobody_s = session()
    nobody_s.claim(login(b""))
    assert (nobody_s.request, nobody_s.user) == (None, JOHN)
    offer = Offer(b"OAUTHBEARER", (b"OAUTHBEARER",))
    told_by_a_token = Authorization(offer=offer)
    record = encode(b"pop3", authtypes.OAUTHBEARER, b"", b"token")
    told_by_a_token.claim(login(record, b"OAUTHBEARER", b""))
    assert told_by_a_token.request == record
    certified = session()
    certified.claim(login(encode(b"pop3", authtypes.EXTERNAL, b"mary"), b"EXTERNAL", b"mary"))
    assert certified.user == b"mary"


IMPOSSIBLE = {
    "somebody accepted": login(encode(b"pop3", AUTHENTICATED, JOHN)),
    "somebody accepted, by AUTH": login(encode(b"pop3", AUTHENTICATED, JOHN), b"PLAIN"),
    "no certificate says so": login(encode(b"pop3", authtypes.EXTERNAL, JOHN), b"EXTERNAL"),
    "EXTERNAL without AUTH": login(encode(b"pop3", authtypes.EXTERNAL, JOHN)),
    "EXTERNAL as PLAIN": login(encode(b"pop3", authtypes.EXTERNAL, JOHN), b"PLAIN"),
    "a mechanism that isn't offered": login(
        encode(b"pop3", authtypes.CRAM[1], b"x", b"y"), b"CRAM-SHA1"
    ),
    "another service": login(encode(b"imap", authtypes.LOGIN, JOHN, b"secret")),
    "another userid": login(encode(b"pop3", authtypes.LOGIN, b"mary", b"secret")),
    "a control character": login(encode(b"pop3", authtypes.LOGIN, JOHN, b"\x01")),
    "a line too many": login(b"pop3\nlogin\njohn\nsecret\nmore\n"),
    "half a record": login(b"pop3\nlogin"),
    "nobody at all": login(b"", user=b""),
    "nobody": login(encode(b"pop3", authtypes.LOGIN, JOHN, b"secret"), user=b""),
}


@pytest.mark.parametrize("claim", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_AUTHCHAIN_05_CVE_48_no_other_login_is_taken_from_a_front(claim):
    heard = session()
    with pytest.raises(ValueError):
        heard.claim(claim)
    assert (heard.request, heard.user) == (None, b"")


def test_2595_05_no_login_is_taken_from_a_front_where_tls_is_required():
    with pytest.raises(ValueError):
        session(tls_required=True).claim(login(encode(b"pop3", authtypes.LOGIN, JOHN, b"secret")))
