"""AUTH through the whole chain: who gets in by which mechanism, who doesn't, what the log says."""

from __future__ import annotations

import hmac
import time
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from courierchain.authtypes import APOP, CRAM, EXTERNAL, LOGIN, TAKEN
from courierchain.cram import state_of
from tests.chain.test_pam import UNIX, command
from tests.chain.test_pam import add_user as add_user  # a fixture
from tests.chain.test_pam import pam_service as pam_service  # another
from tests.chain.test_record import stage
from tests.conftest import BIN, Client, free_port, needs_module, needs_root, sha, wait_until

EVERY = "PLAIN LOGIN CRAM-MD5 CRAM-SHA1 CRAM-SHA256"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
GREETING = b"+OK Hello there.\r\n"
ABORTED = "-ERR Authentication aborted."
FAILED = "-ERR Authentication failed."
LOGIN_FAILED = "-ERR Login failed."
SERVED = "+OK logged in."
SECRET = "shared secret"


def b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(name: str, password: str, acts_for: str = "") -> str:
    return "AUTH PLAIN " + b64(f"{acts_for}\0{name}\0{password}")


@pytest.fixture
def cram_john(accounts):
    """An account with a password, and another secret for CRAM."""
    states = {
        f"hmac-{name}pw": state_of(name, SECRET.encode()).decode()
        for name in ("md5", "sha1", "sha256")
    }
    return accounts.add("john", **states)


def response(challenge: str, name: str, secret: str, algorithm: str = "md5") -> str:
    assert challenge.startswith("+ "), challenge
    digest = hmac.new(secret.encode(), b64decode(challenge[2:]), algorithm)
    return b64(f"{name} {digest.hexdigest()}")


def greeted(server) -> Client:
    client = server.client()
    assert client.line() == GREETING
    return client


def test_5034_01_5034_09_plain_login_and_what_follows(serve, any_mode, john):
    john.deliver(b"Subject: one\n\nbody\n")
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        before = client.listing("CAPA")
        assert before[0] == f"SASL {EVERY}"
        assert client.ask(plain("john", john.password)) == SERVED
        assert client.listing("CAPA") == before  # 2449-06
        assert client.ask(plain("john", john.password)) == "-ERR Invalid command."
        assert client.listing("LIST") == ["1 22"]
        assert client.ask("QUIT") == "+OK Bye-bye."
    server.logged(rf"INFO: LOGIN, user=john, {PEER}")


def test_5034_13_login_with_two_prompts(serve, any_mode, john):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert client.ask("AUTH LOGIN") == "+ VXNlcm5hbWU6"
        assert client.ask(b64("john")) == "+ UGFzc3dvcmQ6"
        assert client.ask(b64(john.password)) == SERVED


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
@pytest.mark.parametrize("module", ["authuserdb", "authcram"])
def test_2195_01_cram_with_the_right_digest_and_a_wrong_one(
    serve, any_mode, cram_john, algorithm, module
):
    server = serve(
        *any_mode,
        stages=["courierpop3login", "authpwd", module, "courierpop3d", "./Maildir"],
        env={"POP3AUTH": EVERY},
    )
    with greeted(server) as client:
        name = f"CRAM-{algorithm.upper()}"
        assert name in client.listing("CAPA")[0].split()
        challenge = client.ask(f"AUTH {name}")
        assert client.ask(response(challenge, "john", "wrong", algorithm)) == LOGIN_FAILED
        another = client.ask(f"AUTH {name}")
        assert another != challenge
        old = response(challenge, "john", SECRET, algorithm)
        assert client.ask(old) == LOGIN_FAILED  # CVE-43: a response of yesterday
        challenge = client.ask(f"AUTH {name}")
        assert client.ask(response(challenge, "john", SECRET, algorithm)) == SERVED
    server.logged(rf"INFO: LOGIN FAILED, method={name}, {PEER}")


