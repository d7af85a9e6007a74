"""authpipe: the program that it asks, byte by byte, and what becomes of programs that go wrong."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.authmodules.asking import HOSTILE, NO_DELAY, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.chain.test_uses import idle
from tests.conftest import DEADLINE, ROOT, needs_root, wait_until

# One that answers for ever, as Courier's daemon wants it; and what the record may make it do.
PROGRAM = """#!{python} -IS
import os, sys, time
log = open("{public}/asked", "ab")
while line := sys.stdin.buffer.readline():
    body = sys.stdin.buffer.read(int(line.split()[1])) if line.startswith(b"AUTH ") else b""
    log.write(line + body)
    log.flush()
    secret = (body.split(b"\\n") + [b""] * 4)[3]
    if secret == b"dies":
        sys.exit(0)
    if secret == b"hangs":
        open("{public}/pid", "w").write(str(os.fork() or os.getpid()))
        time.sleep(1000)
    answer = b"FAIL\\n"
    if body == b"pop3\\nlogin\\njohn\\nsecret\\n" or line == b"PRE . pop3 john\\n":
        answer = b"{answer}.\\n"
    if secret.startswith(b"says "):
        answer = secret[5:].replace(b"|", b"\\n")
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"""
ANSWER = r"UID={uid}\nGID={gid}\nHOME={home}\nADDRESS=j@x\n" + (
    r"NAME=John\nMAILDIR=/m\nQUOTA=9S\nOPTIONS=a=1\n"
)


@pytest.fixture
def auth_prog(script, public, accounts):
    john = accounts.add("john", listed=False)
    answer = ANSWER.format(uid=john.uid, gid=john.gid, home=john.home)
    return script("authProg", PROGRAM.format(python=sys.executable, public=public, answer=answer))


@pytest.fixture
def pipe(ask, auth_prog):
    def pipe(user="john", password="secret", **more):
        return ask("authpipe", user, password, **{"AUTHPIPE_PROGRAM": auth_prog, **more})

    return pipe


def test_what_it_answers_is_the_account(pipe, public):
    found = pipe()
    assert found.word == "accepted", found
    expected = {
        "AUTHENTICATED": "j@x",
        "AUTHADDR": "j@x",
        "AUTHFULLNAME": "John",
        "MAILDIR": "/m",
        "MAILDIRQUOTA": "9S",
        "OPTIONS": "a=1",
        "CWD": str(public / "home1"),
    }
    assert {name: found.env[name] for name in expected} == expected
    if ROOT:
        assert found.env["UID"] == found.env["GROUPS"] == "20001"
    assert (public / "asked").read_bytes() == b"AUTH 23\npop3\nlogin\njohn\nsecret\n"


def test_FAIL_rejects(pipe):
    assert pipe(password="wrong").word == "rejected"
    assert pipe(user="nobody").word == "rejected"
    assert pipe(record=external(b"john")).word == "accepted"
    assert pipe(record=external(b"mary")).word == "rejected"


@pytest.mark.parametrize("user", HOSTILE.values(), ids=HOSTILE.keys())
def test_CVE_05_CVE_48_hostile_userids_reach_the_program_as_they_are(pipe, public, user):
    assert pipe(user=user).word == "rejected"
    body = b"pop3\nlogin\n%s\nsecret\n" % user
    assert (public / "asked").read_bytes() == b"AUTH %d\n%s" % (len(body), body)


def test_CVE_48_a_record_with_more_lines_is_not_asked_about(pipe, public):
    for record in (b"pop3\nlogin\njohn\nx\nsecret\n\n", b"pop3\nlogin\njohn\n\n\n"):
        assert pipe(record=record).word == "rejected"
    assert not (public / "asked").exists() or not (public / "asked").read_bytes()


@pytest.mark.parametrize(
    "answer, said",
    [
        ("", "it has ended without a whole answer"),
        ("ADDRESS=john|", "it has ended without a whole answer"),
        ("FAIL", "it has ended without a whole answer"),
        ("fail||.|", "not a whole answer"),
        (".|", "lacks ADDRESS, UID, GID or HOME"),
        ("UID=20001|GID=20001|HOME=/|.|", "lacks ADDRESS, UID, GID or HOME"),
        ("UID=x|GID=20001|HOME=/|ADDRESS=a|.|", "lacks ADDRESS, UID, GID or HOME"),
        ("USERNAME=no-such-user|GID=1|HOME=/|ADDRESS=a|.|", "no system user 'no-such-user'"),
    ],
)
def test_3206_02_any_other_answer_is_a_temporary_failure(pipe, script, public, answer, said):
    text = answer.replace("|", "\\n")
    program = script("once", f"#!/bin/sh\nread line\nprintf '{text}'\n")
    found = pipe(AUTHPIPE_PROGRAM=program)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert said in found.log
    assert found.log.startswith(f"ERR: authpipe: {program}: ")
    assert len(found.log.splitlines()) == 1


def test_AUTHCHAIN_05_uid_0_is_refused(pipe):
    for ids in ("UID=0|GID=20001", "UID=20001|GID=0", "USERNAME=root|GID=0"):
        found = pipe(password=f"says {ids}|HOME=/|ADDRESS=john|.|")
        assert (found.word, found.env["WHY"]) == ("trouble", "permanent")


def test_a_system_user_brings_its_groups(pipe, public):
    found = pipe(password=f"says USERNAME=daemon|GID=1|HOME={public}|ADDRESS=d|.|")
    if ROOT:
        assert (found.word, found.env["UID"]) == ("accepted", "1")


@pytest.mark.parametrize("path", ["/nowhere/authProg", "/etc/passwd", "/etc"])
def test_a_program_that_cannot_be_run_is_a_temporary_failure(pipe, path):
    found = pipe(AUTHPIPE_PROGRAM=path)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert f"authpipe: {path}: cannot run it: " in found.log


def test_a_program_that_dies_or_hangs_is_never_an_unknown_user(pipe, public):
    assert pipe(password="dies").word == "trouble"
    began = time.monotonic()
    found = pipe(password="hangs", AUTHPROGRAM_TIMEOUT=1)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert "no answer in 1 seconds; killed" in found.log
    assert time.monotonic() - began < 15
    pid = (public / "pid").read_text()
    wait_until(lambda: has_ended(pid), "what it has started ends too")


def has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_program_that_stays_does_not_keep_the_client_waiting_for_ever(pipe, script, public):
    answer = f"UID={os.getuid() or 20001}\\nGID={os.getgid() or 20001}\\nHOME=/\\nADDRESS=a\\n.\\n"
    stays = f"#!/bin/sh\ntrap '' TERM\nread line\nprintf '{answer}'\nexec sleep 1000 >&- <&-\n"
    assert pipe(AUTHPIPE_PROGRAM=script("stays", stays)).word == "accepted"


def test_the_whole_chain(serve, any_mode, auth_prog, accounts, script):
    mary = accounts.add("mary")
    text = Path(auth_prog).read_text().replace("MAILDIR=/m\\n", "")
    Path(auth_prog).write_text(text)
    stages = ["courierpop3login", "authpipe", "authuserdb", "courierpop3d", "./Maildir"]
    env = {**NO_DELAY, "AUTHPIPE_PROGRAM": auth_prog, "POP3_RESPONSE_CODES": "1"}
    server = serve(*any_mode, stages=stages, env=env)

    assert server.answer("john", "secret") == "+OK logged in."
    assert server.answer("mary", mary.password) == "+OK logged in."
    assert server.answer("john", "wrong") == "-ERR [AUTH] Login failed."
    os.rename(auth_prog, auth_prog + ".away")
    down = "-ERR [SYS/TEMP] Temporary problem, please try again later"
    assert server.answer("mary", mary.password) == down  # AUTHCHAIN-04
    os.rename(auth_prog + ".away", auth_prog)
    assert server.answer("john", "secret") == "+OK logged in."


# Where it stays.


def runs(path: str) -> list[int]:
    """The processes that run a script."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.encode() in process.read_bytes().split(b"\0")[:3]:
                found.append(int(process.parent.name))
        except OSError:
            pass
    return sorted(found)


