"""SCRAM's messages and keys, with the examples of the RFCs and an independent client."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierchain import passwords, request, scram
from courierchain.saslprep import NotPrepared, prepared
from courierchain.scram import Exchange, Malformed, Question, Wrong
from tests.conftest import needs_module

ROUNDS = 4096
SALT = b"sixteen octets.."

# RFC 5802 section 5, RFC 7677 section 3; errata none. Password: pencil.
EXAMPLES = {
    "5802": (
        *("sha1", b"QSXCR+Q6sek8bf92", b"n=user,r=fyko+d2lbbFgONRv9qkxdawL"),
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    "7677": (
        *("sha256", b"W22ZaJ0SNY7soEsUEjb6gQ==", b"n=user,r=rOprNGfwEbeRWgbNEkqO"),
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
}


@pytest.mark.parametrize("rfc", EXAMPLES)
def test_5802_01_7677_01_the_examples_of_the_rfcs(rfc, monkeypatch):
    algorithm, salt, first, server_first, final, server_final = EXAMPLES[rfc]
    secret = scram.secret_of(algorithm, b"pencil", b64decode(salt), ROUNDS)
    exchange = Exchange(Question(algorithm, b"user", first, b"n,,"), secret, b"")
    exchange.server_first = server_first  # with the RFC's nonce, which is no base64
    exchange._nonce = server_first.split(b",")[0][2:]
    assert exchange.answer(final) == server_final
    with pytest.raises(Wrong):
        exchange.answer(final.replace(b"p=v0", b"p=V0").replace(b"p=dH", b"p=DH"))


def client(mechanism: str, password: str, nonce: str | None = None, binding=None):
    scramp = needs_module("scramp")
    return scramp.ScramClient([mechanism], "john", password, channel_binding=binding, c_nonce=nonce)


def exchange_with(peer, secret, binding=b"n,,") -> Exchange:
    first = peer.get_client_first().encode().split(b",", 2)[2]
    exchange = Exchange(Question(secret.algorithm, b"john", first, binding), secret, b"nonce" * 4)
    peer.set_server_first(exchange.server_first.decode())
    return exchange


@pytest.mark.parametrize("name, algorithm", [("SCRAM-SHA-1", "sha1"), ("SCRAM-SHA-256", "sha256")])
def test_5802_01_7677_01_another_client_believes_the_server(name, algorithm):
    peer = client(name, "pencil")
    exchange = exchange_with(peer, scram.secret_of(algorithm, b"pencil", SALT, ROUNDS))
    peer.set_server_final(exchange.answer(peer.get_client_final().encode()).decode())
    stranger = client(name, "pencils")
    exchange = exchange_with(stranger, scram.secret_of(algorithm, b"pencil", SALT, ROUNDS))
    with pytest.raises(Wrong):
        exchange.answer(stranger.get_client_final().encode())


@pytest.fixture(scope="module")
def secret():
    return scram.secret_of("sha256", b"pencil", SALT, ROUNDS)


@pytest.fixture
def conversation(secret):
    peer = client("SCRAM-SHA-256", "pencil")
    exchange = exchange_with(peer, secret)
    return exchange, peer.get_client_final().encode()


def test_5802_04_a_changed_nonce_or_c_is_refused(conversation):
    exchange, final = conversation
    nonce = final.split(b",")[1][2:]
    for changed in (
        final.replace(nonce, nonce[:-1]),
        final.replace(nonce, nonce + b"x"),
        final.replace(b"c=biws", b"c=eSws"),  # y,,
        final.replace(b"c=biws", b"c=" + b64encode(b"p=tls-unique,,")),
    ):
        with pytest.raises(Wrong):
            exchange.answer(changed)
    exchange.answer(final)


def test_CVE_43_a_final_message_of_before_is_refused(conversation, secret):
    _, old = conversation
    peer = client("SCRAM-SHA-256", "pencil")
    exchange = exchange_with(peer, secret)
    with pytest.raises(Wrong):
        exchange.answer(old)


@settings(max_examples=200)
@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from(
            [b"c=biws", b"r=x", b"p=AAAA", b",", b"", b"m=1", b"c=", b"p=" + b"A" * 43 + b"="]
        )
    ).map(b",".join)
)
def test_anything_is_wrong_or_malformed_and_nothing_else(octets):
    secret = scram.Secret("sha256", ROUNDS, SALT, b"k" * 32, b"s" * 32)
    exchange = Exchange(Question("sha256", b"john", b"n=john,r=x", b"n,,"), secret, b"")
    with pytest.raises((Wrong, Malformed)):
        exchange.answer(octets)


FORMS = {
    "RFC 5803": lambda name, *parts: f"{name}${ROUNDS}:{parts[0]}${parts[1]}:{parts[2]}",
    "Dovecot": lambda name, *parts: f"{{{name}}}{ROUNDS},{','.join(parts)}",
    "both": lambda name, *parts: f"{{{name}}}{ROUNDS}${':'.join(parts)}",
}


@pytest.mark.parametrize("spelling", FORMS)
@pytest.mark.parametrize("algorithm, name", [("sha1", "SCRAM-SHA-1"), ("sha256", "SCRAM-SHA-256")])
def test_every_spelling_of_a_stored_form(spelling, algorithm, name):
    made = scram.secret_of(algorithm, b"pencil", SALT, ROUNDS)
    parts = [b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key)]
    form = FORMS[spelling](name, *parts).encode()
    found = scram.stored_secret(form)
    assert found is not None
    assert scram.form(found) == scram.form(made)
    assert passwords.verify(b"pencil", form)
    assert not passwords.verify(b"pencils", form)


def test_a_form_made_by_dovecot():
    # doveadm pw -s SCRAM-SHA-256 -p pencil (Dovecot 2.3.19)
    form = (
        b"{SCRAM-SHA-256}4096,nRM6674x7kNq3vXEvM/YKA==,"
        b"6YZ9F4cw28xEUrJMm7vC2AQ+43d1orB0v4zn/mFxJqc=,XOoQgWrm7bg0wuducInYZcOdfxmL//i3+0awz7PSRCY="
    )
    assert passwords.verify(b"pencil", form)
    assert not passwords.verify(b"Pencil", form)


@pytest.mark.parametrize(
    "form",
    [
        *(b"SCRAM-SHA-256$", b"{SCRAM-SHA-256}", b"{SCRAM-SHA-256", b"SCRAM-SHA-512$4096:a$b:c"),
        *(b"{SCRAM-SHA-256}4096,,,", b"{SCRAM-SHA-256}4096,AAAA,AAAA,AAAA"),
        b"{SCRAM-SHA-256}x,AAAA," + b64encode(b"k" * 32) + b"," + b64encode(b"k" * 32),
        b"{SCRAM-SHA-256}9999999999,AAAA," + b64encode(b"k" * 32) + b"," + b64encode(b"k" * 32),
        b"{SCRAM-SHA-256}0,AAAA," + b64encode(b"k" * 32) + b"," + b64encode(b"k" * 32),
        b"{SCRAM-SHA-256}4096,," + b64encode(b"k" * 32) + b"," + b64encode(b"k" * 32),
        b"{SCRAM-SHA-256}4096,AAAA," + b64encode(b"k" * 20) + b"," + b64encode(b"k" * 32),
        b"!{SCRAM-SHA-256}4096,AAAA," + b64encode(b"k" * 32) + b"," + b64encode(b"k" * 32),
    ],
)
def test_CVE_49_a_broken_form_never_matches(form):
    assert scram.stored_secret(form) is None
    assert not passwords.verify(b"pencil", form, dummy=b"{MD5}x")


def record(*lines: bytes, authtype: bytes = b"scram-sha-256") -> request.Request:
    return request.parse(request.encode(b"pop3", authtype, *lines))


FIRST, INPUT = b64encode(b"n=john,r=nonce"), b64encode(b"n,,")


def test_the_record_gives_the_question():
    question = scram.asked(record(b"john@example.com", FIRST, INPUT))
    assert question is not None
    assert (question.algorithm, question.user) == ("sha256", b"john@example.com")
    assert (question.first, question.nonce, question.binding) == (
        b"n=john,r=nonce",
        b"nonce",
        b"n,,",
    )


@pytest.mark.parametrize(
    "broken",
    [
        record(b"john", FIRST),
        record(b"john", FIRST, INPUT, INPUT),
        record(b"", FIRST, INPUT),
        record(b"john", b"?", INPUT),
        record(b"john", FIRST, b"AAA"),
        record(b"john", b64encode(b"n=john"), INPUT),
        record(b"john", b64encode(b"m=1,n=john,r=x"), INPUT),
        record(b"john", b64encode(b"n=john,r="), INPUT),
        record(b"john", b64encode(b"n=john,r=\xff"), INPUT),
        record(b"john", FIRST, INPUT, authtype=b"scram-sha-512"),
        record(b"john", b"secret", authtype=b"login"),
    ],
)
def test_AUTHCHAIN_02_CVE_48_a_record_of_another_form_is_no_question(broken):
    assert scram.asked(broken) is None


@pytest.mark.parametrize(
    "text, result",
    [
        # RFC 4013 section 3
        *(("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a")),
        *(("\u2168", "IX"), ("\u00a0", " "), ("\u212b", "\u00c5"), ("", "")),
    ],
)
def test_4616_03_names_and_passwords_are_prepared(text, result):
    assert prepared(text.encode()) == result.encode()


@pytest.mark.parametrize(
    "text", ["\u0007", "\u06271", "\u0627a\u0627", "\ufffd", "\u200e", "\x7f", "\ue000"]
)
def test_what_may_not_be_in_a_name_is_not_prepared(text):
    with pytest.raises(NotPrepared):
        prepared(text.encode())


@given(st.binary(max_size=20))
def test_preparing_anything_gives_utf8_or_an_error(octets):
    try:
        prepared(octets).decode()
    except NotPrepared:
        pass
