"""authmysql, authpgsql and authsqlite with real databases: who gets in, and what others are told.

Each test runs with MariaDB, PostgreSQL and SQLite.
"""

from __future__ import annotations

import hmac
import os
import socket
import threading
import time
from base64 import b64decode, b64encode

import pytest

from authmodules import authmysql, authpgsql, authsqlite
from courierchain import request
from courierchain.authmodule import PermanentFailure, Rejected, TemporaryFailure
from courierchain.settings import Settings
from tests.authmodules.asking import apop
from tests.chain.test_record import dump as dump  # a fixture
from tests.chain.test_record import dumped, stage
from tests.chain.test_scram import SECRET, Dialogue, stored
from tests.conftest import BIN, needs_root, sha

SERVED = "+OK logged in."
WRONG = "-ERR [AUTH] Login failed."
LATER = "-ERR [SYS/TEMP] Temporary problem, please try again later"
NEVER = "-ERR [SYS/PERM] Permanent problem, please tell the administrator"
HASTY = {"AUTHSQL_CONNECT_TIMEOUT": "1", "AUTHSQL_QUERY_TIMEOUT": "1"}
MODULES = {
    "mysql": authmysql.authmysql,
    "pgsql": authpgsql.authpgsql,
    "sqlite": authsqlite.authsqlite,
}


@pytest.fixture
def server(serve, database):
    """Start a chain with the module of the database: server(option...)."""

    def start(*options, stages=None, **env):
        stages = stages or database.stages
        return serve(*options, stages=stages, env={**database.environment, **env})

    return start


def login(server, name: str, password: str) -> str:
    with server.client() as client:
        client.line()
        client.ask(f"USER {name}")
        return client.ask(f"PASS {password}")


def cram(server, name: str, secret: str, algorithm: str = "md5") -> str:
    with server.client() as client:
        client.line()
        challenge = b64decode(client.ask(f"AUTH CRAM-{algorithm.upper()}")[2:])
        digest = hmac.new(secret.encode(), challenge, algorithm).hexdigest()
        return client.ask(b64encode(f"{name} {digest}".encode()).decode())


def asked(database, *lines: bytes, service: bytes = b"pop3"):
    """What the module says to a record, without a chain: an Account, or it raises."""
    raw = b"\n".join([service, *lines, b"", b""])
    module = MODULES[database.kind]
    return module.verify(request.parse(raw), Settings(database.environment))


def test_right_and_wrong_passwords_in_the_whole_chain(server, any_mode, database, accounts):
    john = accounts.add("john", listed=False)
    john.deliver(b"Subject: one\n\nbody\n")
    database.add(john)
    clear = accounts.add("clear", listed=False)
    database.add(clear, crypt="", clear=clear.password)
    both = accounts.add("both", listed=False)
    database.add(both, clear="another password")
    nothing = accounts.add("nothing", listed=False)
    database.add(nothing, crypt=None, clear=None)
    running = server(*any_mode)
    for account in (john, clear, both):
        with running.client().login(account) as client:
            assert client.ask("STAT") == ("+OK 1 22" if account is john else "+OK 0 0")
        assert login(running, account.name, "wrong") == WRONG
    assert login(running, "both", "another password") == WRONG  # crypt alone counts
    assert login(running, "nothing", nothing.password) == WRONG
    assert login(running, "nobody", john.password) == WRONG


def test_the_next_module_is_asked_about_others(server, database, john):
    stages = ["courierpop3login", database.module, "authuserdb", "courierpop3d", "./Maildir"]
    assert login(server(stages=stages), "john", john.password) == SERVED


