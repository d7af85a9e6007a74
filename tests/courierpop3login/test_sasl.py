"""AUTH without descriptors: replies, prompts, and the record that comes of each mechanism."""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.settings import Settings
from courierpop3login.mechanisms import Malformed, decode
from courierpop3login.mechanisms.cram import fresh_challenge
from courierpop3login.sasl import TABLE, Offer, offer
from courierpop3login.session import Authorization
from pop3proto.commands import MAX_LINE, LineReader
from tests.conftest import BIN

ABORTED = b"-ERR Authentication aborted.\r\n"
FAILED = b"-ERR Authentication failed.\r\n"
INVALID = b"-ERR Invalid command.\r\n"
ALL = tuple(TABLE)


def b64(text: bytes) -> bytes:
    return b64encode(text)


def session(**more) -> Authorization:
    offered = more.pop("offer", Offer(b" ".join(ALL), ALL, b"john@cert"))
    return Authorization(offer=offered, **more)


def say(of: Authorization, *lines: bytes) -> bytes:
    return b"".join(of.obey(line + b"\r") for line in lines)


def record_of(of: Authorization) -> list[bytes]:
    assert of.is_over and of.request is not None
    return of.request.split(b"\n")


# PLAIN and LOGIN


def test_5034_03_5034_04_plain_has_an_empty_challenge_and_then_its_response():
    client = session()
    assert say(client, b"AUTH PLAIN") == b"+ \r\n"
    assert say(client, b64(b"\0john\0secret")) == b""
    assert client.request == b"pop3\nlogin\njohn\nsecret\n\n"
    assert (client.user, client.method) == (b"john", b"PLAIN")


@pytest.mark.parametrize("verb", [b"AUTH PLAIN ", b"auth plain ", b"Auth\tpLaIn\t"])
def test_5034_05_5034_06_an_initial_response_and_names_in_any_case(verb):
    client = session()
    assert say(client, verb + b64(b"\0john\0secret")) == b""
    assert client.request == b"pop3\nlogin\njohn\nsecret\n\n"


def test_5034_13_login_has_two_prompts():
    client = session()
    assert say(client, b"AUTH LOGIN") == b"+ VXNlcm5hbWU6\r\n"
    assert say(client, b64(b"john")) == b"+ UGFzc3dvcmQ6\r\n"
    assert say(client, b64(b" a b ")) == b""
    assert client.request == b"pop3\nlogin\njohn\n a b \n\n"


def test_login_takes_the_userid_with_auth():
    client = session()
    assert say(client, b"AUTH LOGIN " + b64(b"john")) == b"+ UGFzc3dvcmQ6\r\n"
    assert say(client, b64(b"secret")) == b""
    assert client.request == b"pop3\nlogin\njohn\nsecret\n\n"


BROKEN_PLAIN = {
    "nothing": b"",
    "no NUL": b"john",
    "one NUL": b"john\0secret",
    "three NULs": b"\0john\0sec\0ret",
    "no user": b"\0\0secret",
    "no password (CVE-09)": b"\0john\0",
    "NULs alone": b"\0\0",
}


@pytest.mark.parametrize("message", BROKEN_PLAIN.values(), ids=BROKEN_PLAIN)
def test_4616_01_CVE_06_CVE_09_plain_has_two_nuls_a_user_and_a_password(message):
    client = session()
    assert say(client, b"AUTH PLAIN", b64(message)) == b"+ \r\n" + ABORTED
    assert client.failed == b"PLAIN" and not client.is_slow and not client.is_over


def test_5034_11_an_equals_sign_is_an_empty_initial_response():
    assert say(session(), b"AUTH PLAIN =") == ABORTED
    assert say(session(), b"AUTH LOGIN =") == ABORTED
    client = session()
    assert say(client, b"AUTH EXTERNAL =") == b""
    assert client.request == b"pop3\nexternal\njohn@cert\n\n"
    assert say(session(), b"AUTH PLAIN", b"=") == b"+ \r\n" + ABORTED


@pytest.mark.parametrize("line", [b"", b"*"])
def test_login_without_userid_or_password_is_aborted(line):
    assert say(session(), b"AUTH LOGIN", line).endswith(ABORTED)
    assert say(session(), b"AUTH LOGIN", b64(b"john"), line).endswith(ABORTED)


