"""authoauth: tokens checked by keys, and by an introspection server that may be in any trouble."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.authmodules.asking import ask as ask  # a fixture
from tests.authmodules.asking import external
from tests.conftest import needs_module

jwt = needs_module("jwt")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402

from authmodules.authoauth import authoauth  # noqa: E402
from courierchain import request  # noqa: E402
from courierchain.authmodule import Proved, Rejected, TemporaryFailure  # noqa: E402

ISSUER, AUDIENCE = "https://login.example", "mail"
NOW = int(time.time())  # when collected: tests run minutes later
GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "john", "exp": NOW + 3600, "scope": "pop profile"}

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
SECRET = b"a secret of thirty-two octets..."
PRIVATE = {"RS256": RSA_KEY, "PS512": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY, "HS256": SECRET}


def public_pem(key) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def jwk(algorithm: str, key, **more) -> dict:
    found = jwt.algorithms.get_default_algorithms()[algorithm].to_jwk(key)
    return {**json.loads(found), **more}


KEY_SET = [
    jwk("RS256", OTHER_RSA_KEY.public_key(), kid="old"),
    jwk("RS256", RSA_KEY.public_key(), kid="rsa"),
    jwk("ES256", EC_KEY.public_key(), kid="ec"),
    jwk("EdDSA", ED_KEY.public_key(), kid="ed"),
    jwk("HS256", SECRET, kid="oct"),
]


def signed(algorithm: str = "RS256", key=None, headers=None, **claims) -> bytes:
    payload = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    return jwt.encode(payload, key or PRIVATE[algorithm], algorithm, headers).encode()


def record(token: bytes, user: bytes = b"john") -> bytes:
    return b"pop3\noauthbearer\n%s\n%s\n\n" % (user, token)


class Site:
    """The rc file and the keys of a site."""

    def __init__(self, directory):
        self.rc = directory / "authoauthrc"
        self.keys = directory / "keys.json"
        self.put_keys({"keys": KEY_SET})
        self.usual = {
            "OAUTH_KEYS": self.keys,
            "OAUTH_ALGORITHMS": "RS256 PS512 ES256 EdDSA HS256",
            "OAUTH_ISSUER": ISSUER,
            "OAUTH_AUDIENCE": AUDIENCE,
        }
        self.configure()

    def put_keys(self, what) -> None:
        text = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.keys.write_bytes(text)
        self.keys.chmod(0o600)

    def configure(self, **changes) -> None:
        """Write the rc file; None leaves a setting out."""
        lines = [f"{k} {v}" for k, v in {**self.usual, **changes}.items() if v is not None]
        self.rc.write_text("\n".join([*lines, "##NAME: MARKER:0", ""]))
        self.rc.chmod(0o600)

    @property
    def env(self) -> dict[str, str]:
        return {"AUTHOAUTH_RC": str(self.rc)}

    def says(self, token: bytes, user: bytes = b"john") -> bytes | str:
        """Whom it has proved to be there; or the status that the client is told."""
        try:
            authoauth.ask(request.parse(record(token, user)), self.env)
        except Proved as proof:
            return proof.identity
        except Rejected as no:
            return json.loads(no.challenge)["status"]
        raise AssertionError("an account")

    def trouble(self, token: bytes | None = None) -> str:
        with pytest.raises(TemporaryFailure) as caught:
            authoauth.ask(request.parse(record(token or signed())), self.env)
        return str(caught.value)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


# Tokens that are JWTs


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_signed_by_a_key_of_ours(site, algorithm):
    assert site.says(signed(algorithm)) == b"john"
    assert site.says(signed(algorithm), b"") == b"john"
    for user in (b"mary", b"John", b"joh", b"john2", b"john@example.com"):
        assert site.says(signed(algorithm), user) == "invalid_token"


def test_a_public_key_in_pem_does_too(site):
    site.put_keys(public_pem(RSA_KEY))
    site.keys.chmod(0o644)
    assert site.says(signed()) == b"john"
    assert site.says(signed(headers={"kid": "any"})) == b"john"
    assert site.says(signed(key=OTHER_RSA_KEY)) == "invalid_token"


def test_a_key_is_chosen_by_its_name_and_else_tried(site):
    assert site.says(signed(headers={"kid": "rsa"})) == b"john"
    assert site.says(signed(headers={"kid": "old"})) == "invalid_token"
    assert site.says(signed(headers={"kid": "../../etc/passwd"})) == "invalid_token"
    assert site.says(signed(key=OTHER_RSA_KEY)) == b"john"


def test_keys_that_are_exchanged_count_at_once(site):
    site.put_keys(KEY_SET[0])
    assert site.says(signed()) == "invalid_token"
    site.put_keys(KEY_SET[1])
    assert site.says(signed()) == b"john"


WRONG = {
    "expired": {"exp": NOW - 120},
    "no exp": {"exp": None},
    "exp is a text": {"exp": "9999999999"},
    "exp is true": {"exp": True},
    "exp is NaN": {"exp": float("nan")},
    "not yet": {"nbf": NOW + 36000},
    "issued in the future": {"iat": NOW + 36000},
    "another issuer": {"iss": "https://evil.example"},
    "an issuer that begins so": {"iss": ISSUER + "/x"},
    "no issuer": {"iss": None},
    "issuers": {"iss": [ISSUER]},
    "another audience": {"aud": "calendar"},
    "part of an audience": {"aud": "mail calendar"},
    "no audience": {"aud": None},
    "audience is a number": {"aud": 1},
    "no user": {"sub": None},
    "an empty user": {"sub": ""},
    "user is a number": {"sub": 1000},
    "user is a list": {"sub": ["john"]},
    "an LF in the user": {"sub": "john\nx"},
    "a NUL in the user": {"sub": "john\0x"},
    "half of a pair": {"sub": "\ud800"},
    "a long user": {"sub": "j" * 1025},
}


@pytest.mark.parametrize("claims", WRONG.values(), ids=WRONG)
def test_CVE_36_a_token_that_claims_too_little_is_refused(site, claims):
    payload = {name: value for name, value in {**GOOD, **claims}.items() if value is not None}
    token = jwt.PyJWS().encode(json.dumps(payload).encode(), RSA_KEY, "RS256").encode()
    assert site.says(token, b"") == "invalid_token"


def test_the_clocks_may_differ_by_the_leeway_and_no_more(site):
    now = int(time.time())
    assert site.says(signed(exp=now - 10, nbf=now + 10, iat=now + 10)) == b"john"
    site.configure(OAUTH_LEEWAY=0)
    assert site.says(signed(exp=now - 10)) == "invalid_token"
    site.configure(OAUTH_LEEWAY=301)
    assert "OAUTH_LEEWAY: over 300 seconds" in site.trouble()


def test_scopes_have_to_be_there_as_words(site):
    site.configure(OAUTH_SCOPE="pop profile")
    assert site.says(signed()) == b"john"
    assert site.says(signed(scope=None, scp=["profile", "pop"])) == b"john"
    for scope in ("pop", "popprofile", "", None, 1, ["pop"]):
        assert site.says(signed(scope=scope)) == "insufficient_scope"


def test_an_audience_may_be_one_of_several(site):
    site.configure(OAUTH_AUDIENCE="mail webmail")
    assert site.says(signed(aud=["calendar", "webmail"])) == b"john"
    assert site.says(signed(aud=["calendar"])) == "invalid_token"


def test_the_claim_that_tells_the_user_and_the_case_of_it(site):
    site.configure(OAUTH_USER_CLAIM="email")
    token = signed(email="John@Example.com")
    assert site.says(token, b"John@Example.com") == b"John@Example.com"
    assert site.says(token, b"john@example.com") == "invalid_token"
    assert site.says(signed(email="john", email_verified=False)) == "invalid_token"
    assert site.says(signed(email="john", email_verified="true")) == "invalid_token"
    assert site.says(signed(email="john", email_verified=True)) == b"john"
    site.configure(OAUTH_USER_CLAIM="email", OAUTH_USER_CASE="lower")
    assert site.says(token, b"JOHN@example.com") == b"john@example.com"
    assert site.says(token, b"mary@example.com") == "invalid_token"


def unsigned(header: object, payload: object = GOOD, signature: bytes = b"") -> bytes:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def hmac_by_public_key() -> bytes:
    """The public key, which everybody has, taken for an HMAC's secret (CVE-2015-9235)."""
    import hashlib
    import hmac

    first = unsigned({"alg": "HS256", "typ": "JWT"}).rpartition(b".")[0]
    digest = hmac.digest(public_pem(RSA_KEY), first, hashlib.sha256)
    return first + b"." + urlsafe_b64encode(digest).rstrip(b"=")