def test_cram_knows_the_services_own_secret_first(serve, accounts):
    own, general = (state_of("md5", text).decode() for text in (b"for pop3", b"for all"))
    accounts.add("john", **{"pop3-hmac-md5pw": own, "hmac-md5pw": general})
    server = serve(env={"POP3AUTH": "CRAM-MD5"})
    with greeted(server) as client:
        assert client.ask(response(client.ask("AUTH CRAM-MD5"), "john", "for all")) == LOGIN_FAILED
        assert client.ask(response(client.ask("AUTH CRAM-MD5"), "john", "for pop3")) == SERVED


@pytest.mark.parametrize("state", ["", state_of("md5", b"").decode(), "x", "0" * 64])
def test_CVE_09_CVE_49_an_account_without_a_usable_secret_is_not_open_to_an_empty_one(
    serve, accounts, state
):
    accounts.add("john", **{"hmac-md5pw": state})
    server = serve(env={"POP3AUTH": "CRAM-MD5"})
    with greeted(server) as client:
        assert client.ask(response(client.ask("AUTH CRAM-MD5"), "john", "")) == LOGIN_FAILED


def test_cram_gives_the_account_all_its_restrictions(serve, accounts):
    state = state_of("md5", SECRET.encode()).decode()
    accounts.add("john", **{"hmac-md5pw": state, "options": "disablepop3=1"})
    stages = ["courierpop3login", "authcram", "courierpop3d", "./Maildir"]
    server = serve(stages=stages, env={"POP3AUTH": "CRAM-MD5"})
    with greeted(server) as client:
        answer = client.ask(response(client.ask("AUTH CRAM-MD5"), "john", SECRET))
        assert answer == "-ERR POP3 access disabled for this account."


def test_5034_10_wrong_credentials_and_a_fresh_start(serve, any_mode, john):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        began = time.monotonic()
        assert client.ask(plain("john", "wrong")) == LOGIN_FAILED
        assert time.monotonic() - began >= 1
        assert client.ask("AUTH LOGIN " + b64("nobody")) == "+ UGFzc3dvcmQ6"
        assert client.ask(b64("x")) == LOGIN_FAILED
        assert client.ask("USER john") == "+OK Password required."
        assert client.ask("PASS wrong") == LOGIN_FAILED
        assert client.ask(plain("john", john.password)) == SERVED
    for method in ("PLAIN", "LOGIN"):
        server.logged(rf"INFO: LOGIN FAILED, method={method}, {PEER}")
    server.logged(rf"INFO: LOGIN FAILED, user=john, {PEER}")


def test_5034_02_5034_07_5034_08_what_ends_a_dialogue_and_what_is_logged(serve, any_mode, john):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        for begin, line, reply in (
            ("AUTH PLAIN", "*", ABORTED),
            ("AUTH CRAM-MD5", "not base64", ABORTED),
            ("AUTH PLAIN", b64("no nul"), ABORTED),
        ):
            assert client.ask(begin).startswith("+ ")
            assert client.ask(line) == reply
        assert client.ask("AUTH NTLM,x]") == FAILED
        assert client.ask(plain("john", john.password, acts_for="mary")) == FAILED  # 4616-02
        assert client.ask(plain("john", john.password, acts_for="john")) == SERVED
    for method in ("PLAIN", "CRAM-MD5", r"NTLM\.X\."):
        server.logged(rf"INFO: LOGIN FAILED, method={method}, {PEER}")


def test_5034_12_the_tail_of_an_overlong_response_is_no_command(serve, any_mode, john):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert client.ask("AUTH PLAIN") == "+ "
        client.send(b"A" * 20_000 + b"\r\n" + b"QUIT\r\n")
        assert client.rest() == f"{ABORTED}\r\n+OK Better luck next time.\r\n".encode()
    with greeted(server) as client:
        assert client.ask("AUTH PLAIN") == "+ "
        assert client.ask(b64("\0john\0" + "x" * 9000)) == "-ERR Userid and password are too long."
        assert client.ask("AUTH PLAIN") == "+ "
        assert client.ask(b64("\0john\0" + "x" * 3000)) == LOGIN_FAILED


