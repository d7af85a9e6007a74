"""PASSWD: our authdaemond changes passwords as Debian's does, for Debian's authtest and ours."""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authdaemond import question
from courierchain import newhash, passwords
from courierchain.request import BadRequest
from tests.authdaemon.conftest import LIB
from tests.conftest import BIN

ORIGINALS = "/usr/sbin"
CHANGED = (0, "", "Password change succeeded.\n")
FAILED = (1, "", "Authentication FAILED: Operation not permitted\n")


def told(site, *words: str) -> tuple[int, str, str]:
    done = site.run(*words)
    return done.returncode, done.stdout, done.stderr


def is_password(site, user: str, password: str, service: str = "pop3") -> bool:
    status, _, err = told(site, f"{ORIGINALS}/authtest", "-s", service, user, password)
    assert (status, err) in ((0, ""), FAILED[::2])
    return status == 0


def conversation(site, authtest: str) -> list[tuple[int, str, str]]:
    """What an authtest prints; each password is afterwards what it was."""
    was, mary = site.mary.password, ("mary", site.mary.password, "new secret")
    outcomes = [told(site, authtest, *mary)]
    assert is_password(site, "mary", "new secret") and not is_password(site, "mary", was)
    outcomes += [
        told(site, authtest, *mary),  # the old one is wrong now
        told(site, authtest, "mary", "wrong", "x"),
        told(site, authtest, "nobody-here", "x", "y"),
        told(site, authtest, "mary", "new secret", "with\ttab"),
        told(site, authtest, "mary", "", "empty"),
        told(site, authtest, "mary", "new secret", was),
    ]
    assert is_password(site, "mary", was) and not is_password(site, "mary", "new secret")
    return outcomes


@pytest.fixture(scope="module")
def of_the_original(site):
    site.start(LIB / "authdaemond")
    said = conversation(site, f"{ORIGINALS}/authtest")
    site.stop()
    return said


@pytest.fixture(scope="module")
def ours(site, of_the_original):
    site.start(BIN / "authdaemond")
    yield site
    site.stop()


@pytest.mark.parametrize("folder", [ORIGINALS, str(BIN)])
def test_it_changes_passwords_as_the_original_does(ours, of_the_original, folder):
    assert conversation(ours, f"{folder}/authtest") == of_the_original
    assert of_the_original[0] == of_the_original[-1] == CHANGED
    assert of_the_original[1:4] == [FAILED] * 3


def test_the_text_keeps_all_else(ours):
    userdb = ours.accounts.userdb
    before = userdb.read_text().splitlines()
    mode = userdb.stat().st_mode
    assert ours.ask(b"PASSWD pop3\tjohn\t%s\tnew\n" % ours.john.password.encode()) == b"OK\n"
    after = userdb.read_text().splitlines()
    assert userdb.stat().st_mode == mode
    assert [line for line in after if line not in before] == [
        line for line in after if line.startswith("john\t")
    ]
    assert ours.ask(b"PASSWD pop3\tjohn\tnew\t%s\n" % ours.john.password.encode()) == b"OK\n"


def cram(user: str, secret: bytes, challenge: bytes = b"<1@host>") -> bytes:
    digest = hmac.new(secret, challenge, "md5").hexdigest()
    response = b64encode(f"{user} {digest}".encode()).decode()
    record = f"pop3\ncram-md5\n{b64encode(challenge).decode()}\n{response}\n".encode()
    return b"AUTH %d\n%s" % (len(record), record)


def test_the_secret_of_cram_goes_with_it(ours):
    was = ours.john.password.encode()
    assert ours.ask(b"PASSWD pop3\tjohn\t%s\tnew\n" % was) == b"OK\n"
    assert ours.ask(cram("john", was)) == ours.ask(cram("john", b"secret")) == b"FAIL\n"
    assert ours.ask(cram("john", b"new")).endswith(b"\n.\n")
    assert ours.ask(b"PASSWD pop3\tjohn\tnew\t%s\n" % was) == b"OK\n"
    assert ours.ask(cram("john", was)).endswith(b"\n.\n")


def test_secrets_of_scram_and_apop_go_with_it(ours):
    userdb = ours.accounts.userdb
    good = userdb.read_text()
    was = ours.john.password
    before = newhash.make(was.encode(), "SCRAM-SHA-256").decode()
    more = f"|scram-sha-256pw={before}|pop3-apoppw=x|apoppw=y\n"
    userdb.write_text(re.sub("(john\t.*)\n", lambda found: found[1] + more, good))
    ours.run("makeuserdb")
    assert ours.ask(f"PASSWD pop3\tjohn\t{was}\tnew\n".encode()) == b"OK\n"
    (line,) = [line for line in userdb.read_text().splitlines() if line.startswith("john\t")]
    fields = dict(field.partition("=")[::2] for field in line.partition("\t")[2].split("|"))
    assert passwords.verify(b"new", fields["scram-sha-256pw"].encode())
    assert (fields["pop3-apoppw"], fields["apoppw"]) == ("new", "y")
    assert ours.ask(b"PASSWD pop3\tjohn\tnew\ta|b\n") == b"FAIL\n"
    userdb.write_text(good)
    ours.run("makeuserdb")