FORGED = {
    "none": unsigned({"alg": "none"}),
    "None": unsigned({"alg": "NoNe"}, signature=b"x"),
    "no alg": unsigned({"typ": "JWT"}),
    "alg is a list": unsigned({"alg": ["RS256"]}),
    "kid is a number": unsigned({"alg": "RS256", "kid": 1}),
    "header is a list": unsigned(["RS256"]),
    "no signature": unsigned({"alg": "RS256"}),
    "another's key": signed(key=OTHER_RSA_KEY, headers={"kid": "rsa"}),
    "a key of its own": signed(headers={"jwk": KEY_SET[0]}, key=rsa.generate_private_key(3, 2048)),
    "crit": signed(headers={"crit": ["exp"]}),
    "b64": signed(headers={"b64": False, "crit": ["b64"]}),
    "public key as secret": hmac_by_public_key(),
    "not named": signed("HS384", key=SECRET * 2),
    "payload is a list": jwt.PyJWS().encode(b"[]", RSA_KEY, "RS256").encode(),
    "payload is no JSON": jwt.PyJWS().encode(b"{", RSA_KEY, "RS256").encode(),
    "nested": jwt.PyJWS().encode(b"[" * 2500, RSA_KEY, "RS256").encode(),
    "a nested header": urlsafe_b64encode(b"[" * 2400) + b".e30.e30",
    "no JWT": b"ya29.a0AfH6SMB",
    "dots": b"...",
    "one letter": b"x",
    "cut off": signed()[:-5],
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
def test_CVE_43_CVE_36_a_forged_token_is_refused(site, token):
    assert site.says(token) == "invalid_token"
    site.put_keys(public_pem(RSA_KEY))
    assert site.says(token) == "invalid_token"
    site.configure(OAUTH_ALGORITHMS="HS256 RS256")
    assert site.says(token) == "invalid_token"


def test_a_key_is_for_its_own_algorithms_alone(site):
    site.put_keys({"keys": [jwk("RS256", RSA_KEY.public_key(), alg="RS512")]})
    assert site.says(signed("RS256")) == "invalid_token"
    assert site.says(signed("RS512", key=RSA_KEY)) == "invalid_token"  # not named
    site.configure(OAUTH_ALGORITHMS="RS512")
    assert site.says(signed("RS512", key=RSA_KEY)) == b"john"


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*FORGED.values(), b".", b"a", b"e30", b"=", b"-", signed()]),
                max_size=4).map(b"".join))  # fmt: skip