def test_everything_of_the_account_reaches_the_server(database, accounts, public, dump):
    needs_root()
    public.chmod(0o777)
    john = accounts.add("john", listed=False)
    more = {"name": "John Doe", "maildir": "/m", "quota": "1000S", "options": "x=1"}
    database.add(john, **more)
    record = f"pop3\nlogin\njohn\n{john.password}\n\n".encode()
    env = {**database.environment, "PATH": os.environ["PATH"]}
    stage(BIN / database.module, dump, "./Maildir", record=record, env=env)
    env = dumped(public)
    expected = {
        "AUTHENTICATED": "john",
        "AUTHADDR": "john",
        "AUTHFULLNAME": "John Doe",
        "MAILDIR": "/m",
        "MAILDIRQUOTA": "1000S",
        "OPTIONS": "x=1",
    }
    assert {name: env[name] for name in expected} == expected
    assert (public / "record").read_bytes() == b"pop3\nauthenticated\njohn\n"
    assert (public / "uid").read_text().strip() == str(john.uid)
    assert (public / "groups").read_text().split() == [str(john.gid)]
    targets = [line.split()[-3:] for line in (public / "fds").read_text().splitlines()[1:]]
    assert {int(number) for number, _, _ in targets} <= {0, 1, 2, 3, 4}  # no connection stays


def test_cram_takes_the_clear_password(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john, crypt="", clear="shared secret")
    hashed = accounts.add("hashed", listed=False)
    database.add(hashed)
    running = server("-uses=20")
    for algorithm in ("md5", "sha256"):
        assert cram(running, "john", "shared secret", algorithm) == SERVED
        assert cram(running, "john", "wrong", algorithm) == WRONG
    assert cram(running, "hashed", hashed.password) == WRONG
    assert cram(running, "nobody", "") == WRONG


def test_5802_01_7677_01_scram_takes_the_clear_password_or_a_form_of_its_own(
    server, database, accounts
):
    for name, columns in {
        "clear": {"crypt": "", "clear": SECRET},
        "form": {"crypt": stored("SCRAM-SHA-256")},
        "hash": {},
        "locked": {"crypt": "!" + stored("SCRAM-SHA-256"), "clear": SECRET},
        "empty": {"crypt": "", "clear": ""},
    }.items():
        database.add(accounts.add(name, listed=False), **columns)
    running = server("-uses=20", POP3AUTH="SCRAM-SHA-1 SCRAM-SHA-256")

    def scram(name: str, password: str = SECRET, mechanism: str = "SCRAM-SHA-256") -> str:
        with running.client() as client:
            client.line()
            return Dialogue(client, name, password, mechanism).run()

    assert scram("clear") == scram("clear", mechanism="SCRAM-SHA-1") == SERVED
    assert scram("form") == SERVED
    assert scram("form", mechanism="SCRAM-SHA-1") == WRONG
    for name in ("clear", "form", "hash", "locked", "nobody", "empty"):
        assert scram(name, "wrong") == WRONG
    assert scram("locked") == scram("hash", f"secret of {name}") == WRONG
    assert login(running, "form", SECRET) == SERVED


def test_apop_takes_the_clear_password(database, accounts):
    database.add(accounts.add("john", listed=False), crypt="", clear="shared secret")
    database.add(accounts.add("hashed", listed=False))
    assert asked(database, *apop(b"shared secret").split(b"\n")[1:4]).user == "john"
    for record in (apop(b"wrong"), apop(b""), apop(b"", b"hashed"), apop(b"x", b"nobody")):
        with pytest.raises(Rejected):
            asked(database, *record.split(b"\n")[1:4])


def test_CVE_09_an_empty_password_in_the_table_is_nobodys(database, accounts):
    database.add(accounts.add("john", listed=False), crypt="", clear="")
    for lines in ([b"login", b"john", b""], [b"login", b"john"]):
        with pytest.raises(Rejected):
            asked(database, *lines)
    digest = hmac.new(b"", b"<1@x>", "md5").hexdigest().encode()
    response = [b64encode(b"<1@x>"), b64encode(b"john " + digest)]
    with pytest.raises(Rejected):
        asked(database, b"cram-md5", *response)


def test_external_needs_no_password_but_a_row_that_is_not_locked(database, accounts):
    for name, crypt in (("john", sha("x")), ("locked", "!" + sha("x")), ("none", "")):
        database.add(accounts.add(name, listed=False), crypt=crypt)
    assert asked(database, b"external", b"john").user == "john"
    assert asked(database, b"external", b"none").user == "none"
    for name in (b"locked", b"nobody", b""):
        with pytest.raises(Rejected):
            asked(database, b"external", name)


