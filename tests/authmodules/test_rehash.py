"""PASSWORD_REHASH: a login replaces a hash that isn't of the site's policy, and is none the worse.

A module that is asked alone (`ask`) has its log read to the end, so a test sees what the process
has done that it left behind.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from authmodules.authuserdb import authuserdb
from courierchain import newhash, passwords, request
from courierchain.authmodule import Rejected
from courierchain.settings import Settings
from tests.authmodules.asking import NO_DELAY
from tests.authmodules.asking import ask as ask  # a fixture
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.conftest import BIN, needs_module, needs_root, sha, wait_until

POLICY = "sha256_crypt rounds=1000"
ON = {"PASSWORD_REHASH": "1", "PASSWORD_SCHEME": POLICY}
DONE = "INFO: authuserdb: password rehashed, user=john\n"


def fields(userdb: Path, user: str = "john") -> dict[str, str]:
    (line,) = [line for line in userdb.read_text().splitlines() if line.startswith(user + "\t")]
    return dict(field.split("=", 1) for field in line.partition("\t")[2].split("|"))


def hash_in(userdb: Path, user: str = "john") -> str:
    return fields(userdb, user)["systempw"]


@pytest.fixture
def login(ask, john):
    def login(password=john.password, **settings):
        return ask("authuserdb", "john", password, **{**ON, **settings})

    return login


def make_databases(userdb: Path) -> None:
    needs_module("_gdbm")
    subprocess.run([BIN / "makeuserdb"], env={"AUTHUSERDB_FILE": str(userdb)}, check=True)


@contextmanager
def locked(path: Path):
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_hash_becomes_one_of_the_policy_and_stays(login, accounts, john):
    userdb = accounts.userdb
    accounts.record("mary", systempw=sha("other"), uid=5, gid=5, home="/")
    before = userdb.read_text()
    mode, owner = userdb.stat().st_mode, userdb.stat().st_uid
    found = login()
    assert (found.word, found.log) == ("accepted", DONE)
    fresh = hash_in(userdb)
    assert fresh.startswith("$5$rounds=1000$")
    assert userdb.read_text() == before.replace(sha(john.password), fresh)
    assert (userdb.stat().st_mode, userdb.stat().st_uid) == (mode, owner)
    found = login()
    assert (found.word, found.log, hash_in(userdb)) == ("accepted", "", fresh)
    assert login(PASSWORD_SCHEME="sha256_crypt rounds=1001").log == DONE
    assert hash_in(userdb).startswith("$5$rounds=1001$")
    assert login("wrong").word == "rejected"


@pytest.mark.parametrize(
    "settings",
    [
        {"PASSWORD_REHASH": ""},
        {"PASSWORD_REHASH": "0"},
        {"PASSWORD_SCHEME": ""},
        {"PASSWORD_SCHEME": "SHA"},
    ],
)
def test_nothing_is_done_unless_it_is_on_and_due(login, accounts, john, settings):
    found = login(**settings)
    assert (found.word, found.log) == ("accepted", "")
    assert hash_in(accounts.userdb) == sha(john.password)


def test_a_wrong_password_and_a_certificate_change_nothing(login, ask, accounts, john):
    assert (login("wrong").word, login("wrong").log) == ("rejected", "")
    external = ask("authuserdb", record=b"pop3\nexternal\njohn\n\n", **ON)
    assert (external.word, external.log) == ("accepted", "")
    assert hash_in(accounts.userdb) == sha(john.password)


def test_the_field_of_the_service_is_replaced_and_no_other(ask, accounts):
    state = "0" * 64
    john = accounts.add("john", pop3pw=sha("for pop3"), **{"hmac-md5pw": state})
    before = fields(accounts.userdb)
    assert ask("authuserdb", "john", "for pop3", **ON).log == DONE
    after = fields(accounts.userdb)
    assert passwords.verify(b"for pop3", after.pop("pop3pw").encode())
    assert before.pop("pop3pw") == sha("for pop3")
    assert after == before
    assert ask("authuserdb", "john", john.password, **ON).word == "rejected"


def test_what_SCRAM_needs_stays(ask, accounts):
    form = newhash.make(b"secret", "SCRAM-SHA-1").decode()
    accounts.add("john", pop3pw=form)
    found = ask("authuserdb", "john", "secret", **ON)
    assert (found.word, found.log) == ("accepted", "")
    assert fields(accounts.userdb)["pop3pw"] == form


def test_databases_are_made_again(login, accounts):
    make_databases(accounts.userdb)
    assert login().log == DONE
    with needs_module("_gdbm").open(f"{accounts.userdb}shadow.dat", "ru") as shadow:
        assert shadow[b"john"] == b"systempw=" + hash_in(accounts.userdb).encode()
    assert login().log == ""


def asked(password: str, user: str = "john") -> request.Request:
    return request.parse(f"pop3\nlogin\n{user}\n{password}\n\n".encode())


def test_a_password_that_was_changed_meanwhile_stays(accounts, john):
    settings = Settings({"AUTHUSERDB_FILE": str(accounts.userdb), **ON})
    verified = hash_in(accounts.userdb)
    authuserdb.change(asked(john.password), b"new", settings)
    changed = accounts.userdb.read_text()
    with pytest.raises(Rejected):
        authuserdb.rehash(asked(john.password), verified.encode(), settings)
    assert accounts.userdb.read_text() == changed
    assert passwords.verify(b"new", hash_in(accounts.userdb).encode())


def test_it_waits_for_nobody_who_is_changing_the_text(login, accounts, john):
    with locked(accounts.directory / ".lock.userdb"):
        found = login()
    assert (found.word, found.log) == ("accepted", "")
    assert hash_in(accounts.userdb) == sha(john.password)
    assert login().log == DONE


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"PASSWORD_SCHEME": "rot13"}, "PASSWORD_SCHEME=rot13: not one of argon2, "),
        ({"PASSWORD_SCHEME": "bcrypt x"}, "x: not of the form NAME=NUMBER"),
        ({"PASSWORD_REHASH": "yes"}, "PASSWORD_REHASH=yes: not one of 0, 1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line_and_no_refusal(login, accounts, settings, said):
    before = accounts.userdb.read_text()
    found = login(**settings)
    assert found.word == "accepted"
    (line,) = found.log.splitlines()
    assert line.startswith("WARN: authuserdb: no new hash, user=john: ") and said in line
    assert accounts.userdb.read_text() == before


def test_a_password_that_the_scheme_cannot_take_keeps_its_hash_without_a_word(ask, accounts):
    accounts.add("john", pop3pw=sha("x" * 73))
    found = ask("authuserdb", "john", "x" * 73, PASSWORD_REHASH=1, PASSWORD_SCHEME="bcrypt")
    assert (found.word, found.log) == ("accepted", "")
    accounts.record("paul", systempw=sha("\x07"), uid=os.getuid() or 5, gid=5, home="/")
    found = ask("authuserdb", "paul", "\x07", PASSWORD_REHASH=1, PASSWORD_SCHEME="SCRAM-SHA-1")
    assert found.log == "" or "cannot become" in found.log
    assert hash_in(accounts.userdb, "paul") == sha("\x07")


# In the chain

RESIDENT = pytest.mark.parametrize("options", [[], ["-prefork=2"], ["-uses=100"]], ids=str)
REHASHED = r"INFO: authuserdb: password rehashed, user=john"


def test_the_session_goes_on_meanwhile(serve, any_mode, accounts, john):
    """While somebody makes the databases, which a rehash has to wait for."""
    make_databases(accounts.userdb)
    server = serve(*any_mode, env={**ON, **NO_DELAY})
    with locked(accounts.directory / "userdb.lock"):
        with server.client() as client:
            client.line()
            assert client.try_login("john", john.password) == "+OK logged in."
            wait_until(lambda: hash_in(accounts.userdb) != sha(john.password), "the text is new")
            client.send(b"QUIT\r\n")
            assert client.line().startswith(b"+OK")
            assert client.rest() == b""
        assert not any("rehashed" in line for line in server.lines())
    server.logged(REHASHED)
    assert server.answer("john", john.password) == "+OK logged in."
    assert sum("rehash" in line for line in server.lines()) == 1


@RESIDENT
def test_what_cannot_be_written_is_one_line_for_many_logins(serve, accounts, john, options):
    (accounts.directory / ".lock.userdb").mkdir()
    server = serve(*options, env={**ON, **NO_DELAY})
    failed = r"WARN: authuserdb: no new hash, user=john: Can't open .*/\.lock\.userdb: .*"
    assert server.answer("john", john.password) == "+OK logged in."
    server.logged(failed)
    for _ in range(3):
        assert server.answer("john", john.password) == "+OK logged in."
    (accounts.directory / ".lock.userdb").rmdir()
    assert server.answer("john", john.password) == "+OK logged in."  # it is left for a while
    assert hash_in(accounts.userdb) == sha(john.password)
    assert sum("no new hash" in line for line in server.lines()) == 1


def test_modules_without_rights_log_people_in_as_before(serve, accounts):
    needs_root()
    john = accounts.add("john")
    os.chown(accounts.userdb, john.uid, john.gid)
    server = serve(f"-user={john.uid}", f"-group={john.gid}", env={**ON, **NO_DELAY})
    assert server.answer("john", john.password) == "+OK logged in."
    server.logged(r"WARN: authuserdb: no new hash, user=john: Can't open .*: Permission denied")
    assert hash_in(accounts.userdb) == sha(john.password)


def test_authdaemond_does_it_too(authdaemond, accounts, john):
    daemon = authdaemond(
        authmodulelist="authuserdb", AUTHUSERDB_FILE=accounts.userdb, **ON, daemons=2
    )
    with locked(accounts.directory / ".lock.userdb"):
        assert b"ADDRESS=john\n" in daemon.login("john", john.password)
    assert b"ADDRESS=john\n" in daemon.login("john", john.password)
    wait_until(lambda: DONE in daemon.log.read_text(), "it is rehashed")
    assert hash_in(accounts.userdb).startswith("$5$rounds=1000$")
    assert b"ADDRESS=john\n" in daemon.login("john", john.password)
    words = f"PASSWD pop3\tjohn\t{john.password}\tnew\n".encode()
    assert daemon.ask(words) == b"OK\n"
    assert b"ADDRESS=john\n" in daemon.login("john", "new")
    assert daemon.log.read_text().count("rehashed") == 1