def test_no_text_is_anything_but_refused_or_right(tmp_path_factory, token):
    site = Site(tmp_path_factory.getbasetemp())
    if token and len(token) < 4000:
        assert site.says(token) in (b"john", "invalid_token")


# Mistakes of the site's


MISTAKES = {
    "nothing": ({"OAUTH_KEYS": None}, "set one of OAUTH_KEYS and OAUTH_INTROSPECTION_URL"),
    "both": ({"OAUTH_INTROSPECTION_URL": "https://x/"}, "set one of OAUTH_KEYS and"),
    "no algorithms": ({"OAUTH_ALGORITHMS": None}, "OAUTH_ALGORITHMS is not set"),
    "none": ({"OAUTH_ALGORITHMS": "RS256 none"}, "line 2: OAUTH_ALGORITHMS: 'none' is not one of"),
    "no issuer": ({"OAUTH_ISSUER": None}, "OAUTH_ISSUER is not set"),
    "no audience": ({"OAUTH_AUDIENCE": None}, "OAUTH_AUDIENCE is not set"),
    "misspelt": ({"OAUTH_ISSUERS": "x"}, "line 5: OAUTH_ISSUERS: no such setting (OAUTH_ISSUER is"),
    "leeway": ({"OAUTH_LEEWAY": "1m"}, "line 5: OAUTH_LEEWAY: '1m' is not a number"),
    "case": ({"OAUTH_USER_CASE": "upper"}, "line 5: OAUTH_USER_CASE: not one of exact, lower"),
    "no file": ({"OAUTH_KEYS": "/nowhere/keys"}, "cannot read /nowhere/keys: No such file"),
}


