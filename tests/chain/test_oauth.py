"""OAUTHBEARER and XOAUTH2 through the whole chain, and by mail programs over TLS."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode

import pytest
import trustme

from tests.authmodules.test_authoauth import Site, signed
from tests.chain.test_clients import home as home  # a fixture
from tests.chain.test_clients import run
from tests.chain.test_sasl import LOGIN_FAILED, PEER, SERVED, b64, greeted
from tests.chain.test_tls import COURIERTLS, issue
from tests.conftest import BIN, DEADLINE, ROOT, Client, needs

STAGES = ("courierpop3login", "authoauth", "authuserdb", "courierpop3d", "./Maildir")
BOTH = "OAUTHBEARER XOAUTH2"


@pytest.fixture
def site(public):
    return Site(public)


@pytest.fixture
def encrypted(serve, site):
    """Start a listener whose chain is told that TLS is around it."""

    def start(*options, stages=STAGES, **env):
        env = {"POP3AUTH": f"PLAIN {BOTH}", "POP3_TLS": "1", **site.env, **env}
        return serve(*options, stages=stages, env=env)

    return start


def bearer(token: bytes, user: str = "john") -> str:
    name = f"a={user}" if user else ""
    return "AUTH OAUTHBEARER " + b64(f"n,{name},\x01auth=Bearer {token.decode()}\x01\x01")


def xoauth2(token: bytes, user: str = "john") -> str:
    return "AUTH XOAUTH2 " + b64(f"user={user}\x01auth=Bearer {token.decode()}\x01\x01")


def refused(client: Client, command: str) -> dict[str, str]:
    """What the client is told before it is refused."""
    told = client.ask(command)
    assert told.startswith("+ "), told
    assert client.ask(b64("\x01")) == LOGIN_FAILED
    return json.loads(b64decode(told[2:]))


def test_7628_01_a_right_token_is_served_and_a_wrong_one_told_so(encrypted, any_mode, john, site):
    site.configure(OAUTH_SCOPE="pop", OAUTH_DISCOVERY_URL="https://login.example/.well-known/x")
    server = encrypted(*any_mode, POP3_FAILURE_DELAY="0")
    for begin in (bearer, xoauth2):
        with greeted(server) as client:
            assert client.listing("CAPA")[0] == f"SASL PLAIN {BOTH}"
            assert refused(client, begin(signed(exp=1))) == {
                "status": "invalid_token",
                "scope": "pop",
                "openid-configuration": "https://login.example/.well-known/x",
            }
            assert refused(client, begin(signed(scope="x")))["status"] == "insufficient_scope"
            assert refused(client, begin(signed(), user="mary"))["status"] == "invalid_token"
            assert client.ask("NOOP") == "-ERR Invalid command."
            assert client.ask(begin(signed())) == SERVED
            assert client.listing("CAPA")[0] == f"SASL PLAIN {BOTH}"  # 2449-06
            assert client.ask("QUIT") == "+OK Bye-bye."
    with greeted(server) as client:
        assert client.ask(bearer(signed(), user="")) == SERVED
    server.logged(rf"INFO: LOGIN FAILED, method=OAUTHBEARER, {PEER}")
    server.logged(rf"INFO: LOGIN FAILED, method=XOAUTH2, {PEER}")
    server.logged(rf"INFO: LOGIN, user=john, {PEER}, stls=1")
    server.logged(r"INFO: authoauth: user=john, the token is refused: it has expired")
    assert not any("eyJ" in line for line in server.lines())


def test_7628_01_passwords_and_what_else_the_chain_takes_are_unharmed(encrypted, john):
    server = encrypted()
    with greeted(server) as client:
        assert client.ask("AUTH PLAIN " + b64(f"\0john\0{john.password}")) == SERVED
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"


def test_7628_01_a_token_of_somebody_without_an_account(encrypted, john):
    server = encrypted(POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        refused(client, bearer(signed(sub="nobody"), user="nobody"))
        assert client.ask(bearer(signed())) == SERVED


@pytest.mark.parametrize(
    "stages", [STAGES[:2] + STAGES[3:], (STAGES[0], STAGES[2], *STAGES[1:2], *STAGES[3:])]
)
def test_authchain_01_authoauth_alone_or_last_lets_nobody_in(encrypted, john, stages):
    server = encrypted(stages=stages, POP3_AUTH_LAX="1", POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        refused(client, bearer(signed()))


def test_3206_02_authchain_04_trouble_is_never_a_wrong_token(encrypted, mode, john, site):
    server = encrypted(*mode, POP3_FAILURE_DELAY="0", POP3_RESPONSE_CODES="1")
    with greeted(server) as client:
        site.keys.rename(site.keys.with_suffix(".away"))
        answer = "-ERR [SYS/TEMP] Temporary problem, please try again later"
        assert client.ask(bearer(signed())) == answer
        site.keys.with_suffix(".away").rename(site.keys)
        told = client.ask(bearer(signed(exp=1)))
        assert told.startswith("+ ")
        assert client.ask("AQ==") == "-ERR [AUTH] Login failed."
        assert client.ask(bearer(signed())) == SERVED


def test_7628_01_without_tls_there_is_none_of_it(encrypted, john):
    server = encrypted(POP3_TLS="0", POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        assert client.listing("CAPA")[0] == "SASL PLAIN"
        assert client.ask(bearer(signed())) == "-ERR Authentication failed."
        assert client.ask("AUTH XOAUTH2") == "-ERR Authentication failed."


def test_5034_12_authchain_02_a_token_that_fits_into_no_record(encrypted, john):
    server = encrypted(POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        assert client.ask("AUTH OAUTHBEARER") == "+ "
        _, _, response = bearer(signed(x="x" * 5000)).split()
        assert client.ask(response) == "-ERR Userid and token are too long."
        assert client.ask("AUTH OAUTHBEARER") == "+ "
        _, _, response = bearer(signed(x="x" * 2000)).split()
        assert client.ask(response) == SERVED
    server.logged(rf"INFO: LOGIN FAILED, method=OAUTHBEARER, {PEER}")


def test_cve_08_a_client_that_leaves_before_the_verdict_has_failed_too(encrypted, john):
    server = encrypted(POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        assert client.ask(bearer(signed(exp=1))).startswith("+ ")
    server.logged(rf"INFO: LOGIN FAILED, method=OAUTHBEARER, {PEER}")
    with greeted(server) as client:
        assert client.ask(bearer(signed())) == SERVED


def test_cve_08_tokens_without_a_userid_are_no_user_that_can_be_locked(encrypted, john):
    server = encrypted("-maxfailsperuser=2", POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        for _ in range(3):
            refused(client, bearer(signed(exp=1), user=""))
        assert client.ask(bearer(signed(), user="")) == SERVED
    with greeted(server) as client:
        for _ in range(2):
            refused(client, bearer(signed(exp=1)))
        refused(client, bearer(signed()))  # locked


def test_3206_the_challenge_is_for_tokens_alone(encrypted, john, site):
    site.configure(OAUTH_SCOPE="pop")
    server = encrypted(POP3_FAILURE_DELAY="0")
    with greeted(server) as client:
        assert refused(client, bearer(signed(scope="x")))["status"] == "insufficient_scope"
        assert client.ask("AUTH PLAIN " + b64("\0john\0wrong")) == LOGIN_FAILED
        assert client.ask("USER john") == "+OK Password required."
        assert client.ask("PASS wrong") == LOGIN_FAILED
        assert refused(client, bearer(signed(exp=1)))["status"] == "invalid_token"


# Mail programs, over real TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(params=BOTH.split())
def mechanism(request):
    return request.param


@pytest.fixture
def pop3s(serve, mechanism, site, authority, public, john):
    pem, trusted = public / "pop3d.pem", public / "ca.pem"
    issue(authority, pem)
    authority.cert_pem.write_to_path(trusted)
    trusted.chmod(0o644)
    john.deliver(b"Subject: one\n\nbody\n")
    become = ["-user=courier"] if ROOT else []
    # One alone: curl takes OAUTHBEARER where it is, whatever it was told.
    env = {"TLS_CERTFILE": str(pem), "POP3AUTH": mechanism, "POP3_FAILURE_DELAY": "0", **site.env}
    return serve(stages=[*COURIERTLS, *become, *STAGES], env=env)


def test_7628_01_curl_by_a_token(pop3s, public, mechanism):
    needs("curl")

    def curl(token: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["curl", "-sS", "--cacert", str(public / "ca.pem"), "--user", "john", *more]
        argv += ["--login-options", f"AUTH={mechanism}", "--oauth2-bearer", token.decode()]
        argv += [f"pop3s://localhost:{pop3s.port}/1"]
        return subprocess.run(argv, capture_output=True, timeout=DEADLINE, check=False)

    for more in ([], ["--sasl-ir"]):
        assert curl(signed(), *more).stdout == b"Subject: one\r\n\r\nbody\r\n"
    assert curl(signed(x="x" * 2000)).stdout == b"Subject: one\r\n\r\nbody\r\n"
    done = curl(signed(exp=1))
    assert done.returncode == 67 and b"Login denied" in done.stderr
    pop3s.logged(rf"INFO: LOGIN FAILED, method={mechanism}, {PEER}")


def test_7628_01_mpop_by_a_token(pop3s, public, mechanism):
    needs("mpop")
    inbox, config = public / "inbox", public / "mpoprc"
    for folder in ("new", "cur", "tmp"):
        (inbox / folder).mkdir(parents=True)

    def mpop(token: bytes) -> subprocess.CompletedProcess[bytes]:
        config.write_text(
            f"account demo\nhost localhost\nport {pop3s.port}\nuser john\ntls on\n"
            f"tls_starttls off\ntls_trust_file {public}/ca.pem\nauth {mechanism.lower()}\n"
            f'passwordeval "cat {public}/token"\nkeep on\nreceived_header off\n'
            f"uidls_file {public}/uidls\ndelivery maildir {inbox}\n"
        )
        config.chmod(0o600)
        (public / "token").write_bytes(token + b"\n")
        argv = ["mpop", "-C", str(config), "-Q", "demo"]
        env = {"HOME": str(public), "PATH": os.environ["PATH"]}
        return subprocess.run(argv, env=env, capture_output=True, timeout=DEADLINE, check=False)

    assert mpop(signed(exp=1)).returncode != 0
    pop3s.logged(rf"INFO: LOGIN FAILED, method={mechanism}, {PEER}")
    assert list((inbox / "new").iterdir()) == []
    done = mpop(signed())
    assert done.returncode == 0, done.stderr
    (letter,) = (inbox / "new").iterdir()
    assert letter.read_bytes() == b"Subject: one\n\nbody\n"


@pytest.mark.parametrize("mechanism", ["XOAUTH2"])
def test_7628_01_getmail6_by_a_token(pop3s, public, home, mechanism):
    getmail = needs(str(BIN / "getmail"))  # that of PyPI: Debian 12's has XOAUTH2 for IMAP only
    inbox = home / "inbox"
    (home / "getmailrc").write_text(
        f"[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\nport = {pop3s.port}\n"
        f"ca_certs = {public}/ca.pem\nusername = john\nuse_xoauth2 = true\n"
        f'password_command = ("/bin/cat", "{home}/token")\n'
        f"[destination]\ntype = Maildir\npath = {inbox}/\n"
        "[options]\ndelivered_to = false\nreceived = false\nverbose = 0\n"
    )

    def fetch(token: bytes) -> None:
        (home / "token").write_bytes(token)
        run(getmail, "--getmaildir", str(home), "--rcfile", "getmailrc", home=home)

    with pytest.raises(AssertionError):
        fetch(signed(exp=1))
    pop3s.logged(rf"INFO: LOGIN FAILED, method={mechanism}, {PEER}")
    fetch(signed())
    (letter,) = (inbox / "new").iterdir()
    assert letter.read_bytes().endswith(b"Subject: one\n\nbody\n")