@pytest.mark.parametrize(
    "acts_for, settings, granted",
    [
        (b"", {}, True),
        (b"john", {}, True),
        (b"mary", {}, False),
        (b"John", {}, False),
        (b"john@example.com", {}, False),
        (b"john", {"defdomain": b"@example.com"}, True),
        (b"john@example.com", {"defdomain": b"@example.com"}, True),
        (b"john@example.org", {"defdomain": b"@example.com"}, False),
    ],
)
def test_4616_02_an_authorization_name_is_honoured_or_refused(acts_for, settings, granted):
    client = session(**settings)
    reply = say(client, b"AUTH PLAIN " + b64(acts_for + b"\0john\0secret"))
    assert client.is_over == granted
    assert reply == (b"" if granted else FAILED)
    assert client.is_slow == (not granted)


def test_4616_03_utf8_passes_as_bytes_and_whole():
    name, password = "josé".encode(), "пароль".encode() * 50
    client = session()
    say(client, b"AUTH PLAIN " + b64(b"\0" + name + b"\0" + password))
    assert record_of(client)[2:4] == [name, password]


@pytest.mark.parametrize("name", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"a\xfeb"])
def test_CVE_24_bytes_that_are_no_utf8_are_passed_on_as_they_are(name):
    for lines in ([b"AUTH LOGIN", b64(name), b64(b"x")], [b"AUTH PLAIN " + b64(b"\0%s\0x" % name)]):
        client = session()
        say(client, *lines)
        assert record_of(client) == [b"pop3", b"login", name, b"x", b"", b""]


@pytest.mark.parametrize("octet", [b"\n", b"\r", b"\t", b"\x01", b"\x1b"])
def test_CVE_48_CVE_06_control_bytes_make_nobodys_login_and_forge_no_line(octet):
    for name, password in ((b"jo%shn" % octet, b"x"), (b"john", b"x%sy" % octet)):
        client = session()
        say(client, b"AUTH PLAIN " + b64(b"\0%s\0%s" % (name, password)))
        assert client.is_over and client.request is None


def test_CVE_06_a_nul_in_base64_cuts_nothing():
    client = session()
    say(client, b"AUTH LOGIN", b64(b"john\0x"), b64(b"y"))
    assert client.is_over and client.request is None


@pytest.mark.parametrize(
    "settings, sent",
    [
        ({"defdomain": b"@example.com"}, b"john@example.com"),
        ({"defdomain": b"@example.com", "domainsep": b"%n"}, b"john"),
        ({}, b"john"),
    ],
)
def test_defdomain_is_for_all_but_external(settings, sent):
    for lines in (
        [b"USER john", b"PASS x"],
        [b"AUTH PLAIN " + b64(b"\0john\0x")],
        [b"AUTH LOGIN " + b64(b"john"), b64(b"x")],
    ):
        client = session(**settings)
        say(client, *lines)
        assert record_of(client)[2] == sent
    client = answered(b"md5", b"john ", **settings)
    assert b64decode(record_of(client)[3]).startswith(sent + b" ")
    client = session(offer=Offer(b"EXTERNAL", ALL, b"john"), **settings)
    say(client, b"AUTH EXTERNAL =")
    assert record_of(client)[2] == b"john"


# CRAM


def answered(name: bytes, user: bytes, secret: bytes = b"secret", **more) -> Authorization:
    client = session(**more)
    challenge = b64decode(say(client, b"AUTH CRAM-" + name.upper())[2:])
    digest = hmac.new(secret, challenge, name.decode()).hexdigest().encode()
    assert say(client, b64(user + digest)) == b""
    return client


@pytest.mark.parametrize("name", [b"md5", b"sha1", b"sha256"])
def test_cram_sends_challenge_and_response_in_base64(name):
    client = answered(name, b"john ")
    service, authtype, challenge, response, *rest = record_of(client)
    assert (service, authtype, rest) == (b"pop3", b"cram-" + name, [b"", b""])
    expected = hmac.new(b"secret", b64decode(challenge), name.decode()).hexdigest()
    assert b64decode(response) == b"john " + expected.encode()


