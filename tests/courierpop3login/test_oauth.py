"""OAUTHBEARER and XOAUTH2 without descriptors: what is taken, and the record that comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierchain import failure
from courierpop3login.mechanisms import Malformed
from courierpop3login.mechanisms.oauth import Bearer, XOAuth2, challenge
from pop3proto.replies import err
from tests.courierpop3login.test_sasl import ABORTED, b64, offered, say, session

TOKEN = b"eyJhbGciOiJub25l.abc-_~+/=="


def bearer(header: bytes = b"n,a=john,", pairs: bytes = b"auth=Bearer " + TOKEN) -> bytes:
    return header + b"\x01" + pairs + b"\x01\x01"


def record(user: bytes = b"john") -> bytes:
    return b"pop3\noauthbearer\n%s\n%s\n\n" % (user, TOKEN)


@pytest.mark.parametrize(
    "header, user",
    [
        (b"n,a=john,", b"john"),
        (b"y,a=john@example.com,", b"john@example.com"),
        (b"n,a=j=2Coh=3Dn=3D2C,", b"j,oh=n=2C"),
        (b"n,,", b""),
    ],
)
def test_7628_01_oauthbearer_becomes_a_record(header, user):
    for lines in ([b"AUTH OAUTHBEARER", b64(bearer(header))],
                  [b"AUTH oauthbearer " + b64(bearer(header))]):  # fmt: skip
        client = session()
        assert say(client, *lines) in (b"", b"+ \r\n")
        assert client.is_over and client.request == record(user)
        assert (client.user, client.method) == (user, b"OAUTHBEARER")


def test_7628_01_host_port_and_other_pairs_are_overlooked():
    pairs = b"host=mail.example\x01port=110\x01auth=bearer  " + TOKEN + b"\x01x="
    client = session()
    say(client, b"AUTH OAUTHBEARER", b64(bearer(pairs=pairs)))
    assert client.request == record()


def test_xoauth2_becomes_the_same_record():
    client = session()
    assert say(client, b"AUTH XOAUTH2") == b"+ \r\n"
    assert say(client, b64(b"user=john\x01auth=Bearer " + TOKEN + b"\x01\x01")) == b""
    assert client.request == record()


MALFORMED = {
    "nothing": b"",
    "the dummy response": b"\x01",
    "no header": b"\x01auth=Bearer x\x01\x01",
    "channel binding": bearer(b"p=tls-exporter,a=john,"),
    "no name behind a=": bearer(b"n,a=,"),
    "not a=": bearer(b"n,john,"),
    "a comma in the name": bearer(b"n,a=jo,hn,"),
    "a bad escape": bearer(b"n,a=jo=2chn,"),
    "a lone equals sign": bearer(b"n,a=jo=hn,"),
    "no token": bearer(pairs=b"auth=Bearer "),
    "an empty auth": bearer(pairs=b"auth="),
    "no auth": bearer(pairs=b"host=x"),
    "two": bearer(pairs=b"auth=Bearer x\x01auth=Bearer y"),
    "Basic": bearer(pairs=b"auth=Basic am9objp4"),
    "a blank in the token": bearer(pairs=b"auth=Bearer a b"),
    "an LF in the token": bearer(pairs=b"auth=Bearer a\nb"),
    "a NUL in the token": bearer(pairs=b"auth=Bearer a\0b"),
    "8 bits in the token": bearer(pairs=b"auth=Bearer a\xffb"),
    "no end": b"n,a=john,\x01auth=Bearer x\x01",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_7628_01_CVE_48_what_is_not_of_the_grammar_is_aborted(message):
    client = session()
    assert say(client, b"AUTH OAUTHBEARER", b64(message)) == b"+ \r\n" + ABORTED
    assert client.failed == b"OAUTHBEARER" and not client.is_over
    client = session()
    xoauth2 = message.replace(b"n,a=john,", b"user=") if b"john" in message else message
    assert say(client, b"AUTH XOAUTH2", b64(xoauth2)).endswith(ABORTED)


@pytest.mark.parametrize("name", [b"jo\nhn", b"jo\0hn", b"\x1bjohn"])
def test_CVE_48_CVE_06_control_bytes_in_the_userid_make_nobodys_login(name):
    client = session()
    say(client, b"AUTH OAUTHBEARER", b64(bearer(b"n,a=%s," % name)))
    assert client.is_over and client.request is None


def test_a_domain_is_added_to_a_userid_and_not_to_none():
    for header, user in ((b"n,a=john,", b"john@example.com"), (b"n,,", b"")):
        client = session(defdomain=b"@example.com")
        say(client, b"AUTH OAUTHBEARER", b64(bearer(header)))
        assert client.request == record(user)


def test_5034_12_a_token_too_long_for_a_record_is_read_whole_and_refused():
    client = session()
    long = b64(b"n,a=john,\x01auth=Bearer " + b"x" * 9100 + b"\x01\x01")
    assert 12000 < len(long) <= 12288
    assert say(client, b"AUTH OAUTHBEARER", long).endswith(
        b"-ERR Userid and token are too long.\r\n"
    )
    assert client.failed == b"OAUTHBEARER" and not client.is_over


CHAIN = ("authoauth", "authuserdb", "courierpop3d")
BOTH = {"POP3AUTH": "PLAIN OAUTHBEARER XOAUTH2"}


def test_7628_01_they_are_announced_and_taken_inside_tls_alone():
    assert offered(CHAIN, encrypted=True, **BOTH) == "PLAIN OAUTHBEARER XOAUTH2"
    assert offered(CHAIN, **BOTH) == "PLAIN"
    assert offered(CHAIN, POP3_AUTH_LAX="1", **BOTH) == "PLAIN"
    lax = {"POP3_AUTH_LAX": "1", **BOTH}
    assert "XOAUTH2" in offered(CHAIN, encrypted=True, **lax)


@pytest.mark.parametrize(
    "chain, works",
    [
        (("authuserdb", "courierpop3d"), False),
        (("authoauth", "courierpop3d"), False),
        (("authuserdb", "authoauth", "courierpop3d"), False),
        (("authoauth", "authcram", "courierpop3d"), False),
        (("authoauth", "authpam", "courierpop3d"), True),
        (("authoauth", "/bin/sh", "courierpop3d"), True),
        (("/bin/sh", "courierpop3d"), True),
    ],
)
def test_5034_01_a_module_behind_authoauth_has_to_know_the_account(chain, works):
    assert ("OAUTHBEARER" in offered(chain, encrypted=True, **BOTH)) == works


# The end of a login that has come back


def test_7628_01_the_verdict_comes_after_the_dummy_response_whatever_it_is():
    for line in (b"AQ==", b"", b"*", b"QUIT", b"not base64", None):
        client = session()
        assert client.tell(b"{}", err(b"Login failed.")) == b"+ e30=\r\n"
        assert not client.is_between_commands  # so it isn't parked
        assert client.obey(line) == b"-ERR Login failed.\r\n"
        assert client.is_between_commands and not client.is_over and client.failed == b""
        assert say(client, b"USER john") == b"+OK Password required.\r\n"


@pytest.mark.parametrize(
    "method, why, told",
    [
        ("OAUTHBEARER", failure.REJECTED, b'{"status":"invalid_token"}'),
        ("XOAUTH2", "", b'{"status":"invalid_token"}'),
        ("XOAUTH2", failure.LOCKED, b'{"status":"invalid_token"}'),
        ("OAUTHBEARER", failure.TEMPORARY, b""),
        ("OAUTHBEARER", failure.PERMANENT, b""),
        ("PLAIN", failure.REJECTED, b""),
        ("", failure.REJECTED, b""),
    ],
)
def test_7628_01_3206_02_only_a_wrong_token_is_told_so(method, why, told):
    env = {"COURIER_LOGIN_METHOD": method, failure.VARIABLE: why}
    assert challenge(env) == told
    if told:
        assert challenge({**env, failure.CHALLENGE: '{"status":"x"}'}) == b'{"status":"x"}'


@settings(max_examples=300)
@given(st.lists(st.sampled_from([b"n", b",", b"a=", b"user=", b"\x01", b"auth=", b"Bearer ", b"x",
                                 b"=", b"=2C", b"\n", b"\0"]), max_size=14))  # fmt: skip
def test_whatever_comes_is_malformed_or_a_token_of_one_line(parts):
    for mechanism in (Bearer(), XOAuth2()):
        try:
            attempt = mechanism.respond(b"".join(parts))
        except Malformed:
            continue
        user, token = attempt.lines(attempt.user)
        assert user == attempt.user and token and not set(token) & set(b"\n\0\x01 ")
