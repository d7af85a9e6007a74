"""Neighbours: a checkpassword program as a module of the chain, and modules below qmail-popup."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.authmodules.asking import HOSTILE, NO_DELAY, apop, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.conftest import BIN, DEADLINE, ROOT, needs_root, wait_until

# What a checkpassword program does (reference chain-protocol.md 14), and some that go wrong.
CHECKPASSWORD = """#!{python} -I
import hashlib, os, sys, time
user, password, stamp = os.read(3, 512).split(b"\\0")[:3]
os.close(3)
open("{public}/asked", "ab").write(user + b"|" + password + b"|" + stamp + b"\\n")
if stamp[:1] == b"<" and password == hashlib.md5(stamp + b"secret").hexdigest().encode():
    password = b"secret"
if password == b"down":
    sys.exit(111)
if password == b"killed":
    os.kill(os.getpid(), 9)
if password == b"hang":
    open("{public}/pid", "w").write(str(os.fork() or os.getpid()))
    time.sleep(1000)
if user not in (b"john", b"root", b"leaky", b"nameless") or password != b"secret":
    sys.exit(1)
os.environ["USER"] = {{b"nameless": ""}}.get(user, user.decode())
os.environ["HOME"] = "{home}"
os.environ["SHELL"] = "/bin/sh"
if os.getuid() == 0:
    os.setgroups([0, {gid}] if user == b"leaky" else [{gid}])
    if user != b"root":
        os.setgid({gid})
        os.setuid({uid})
os.chdir("{home}")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def checkpassword(script, public, accounts):
    john = accounts.add("john", listed=False)
    public.chmod(0o777)
    values = {"public": public, "home": john.home, "uid": john.uid, "gid": john.gid}
    return script("checkpassword", CHECKPASSWORD.format(python=sys.executable, **values))


@pytest.fixture
def check(ask, checkpassword):
    def check(user="john", password="secret", **more):
        return ask("authcheckpassword", user, password, checkpassword, **more)

    return check


def test_what_it_accepts_goes_on_as_the_user(check, public):
    found = check(MAILDIR="/of/the/listener", OPTIONS="x", HOME="/root")
    assert found.word == "accepted", found
    assert found.env["AUTHENTICATED"] == found.env["AUTHADDR"] == found.env["USER"] == "john"
    assert [found.env[n] for n in ("MAILDIR", "MAILDIRQUOTA", "OPTIONS")] == ["", "", ""]
    assert found.env["CWD"] == found.env["HOME"] == str(public / "home1")
    assert "COURIER_CHECKPASSWORD" not in found.env
    assert re.fullmatch(rb"john\|secret\|Y\d+\n", (public / "asked").read_bytes())
    if ROOT:
        assert found.env["UID"] == found.env["GROUPS"] == "20001"


def test_exit_1_rejects_and_no_other_type_of_request_is_asked(check, public):
    assert check(password="wrong").word == "rejected"
    assert check(user="nobody").word == "rejected"
    asked = (public / "asked").read_bytes()
    for record in (
        external(b"john"),
        b"pop3\ncram-md5\nPDE+\nam9obiAw\n\n",
        b"pop3\nlogin\njohn\n\n\n",
        b"pop3\nlogin\njohn\nx\nsecret\n\n",
    ):
        assert check(record=record).word == "rejected"
    assert check(user="j" * 400, password="p" * 101).word == "rejected"  # 512 octets at most
    assert (public / "asked").read_bytes() == asked


def test_apop_is_asked_in_checkpasswords_form_where_the_program_knows_it(check, public):
    for secret, word in ((b"secret", "accepted"), (b"wrong", "rejected")):
        assert check(record=apop(secret)).word == "rejected"
        assert check(record=apop(secret), AUTHCHECKPASSWORD_APOP=1).word == word
    assert re.fullmatch(rb"(john\|[0-9a-f]{32}\|<1\.2@host>\n){2}", (public / "asked").read_bytes())


@pytest.mark.parametrize("user", HOSTILE.values(), ids=HOSTILE.keys())
def test_CVE_05_CVE_48_hostile_userids_reach_the_program_as_they_are(check, public, user):
    assert check(user=user).word == "rejected"
    if len(user) < 400:
        assert (public / "asked").read_bytes().startswith(user + b"|secret|")


@pytest.mark.parametrize("password, said", [("down", "exit status 111"), ("killed", "signal 9")])
def test_3206_02_any_other_end_is_a_temporary_failure(check, checkpassword, password, said):
    found = check(password=password)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert found.log == f"ERR: authcheckpassword: {checkpassword} has ended with {said}\n"


def test_a_program_that_hangs_is_killed_with_all_that_it_has_started(check, public):
    found = check(password="hang", AUTHPROGRAM_TIMEOUT=1)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert "was killed: no answer in 1 seconds" in found.log
    pid = (public / "pid").read_text()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in state(pid), "its child ends")