def test_cram_takes_spaces_in_the_userid_and_digits_in_either_case():
    client = session()
    say(client, b"AUTH CRAM-MD5")
    say(client, b64(b"john doe " + b"0123456789ABCDEF" * 2))
    assert b64decode(record_of(client)[3]) == b"john doe " + b"0123456789abcdef" * 2


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"john",
        b"john ",
        b" " + b"0" * 32,
        b"0" * 32,
        b"john " + b"0" * 31,
        b"john\0" + b"g" * 32,
    ],
)
def test_a_cram_response_that_is_none_fails(response):
    client = session()
    assert say(client, b"AUTH CRAM-MD5", b64(response)).endswith(FAILED)
    assert client.is_slow and client.failed == b"CRAM-MD5"


def test_cram_has_no_initial_response():
    client = session()
    assert say(client, b"AUTH CRAM-MD5 " + b64(b"x")) == FAILED
    assert client.is_slow
    assert say(client, b"AUTH CRAM-MD5 =").startswith(b"+ P")


def test_2195_01_the_challenge_has_couriers_form_and_comes_never_twice():
    challenges = {fresh_challenge() for _ in range(1000)}
    assert len(challenges) == 1000
    assert all(re.fullmatch(rb"<[0-9A-F]{32}@[-.\w]+>", challenge) for challenge in challenges)
    assert len({challenge[1:25] for challenge in challenges}) == 1000


# EXTERNAL


@pytest.mark.parametrize(
    "lines", [[b"AUTH EXTERNAL", b""], [b"AUTH EXTERNAL " + b64(b"john@cert")]]
)
def test_external_is_the_identity_of_the_certificate(lines):
    client = session()
    assert say(client, *lines) in (b"+ \r\n", b"")
    assert client.request == b"pop3\nexternal\njohn@cert\n\n"


@pytest.mark.parametrize("identity", [b"mary", b"john@cert\0", b"JOHN@cert", b"\0"])
def test_external_is_nobody_else(identity):
    client = session()
    assert say(client, b"AUTH EXTERNAL " + b64(identity)) == FAILED
    assert client.is_slow and not client.is_over


# Dialogues


@pytest.mark.parametrize("name", ALL)
def test_5034_07_a_star_cancels_and_login_starts_afresh(name):
    client = session()
    assert say(client, b"AUTH " + name).startswith(b"+ ")
    assert say(client, b"*") == ABORTED
    assert (client.failed, client.is_slow, client.is_over) == (name, False, False)
    assert say(client, b"USER john") == b"+OK Password required.\r\n"
    assert client.failed == b""
    say(client, b"AUTH PLAIN " + b64(b"\0john\0secret"))
    assert client.request == b"pop3\nlogin\njohn\nsecret\n\n"


NOT_BASE64 = [b"!", b"a", b"ab", b"abc", b"ab=c", b"====", b"=abc", b"abcd=", b"ab==abcd", b"abcd ",
              b"ab cd", b" abcd", b"abc\xff", b"abc\0", b"a-_b", b"YWJj\r", b"*"]  # fmt: skip


