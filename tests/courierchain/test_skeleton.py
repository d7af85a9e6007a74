"""AUTH_MKHOMEDIR_SKEL: the first login makes the home, whole and the account's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT, sha


@pytest.fixture
def skeleton(public) -> Path:
    made = public / "skel"
    for folder in ("new", "cur", "tmp"):
        (made / "Maildir" / folder).mkdir(parents=True)
    (made / "Maildir").chmod(0o700)
    (made / "Maildir/new/1700000001.welcome").write_text("Subject: welcome\n\n")
    (made / "Maildir/new/1700000001.welcome").chmod(0o600)
    (made / "mail").symlink_to("Maildir")
    return made


@pytest.fixture
def homeless(accounts):
    account = accounts.add("john")
    for path in sorted(account.home.rglob("*"), reverse=True):
        path.rmdir()
    account.home.rmdir()
    return account


def test_the_first_login_makes_the_home(serve, any_mode, homeless, skeleton):
    server = serve(*any_mode, env={"AUTH_MKHOMEDIR_SKEL": str(skeleton)})
    with server.client().login(homeless) as client:
        assert client.listing("RETR 1") == ["Subject: welcome", ""]
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert os.readlink(homeless.home / "mail") == "Maildir"
    assert (homeless.maildir.stat().st_mode & 0o777) == 0o700
    for path in (homeless.home, *homeless.home.rglob("*")):
        there = path.lstat()
        assert not ROOT or (there.st_uid, there.st_gid) == (homeless.uid, homeless.gid)
    assert [path.name for path in homeless.home.parent.iterdir() if path.name[0] == "."] == []


def test_a_home_that_is_there_is_left_as_it_is(serve, john, skeleton):
    server = serve(env={"AUTH_MKHOMEDIR_SKEL": str(skeleton)})
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"
    assert not (john.home / "mail").is_symlink()


def test_what_cannot_be_made_is_a_warning_and_no_login(serve, accounts, skeleton):
    ids = {"uid": os.getuid() or 20099, "gid": os.getgid() or 20099}
    accounts.record("jane", **ids, home="/proc/none", systempw=sha("secret"))
    server = serve(env={"AUTH_MKHOMEDIR_SKEL": str(skeleton)})
    with server.client() as client:
        client.line()
        assert client.ask("USER jane") == "+OK Password required."
        assert client.ask("PASS secret").startswith("-ERR")
    server.logged(r"WARN: cannot make the home /proc/none from /.*/skel: .+")