@pytest.fixture
def daemon(authdaemond, auth_prog):
    return authdaemond(
        authmodulelist="authpipe authuserdb", AUTHPIPE_PROGRAM=auth_prog, AUTHPROGRAM_TIMEOUT="1"
    )


def test_in_authdaemond_one_program_answers_all(daemon, auth_prog, accounts):
    for _ in range(2):
        assert b"\nADDRESS=j@x\n" in daemon.login("john", "secret")
        (first,) = runs(auth_prog)
        assert daemon.login("john", "wrong") == b"FAIL\n"
        assert daemon.ask(b"PRE . pop3 john\n").startswith(b"UID=")
        assert runs(auth_prog) == [first]
        assert b"TCPREMOTEIP=" not in Path(f"/proc/{first}/environ").read_bytes()
        os.kill(first, 9)  # it is replaced, and nobody hears of it
        wait_until(lambda pid=first: has_ended(str(pid)), "it has ended")
    assert "ERR" not in daemon.log.read_text()


def test_what_it_says_unasked_is_nobodys_answer(daemon, auth_prog):
    """Reference auth.md 2.6."""
    account = "UID=20001|GID=20001|HOME=/|ADDRESS=john|.|"
    for said in (f"FAIL|{account}", f"{account}{account}", f"{account}FAIL|"):
        daemon.login("x", f"says {said}")
        assert daemon.login("nobody", "x") == b"FAIL\n"
        assert b"\nADDRESS=j@x\n" in daemon.login("john", "secret")


def test_3206_02_authdaemond_while_the_program_fails_hangs_and_comes_back(
    daemon, auth_prog, accounts
):
    """authuserdb, which knows mary, is not asked."""
    mary = accounts.add("mary")
    right = daemon.login("john", "secret")
    assert right.endswith(b".\n") and daemon.login("mary", mary.password).endswith(b".\n")
    for word in ("dies", "hangs"):
        assert daemon.login("mary", word) == b""
        assert daemon.login("john", "secret") == right
    os.rename(auth_prog, auth_prog + ".away")
    assert daemon.login("mary", mary.password) == b""
    os.rename(auth_prog + ".away", auth_prog)
    assert daemon.login("john", "secret") == right


def test_it_ends_with_authdaemond(daemon, auth_prog):
    assert daemon.login("john", "secret").endswith(b".\n")
    assert runs(auth_prog)
    daemon.process.terminate()
    daemon.process.wait(DEADLINE)
    wait_until(lambda: not runs(auth_prog), "it has ended")


def test_a_process_that_logs_people_in_keeps_it(serve, auth_prog, public, accounts):
    needs_root()
    text = Path(auth_prog).read_text().replace("MAILDIR=/m\\n", "")
    Path(auth_prog).write_text(text)
    stages = ["courierpop3login", "authpipe", "courierpop3d", "./Maildir"]
    server = serve("-uses=20", stages=stages, env={**NO_DELAY, "AUTHPIPE_PROGRAM": auth_prog})
    for password, said in (("secret", "+OK logged in."), ("x", "-ERR Login failed.")) * 2:
        with server.client() as client:
            client.line()
            client.ask("USER john")
            assert client.ask(f"PASS {password}") == said
            (pid,) = runs(auth_prog)
        idle(server)
    assert runs(auth_prog) == [pid]
    server.stop()
    wait_until(lambda: not runs(auth_prog), "it has ended")
