"""authcustom: a site's own function, the file that it is in, and what may be wrong with both."""

from __future__ import annotations

import os

import pytest

from tests.authmodules.asking import HOSTILE, NO_DELAY, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.conftest import ROOT, needs_root, wait_until

RULE = """
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure

def authcustom(request, settings):
    if request.login == (b"mary", b"down"):
        raise TemporaryFailure("the site's database is down")
    if request.login == (b"mary", b"broken"):
        return 1 / 0
    if request.login == (b"mary", b"odd"):
        return "mary"
    if request.login == (b"root", b"secret"):
        return Account(user="root", uid=0, gid=0, home="/root")
    if request.external is None and request.login != (b"john", b"secret"):
        raise Rejected
    if request.external in (None, b"john"):
        return Account(user="john", uid=UID, gid=GID, home="HOME", options="x=1", maildir="/m")
"""


@pytest.fixture
def rule(public, accounts):
    john = accounts.add("john", listed=False)
    path = public / "custom.py"
    text = RULE.replace("UID", str(john.uid)).replace("GID", str(john.gid))
    path.write_text(text.replace("HOME", str(john.home)))
    path.chmod(0o644)
    return path


@pytest.fixture
def custom(ask, rule):
    def custom(user="john", password="secret", *, name="authcustom", **more):
        return ask("authcustom", user, password, AUTHCUSTOM=f"{rule}:{name}", **more)

    return custom


def test_the_function_accepts(custom, rule):
    found = custom()
    assert found.word == "accepted", found
    assert found.env["AUTHENTICATED"] == found.env["AUTHADDR"] == "john"
    assert found.env["MAILDIR"] == "/m"
    assert found.env["OPTIONS"] == "x=1"
    assert found.env["CWD"] == str(rule.parent / "home1")
    if ROOT:
        assert found.env["UID"] == found.env["GROUPS"] == "20001"


def test_the_function_rejects_by_exception_or_by_nothing(custom):
    assert custom(password="wrong").word == "rejected"
    assert custom(record=external(b"mary")).word == "rejected"
    assert custom(record=external(b"john")).word == "accepted"


@pytest.mark.parametrize("user", HOSTILE.values(), ids=HOSTILE.keys())
def test_CVE_05_CVE_48_hostile_userids_reach_the_function_as_they_are(custom, user):
    assert custom(user=user).word == "rejected"


@pytest.mark.parametrize(
    "password, said",
    [
        ("down", "authcustom: the site's database is down"),
        ("broken", "authcustom: internal error: ZeroDivisionError"),
        ("odd", "authcustom: the function has returned str, not Account"),
    ],
)
def test_3206_02_a_function_in_trouble_is_a_temporary_failure(custom, password, said):
    found = custom("mary", password)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert said in found.log


def test_AUTHCHAIN_05_uid_0_is_refused(custom):
    found = custom("root")
    assert (found.word, found.env["WHY"]) == ("trouble", "permanent")
    assert "uid 0, gid 0: not ids that may own a mailbox" in found.log


def test_a_file_that_others_may_write_is_not_run(custom, rule):
    rule.chmod(0o664)
    found = custom()
    assert found.word == "trouble"
    assert "has mode 664, others may write it (chmod 644" in found.log


def test_a_file_of_somebody_else_is_not_run(custom, rule):
    needs_root()
    os.chown(rule, 20001, 20001)
    found = custom()
    assert found.word == "trouble"
    assert "is not a file of root's (chown root" in found.log


def test_what_is_wrong_with_the_file_is_said_in_one_line(custom, rule, ask):
    assert "has no function nobody (AUTHCUSTOM=" in custom(name="nobody").log
    rule.write_text("import this is wrong\n")
    assert f"authcustom: {rule} line 1: invalid syntax" in custom().log
    rule.write_text("raise KeyError('a secret')\n")
    broken = custom()
    assert f"{rule} cannot be loaded: KeyError ({rule}:1)" in broken.log
    assert "secret" not in broken.log
    rule.unlink()
    assert f"cannot read {rule}: No such file or directory" in custom().log
    relative = ask("authcustom", AUTHCUSTOM="custom.py:authcustom")
    assert "not an absolute FILE, a colon and a name" in relative.log
    for outcome in (broken, relative):
        assert (outcome.word, len(outcome.log.splitlines())) == ("trouble", 1)


def test_the_whole_chain_and_a_change_of_the_file(serve, any_mode, rule, accounts):
    stages = ["courierpop3login", "authcustom", "authuserdb", "courierpop3d", "./Maildir"]
    mary = accounts.add("mary")
    text = rule.read_text().replace("/m", "")
    rule.write_text(text)
    server = serve(*any_mode, stages=stages, env={"AUTHCUSTOM": f"{rule}:authcustom", **NO_DELAY})

    assert server.answer("john", "secret") == "+OK logged in."
    assert server.answer("mary", mary.password) == "+OK logged in."  # of the next module
    assert server.answer("john", "wrong") == "-ERR Login failed."
    rule.write_text(text.replace('b"secret"', 'b"another one"'))
    assert wait_until(lambda: server.answer("john", "another one") == "+OK logged in.")
    assert server.answer("john", "secret") == "-ERR Login failed."


# Changing a password

CHANGE = """
from courierchain.account import Account
from courierchain.authmodule import Rejected

PASSWORDS = "DIRECTORY/passwords"

def authcustom(request, settings):
    if request.login and open(PASSWORDS, "rb").read() == b" ".join(request.login):
        return Account(user="john", uid=UID, gid=UID, home="/")

"""
CHANGES = """
def change(request, new, settings):
    if new == b"taken":
        raise Rejected
    if new != b"forgotten":
        open(PASSWORDS, "wb").write(b"%s %s" % (request.login[0], new))
"""


@pytest.fixture
def site(public, authdaemond):
    """site(text): an authdaemond with such a file; john's password is `secret`."""
    (public / "passwords").write_bytes(b"john secret")

    def start(text: str):
        path = public / "custom.py"
        text = text.replace("DIRECTORY", str(public)).replace("UID", str(os.getuid() or 20001))
        path.write_text(text)
        path.chmod(0o644)
        return authdaemond(authmodulelist="authcustom", AUTHCUSTOM=f"{path}:authcustom")

    return start


def test_the_files_own_function_changes_a_password(site):
    daemon = site(CHANGE + CHANGES)
    change = b"PASSWD pop3\tjohn\t%s\t%s\n"
    for old, new in ((b"wrong", b"new"), (b"secret", b"taken"), (b"secret", b"x" * 512)):
        assert daemon.ask(change % (old, new)) == b"FAIL\n"
    assert daemon.ask(change % (b"secret", b"forgotten")) == b""
    assert "custom.py: the new password isn't taken after change()\n" in daemon.log.read_text()
    assert b"ADDRESS=john\n" in daemon.login("john", "secret")
    assert daemon.ask(change % (b"secret", b"new")) == b"OK\n"
    assert b"ADDRESS=john\n" in daemon.login("john", "new")
    assert daemon.login("john", "secret") == b"FAIL\n"


def test_a_file_without_such_a_function_changes_none_and_the_log_says_so(site):
    daemon = site(CHANGE)
    assert daemon.ask(b"PASSWD pop3\tjohn\tsecret\tnew\n") == b"FAIL\n"
    log = daemon.log.read_text()
    assert "WARN: authcustom: this password can't be changed here, user=john: /" in log
    assert "custom.py has no function change\n" in log
    assert b"ADDRESS=john\n" in daemon.login("john", "secret")
