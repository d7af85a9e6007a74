"""authvchkpw: vpopmail's users/assign and vpasswd, as vpopmail writes them."""

from __future__ import annotations

import pytest

from tests.authmodules.asking import HOSTILE, NO_DELAY, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.conftest import ROOT, sha


@pytest.fixture
def domain(public, accounts):
    """example.com, with the other name example.net; the home of john, and two broken domains."""
    john = accounts.add("john", listed=False)
    ids = f"{john.uid}:{john.gid}"
    (public / "assign").write_text(
        f"+example.com-:example.com:{ids}:{public}:-::\n"
        f"+example.net-:example.com:{ids}:{public}:-::\n"
        f"+root.example-:root.example:0:0:{public}:-::\n"
        f"+gone.example-:gone.example:{ids}:{public}/gone:-::\n"
        "+broken.example-:broken\n.\n"
    )
    hashed = sha("secret")
    lines = [
        f"john:{hashed}:0:0:John:{john.home}:NOQUOTA",
        f"clear:{hashed}:0:0:John:{john.home}:1000S:secret",
        f"nopop:{hashed}:0:2:John:{john.home}:NOQUOTA",
        f"noimap:{hashed}:0:12:John:{john.home}:NOQUOTA",
        f"locked:!{hashed}:0:0:John:{john.home}:NOQUOTA",
        f"empty::0:0:John:{john.home}:NOQUOTA",
        f"odd:{hashed}:0:x:John:{john.home}:NOQUOTA",
        "short:x:0",
    ]
    (public / "vpasswd").write_text("\n".join(lines) + "\n")
    return public


@pytest.fixture
def vchkpw(ask, domain):
    def vchkpw(user="john@example.com", password="secret", **more):
        settings = {"VPOPMAIL_ASSIGN": domain / "assign", "VPOPMAIL_DOMAIN": "", **more}
        return ask("authvchkpw", user, password, **settings)

    return vchkpw


def test_a_user_of_a_domain(vchkpw, domain):
    found = vchkpw()
    assert found.word == "accepted", found
    assert found.env["AUTHADDR"] == "john@example.com"
    assert found.env["AUTHFULLNAME"] == "John"
    assert found.env["MAILDIR"] == ""
    assert found.env["CWD"] == str(domain / "home1")
    if ROOT:
        assert found.env["UID"] == found.env["GROUPS"] == "20001"


@pytest.mark.parametrize("user", ["JOHN@Example.Com", "john%example.com", "john@example.net"])
def test_other_ways_to_write_it(vchkpw, user):
    found = vchkpw(user)
    assert (found.word, found.env["AUTHADDR"]) == ("accepted", "john@example.com")


def test_a_userid_without_a_domain_has_the_default_one(vchkpw):
    assert vchkpw("john").word == "rejected"
    assert vchkpw("john", VPOPMAIL_DOMAIN="example.com").word == "accepted"
    assert vchkpw("john", VPOPMAIL_DOMAIN="example.org").word == "rejected"


@pytest.mark.parametrize(
    "user, password",
    [
        ("john@example.com", "wrong"),
        ("nobody@example.com", "secret"),
        ("john@example.org", "secret"),
        ("nopop@example.com", "secret"),
        ("locked@example.com", "secret"),
        ("empty@example.com", "secret"),
        ("clear@example.com", "x"),
        ("@example.com", "secret"),
        ("john@", "secret"),
    ],
)
def test_who_is_rejected(vchkpw, user, password):
    assert vchkpw(user, password).word == "rejected"


def test_flags_are_for_their_service(vchkpw):
    assert vchkpw("noimap@example.com").word == "accepted"
    record = b"imap\nlogin\nnoimap@example.com\nsecret\n\n"
    assert vchkpw(record=record).word == "rejected"
    assert vchkpw(record=record.replace(b"noimap", b"nopop")).word == "accepted"


@pytest.mark.parametrize("user", HOSTILE.values(), ids=HOSTILE.keys())
def test_CVE_05_CVE_48_hostile_userids_find_nobody(vchkpw, user):
    for whole in (user, b"john@" + user):
        assert vchkpw(whole, VPOPMAIL_DOMAIN="example.com").word == "rejected"


def test_no_other_type_of_request_is_looked_up(vchkpw):
    assert vchkpw(record=external(b"john@example.com")).word == "rejected"
    assert vchkpw(record=b"pop3\nlogin\njohn@example.com\nx\nsecret\n\n").word == "rejected"


def test_AUTHCHAIN_05_uid_0_is_refused(vchkpw):
    found = vchkpw("john@root.example")
    assert (found.word, found.env["WHY"]) == ("trouble", "permanent")


@pytest.mark.parametrize(
    "user, said",
    [
        ("john@gone.example", "gone/vpasswd: No such file or directory"),
        ("john@broken.example", "the line of '+broken.example-' lacks a field"),
        ("short@example.com", "the line of 'short' lacks a field"),
        ("odd@example.com", "'odd': 'x' is no number"),
    ],
)
def test_3206_02_what_is_wrong_with_the_files_is_a_temporary_failure(vchkpw, user, said):
    found = vchkpw(user)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert said in found.log


def test_files_that_everybody_may_write_are_not_believed(vchkpw, domain):
    (domain / "vpasswd").chmod(0o666)
    assert "may be written by everybody" in vchkpw().log
    (domain / "assign").unlink()
    assert "assign: No such file or directory" in vchkpw().log


def test_the_whole_chain(serve, any_mode, domain, accounts):
    mary = accounts.add("mary")
    stages = ["courierpop3login", "authvchkpw", "authuserdb", "courierpop3d", "./Maildir"]
    server = serve(
        *any_mode, stages=stages, env={"VPOPMAIL_ASSIGN": str(domain / "assign"), **NO_DELAY}
    )

    assert server.answer("john@example.com", "secret") == "+OK logged in."
    assert server.answer("mary", mary.password) == "+OK logged in."
    assert server.answer("john@example.com", "wrong") == "-ERR Login failed."
    assert server.answer("john@example.net", "secret") == "+OK logged in."