def test_who_is_refused(ours):
    for words in (
        b"mary\t\tx",
        b"mary\tsecret of mary\t",
        b"root2\tx\ty",
        b"mary\twrong\ty",
        b"paul\tsecret of paul\ty",
        b"mary\tsecret of mary",
        b"mary\tsecret of mary\ta\tb",
        b"mary\tsecret of mary\t\x01",
        b"mary\tsecret of mary\t" + b"x" * 512,
    ):
        answer = b"" if words.startswith(b"root2") else b"FAIL\n"
        assert ours.ask(b"PASSWD pop3\t%s\n" % words) == answer, words
    assert is_password(ours, "mary", ours.mary.password)


def test_where_passwords_cannot_be_changed_the_log_says_so(ours):
    asked = b"PASSWD pop3\tpetra\t%s\tnew\n" % ours.petra.password.encode()
    assert ours.ask(asked) == b"FAIL\n"
    line = "WARN: authpam: passwords can't be changed here, user=petra (see passwd(1))\n"
    assert line in ours.log.read_text()
    assert ours.ask(b"PASSWD pop3\tpetra\twrong\tnew\n") == b"FAIL\n"
    assert ours.log.read_text().count(line) == 1


def test_a_change_is_logged_without_a_password(ours):
    conversation(ours, f"{BIN}/authtest")
    log = ours.log.read_text()
    assert "INFO: authuserdb: password changed, user=mary\n" in log
    assert "new secret" not in log and ours.mary.password not in log


def test_a_userdb_that_is_not_in_order_stays_as_it_is(ours):
    userdb = ours.accounts.userdb
    good = userdb.read_text()
    asked = b"PASSWD pop3\tmary\t%s\tnew\n" % ours.mary.password.encode()
    number = len(good.splitlines()) + 1
    for bad, why in {
        good + "no fields\n": f"/etc/courier/userdb line {number}: no TAB in it",
        good.replace("mary\t", "marie\t"): "has been changed since makeuserdb (call makeuserdb)",
        re.sub(r"(mary\t.*systempw=)[^|\n]*", r"\1x", good): "(call makeuserdb)",
    }.items():
        assert bad != good
        userdb.write_text(bad)
        assert ours.ask(asked) == b""
        assert userdb.read_text() == bad
        assert why in ours.log.read_text().splitlines()[-1]
    userdb.write_text(good)
    assert is_password(ours, "mary", ours.mary.password)


def test_the_original_reads_what_our_makeuserdb_makes(ours):
    ours.stop()
    assert told(ours, f"{BIN}/makeuserdb")[0] == 0
    ours.start(LIB / "authdaemond")
    assert is_password(ours, "mary", ours.mary.password)
    assert not is_password(ours, "mary", "wrong")
    assert f"Maildir: {ours.mary.maildir}" in told(ours, f"{ORIGINALS}/authtest", "mary")[1]
    ours.stop()
    ours.start(BIN / "authdaemond")


def test_what_is_remembered_of_an_account_ends_with_its_password(site, ours):
    site.set(authcachelife="3600")
    ours.stop()
    ours.start(BIN / "authdaemond")
    was = ours.mary.password
    assert is_password(ours, "mary", was)
    assert ours.ask(f"PASSWD pop3\tmary\t{was}\tnew\n".encode()) == b"OK\n"
    assert is_password(ours, "mary", "new") and not is_password(ours, "mary", was)
    assert ours.ask(f"PASSWD pop3\tmary\tnew\t{was}\n".encode()) == b"OK\n"
    assert is_password(ours, "mary", was) and not is_password(ours, "mary", "new")
    site.set(authcachelife="0")
    ours.stop()
    ours.start(BIN / "authdaemond")


def test_the_policy_of_the_site_counts(site, ours):
    site.set(PASSWORD_SCHEME="sha512_crypt rounds=1000")
    ours.stop()
    ours.start(BIN / "authdaemond")
    was = ours.mary.password.encode()
    assert ours.ask(b"PASSWD pop3\tmary\t%s\tnew\n" % was) == b"OK\n"
    assert "$6$rounds=1000$" in ours.accounts.userdb.read_text()
    assert is_password(ours, "mary", "new")
    site.set(PASSWORD_SCHEME="rot13")
    ours.stop()
    ours.start(BIN / "authdaemond")
    assert ours.ask(b"PASSWD pop3\tmary\tnew\tnewer\n") == b""
    assert "PASSWORD_SCHEME=rot13: not one of " in ours.log.read_text()
    site.set(PASSWORD_SCHEME="SHA")
    ours.stop()
    ours.start(BIN / "authdaemond")
    assert ours.ask(b"PASSWD pop3\tmary\tnew\t%s\n" % was) == b"OK\n"


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_octets_are_a_question_or_none(octets):
    try:
        found = question.parse(b"PASSWD " + octets)
    except BadRequest:
        return
    found = found or SimpleNamespace(request=None, new=b"")
    if found.request:
        service, user, old, new = octets.partition(b"\n")[0].split(b"\t")
        assert found.request.login == (user, old)
        assert (found.request.service, found.new) == (service, new)
