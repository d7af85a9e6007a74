"""Passwords for one device each, in a table of their own beside that of the accounts."""

from __future__ import annotations

import time

import pytest

from courierchain.authmodule import PermanentFailure, Rejected
from tests.authmodules.test_password_change import Person
from tests.conftest import sha

TABLE = """CREATE TABLE apps (id varchar(128), service varchar(32), crypt varchar(128),
    device varchar(128), expires bigint)"""
ROWS = [
    ("john", "pop3", "phone one", "John's phone", None),
    ("john", "*", "all of it", "tablet", None),
    ("john", "imap", "not here", "laptop", None),
    ("john", "pop3", "too late", "old phone", 1_700_000_000),
    ("john", "pop3", "in time", "new phone", 4_000_000_000),
    ("mary", "pop3", "of mary", "phone", None),
]


@pytest.fixture
def john(database, accounts):
    database.add(accounts.add("john", listed=False))
    database.add(accounts.add("mary", listed=False))
    database.execute("DROP TABLE IF EXISTS apps")
    database.execute(TABLE)
    for name, service, secret, device, expires in ROWS:
        device = device.replace("'", "''")
        values = f"'{name}', '{service}', '{sha(secret)}', '{device}', {expires or 'NULL'}"
        database.execute(f"INSERT INTO apps VALUES ({values})")
    database.configure(APP_PASSWORD_TABLE="apps")
    yield Person(database, None)
    database.execute("DROP TABLE apps")


def test_each_is_for_its_account_and_service_until_it_expires(john, capfd):
    accepted = [secret for _, _, secret, *_ in ROWS if john.has(secret)]
    assert accepted == ["phone one", "all of it", "in time"]
    name = john.module.name
    assert capfd.readouterr().err.splitlines() == [
        f"INFO: {name}: app password, user=john, device={device}"
        for device in ("John's.phone", "tablet", "new.phone")
    ]
    assert john.has("secret of john")  # his own one still counts,
    assert capfd.readouterr().err == ""  # and is no device's
    assert john.has("of mary", "mary")
    for wrong in ("", "phone", sha("phone one"), "x" * 600):
        assert not john.has(wrong)
    assert not john.has("phone one", "nobody")
    assert not john.has("phone one", "' OR '1'='1")


def test_without_the_setting_there_are_none(john):
    john.database.configure()
    assert john.has("secret of john")
    assert not john.has("phone one")


def test_what_an_account_is_allowed(john):
    for options, own, app in (
        ("", True, True),
        ("disableapppasswords", True, False),
        ("disableapppasswords=1,x=y", True, False),
        ("disableapppasswords=0", True, True),
        ("onlyapppasswords=1", False, True),
        ("onlyapppasswords,disableapppasswords", False, False),
    ):
        john.database.execute(f"UPDATE passwd SET options = '{options}' WHERE id = 'john'")
        assert (john.has("secret of john"), john.has("phone one")) == (own, app), options


def test_who_has_only_those_has_none_without_a_table(john):
    john.database.execute("UPDATE passwd SET options = 'onlyapppasswords' WHERE id = 'john'")
    john.database.configure()
    assert not john.has("secret of john")
    assert not john.has("phone one")


def test_a_locked_account_has_none(john):
    john.database.execute("UPDATE passwd SET crypt = '!{SHA}x' WHERE id = 'john'")
    assert not john.has("phone one")


def test_AUTHCHAIN_05_uid_0_has_none(john):
    john.database.execute("UPDATE passwd SET uid = 0 WHERE id = 'john'")
    with pytest.raises(PermanentFailure, match="uid 0"):
        john.has("phone one")


def test_a_query_of_the_sites_own(john):
    where = "WHERE id = '$(local_part)' AND service = '$(service)'"
    john.database.configure(APP_PASSWORD_CLAUSE=f"SELECT crypt, device FROM apps {where}")
    assert john.has("phone one") and john.has("too late")  # there is no `expires` in it
    assert not john.has("all of it")
    john.database.configure(APP_PASSWORD_CLAUSE=f"SELECT crypt FROM apps {where}")
    with pytest.raises(PermanentFailure, match="APP_PASSWORD_CLAUSE gives 1 columns"):
        john.has("phone one")
    assert john.has("secret of john")
    john.database.configure(APP_PASSWORD_TABLE="nothing_here")
    with pytest.raises(PermanentFailure, match="nothing_here"):
        john.has("phone one")


def test_no_app_password_changes_the_accounts_own(john):

    with pytest.raises(Rejected):
        john.change("phone one", "new")
    assert john.has("secret of john")


def test_a_time_that_is_none_is_over(john):
    john.database.configure(
        APP_PASSWORD_CLAUSE="SELECT crypt, device, 'soon' FROM apps WHERE id = '$(local_part)'"
    )
    assert not john.has("phone one")
    later = int(time.time()) + 1000
    john.database.configure(
        APP_PASSWORD_CLAUSE=f"SELECT crypt, device, '{later}' FROM apps WHERE id = '$(local_part)'"
    )
    assert john.has("too late")