def test_an_unknown_kind_of_question_is_rejected_unread(database):
    database.rc.unlink()
    for lines in ([b"scram-sha-1", b"x"], [b"login", b"a", b"b", b"c"], [b"cram-md5", b"?", b"?"]):
        with pytest.raises(Rejected):
            asked(database, *lines)


def test_a_disabled_account_is_told_so(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john, options="disableimap=0,disablepop3=1")
    running = server()
    refusal = "-ERR [AUTH] POP3 access disabled for this account."
    assert login(running, "john", john.password) == refusal
    assert login(running, "john", "wrong") == WRONG


def test_default_domain_is_for_userids_without_one(database, accounts):
    john = accounts.add("john@example.com", listed=False)
    database.add(john)
    database.configure(DEFAULT_DOMAIN="example.com")
    password = john.password.encode()
    for name in (b"john", b"john@example.com"):
        assert asked(database, b"login", name, password).user == "john@example.com"
    for name in (b"john@", b"john@other", b"john@example.com@example.com"):
        with pytest.raises(Rejected):
            asked(database, b"login", name, password)


def test_a_where_clause_must_hold_too(database, accounts):
    for name, quota in (("john", "10S"), ("mary", "20S")):
        database.add(accounts.add(name, listed=False), quota=quota, crypt=sha("x"))
    database.configure(WHERE_CLAUSE="quota='20S' OR quota='30S'")
    assert asked(database, b"login", b"mary", b"x").quota == "20S"
    with pytest.raises(Rejected):
        asked(database, b"login", b"john", b"x")


def test_a_select_clause_says_it_all(database, accounts):
    john = accounts.add("john@example.com", listed=False)
    database.add(john, clear="pop3", crypt=sha("x"))
    database.configure(
        SELECT_CLAUSE="SELECT id, crypt, '', \\\n uid, gid, home \\\n FROM passwd \\\n"
        "  WHERE id = '$(local_part)@$(domain)' AND clear = '$(service)'",
        DEFAULT_DOMAIN="example.com",
        USER_TABLE=None,
        CRYPT_PWFIELD=None,
        CLEAR_PWFIELD=None,
    )
    account = asked(database, b"login", b"john", b"x")
    assert (account.user, account.uid, account.home) == (john.name, john.uid, str(john.home))
    assert (account.maildir, account.quota, account.fullname, account.options) == ("", "", "", "")
    with pytest.raises(Rejected):
        asked(database, b"login", b"john", b"x", service=b"imap")
    with pytest.raises(Rejected):
        asked(database, b"login", b"john@other", b"x")


def test_columns_may_be_expressions(database, accounts):
    database.add(accounts.add("john", listed=False), crypt="5en6G6MezRroT3XKqkdPOmY/BfQ=")
    join = "CONCAT('{SHA}', crypt)" if database.kind == "mysql" else "'{SHA}' || crypt"
    database.configure(CRYPT_PWFIELD=join, CLEAR_PWFIELD=None)
    assert asked(database, b"login", b"john", b"secret").user == "john"


