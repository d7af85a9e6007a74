"""authtest and authenumerate: what Debian's originals print, and ours; and authtest -chain."""

from __future__ import annotations

import re

import pytest

from tests.authdaemon.test_authdaemond import reload
from tests.conftest import BIN, needs

ORIGINALS = "/usr/sbin"
FAILED = "Authentication FAILED: Operation not permitted\n"


def printed(site, words: tuple[str, ...]) -> tuple[int, str, str]:
    done = site.run(*words, env={"AUTHUSERDB_FILE": "/etc/courier/userdb"})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "authtest john",
        "authtest mary",
        "authtest petra",
        "authtest -s pop3 petra",
        "authtest -spop3 mary",
        "authtest nobody-here",
        "authtest root2",
        "authtest mary PASSWORD",
        "authtest -s pop3 petra PASSWORD",
        "authtest mary wrong",
        "authtest mary wrong wronger",
        "authenumerate",
        "authenumerate -s",
        "authenumerate -o",
        "authenumerate -o -s",
        "authenumerate -x",
    ],
)
def test_they_print_what_the_originals_do(original, words):
    program, *arguments = words.split()
    secrets = {"mary": original.mary.password, "petra": original.petra.password}
    name = next((word for word in arguments if word in secrets), "")
    arguments = [secrets[name] if word == "PASSWORD" else word for word in arguments]
    before, after = (
        printed(original, (f"{folder}/{program}", *arguments)) for folder in (ORIGINALS, BIN)
    )
    assert after == before


def test_a_password_is_changed_by_the_original(original):
    was, new = original.mary.password, "new secret"
    changed = (0, "", "Password change succeeded.\n")
    assert printed(original, (f"{BIN}/authtest", "mary", was, new)) == changed
    assert printed(original, (f"{BIN}/authtest", "mary", was)) == (1, "", FAILED)
    assert printed(original, (f"{BIN}/authtest", "mary", new))[0] == 0
    assert printed(original, (f"{BIN}/authtest", "mary", new, was)) == changed


def test_without_authdaemond_they_say_so(site):
    needs("nsenter")
    gone = {"AUTHDAEMON_SOCKET": "/nowhere/socket"}
    why = "/nowhere/socket: No such file or directory (is authdaemond running?)"
    done = site.run(BIN / "authtest", "john", env=gone)
    assert done.returncode == 1
    assert done.stderr == f"ERR: authtest: {why}\nAuthentication FAILED: Input/output error\n"
    done = site.run(BIN / "authenumerate", env=gone)
    assert (done.returncode, done.stderr) == (1, f"ERR: authenumerate: {why}\n")


CHAIN = ("-chain", "authpam", "authuserdb", "authshadow")


def test_chain_shows_what_each_module_answered_and_what_the_server_gets(site):
    mary = site.mary
    status, out, err = printed(site, (f"{BIN}/authtest", "mary", mary.password, *CHAIN))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(r"authpam +\d+\.\d{3} s rejected", lines[0])
    assert re.fullmatch(r"authuserdb +\d+\.\d{3} s accepted", lines[1])
    assert re.fullmatch(r"authshadow +not asked", lines[2])
    assert lines[3:] == [
        "",
        f"     Authenticated: mary  (uid {mary.uid}, gid {mary.gid})",
        f"    Home Directory: {mary.home}",
        f"           Maildir: {mary.maildir}",
        "             Quota: 1000000S",
        "Encrypted Password: (none)",
        "Cleartext Password: (none)",
        "           Options: disableimap=1,x=y",
    ]


@pytest.mark.parametrize(
    ("words", "answers", "why"),
    [
        (("petra", "wrong", *CHAIN), ["rejected"] * 3, "Operation not permitted"),
        (("petra", *CHAIN), ["accepted", "not asked", "not asked"], None),
        (("paul", "secret of paul", *CHAIN), ["rejected"] * 3, "Operation not permitted"),
        (("root2", "x", "-chain", "authuserdb"), ["permanent failure"], "Input/output error"),
        (("x", "-chain", "authnone"), ["no such program"], "Input/output error"),
        (("x", "-chain", "/bin/true"), ["no next program"], "Input/output error"),
        (
            ("-s", "none", "petra", "x", *CHAIN),
            ["temporary failure", "not asked", "not asked"],
            "Input/output error",
        ),
    ],
)
def test_chain_tells_rejections_from_trouble(site, words, answers, why):
    status, out, err = printed(site, (f"{BIN}/authtest", *words))
    lines = out.splitlines()[: len(answers)]
    assert [re.split(r" s |   +", line)[-1].strip() for line in lines] == answers
    assert status == (1 if why else 0)
    if why:
        assert err.endswith(f"Authentication FAILED: {why}\n")


@pytest.mark.parametrize("words", [(), ("-x",), ("a", "b", "c", "d"), ("a", "-chain"), ("-s",)])
def test_misuse_is_told(site, words):
    assert printed(site, (f"{BIN}/authtest", *words))[2].startswith("Usage: authtest [-s service]")


def test_a_userid_that_cannot_be_is_refused(original):
    for words in (("a\nb",), ("john", "x\ny"), ("a\tb", "x", "y")):
        status, out, err = printed(original, (f"{BIN}/authtest", *words))
        assert (status, out) == (1, "") and err.startswith("Authentication FAILED: ")


def test_with_our_authdaemond_they_print_the_same(site):
    """But for the hash, which ours tells nobody."""
    site.stop()
    site.start(BIN / "authdaemond")
    try:
        reload(site)
        for words in (("mary", site.mary.password), ("petra",)):
            before, after = (
                printed(site, (f"{folder}/authtest", *words)) for folder in (ORIGINALS, BIN)
            )
            assert after == before
            assert "Encrypted Password: (none)\n" in after[1]
    finally:
        site.stop()
