"""The hook that a mailbox runs once at a login."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conftest import wait_until

LOGGED_IN = b"+OK logged in.\r\n"


@pytest.fixture
def hook(box):
    """Put a shell script into the Maildir as its loginexec."""

    def put(script: str, mode: int = 0o755) -> None:
        path = box.path / "loginexec"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(mode)

    return put


def is_left(box) -> bool:
    return (box.path / "loginexec").exists()


def test_it_runs_once_in_the_maildir_as_the_user_before_the_mail_is_read(box, program, hook):
    hook('echo "Subject: from the hook" > new/1.a; id -u > ../uid; env > ../env; pwd > ../pwd\n')
    for _ in range(2):
        server = program(TCPREMOTEIP="192.0.2.1")
        assert server.line() == LOGGED_IN
        assert server.ask("STAT") == b"+OK 1 24\r\n"
        server.hang_up()
        server.end()
        assert not is_left(box)
    assert int((box.home / "uid").read_text()) == (box.path / "new").stat().st_uid
    assert "AUTHENTICATED=joe" in (box.home / "env").read_text()
    assert "TCPREMOTEIP=192.0.2.1" in (box.home / "env").read_text()
    assert (box.home / "pwd").read_text() == f"{box.path}\n"


def test_what_it_prints_reaches_the_client(box, program, hook):
    hook("echo converting your mail; echo to the log >&2\n")
    server = program()
    assert server.line() == b"converting your mail\n"
    assert server.line() == LOGGED_IN
    assert "to the log" in server.logged()


@pytest.mark.parametrize(
    "script, log",
    [
        ("exit 3\n", "WARN: loginexec failed with exit status 3 and will be run again, user=joe"),
        ("kill -9 $$\n", "WARN: loginexec failed with signal 9 and will be run again, user=joe"),
    ],
)
def test_what_fails_is_kept_and_the_login_goes_on(box, program, hook, script, log):
    hook(script)
    server = program()
    assert server.line() == LOGGED_IN
    assert server.logged()[0] == log
    assert is_left(box)


def test_what_can_not_be_executed_is_said_and_the_login_goes_on(box, program):
    path = box.path / "loginexec"
    path.write_bytes(b"\x7fELF and no more")
    path.chmod(0o755)
    server = program()
    assert server.line() == LOGGED_IN
    assert server.logged()[0] == "ERR: Failed to exec loginexec: Exec format error, user=joe"
    assert is_left(box)


def test_what_is_not_executable_by_its_owner_or_no_file_is_none(box, program, hook):
    hook("exit 0\n", mode=0o655)
    server = program()
    assert server.line() == LOGGED_IN
    assert is_left(box)
    os.unlink(box.path / "loginexec")
    (box.path / "loginexec").mkdir()
    server = program()
    assert server.line() == LOGGED_IN
    assert len(server.logged()) == 1


def test_it_is_ended_with_all_that_it_started_when_its_time_is_over(box, program, hook):
    hook("sleep 999 & echo $! > ../child; wait\n")
    started = time.monotonic()
    server = program(POP3_LOGINEXEC_TIMEOUT="1")
    assert server.line() == LOGGED_IN
    assert time.monotonic() - started < 10
    line = "ERR: loginexec was killed: it took longer than 1 seconds, user=joe"
    assert server.logged()[0] == line
    assert is_left(box)
    child = (box.home / "child").read_text().strip()
    wait_until(lambda: is_over(child), "the end of what the hook started")


def is_over(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_disabled_account_is_refused_after_the_hook_as_courier_does(box, program, hook):
    hook("touch ../ran\n")
    server = program(OPTIONS="disablepop3")
    assert server.line() == b"-ERR POP3 access disabled for this account.\r\n"
    assert (box.home / "ran").exists()


def test_SIGPIPE_and_SIGXFSZ_are_at_their_defaults_for_it(box, program, hook):
    hook("grep SigIgn /proc/self/status > ../signals\n")
    assert program().line() == LOGGED_IN
    assert int((box.home / "signals").read_text().split()[1], 16) & (1 << 12 | 1 << 24) == 0