HOSTILE = [
    *(b"x' OR '1'='1", b"' OR 1=1 -- ", b"'; DROP TABLE passwd; --", b"\\' OR 1=1 #", b"\\", b"'"),
    *(b'" OR ""="', b"$(id)", b"`id`", b"%{env:HOME}", b"*)(uid=*", b"%", b"_ohn", b"joh%", b"*"),
    *(b"$(local_part)", b"$1", b"?", b"%s", b":1", b"{0}", b"john\t", b"\x01", b"john;", b"john--"),
    *(b"\xbf' OR 1=1 -- ", b"\xbf\x27", b"\xff\xfe", b"\xc3", b"john\xc2", b"\xe5\x5c' OR 1=1 #"),
    *(b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xc3\xa9", b"j" * 3000, b"'" * 3000, b"@", b"a@b@c"),
]


@pytest.mark.parametrize("clause", [False, True])
def test_CVE_05_hostile_names_are_nobodys(database, accounts, clause):
    database.add(accounts.add("john", listed=False), crypt=sha("x"))
    if clause:
        database.configure(
            SELECT_CLAUSE="SELECT id, crypt, clear, uid, gid, home FROM passwd"
            " WHERE id = '$(local_part)' OR id = '$(local_part)@$(domain)'",
        )
    for name in HOSTILE:
        for lines in ([b"login", name, b"x"], [b"external", name]):
            with pytest.raises(Rejected):
                asked(database, *lines)
    assert asked(database, b"login", b"john", b"x").user == "john"


@pytest.mark.parametrize("character_set", ["latin1", "gbk", "sjis", "utf8"])
def test_CVE_05_names_that_are_hostile_in_other_character_sets(database, accounts, character_set):
    """CVE-2008-2667: in these a byte can swallow the backslash of an escape."""
    if database.kind == "sqlite":
        pytest.skip("SQLite has one character set")
    database.add(accounts.add("john", listed=False), crypt=sha("x"))
    database.configure(CHARACTER_SET=character_set)
    for name in HOSTILE:
        with pytest.raises(Rejected):
            asked(database, b"login", name, b"x")
    assert asked(database, b"login", b"john", b"x").user == "john"


def test_odd_names_that_are_in_the_table_log_in(database, accounts):
    for name in ("o'brien", 'say "x"', "back\\slash", "50%", "J\u00f6rg", "\U0001f600", "$(id)"):
        database.add(accounts.add(name, listed=False), crypt=sha("x"))
        assert asked(database, b"login", name.encode(), b"x").user == name


def test_CVE_06_nul_line_feed_and_endless_names_never_log_in(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john)
    running = server()
    for name in (b"john\0", b"john\0x", b"\xff", b"x" * 65536):
        with running.client() as client:
            client.line()
            client.send(b"USER " + name + b"\r\n")
            client.send(f"PASS {john.password}\r\nQUIT\r\n".encode())
            assert b"logged in" not in client.rest()
    assert login(running, "john", john.password) == SERVED


BAD_ROWS = [
    ({"uid": 0}, "uid 0", "UID_FIELD"),
    ({"gid": 0}, "gid 0", "GID_FIELD"),
    ({"uid": None}, "no uid. but NULL", "UID_FIELD"),
    ({"uid": -5}, "uid -5", "UID_FIELD"),
    ({"home": ""}, "home ''", "HOME_FIELD"),
    ({"home": None}, "home ''", "HOME_FIELD"),
    ({"home": "../x"}, "home '../x'", "HOME_FIELD"),
]


def test_a_row_that_owns_no_mailbox_is_refused_to_who_has_the_password(server, database, accounts):
    running = server()
    for number, (columns, what, field) in enumerate(BAD_ROWS):
        account = accounts.add(f"n{number}", listed=False)
        database.add(account, **columns)
        assert login(running, account.name, account.password) == NEVER
        assert login(running, account.name, "wrong") == WRONG
        where = rf"{database.rc} line \d+: |{database.rc}: "
        running.logged(
            rf"ERR: {database.module}: ({where}){database.prefix}{field}:"
            rf" n{number} has {what} \(.+\)"
        )


@pytest.mark.parametrize("home", ["x" * 5000, "/a\x01"])
def test_a_home_that_is_no_path_is_refused(server, database, accounts, home):
    if database.kind != "sqlite" and len(home) > 128:
        pytest.skip("the column is too short")
    john = accounts.add("john", listed=False)
    database.add(john, home=home)
    assert login(server(), "john", john.password) == NEVER


def query(columns: str, more: str = "") -> str:
    return f"SELECT {columns} FROM passwd WHERE id = '$(local_part)' {more}"


def test_a_query_that_gives_too_little_or_too_much_lets_nobody_in(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john)
    running = server()
    database.configure(SELECT_CLAUSE=query("id, crypt, clear, uid, gid"))
    for name in ("john", "nobody"):
        assert login(running, name, john.password) == LATER
    setting = rf"ERR: {database.module}: {database.rc} line \d+: {database.prefix}"
    running.logged(rf"{setting}SELECT_CLAUSE gives 5 columns, not 6 to 10 \(username, .*\)")
    database.configure(SELECT_CLAUSE=query("id, crypt, clear, uid, gid, home", "OR 1=1"))
    assert login(running, "john", john.password) == SERVED
    database.add(accounts.add("mary", listed=False))
    assert login(running, "john", john.password) == LATER
    running.logged(rf"{setting}SELECT_CLAUSE gives several rows for john \(.*\)")


def test_a_clause_that_cannot_be_bound_is_refused(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john)
    database.configure(WHERE_CLAUSE="quota = $(service)")
    running = server()
    assert login(running, "john", john.password) == LATER
    running.logged(
        rf"ERR: {database.module}: {database.rc} line \d+: {database.prefix}WHERE_CLAUSE:"
        r" \$\(service\) stands outside of quotes \(write '\$\(service\)'\)"
    )


def test_a_bad_rc_file_is_one_line_and_a_change_counts_at_once(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john)
    running = server("-uses=20")
    assert login(running, "john", john.password) == SERVED
    good = database.rc.read_text()
    for text, said in {
        good.replace("##NAME: MARKER:0", ""): r"no line ##NAME: MARKER: in it, .*",
        good.replace("USER_TABLE", "USER_TABEL"): (
            rf".* line \d+: {database.prefix}USER_TABEL: no such setting"
            rf" \({database.prefix}USER_TABLE is meant\?\)"
        ),
        good.replace(f"{database.prefix}USER_TABLE", "#"): r".*USER_TABLE is not set \(.*\)",
        good.replace(f"{database.prefix}C", "# C", 2)
        if database.kind != "pgsql"
        else good.replace("PGSQL_CRYPT", "# ").replace("PGSQL_CLEAR", "# "): (
            r".*neither \w+CRYPT_PWFIELD nor \w+CLEAR_PWFIELD is set \(.*\)"
        ),
    }.items():
        database.rc.write_text(text)
        assert login(running, "john", john.password) == LATER, said
        running.logged(rf"ERR: {database.module}: {database.rc}.*{said}")
    database.rc.write_text(good)
    database.rc.chmod(0o666)
    assert login(running, "john", john.password) == LATER
    database.rc.unlink()
    assert login(running, "john", john.password) == LATER
    running.logged(rf"ERR: {database.module}: cannot read {database.rc}: No such file .*")
    database.rc.write_text(good)
    database.rc.chmod(0o600)
    assert login(running, "john", john.password) == SERVED


def test_3206_02_a_missing_table_or_column_is_the_administrators(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john)
    running = server()
    for settings in ({"USER_TABLE": "nosuch"}, {"HOME_FIELD": "nosuch"}, {"WHERE_CLAUSE": "((("}):
        database.configure(**settings)
        assert login(running, "john", john.password) == NEVER
    running.logged(rf"ERR: {database.module}: {database.rc}.*nosuch.* \(compare .*\)")


def test_what_the_database_says_cannot_forge_a_line_of_log(database, accounts):
    database.configure(
        SELECT_CLAUSE=query("id, crypt, clear, uid, gid, home", "AND nosuch = '$(domain)'")
    )
    with pytest.raises(TemporaryFailure) as why:
        asked(database, b"login", b"x@, user=root, ip=[1.2.3.4]\r\x1b", b"x")
    assert not set("\r\n\x1b[]") & set(str(why.value).replace(str(database.rc), ""))
    assert "ip=[" not in str(why.value)


def test_3206_02_a_server_that_is_down_is_no_verdict_and_is_used_when_it_is_back(
    server, remote, accounts, john
):
    remote.add(john)
    stages = ["courierpop3login", remote.module, "authuserdb", "courierpop3d", "./Maildir"]
    running = server("-uses=20", stages=stages)
    assert login(running, "john", john.password) == SERVED
    remote.server.stop()
    for name in ("john", "nobody"):  # authuserdb, which knows john, is not asked
        assert login(running, name, john.password) == LATER
    running.logged(rf"ERR: {remote.module}: {remote.rc} line \d+: {remote.prefix}.*")
    remote.server.start()
    assert login(running, "john", john.password) == SERVED


def test_3206_02_a_server_that_hangs_is_waited_for_so_long_and_no_longer(
    server, remote, accounts, john
):
    remote.add(john)
    stages = ["courierpop3login", remote.module, "authuserdb", "courierpop3d", "./Maildir"]
    running = server("-uses=20", stages=stages, **HASTY)
    remote.server.freeze()
    began = time.monotonic()
    assert login(running, "john", john.password) == LATER
    assert time.monotonic() - began >= 1
    remote.server.thaw()
    assert login(running, "john", john.password) == SERVED


def test_a_query_that_takes_too_long_is_given_up(server, database, accounts):
    john = accounts.add("john", listed=False)
    database.add(john)
    endless = {
        "mysql": "SLEEP(4) = 0",
        "pgsql": "pg_sleep(4) IS NOT NULL",
        "sqlite": "0 < (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT count(*) FROM n)",
    }
    database.configure(WHERE_CLAUSE=endless[database.kind])
    running = server(**HASTY)
    began = time.monotonic()
    assert login(running, "john", john.password) == LATER
    assert 1 <= time.monotonic() - began
    running.logged(rf"ERR: {database.module}: .*")


def test_a_listener_starts_without_asking_the_database(server, remote, john):
    remote.server.freeze()
    began = time.monotonic()
    server()
    assert time.monotonic() - began < 10  # AUTHSQL_CONNECT_TIMEOUT


def test_a_locked_sqlite_database_is_waited_for_and_given_up(database, accounts):
    if database.kind != "sqlite":
        pytest.skip("only SQLite locks the whole database")
    database.add(accounts.add("john", listed=False), crypt=sha("x"))
    other = database.connect()
    other.execute("BEGIN EXCLUSIVE")
    database.environment |= HASTY
    with pytest.raises(TemporaryFailure, match="database is locked"):
        asked(database, b"login", b"john", b"x")
    other.close()
    assert asked(database, b"login", b"john", b"x").user == "john"


def elsewhere(remote, port: int) -> None:
    if remote.kind == "mysql":
        remote.configure(SERVER="127.0.0.1", PORT=str(port), SOCKET=None)
    else:
        remote.configure(CONNECTION=f"host=127.0.0.1 port={port} user=root")


def test_a_port_that_is_silent_and_one_that_hangs_up_are_failures(remote, silent):
    elsewhere(remote, silent.getsockname()[1])
    remote.environment |= HASTY
    with pytest.raises(TemporaryFailure) as why:
        asked(remote, b"login", b"john", b"x")
    assert not isinstance(why.value, PermanentFailure)

    def hang_up() -> None:
        silent.settimeout(20)
        for _ in range(2):
            silent.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(TemporaryFailure):
        asked(remote, b"login", b"john", b"x")
    with socket.create_connection(silent.getsockname()):  # in case one was enough
        thread.join()


def test_tcp_is_used_where_the_rc_file_says_so(database, accounts):
    if database.kind != "mysql":
        pytest.skip("the PostgreSQL of the tests has no port")
    database.execute("CREATE OR REPLACE USER pop@'127.0.0.1' IDENTIFIED BY 'p\u00e4ss'")
    database.execute("GRANT SELECT ON mail.passwd TO pop@'127.0.0.1'")
    database.add(accounts.add("john", listed=False), crypt=sha("x"))
    there = {"SERVER": "127.0.0.1", "PORT": str(database.server.port), "USERNAME": "pop"}
    database.configure(**there, SOCKET=None, PASSWORD="p\u00e4ss")
    assert asked(database, b"login", b"john", b"x").user == "john"
    database.configure(**there, SOCKET=None, PASSWORD="wrong")
    with pytest.raises(PermanentFailure, match="1045") as why:
        asked(database, b"login", b"john", b"x")
    assert "wrong" not in str(why.value)
    database.configure(**there, SOCKET=None, PASSWORD="p\u00e4ss", SSL_CIPHER="HIGH")
    with pytest.raises(TemporaryFailure):  # this server has no TLS, and none is no answer
        asked(database, b"login", b"john", b"x")


@pytest.mark.parametrize("kind, driver", [("mysql", "pymysql"), ("pgsql", "psycopg")])
def test_a_missing_driver_is_said_with_its_remedy(monkeypatch, public, kind, driver):
    module = {"mysql": authmysql, "pgsql": authpgsql}[kind]
    monkeypatch.setattr(module, driver, None)
    rc = public / "rc"
    lines = f"{kind.upper()}_USER_TABLE t\n{kind.upper()}_CRYPT_PWFIELD c\n##NAME: MARKER:0\n"
    rc.write_text(lines)
    rc.chmod(0o600)
    question = request.parse(b"pop3\nlogin\na\nb\n\n")
    with pytest.raises(PermanentFailure, match="is not installed .pip install"):
        MODULES[kind].verify(question, Settings({f"AUTH{kind.upper()}_RC": str(rc)}))


def test_older_settings_of_postgresql_lead_there_too(database, accounts):
    if database.kind != "pgsql":
        pytest.skip("only PostgreSQL had others")
    database.add(accounts.add("john", listed=False), crypt=sha("x"))
    there = {"HOST": str(database.server.directory), "PORT": str(database.server.port)}
    database.configure(CONNECTION=None, **there, USERNAME="root", DATABASE="template1")
    assert asked(database, b"login", b"john", b"x").user == "john"
    database.configure(CONNECTION="password=geheim x")
    with pytest.raises(TemporaryFailure, match="PGSQL_CONNECTION is not understood") as why:
        asked(database, b"login", b"john", b"x")
    assert "geheim" not in str(why.value)


def test_a_time_limit_that_is_none_is_said(database, accounts):
    database.environment["AUTHSQL_QUERY_TIMEOUT"] = "soon"
    with pytest.raises(TemporaryFailure, match="AUTHSQL_QUERY_TIMEOUT=soon: not a number"):
        asked(database, b"login", b"john", b"x")


def test_CVE_36_many_logins_at_once_each_find_their_own_mailbox(server, database, accounts):
    people = [accounts.add(f"user{number}", listed=False) for number in range(4)]
    for number, account in enumerate(people):
        database.add(account)
        for _ in range(number):
            account.deliver(b"Subject: x\n\n")
    running = server("-uses=10", "-prefork=3", "-maxperip=20")
    wrong: list[str] = []

    def come_and_go(number: int) -> None:
        for _ in range(4):
            with running.client().login(people[number]) as client:
                if not client.ask("STAT").startswith(f"+OK {number} "):
                    wrong.append(people[number].name)

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", MODULES)
def test_no_setting_of_couriers_is_unknown(kind):
    """Those of the files as Debian ships them, commented out or not."""
    prefix = kind.upper() + "_"
    mysql = (
        "SERVER USERNAME PASSWORD SOCKET PORT OPT SSL_KEY SSL_CERT SSL_CACERT SSL_CAPATH DATABASE"
    )
    own = {"mysql": mysql + " SSL_CIPHERS CHARACTER_SET", "sqlite": "DATABASE"}
    own["pgsql"] = "CONNECTION DATABASE CHARACTER_SET"
    shared = (
        "USER_TABLE CRYPT_PWFIELD CLEAR_PWFIELD UID_FIELD GID_FIELD LOGIN_FIELD HOME_FIELD"
        " NAME_FIELD MAILDIR_FIELD DEFAULTDELIVERY QUOTA_FIELD AUXOPTIONS_FIELD WHERE_CLAUSE"
        " SELECT_CLAUSE ENUMERATE_CLAUSE CHPASS_CLAUSE"
    )
    wanted = {prefix + name for name in f"{own[kind]} {shared}".split()} | {"DEFAULT_DOMAIN"}
    databases = {"mysql": authmysql, "pgsql": authpgsql, "sqlite": authsqlite}
    assert wanted <= databases[kind].DATABASE.names