@pytest.mark.parametrize("line", NOT_BASE64)
def test_5034_08_anything_but_base64_is_aborted(line):
    for begin in (b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH CRAM-MD5", b"AUTH EXTERNAL"):
        client = session()
        say(client, begin)
        assert say(client, line) == ABORTED
        assert not client.is_over


def test_5034_02_5034_14_no_mechanism_and_an_unknown_one():
    client = session()
    assert say(client, b"AUTH") == INVALID
    assert say(client, b"AUTH PLAIN = =") == INVALID
    assert client.failed == b""
    assert say(client, b"AUTH NTLM") == FAILED
    assert (client.failed, client.is_slow) == (b"NTLM", True)
    assert say(client, b"QUIT").startswith(b"+OK")


def test_5034_12_a_response_has_12288_octets_and_no_more():
    client = session()
    assert client.limit == MAX_LINE
    say(client, b"AUTH PLAIN")
    reader = LineReader(client.limit)
    longest = b64(b"\0john\0" + b"x" * 9210)
    assert len(longest) == 12288
    assert reader.feed(longest + b"\r\n") == [longest + b"\r"]
    assert reader.feed(longest + b"AAAA\r\nNOOP\r\n") == [None, b"NOOP\r"]
    assert client.obey(None) == ABORTED
    assert client.limit == MAX_LINE


def test_a_login_that_fits_into_no_record_is_refused():
    client = session()
    too_long = b"-ERR Userid and password are too long.\r\n"
    assert say(client, b"AUTH PLAIN", b64(b"\0john\0" + b"x" * 9210)).endswith(too_long)
    assert client.failed == b"PLAIN" and not client.is_over


def test_tls_required_comes_first():
    client = session(tls_required=True)
    for line in (b"AUTH", b"AUTH PLAIN", b"AUTH NOSUCH", b"AUTH PLAIN = = ="):
        assert say(client, line) == b"-ERR TLS required to log in.\r\n"


def test_3206_01_a_refused_name_has_a_code_where_codes_are_announced():
    mary = b"AUTH PLAIN " + b64(b"mary\0john\0secret")
    assert say(session(has_codes=True), mary) == b"-ERR [AUTH] Authentication failed.\r\n"
    assert say(session(has_codes=True), b"AUTH NTLM") == FAILED
    assert say(session(has_codes=True), b"AUTH PLAIN =") == ABORTED


def test_no_secret_stays_in_a_session_before_the_login_is_complete():
    client = session()
    say(client, b"AUTH PLAIN " + b64(b"mary\0john\0secret"), b"AUTH LOGIN", b64(b"john"))
    say(client, b"*")
    held = [getattr(client, name) for name in Authorization.__slots__]
    assert b"secret" not in held and client._dialogue is None


@given(st.binary(max_size=40))
def test_base64_is_decoded_as_it_was_encoded(octets):
    assert decode(b64(octets)) == octets


@given(st.binary(max_size=12) | st.text("AQgw=/+ -", max_size=12).map(str.encode))
def test_what_decodes_is_of_the_alphabet_padded_at_the_end(text):
    alphabet = rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    try:
        decode(text)
    except Malformed:
        assert not re.fullmatch(alphabet, text)
    else:
        assert re.fullmatch(alphabet, text)


LINES = st.sampled_from(
    [b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH CRAM-MD5", b"AUTH EXTERNAL", b"AUTH", b"AUTH X", b"*"]
    + [
        b"AUTH PLAIN =",
        b64(b"\0john\0x"),
        b64(b"john"),
        b"",
        b"=",
        b"x" * 13000,
        b"CAPA",
        b"USER x",
    ]
)


@given(st.lists(LINES, max_size=12), st.data())
def test_any_split_of_any_dialogue_gives_the_same_replies(lines, data):
    whole = b"".join(line + b"\r\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert played(pieces) == played([whole])


def played(pieces: list[bytes]) -> tuple[list[bytes], bytes | None]:
    """Replies but for the challenges' random part, and the record. Lines are cut as `converse`
    cuts them: no octet behind an LF is looked at before the line is obeyed."""
    client, reader, replies = session(), LineReader(), []
    for piece in pieces:
        for part in piece.splitlines(keepends=True):
            if client.is_over:
                break
            reader.limit = client.limit
            for line in reader.feed(part):
                replies.append(re.sub(rb"^\+ P.*", b"+ challenge", client.obey(line)))
    return replies, client.request


# What is announced


def offered(modules=("authuserdb", "courierpop3d"), encrypted=False, tls_required=False, **env):
    env = {"PATH": str(BIN), **env}
    found = offer(list(modules), env, Settings(env), encrypted=encrypted, tls_required=tls_required)
    assert {*found.announced.split()} == {*found.taken} or env.get("POP3_AUTH_LAX") == "1"
    return found.announced.decode()


CERTIFICATE = {"TLS_EXTERNAL": "emailAddress", "TLS_SUBJECT_EMAILADDRESS": "john@example.com"}
EVERY = "LOGIN PLAIN CRAM-MD5 CRAM-SHA1 CRAM-SHA256"


def test_5034_01_what_works_is_announced_in_the_order_of_pop3auth():
    assert offered() == ""
    assert offered(POP3AUTH=EVERY) == EVERY
    assert offered(POP3AUTH="cram-md5  PLAIN NTLM PLAIN") == "CRAM-MD5 PLAIN"
    assert offered(POP3AUTH="NTLM GSSAPI") == ""


def test_5034_01_pop3auth_tls_is_the_list_inside_tls():
    lists = {"POP3AUTH": "CRAM-MD5", "POP3AUTH_TLS": "PLAIN"}
    assert offered(**lists) == "CRAM-MD5"
    assert offered(**lists, encrypted=True) == "PLAIN"
    assert offered(POP3AUTH="CRAM-MD5", POP3AUTH_TLS="", encrypted=True) == "CRAM-MD5"


def test_5034_01_a_chain_announces_what_its_modules_take():
    assert offered(["authpam", "courierpop3d"], POP3AUTH=EVERY) == "LOGIN PLAIN"
    assert offered(["authpwd", "authshadow", "courierpop3d"], POP3AUTH=EVERY) == "LOGIN PLAIN"
    assert offered(["authcram", "courierpop3d"], POP3AUTH=EVERY).startswith("CRAM-MD5 CRAM-SHA1")
    assert offered(["authpam", "authcram", "courierpop3d"], POP3AUTH=EVERY) == EVERY
    assert offered(["courierpop3d", "./Maildir"], POP3AUTH=EVERY) == ""


def test_5034_01_of_others_modules_pop3auth_is_believed():
    assert offered(["/bin/true", "authpam", "courierpop3d"], POP3AUTH=EVERY) == EVERY
    assert offered(["/bin/true", "courierpop3d"], POP3AUTH="EXTERNAL") == ""


def test_8314_06_nothing_is_announced_before_tls_where_tls_is_required():
    assert offered(POP3AUTH=EVERY, tls_required=True) == ""
    assert offered(POP3AUTH=EVERY, POP3_AUTH_LAX="1", tls_required=True) == ""


def test_8314_08_external_is_there_with_a_certificate_that_names_somebody():
    assert offered(encrypted=True, **CERTIFICATE) == "EXTERNAL"
    assert offered(encrypted=True, POP3AUTH="PLAIN", **CERTIFICATE) == "PLAIN EXTERNAL"
    assert offered(["/bin/true"], encrypted=True, POP3AUTH="PLAIN", **CERTIFICATE) == "PLAIN"
    assert offered(["/bin/true"], encrypted=True, POP3AUTH="EXTERNAL", **CERTIFICATE) == "EXTERNAL"
    assert offered(["authcram", "courierpop3d"], encrypted=True, **CERTIFICATE) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"TLS_EXTERNAL": ""},
        {"TLS_EXTERNAL": "CN"},
        {"TLS_SUBJECT_EMAILADDRESS": ""},
        {"TLS_SUBJECT_EMAILADDRESS": "john\x01"},
        {"encrypted": False},
    ],
)
def test_CVE_50_8314_08_no_usable_name_is_no_external(change):
    assert offered(**{"encrypted": True, **CERTIFICATE, **change}) == ""