@pytest.mark.parametrize("changes, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_trouble_and_no_wrong_token(site, changes, said):
    site.configure(**changes)
    assert said in site.trouble()


def private_pem(key) -> bytes:
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form)


BAD_KEYS = {
    "empty": (b"", "no public keys"),
    "no JSON": (b"{", "no public keys"),
    "a list": (b"[]", "no public keys"),
    "a number in the set": (b'{"keys": [1]}', "no public keys"),
    "none in the set": (b'{"keys": []}', "no key in it that checks signatures"),
    "for encryption": ({"keys": [{**KEY_SET[1], "use": "enc"}]}, "no key in it that checks"),
    "nested": (b"[" * 100_000, "no public keys"),
    "half a PEM": (b"-----BEGIN PUBLIC KEY-----\nMIIB", "no public keys"),
    "private, in PEM": (private_pem(RSA_KEY), "no public keys"),
    "private": (jwk("RS256", RSA_KEY), "one is private"),
    "a short secret": (jwk("HS256", b"secret"), "a secret has less than 32 octets"),
    "a weak key": (
        jwk("RS256", rsa.generate_private_key(65537, 1024).public_key()),
        "an RSA key has less than 2048 bits",
    ),
}


@pytest.mark.parametrize("keys, said", BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_keys_are_trouble_and_no_wrong_token(site, keys, said):
    site.put_keys(keys)
    assert said in site.trouble()


def test_cve_31_secrets_that_everybody_may_read_are_not_used(site):
    site.keys.chmod(0o644)
    assert "is open to everybody (chmod o= " in site.trouble()
    site.put_keys({"keys": KEY_SET[:4]})
    site.keys.chmod(0o644)
    assert site.says(signed()) == b"john"
    site.keys.chmod(0o646)
    assert "is open to everybody" in site.trouble()
    site.rc.chmod(0o644)
    assert f"{site.rc} is open to everybody" in site.trouble()


# The program


def test_a_right_token_goes_on_as_an_identity_and_a_wrong_one_as_it_is(site, ask):
    token = signed(sub="joé")
    done = ask("authoauth", record=record(token, b""), **site.env)
    assert done.word == external("joé".encode()).decode("latin-1")  # what the next program reads
    assert done.log == ""
    for right in (b"pop3\nlogin\njohn\nsecret\n\n", external(b"john"), b"pop3\noauthbearer\nx\n\n"):
        done = ask("authoauth", record=right, **site.env)
        assert (done.word, done.log) == ("rejected", "")


def test_cve_39_why_a_token_is_refused_is_logged_and_no_token(site, ask):
    token = signed(sub="mary")
    done = ask("authoauth", record=record(token), **site.env)
    assert done.word == "rejected"
    assert done.log == ("INFO: authoauth: user=john, the token is refused: it is that of mary\n")
    site.put_keys(b"")
    done = ask("authoauth", record=record(token), **site.env)
    assert done.word == "trouble" and done.env["WHY"] == "temporary"
    assert done.log.startswith(f"ERR: authoauth: {site.keys}: no public keys")
    assert token.decode() not in done.log


def test_without_pyjwt_it_says_what_to_install(site, ask):
    code = (
        "import sys; sys.modules['jwt'] = None\n"
        "from authmodules.authoauth import authoauth\n"
        "from courierchain import request\n"
        f"authoauth.ask(request.parse({record(b'x')!r}), {site.env!r})\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "TemporaryFailure" in done.stderr
    assert "(pip install 'PyJWT[crypto]'; Debian: python3-jwt)" in done.stderr


# Introspection


class Issuer:
    """An introspection server on 127.0.0.1, in a thread. answer: status and body; or `hang`, or
    `drop`. asked: the forms that came, and who sent them."""

    def __init__(self, context: ssl.SSLContext | None = None):
        issuer = self
        self.answer: tuple[int, bytes] | str = (200, b"")
        self.asked: list[tuple[dict[str, list[str]], str]] = []
        self.over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                issuer.asked.append((parse_qs(body), self.headers.get("Authorization", "")))
                if issuer.answer == "hang":
                    issuer.over.wait(60)
                if isinstance(issuer.answer, str):
                    return
                status, content = issuer.answer
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:
                    pass  # too much for who asks

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def says(self, **claims) -> None:
        self.answer = (200, json.dumps({"active": True, "username": "john", **claims}).encode())

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def issuer():
    server = Issuer()
    yield server
    server.stop()


@pytest.fixture
def asking(site, issuer, ask):
    """asking(token): the Outcome, with the issuer asked."""
    site.usual = {
        "OAUTH_INTROSPECTION_URL": f"http://127.0.0.1:{issuer.port}/introspect?realm=a%20b",
        "OAUTH_CLIENT_ID": "pop:3",
        "OAUTH_CLIENT_SECRET": "p&ss wörd",
        "OAUTH_USER_CLAIM": "username",
        "OAUTH_TIMEOUT": "15",
    }
    site.configure()

    def start(token: bytes = b"opaque", user: bytes = b"john"):
        return ask("authoauth", record=record(token, user), **site.env)

    return start


def test_7628_the_issuer_is_asked_and_an_active_token_lets_in(site, issuer, asking):
    issuer.says(exp=NOW + 3600, scope="pop", aud=["mail"], iss=ISSUER)
    assert asking(b"a+b/c=").word == external(b"john").decode()
    form, who = issuer.asked[0]
    assert form == {"token": ["a+b/c="], "token_type_hint": ["access_token"]}
    assert who == "Basic " + b64encode(b"pop%3A3:p%26ss+w%C3%B6rd").decode()
    assert asking(user=b"mary").word == "rejected"
    site.configure(OAUTH_ISSUER=ISSUER, OAUTH_AUDIENCE="mail", OAUTH_SCOPE="pop")
    assert asking().word == external(b"john").decode()
    issuer.says()
    assert "iss is not OAUTH_ISSUER" in asking().log


def test_7628_a_token_that_is_inactive_or_over_is_wrong(issuer, asking):
    issuer.answer = (200, b'{"active": false}')
    done = asking()
    assert done.word == "rejected" and "the token is refused: it is not active" in done.log
    issuer.says(exp=NOW - 600)
    done = asking()
    assert done.word == "rejected" and "it has expired" in done.log


TROUBLES = {
    "500": ((500, b'{"active": true, "username": "john"}'), "status 500"),
    "401": ((401, b'{"active": false}'), "status 401"),
    "404": ((404, b""), "status 404"),
    "a redirection": ((302, b""), "status 302"),
    "garbage": ((200, b"<html>\xff"), "an answer that is not JSON"),
    "empty": ((200, b""), "an answer that is not JSON"),
    "a list": ((200, b"[]"), "an answer that is none of RFC 7662"),
    "no active": ((200, b'{"username": "john"}'), "an answer that is none of RFC 7662"),
    "active is a text": ((200, b'{"active": "false"}'), "an answer that is none of RFC 7662"),
    "nested": ((200, b"[" * 60_000), "an answer that is not JSON"),
    "huge": ((200, b" " * 10_000_000 + b'{"active": true}'), "an answer that is too long"),
    "a lost connection": ("drop", "closed connection without response"),
}


@pytest.mark.parametrize("answer, said", TROUBLES.values(), ids=TROUBLES)
def test_3206_02_an_issuer_in_trouble_is_no_wrong_token(issuer, asking, answer, said):
    issuer.answer = answer
    done = asking()
    assert done.word == "trouble" and done.env["WHY"] == "temporary"
    assert said in done.log and "opaque" not in done.log
    assert len(done.log.splitlines()) == 1


def test_3206_02_an_issuer_that_hangs_is_given_up_and_one_that_is_back_is_asked(
    site, issuer, asking
):
    site.configure(OAUTH_TIMEOUT=1)
    issuer.answer = "hang"
    done = asking()
    assert done.word == "trouble" and (
        "not within 1 seconds" in done.log or "timed out" in done.log
    )
    site.configure()
    issuer.says()
    assert asking().word == external(b"john").decode()


def test_3206_02_an_issuer_that_is_down_is_trouble(site, issuer, asking, closed_port):
    site.configure(OAUTH_INTROSPECTION_URL=f"http://127.0.0.1:{closed_port}/")
    done = asking()
    assert done.word == "trouble" and "Connection refused" in done.log


@pytest.fixture
def closed_port():
    """A port that is nobody's as long as the test runs: bound, and not listening."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    "url, said",
    [
        ("http://mail.example/", "http is for this host alone (write https)"),
        ("http://127.0.0.1.evil.example/", "http is for this host alone (write https)"),
        ("ftp://127.0.0.1/", "write https://HOST/PATH"),
        ("https:///x", "write https://HOST/PATH"),
        ("https://user:pw@host/", "write https://HOST/PATH"),
        ("https://host:0/", "write https://HOST/PATH"),
        ("https://host:99999/", "write https://HOST/PATH"),
    ],
)
def test_no_token_goes_where_anybody_can_read_it(site, url, said):
    site.usual = {"OAUTH_INTROSPECTION_URL": url}
    site.configure()
    assert said in site.trouble()


def test_an_issuer_has_to_prove_its_name(site, asking, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = Issuer(context)
    try:
        server.says()
        url = f"https://localhost:{server.port}/"
        site.configure(OAUTH_INTROSPECTION_URL=url)
        done = asking()
        assert done.word == "trouble" and "CERTIFICATE_VERIFY_FAILED" in done.log
        site.configure(OAUTH_INTROSPECTION_URL=url, OAUTH_CAFILE=tmp_path / "ca.pem")
        assert asking().word == external(b"john").decode()
        by_address = url.replace("localhost", "127.0.0.1")  # not in the certificate
        site.configure(OAUTH_INTROSPECTION_URL=by_address, OAUTH_CAFILE=tmp_path / "ca.pem")
        assert asking().word == "trouble"
        assert len(server.asked) == 1
    finally:
        server.stop()


def test_nothing_is_left_of_who_has_asked(site, issuer, asking):
    issuer.says()
    asking()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and is_ours(pid, site)]


def is_ours(pid: str, site: Site) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return str(site.rc).encode() in file.read()
    except OSError:
        return False