def test_2449_08_what_follows_a_dialogue_in_the_same_packet_reaches_the_server(
    serve, any_mode, john
):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        lines = ["AUTH PLAIN", b64(f"\0john\0{john.password}"), "NOOP", "QUIT", ""]
        client.send("\r\n".join(lines).encode())
        assert client.rest() == b"+ \r\n+OK logged in.\r\n+OK Yup.\r\n+OK Bye-bye.\r\n"


def test_ROB_01_one_byte_at_a_time(serve, any_mode, cram_john):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        line = response(client.ask("AUTH CRAM-MD5"), "john", SECRET)
        for octet in line.encode() + b"\r\nQUIT\r\n":
            client.send(bytes([octet]))
        assert client.rest() == b"+OK logged in.\r\n+OK Bye-bye.\r\n"


@pytest.mark.parametrize(
    "name", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"jo\0hn", b"j\nohn", b"\x1b["]
)
def test_CVE_24_CVE_06_names_that_are_no_text_are_refused_with_one_line(serve, john, name):
    server = serve(env={"POP3AUTH": EVERY, "POP3_FAILURE_DELAY": "0"})
    with greeted(server) as client:
        client.ask("AUTH LOGIN")
        client.ask(b64(name))
        assert client.ask(b64(john.password)) == LOGIN_FAILED
        client.ask("QUIT")
    server.logged(rf"DEBUG: Disconnected, {PEER}")
    lines = [line for line in server.lines() if not line.startswith("DEBUG: ")]
    assert [line.partition(", ip=")[0] for line in lines] == [
        "INFO: LOGIN FAILED, method=LOGIN",
        "INFO: LOGOUT",
    ]