def test_lax_announces_the_list_as_it_is_and_takes_what_is_not_in_it():
    lax = {"POP3_AUTH_LAX": "1"}
    assert offered(["authpam", "courierpop3d"], **lax, POP3AUTH="NTLM CRAM-MD5") == "NTLM CRAM-MD5"
    assert offered(**lax) == ""
    env = {"PATH": str(BIN), **lax}
    found = offer(["authpam"], env, Settings(env), encrypted=False, tls_required=False)
    assert found.begin(b"PLAIN") and found.begin(b"CRAM-MD5") and not found.begin(b"EXTERNAL")


def test_what_is_not_announced_is_not_taken():
    client = session(offer=Offer(b"PLAIN", (b"PLAIN",)))
    assert say(client, b"AUTH LOGIN") == FAILED
    client = session(offer=Offer())
    assert say(client, b"AUTH PLAIN " + b64(b"\0john\0secret")) == INVALID
    assert not client.is_over and not client.is_slow


def test_capa_has_sasl_first_and_then_stls():
    from pop3proto import state

    client = session(stls=True, capabilities=state.capabilities(sasl=b"PLAIN", auth_codes=True))
    lines = say(client, b"CAPA").split(b"\r\n")
    assert lines[1:4] == [b"SASL PLAIN", b"STLS", b"TOP"]
    assert b"RESP-CODES" in lines and b"AUTH-RESP-CODE" in lines