def state(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    "user, said",
    [
        ("root", "uid 0, gid 0: not ids that may own a mailbox"),
        ("leaky", "root's rights are left"),
        ("nameless", "the account has no name"),
    ],
)
def test_AUTHCHAIN_05_CVE_37_what_it_has_not_given_up_is_refused(check, user, said):
    needs_root()
    found = check(user=user)
    assert (found.word, found.env["WHY"]) == ("trouble", "permanent")
    assert said in found.log


def test_a_program_that_is_not_there_is_a_temporary_failure(ask):
    found = ask("authcheckpassword", "john", "secret", "/nowhere/checkpassword")
    assert found.word == "trouble"
    assert "/nowhere/checkpassword: No such file or directory" in found.log


def test_the_whole_chain(serve, any_mode, checkpassword, accounts):
    mary = accounts.add("mary")
    stages = ["courierpop3login", "authcheckpassword", checkpassword]
    server = serve(
        *any_mode, stages=[*stages, "authuserdb", "courierpop3d", "./Maildir"], env=NO_DELAY
    )

    def answers(user: str, *passwords: str) -> list[str]:
        with server.client() as client:
            client.line()
            return [client.ask(line) for p in passwords for line in (f"USER {user}", f"PASS {p}")][
                1::2
            ] + [client.ask("QUIT")]

    assert answers("john", "wrong", "secret") == [
        "-ERR Login failed.",
        "+OK logged in.",
        "+OK Bye-bye.",
    ]
    assert answers("mary", mary.password) == ["+OK logged in.", "+OK Bye-bye."]
    assert answers("john", "secret") == ["+OK logged in.", "+OK Bye-bye."]
    server.logged(r"INFO: LOGOUT, user=john, .*")
    wait_until(lambda: not [pid for pid in server.children() if served(pid)], "all has ended")


def served(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/0").startswith("socket:")
    except OSError:
        return False


def test_the_service_ends_when_the_listener_does(serve, checkpassword):
    server = serve(stages=["courierpop3login", "authcheckpassword", checkpassword, "courierpop3d"])
    with server.client() as client:
        client.line()
        client.ask("USER john")
        assert client.ask("PASS secret") == "+OK logged in."
        server.stop()
        assert client.rest() == b""


# checkpassword-courier


@pytest.fixture
def popup(script, public, environment):
    """popup(user, password, module...): what qmail-popup does; exit status and output."""
    shows = script("shows", '#!/bin/sh\nid -u; pwd; echo "$USER $HOME $SHELL"; ls /proc/self/fd\n')

    def popup(user=b"john", password=b"secret", *modules, record=None, **settings):
        reader, writer = os.pipe()
        os.write(writer, b"%s\0%s\0<1.2@h>\0" % (user, password) if record is None else record)
        os.close(writer)
        done = subprocess.run(
            [BIN / "checkpassword-courier", *modules, "--", shows, "x"],
            env={**environment, **settings},
            preexec_fn=lambda: os.dup2(reader, 3),
            close_fds=False,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        os.close(reader)
        return done

    return popup


def test_a_module_below_qmail_popup(popup, john):
    done = popup(b"john", john.password.encode(), "authpwd", "authuserdb")
    assert done.returncode == 0, done
    uid, directory, shown, *descriptors = done.stdout.decode().splitlines()
    assert uid == str(john.uid)
    assert directory == str(john.home)
    assert shown == f"john {john.home} /bin/sh"
    assert "3" not in descriptors or len(descriptors) == 4  # ls has one of its own


def test_it_exits_1_for_a_wrong_password_and_whatever_is_no_login(popup, john):
    secret = john.password.encode()
    for user, password in [
        (b"john", b"wrong"),
        (b"nobody", secret),
        (b"john", b""),
        (b"", secret),
        (b"john", b"x\n" + secret),
        (b"john\n" + secret, b"x"),
        (b"john", b"p" * 5000),
    ]:
        assert popup(user, password, "authuserdb").returncode == 1, (user, password)
    assert popup(b"", b"", "authuserdb", record=b"").returncode == 1
    assert popup(b"john", secret, "authuserdb", AUTHENTICATED="john").returncode == 0
    assert popup(b"john", b"wrong", "authuserdb", AUTHENTICATED="john").returncode == 1


def test_it_exits_111_when_nobody_can_say(popup, john):
    done = popup(b"john", john.password.encode(), "authuserdb", AUTHUSERDB_FILE="/nowhere")
    assert done.returncode == 111
    assert b"cannot read /nowhere" in done.stderr
    assert popup(b"john", b"x", "/nowhere/module").returncode == 111


def test_it_exits_2_without_modules_or_a_program(popup, john):
    done = popup(b"john", john.password.encode(), AUTHENTICATED="john")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"Usage: checkpassword-courier MODULE... -- PROGRAM")
    assert subprocess.run([BIN / "checkpassword-courier"], check=False).returncode == 2


def test_checkpassword_on_both_sides(popup, checkpassword, john):
    """A checkpassword program in a chain below a checkpassword caller."""
    done = popup(b"john", b"secret", "authcheckpassword", checkpassword)
    assert done.returncode == 0, done.stderr
    assert popup(b"john", b"wrong", "authcheckpassword", checkpassword).returncode == 1
