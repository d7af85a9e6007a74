"""Changing passwords in databases, and by a program: what each module's `change` does."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest

from authmodules import authmysql, authpgsql, authpipe, authsqlite, newpassword
from courierchain import passwords, request
from courierchain.authmodule import PermanentFailure, Rejected, TemporaryFailure
from courierchain.settings import Settings
from tests.authmodules.asking import ask as ask  # a fixture
from tests.conftest import sha

MODULES = {
    "mysql": authmysql.authmysql,
    "pgsql": authpgsql.authpgsql,
    "sqlite": authsqlite.authsqlite,
}
AWKWARD = "a'b\"c\\d`e $(newpass);--%s \u00e9"


class Person:
    """john in the database: `change` his password, `has` it."""

    def __init__(self, database, account):
        self.database = database
        self.account = account
        self.module = MODULES[database.kind]

    def asked(self, password: str, user: str) -> tuple[request.Request, Settings]:
        raw = f"pop3\nlogin\n{user}\n{password}\n\n".encode()
        return request.parse(raw), Settings(self.database.environment)

    def has(self, password: str, user: str = "john") -> bool:
        try:
            self.module.verify(*self.asked(password, user))
        except Rejected:
            return False
        return True

    def change(self, old: str, new: str, user: str = "john", **environment: str) -> None:
        question, _ = self.asked(old, user)
        settings = Settings({**self.database.environment, **environment})
        self.module.change(question, new.encode(), settings)

    def rehash(self, stored: str, password: str = "", **environment: str) -> None:
        question, _ = self.asked(password or self.account.password, "john")
        environment = {"PASSWORD_SCHEME": "sha256_crypt rounds=1000", **environment}
        settings = Settings({**self.database.environment, **environment})
        self.module.rehash(question, stored.encode(), settings)

    def columns(self) -> tuple:
        """What stands in `crypt` and `clear`."""
        with closing(self.database.connect()) as connection:
            if self.database.kind == "mysql":
                connection.select_db("mail")
            cursor = connection.cursor()
            cursor.execute("SELECT crypt, clear FROM passwd WHERE id LIKE 'john%'")
            return tuple(cursor.fetchone())


@pytest.fixture
def john(database, accounts):
    account = accounts.add("john", listed=False)
    database.add(account)
    database.add(accounts.add("mary", listed=False))
    return Person(database, account)


def test_the_hash_is_replaced_by_one_of_its_kind(john):
    was = john.account.password
    john.change(was, AWKWARD)
    assert john.has(AWKWARD) and not john.has(was)
    stored, clear = john.columns()
    assert stored.startswith("{SHA}") and not clear
    assert john.has("secret of mary", "mary")  # nobody else's
    john.change(AWKWARD, "third", PASSWORD_SCHEME="sha256_crypt rounds=1000")
    assert john.columns()[0].startswith("$5$rounds=1000$")
    assert john.has("third")


@pytest.mark.parametrize("stored", ["", "hash too"])
def test_a_clear_password_is_replaced(john, stored):
    john.database.execute("UPDATE passwd SET clear = 'plain' WHERE id = 'john'")
    was = john.account.password
    if not stored:
        john.database.execute("UPDATE passwd SET crypt = '' WHERE id = 'john'")
        was = "plain"
    john.change(was, AWKWARD)
    assert john.has(AWKWARD) and not john.has(was)
    assert john.columns()[1] == AWKWARD
    assert bool(john.columns()[0]) == bool(stored)


def test_the_old_password_must_be_right(john):
    before = john.columns()
    for user, old in (("john", "wrong"), ("nobody", "x"), ("x' OR '1'='1", "x"), ("john", "")):
        with pytest.raises(Rejected):
            john.change(old, "new", user)
    for new in ("", "x" * 512, "a\0b"):
        with pytest.raises(Rejected):
            john.change(john.account.password, new)
    assert john.columns() == before


def test_a_policy_that_makes_no_sense_changes_nothing(john):
    before = john.columns()
    with pytest.raises(PermanentFailure, match="PASSWORD_SCHEME=rot13: not one of"):
        john.change(john.account.password, "new", PASSWORD_SCHEME="rot13")
    assert john.columns() == before


def test_the_default_domain_and_the_where_clause_count(john):
    john.database.execute("UPDATE passwd SET id = 'john@example.com' WHERE id = 'john'")
    john.database.configure(DEFAULT_DOMAIN="example.com", WHERE_CLAUSE="options <> 'closed'")
    john.change(john.account.password, "new")
    assert john.has("new")
    john.database.execute("UPDATE passwd SET options = 'closed' WHERE id = 'john@example.com'")
    with pytest.raises(Rejected):
        john.change("new", "newer")


def test_a_clause_of_the_sites_own(john):
    crypt = "UPDATE passwd SET crypt = '$(newpass_crypt)', options = '$(service)'"
    where = "WHERE id = '$(local_part)' AND '$(domain)' = ''"
    john.database.configure(CHPASS_CLAUSE=f"{crypt} {where}")
    john.change(john.account.password, AWKWARD)
    assert john.has(AWKWARD)
    assert john.columns()[0].startswith("{SHA}")
    john.database.configure(CHPASS_CLAUSE=f"UPDATE passwd SET crypt='', clear='$(newpass)' {where}")
    john.change(AWKWARD, "it's plain")
    assert john.columns() == ("", "it's plain")


def test_a_clause_that_changes_nothing_is_no_success(john):
    database = john.database
    database.configure(CHPASS_CLAUSE="UPDATE passwd SET crypt = '$(newpass_crypt)' WHERE id = 'x'")
    with pytest.raises(PermanentFailure) as raised:
        john.change(john.account.password, "new")
    assert str(raised.value).endswith("_CHPASS_CLAUSE: john has not the new password after it")
    assert john.has(john.account.password)
    database.configure(CHPASS_CLAUSE="UPDATE nothing SET crypt = '$(newpass_crypt)'")
    with pytest.raises(PermanentFailure, match="nothing"):
        john.change(john.account.password, "new")
    columns = "id, crypt, '', uid, gid, home"
    select = f"SELECT {columns} FROM passwd WHERE id = '$(local_part)'"
    database.configure(SELECT_CLAUSE=select)
    with pytest.raises(PermanentFailure, match="CHPASS_CLAUSE is not set"):
        john.change(john.account.password, "new")


def test_AUTHCHAIN_05_uid_0_changes_nothing(john):
    john.database.execute("UPDATE passwd SET uid = 0 WHERE id = 'john'")
    before = john.columns()
    with pytest.raises(PermanentFailure):
        john.change(john.account.password, "new")
    assert john.columns() == before


# PASSWORD_REHASH

UPDATE = "UPDATE passwd SET crypt = '$(newpass_crypt)' WHERE id = '$(local_part)'"


def test_a_rehash_replaces_the_hash_that_was_verified(john):
    stored, _ = john.columns()
    john.rehash(stored)
    fresh, clear = john.columns()
    assert fresh.startswith("$5$rounds=1000$") and not clear
    assert john.has(john.account.password) and john.has("secret of mary", "mary")
    with pytest.raises(Rejected):
        john.rehash(stored)  # it is another one now
    assert john.columns()[0] == fresh


def test_a_rehash_leaves_a_clear_password_alone(john):
    john.database.execute("UPDATE passwd SET clear = 'for CRAM' WHERE id = 'john'")
    john.rehash(john.columns()[0])
    assert john.columns()[0].startswith("$5$") and john.columns()[1] == "for CRAM"


@pytest.mark.parametrize("clause", [None, f"{UPDATE} AND crypt = '$(oldpass_crypt)'"])
def test_a_rehash_does_not_undo_a_change_that_comes_in_between(john, monkeypatch, clause):
    """After it has looked, and before it writes."""
    stored, _ = john.columns()
    john.database.configure(CHPASS_CLAUSE=clause)

    def slow(*_) -> bytes:
        john.change(john.account.password, "changed")
        return passwords.DUMMY

    monkeypatch.setattr(newpassword, "renewed", slow)
    john.rehash(stored)
    assert john.has("changed") and not john.has(john.account.password)


def test_a_rehash_by_a_clause_of_the_sites_own(john):
    stored, _ = john.columns()
    john.database.configure(CHPASS_CLAUSE=UPDATE)
    with pytest.raises(PermanentFailure, match="_CHPASS_CLAUSE: it would undo a change made mean"):
        john.rehash(stored)
    assert john.columns()[0] == stored
    john.database.configure(CHPASS_CLAUSE=f"{UPDATE} AND crypt = '$(oldpass_crypt)'")
    john.rehash(stored)
    assert john.columns()[0].startswith("$5$rounds=1000$")
    john.change(john.account.password, AWKWARD)  # it will do for that, too
    assert john.has(AWKWARD)


def test_a_rehash_that_changes_nothing_is_said(john):
    stored, _ = john.columns()
    john.database.configure(CHPASS_CLAUSE=f"{UPDATE} AND id = 'x' AND crypt = '$(oldpass_crypt)'")
    with pytest.raises(PermanentFailure, match="_CHPASS_CLAUSE: john has not the new hash after"):
        john.rehash(stored)
    query = "SELECT id, crypt, '', uid, gid, home FROM passwd WHERE id = '$(local_part)'"
    john.database.configure(SELECT_CLAUSE=query)
    with pytest.raises(PermanentFailure, match="CHPASS_CLAUSE is not set"):
        john.rehash(stored)
    with pytest.raises(PermanentFailure, match="PASSWORD_SCHEME=rot13: not one of"):
        john.rehash(stored, PASSWORD_SCHEME="rot13")
    assert john.columns()[0] == stored


def test_one_rehash_at_a_time(john):
    stored, _ = john.columns()
    with newpassword.alone(str(john.database.rc)), pytest.raises(Rejected):
        john.rehash(stored)
    assert john.columns()[0] == stored
    john.rehash(stored)
    assert john.columns()[0] != stored


def test_a_hash_is_not_cut_to_the_width_of_its_column(john):
    if john.database.kind == "sqlite":
        pytest.skip("SQLite's columns have no width")
    kind = "MODIFY crypt" if john.database.kind == "mysql" else "ALTER crypt TYPE"
    john.database.execute(f"ALTER TABLE passwd {kind} varchar(40)")
    if john.database.kind == "mysql":
        john.database.execute("SET GLOBAL sql_mode = ''")
    before = john.columns()
    try:
        with pytest.raises(TemporaryFailure, match="too long"):
            john.rehash(before[0])
        with pytest.raises(TemporaryFailure, match="too long"):
            john.change(john.account.password, "new", PASSWORD_SCHEME="sha256_crypt rounds=1000")
    finally:
        if john.database.kind == "mysql":
            john.database.execute("SET GLOBAL sql_mode = DEFAULT")
    assert john.columns() == before
    assert john.has(john.account.password)


def test_a_login_rehashes(john, ask):
    on = {"PASSWORD_REHASH": "1", "PASSWORD_SCHEME": "sha256_crypt rounds=1000"}
    settings = {**john.database.environment, **on}
    module, was = john.database.module, john.account.password
    done = f"INFO: {module}: password rehashed, user=john\n"
    found = ask(module, "john", was, **settings)
    assert (found.word, found.log) == ("accepted", done)
    fresh, _ = john.columns()
    assert fresh.startswith("$5$rounds=1000$")
    found = ask(module, "john", was, **settings)
    assert (found.word, found.log, john.columns()[0]) == ("accepted", "", fresh)
    john.database.execute("UPDATE passwd SET crypt = '', clear = 'plain' WHERE id = 'john'")
    found = ask(module, "john", "plain", **settings)
    assert (found.word, found.log, john.columns()) == ("accepted", "", ("", "plain"))


def test_a_login_by_an_app_password_rehashes_nothing(john, ask):
    stored, _ = john.columns()
    select = f"SELECT '{sha('for a phone')}', 'phone'"
    john.database.configure(APP_PASSWORD_CLAUSE=select)
    on = {"PASSWORD_REHASH": "1", "PASSWORD_SCHEME": "sha256_crypt rounds=1000"}
    found = ask(john.database.module, "john", "for a phone", **john.database.environment, **on)
    assert found.word == "accepted" and "rehash" not in found.log
    assert john.columns()[0] == stored


# authpipe

PROGRAM = """#!{python} -IS
import sys
line = sys.stdin.buffer.readline()
asked = {{b"PASSWD pop3\\tjohn\\told\\tnew\\n": b"OK\\n", b"PASSWD pop3\\tjohn\\tx\\tdies\\n": b""}}
sys.stdout.buffer.write(asked.get(line, b"FAIL\\n"))
"""


@pytest.fixture
def pipe(script):
    program = script("authProg", PROGRAM.format(python=sys.executable))

    def change(old: str, new: str) -> None:
        question = request.parse(f"pop3\nlogin\njohn\n{old}\n\n".encode())
        authpipe.authpipe.change(question, new.encode(), Settings({"AUTHPIPE_PROGRAM": program}))

    return change


def test_a_program_changes_a_password(pipe):
    pipe("old", "new")
    for old, new in (("wrong", "new"), ("old", "a\tb"), ("old", "")):
        with pytest.raises(Rejected):
            pipe(old, new)
    with pytest.raises(TemporaryFailure, match="has ended without a whole answer"):
        pipe("x", "dies")
