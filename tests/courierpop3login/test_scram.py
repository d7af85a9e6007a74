"""The first message of SCRAM: who wants to log in, bound to what, and what the modules get."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import request, scram
from courierpop3login.mechanisms import Attempt, Malformed, Refused
from courierpop3login.sasl import TABLE, Offer
from courierpop3login.session import Authorization

NAME = b"SCRAM-SHA-256"
PLUS = NAME + b"-PLUS"
DATA = {b"tls-exporter": b"e" * 32, b"tls-server-end-point": b"s" * 64}
PLAIN = Offer(NAME, (NAME,))
BOTH = Offer(PLUS + b" " + NAME, (PLUS, NAME), bindings=DATA)


def respond(offer: Offer, name: bytes, text: bytes) -> Attempt | bytes:
    dialogue = offer.begin(name)
    assert dialogue is not None
    assert dialogue.respond(None) == b""
    return dialogue.respond(text)


def question(text: bytes, *, name: bytes = NAME, offer: Offer = PLAIN, **settings):
    """What the modules are asked."""
    session = Authorization(offer=offer, **settings)
    assert session.obey(b"AUTH %s %s" % (name, b64encode(text))) == b""
    assert session.request is not None
    assert session.method == name
    return scram.asked(request.parse(session.request))


def test_the_modules_get_name_message_and_what_c_has_to_be():
    asked = question(b"n,,n=john,r=nonce,x=more")
    assert (asked.algorithm, asked.user) == ("sha256", b"john")
    assert (asked.first, asked.binding) == (b"n=john,r=nonce,x=more", b"n,,")


@pytest.mark.parametrize("kind", DATA)
def test_5802_04_the_data_of_tls_is_in_it(kind):
    asked = question(b"p=%s,a=john,n=john,r=x" % kind, name=PLUS, offer=BOTH)
    assert asked.binding == b"p=%s,a=john,%s" % (kind, DATA[kind])


def test_the_default_domain_is_for_the_modules_and_not_in_the_message():
    asked = question(b"n,a=john@example.com,n=john,r=x", defdomain=b"@example.com")
    assert (asked.user, asked.first) == (b"john@example.com", b"n=john,r=x")


@pytest.mark.parametrize(
    "name, user",
    [
        *((b"a=2Cb", b"a,b"), (b"a=3Db", b"a=b"), (b"=3D2C", b"=2C"), (b"a b", b"a b")),
        *(("\u2168".encode(), b"IX"), ("e\u0301".encode(), "\u00e9".encode())),
    ],
)
def test_4616_03_names_are_prepared(name, user):
    assert question(b"n,,n=%s,r=x" % name).user == user


@pytest.mark.parametrize("name", [b"a=b", b"a=2c", b"=", b"a=3d", b"\xc3", b"\n", b"\xc2\xad", b""])
def test_CVE_24_names_that_are_none(name):
    with pytest.raises(Malformed):
        respond(PLAIN, NAME, b"n,,n=%s,r=x" % name)


def test_a_downgrade_is_refused_only_where_there_was_a_choice():
    assert isinstance(respond(PLAIN, NAME, b"y,,n=john,r=x"), Attempt)
    with pytest.raises(Refused):
        respond(BOTH, NAME, b"y,,n=john,r=x")


@given(st.binary(max_size=40), st.sampled_from([NAME, PLUS]))
def test_anything_is_an_attempt_or_an_error(text, name):
    for octets in (text, b"n,," + text, b"n,,n=john,r=" + text):
        try:
            attempt = respond(BOTH, name, octets)
            assert isinstance(attempt, Attempt) and attempt.user
        except (Malformed, Refused):
            pass


def test_each_has_its_plus():
    names = [name for name in TABLE if name.startswith(b"SCRAM-")]
    assert {name + b"-PLUS" for name in names if not name.endswith(b"-PLUS")} < set(names)