def memory_of(server) -> int:
    """KiB of the process that has the client."""
    (pid,) = server.children()
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_CVE_23_ten_thousand_cancelled_auths_in_one_connection_cost_nothing(serve, cram_john):
    server = serve(env={"POP3AUTH": EVERY})
    with greeted(server) as client:

        def cancel(times: int) -> int:
            for mechanism in ("AUTH LOGIN\r\nam9obg==\r\n*\r\n", "AUTH CRAM-SHA1\r\n*\r\n"):
                for _ in range(times // 200):
                    client.send(mechanism.encode() * 100)
                    for _ in range(100 * (mechanism.count("\n"))):
                        assert client.line()[:3] in (b"+ V", b"+ U", b"+ P", b"-ER")
            return memory_of(server)

        before = cancel(1000)
        assert cancel(9000) <= before + 64
        assert client.ask(response(client.ask("AUTH CRAM-MD5"), "john", SECRET)) == SERVED


@pytest.mark.parametrize("begin", ["AUTH PLAIN", "AUTH CRAM-MD5", "AUTH LOGIN am9obg=="])
def test_CVE_23_a_client_that_leaves_in_a_dialogue_leaves_nothing(serve, any_mode, john, begin):
    server = serve(*any_mode, env={"POP3AUTH": EVERY})
    for _ in range(5):
        with greeted(server) as client:
            assert client.ask(begin).startswith("+ ")
    with greeted(server) as client:
        assert client.ask(plain("john", john.password)) == SERVED
    ended = rf"DEBUG: Disconnected, {PEER}"
    server.logged(ended)
    wait_until(lambda: sum(line.startswith("DEBUG: Disc") for line in server.lines()) == 5)


def test_without_a_list_auth_is_no_command_and_lax_takes_it(serve, john):
    server = serve()
    with greeted(server) as client:
        assert not any(line.startswith("SASL") for line in client.listing("CAPA"))
        assert client.ask(plain("john", john.password)) == "-ERR Invalid command."
    server = serve(env={"POP3_AUTH_LAX": "1"})
    with greeted(server) as client:
        assert not any(line.startswith("SASL") for line in client.listing("CAPA"))
        assert client.ask(plain("john", john.password)) == SERVED


def test_8314_06_tls_required_is_said_before_anything_is_asked(serve, john):
    server = serve(env={"POP3AUTH": EVERY, "POP3_TLS_REQUIRED": "1"})
    with greeted(server) as client:
        assert not any(line.startswith("SASL") for line in client.listing("CAPA"))
        for command_ in ("AUTH PLAIN", "AUTH CRAM-MD5", plain("john", john.password)):
            assert client.ask(command_) == "-ERR TLS required to log in."


def test_a_setting_that_is_no_switch_is_told(serve):
    for name in ("POP3_AUTH_LAX", "POP3_RESPONSE_CODES"):
        server = serve(env={name: "perhaps"})
        with server.client() as client:
            assert client.line().startswith(b"-ERR ")
        server.logged(rf"ERR: .*{name}=perhaps.*")


# EXTERNAL


@pytest.fixture
def certified(serve, script):
    """Start a chain behind what stands for a couriertls that has verified a certificate."""

    def start(name: str, *modules: str, env=None, port=0):
        told = f"POP3_TLS=1 TLS_EXTERNAL=CN TLS_SUBJECT_CN='{name}'"
        tls = script("tls", f'#!/bin/sh\nexport {told}\nexec "$@"\n')
        stages = [tls, BIN / "courierpop3login", *modules, "courierpop3d", "./Maildir"]
        return serve(stages=stages, env={"POP3_FAILURE_DELAY": "0", **(env or {})}, port=port)

    return start


def test_8314_08_external_needs_no_password(certified, john):
    server = certified("john", "authuserdb", env={"POP3AUTH": "PLAIN"})
    with greeted(server) as client:
        assert client.listing("CAPA")[0] == "SASL PLAIN EXTERNAL"
        assert client.ask("AUTH EXTERNAL " + b64("mary")) == FAILED
        assert client.ask("AUTH EXTERNAL") == "+ "
        assert client.ask("") == SERVED
        assert client.listing("CAPA")[0] == "SASL PLAIN EXTERNAL"
    server.logged(rf"INFO: LOGIN, user=john, {PEER}, stls=1")


def test_8314_08_a_certificate_that_the_listeners_environment_tells_of_is_none(serve, john):
    env = {"POP3AUTH": EVERY, "POP3_TLS": "1", "TLS_EXTERNAL": "CN", "TLS_SUBJECT_CN": "john"}
    with greeted(serve(env={**env, "POP3_FAILURE_DELAY": "0"})) as client:
        assert client.listing("CAPA")[0] == f"SASL {EVERY}"
        assert client.ask("AUTH EXTERNAL =") == FAILED


@pytest.mark.parametrize("name", ["nobody", "mary", "x\ty", "../john", "#", "john@", " john"])
def test_CVE_30_external_refuses_who_is_not_there_or_locked(certified, accounts, john, name):
    accounts.add("mary", systempw="!$6$x$y")
    server = certified(name, "authuserdb")
    with greeted(server) as client:
        assert client.ask("AUTH EXTERNAL =") in (LOGIN_FAILED, "-ERR Invalid command.")
        assert client.ask("STAT") == "-ERR Invalid command."


def test_external_is_no_password_login_in_disguise(certified, john):
    """The record of a certificate's owner can't be had by PASS or AUTH PLAIN."""
    server = certified("mary", "authuserdb", env={"POP3AUTH": EVERY})
    with greeted(server) as client:
        assert client.ask("AUTH EXTERNAL " + b64("john")) == FAILED
        assert client.ask(plain("john", "")) == ABORTED
        client.ask("USER john")
        assert client.ask("PASS ") == "-ERR USER/PASS required."
        assert client.ask("PASS x") == LOGIN_FAILED


def external(name: str) -> bytes:
    return f"pop3\nexternal\n{name}\n\n".encode()


@pytest.mark.parametrize("module", ["authshadow", "authpam"])
def test_CVE_30_external_minds_the_account_check_of_system_users(
    certified, add_user, pam_service, module
):
    user = add_user()
    port = free_port()
    env = {f"AUTHSERVICE{port}": pam_service(UNIX)}
    server = certified(user.name, "authpwd", module, env=env, port=port)

    def answer() -> str:
        with greeted(server) as client:
            assert client.listing("CAPA")[0] == "SASL EXTERNAL"
            return client.ask("AUTH EXTERNAL =")

    assert answer() == SERVED
    command("chage", "-E", "2020-01-01", user.name)
    assert answer() == LOGIN_FAILED
    command("chage", "-E", "-1", user.name)
    command("usermod", "-L", user.name)
    assert answer() == (SERVED if module == "authpam" else LOGIN_FAILED)


def test_authpwd_leaves_external_to_others_where_passwords_are_shadowed(add_user, script):
    name = add_user().name
    following = script("following", "#!/bin/sh\ncat <&3\n")
    done = stage(BIN / "authpwd", following, record=external(name))
    assert done.stdout == external(name)


# What modules take, as `authtypes` says


@pytest.mark.parametrize("module", sorted(TAKEN))
def test_a_module_takes_what_the_table_says(module, environment, script):
    """What it doesn't take it passes on byte for byte, without having looked anybody up.

    But authdaemon asks about everything: what authdaemond takes is authdaemond's to say.
    """
    if module == "authldap":
        needs_module("ldap")
    following = script("following", "#!/bin/sh\ncat <&3\n")
    login = script("login", "#!/bin/sh\necho trouble\n")
    env = {**environment, "AUTHUSER": login, "AUTHARGC": "1", "AUTHARGV0": login}
    env["AUTHUSERDB_FILE"] = "/nowhere/userdb"  # to look there is trouble
    env["AUTHDAEMON_SOCKET"] = "/nowhere/socket"
    for name in ("LDAP", "MYSQL", "PGSQL", "SQLITE"):
        env[f"AUTH{name}_RC"] = "/nowhere/rc"
    env["VPOPMAIL_ASSIGN"], env["VPOPMAIL_DOMAIN"] = "/nowhere/assign", "example.com"
    looks_up = {"authcram", "authldap", "authmysql", "authpgsql", "authsqlite"}
    looks_up |= {"authsaslauthd", "authuserdb", "authvchkpw"}
    env["AUTHSASLAUTHD_SOCKET"] = "/nowhere/mux"
    words = ["/bin/false"] if module == "authcheckpassword" else []  # which accepts nobody
    for authtype in (LOGIN, *CRAM, EXTERNAL, b"cram-md4", b"LOGIN", b"plain", APOP):
        record = asked(authtype)
        done = stage(BIN / module, *words, following, record=record, env=env)
        knows = authtype in TAKEN[module]
        taken = module in looks_up and knows
        asks = taken or module == "authdaemon"
        assert done.stdout == (b"trouble\n" if asks else record), authtype


def asked(authtype: bytes) -> bytes:
    lengths = dict(zip(CRAM, (32, 40, 64), strict=True))
    digits = b"0" * lengths.get(authtype, 32)
    lines = {
        LOGIN: [b"surely-nobody", b"x"],
        EXTERNAL: [b"surely-nobody"],
    }.get(authtype, [b"YQ==", b64encode(b"surely-nobody " + digits)])
    return b"".join(line + b"\n" for line in (b"pop3", authtype, *lines, b""))


# Response codes


CODES = {"POP3_RESPONSE_CODES": "1", "POP3AUTH": EVERY, "POP3_FAILURE_DELAY": "0"}


def test_3206_01_wrong_credentials_are_auth(serve, any_mode, john):
    server = serve(*any_mode, env=CODES)
    with greeted(server) as client:
        before = client.listing("CAPA")
        assert {"RESP-CODES", "AUTH-RESP-CODE"} < set(before)
        client.ask("USER john")
        assert client.ask("PASS wrong") == "-ERR [AUTH] Login failed."
        assert client.ask(plain("nobody", "x")) == "-ERR [AUTH] Login failed."
        assert client.ask(plain("john", "x", acts_for="mary")) == f"-ERR [AUTH] {FAILED[5:]}"
        client.ask("AUTH LOGIN")
        client.ask(b64("jo\nhn"))
        assert client.ask(b64("x")) == "-ERR [AUTH] Login failed."
        assert client.ask("AUTH PLAIN =") == ABORTED
        assert client.ask(plain("john", john.password)) == SERVED
        assert client.listing("CAPA") == before


def test_3206_02_a_modules_failure_is_systemp_and_never_auth(serve, any_mode, accounts, john):
    server = serve(*any_mode, env=CODES)
    accounts.userdb.rename(accounts.userdb.with_name("away"))
    with greeted(server) as client:
        answer = "-ERR [SYS/TEMP] Temporary problem, please try again later"
        assert client.ask(plain("john", john.password)) == answer
        client.ask("USER john")
        assert client.ask("PASS x") == answer
        accounts.userdb.with_name("away").rename(accounts.userdb)
        assert client.ask(plain("john", "wrong")) == "-ERR [AUTH] Login failed."
        assert client.ask(plain("john", john.password)) == SERVED


def test_3206_03_what_waits_for_the_administrator_is_sysperm(serve, any_mode, accounts, john):
    needs_root()
    accounts.record("root2", uid=0, gid=100, home="/", systempw=sha(john.password))
    server = serve(*any_mode, env=CODES)
    with greeted(server) as client:
        answer = client.ask(plain("root2", john.password))
        assert answer == "-ERR [SYS/PERM] Permanent problem, please tell the administrator"
    john.maildir.rename(john.home / "elsewhere")
    with greeted(server) as client:
        answer = client.ask(plain("john", john.password))
        assert answer == "-ERR [SYS/PERM] chdir ./Maildir failed"


@pytest.mark.parametrize("options", ["disablepop3=1", "disableinsecurepop3=1"])
def test_3206_01_an_account_that_may_not_is_auth(serve, accounts, options):
    john = accounts.add("john", options=options)
    with greeted(serve(env=CODES)) as client:
        assert client.ask(plain("john", john.password)).startswith("-ERR [AUTH] POP3 access")
    with greeted(serve(env={"POP3AUTH": EVERY})) as client:
        assert client.ask(plain("john", john.password)).startswith("-ERR POP3 access")


def test_3206_02_nothing_is_guessed_where_other_peoples_programs_have_failed(serve, john, script):
    """A module that goes back to the login program by itself may have had any reason."""
    module = script(
        "authother", '#!/bin/sh\nexec "$AUTHUSER" "$AUTHARGV1" "$AUTHARGV2" "$AUTHARGV3" 3<&-\n'
    )
    stages = ["courierpop3login", module, "courierpop3d", "./Maildir"]
    server = serve(stages=stages, env=CODES)
    with greeted(server) as client:
        assert client.ask(plain("john", "x")) == LOGIN_FAILED


def test_2449_11_without_the_switch_no_reply_has_a_code(serve, any_mode, accounts, john):
    server = serve(*any_mode, env={"POP3AUTH": EVERY, "POP3_FAILURE_DELAY": "0"})
    with greeted(server) as client:
        assert not {"RESP-CODES", "AUTH-RESP-CODE"} & set(client.listing("CAPA"))
        assert client.ask(plain("john", "wrong")) == LOGIN_FAILED
        accounts.userdb.unlink()
        assert client.ask(plain("john", "wrong")) == LOGIN_FAILED
