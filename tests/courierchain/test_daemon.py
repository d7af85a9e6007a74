"""The daemon: start, second start, stop, restart, and the rights it gives up.

Daemons here are small scripts around detach() and ready(). What runs at the end of a test is
found by its lock and ended by its pid.
"""

from __future__ import annotations

import os
import pty
import pwd
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from courierchain import daemon
from courierchain.refusal import Refused
from tests.conftest import DEADLINE, needs_root, wait_until

ROOT = str(Path(__file__).resolve().parents[2])
FAILED_START = "ll_daemon_start: Resource temporarily unavailable\n"

SCRIPT = """
import os, signal, sys
from courierchain import daemon, log
from courierchain.refusal import Refused
pidfile = sys.argv[1]
signal.signal(signal.SIGTERM, signal.SIG_DFL)
try:
    {before}
    running = daemon.detach(pidfile, "poppy"{how})
    {between}
    running.ready()
except Refused as why:
    log.plain(str(why))
    os._exit(1)
daemon.to_null()
{after}
while True:
    signal.pause()
"""


def python(text: str, *arguments: object, **how) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **how,
    )


def result(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status, and what came on descriptor 2 by then; a daemon may keep that open."""
    status = process.wait(DEADLINE)
    assert process.stderr
    with process.stderr as pipe:
        os.set_blocking(pipe.fileno(), False)
        try:
            return status, os.read(pipe.fileno(), 65536).decode()
        except BlockingIOError:
            return status, ""


def begin(pidfile: Path, *, before="", between="", after="", how="", **process) -> subprocess.Popen:
    script = SCRIPT.format(before=before, between=between, after=after, how=how)
    return python(script, pidfile, **process)


def start(pidfile: Path, **steps) -> tuple[int, str]:
    return result(begin(pidfile, **steps))


def call(expression: str, pidfile: Path) -> tuple[int, str]:
    return result(
        python(f"import sys; from courierchain import daemon; sys.exit({expression})", pidfile)
    )


def stop(pidfile: Path, patience: float = DEADLINE) -> tuple[int, str]:
    return call(f"daemon.stop(sys.argv[1], 'poppy', {patience})", pidfile)


def restart(pidfile: Path) -> tuple[int, str]:
    return call("daemon.restart(sys.argv[1], 'poppy')", pidfile)


def holder(pidfile: Path) -> int | None:
    """The pid of the daemon; None if none runs."""
    try:
        lock = os.open(f"{pidfile}.lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        return daemon.lock_holder(lock)
    finally:
        os.close(lock)


def written(path: Path) -> str:
    """The text of a file that a daemon writes, once it is whole: its last line ends."""

    def whole() -> str:
        text = path.read_text() if path.exists() else ""
        return text if text.endswith("\n") else ""

    return wait_until(whole)


@pytest.fixture
def pidfile(tmp_path):
    path = tmp_path / "pop3d.pid"
    yield path
    if pid := holder(path):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: holder(path) != pid)


@pytest.fixture
def bystander():
    """A program that has nothing to do with any daemon; it must outlive the test."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    assert process.poll() is None
    process.kill()
    process.wait()


# Start


def test_a_start_leaves_a_daemon_with_the_lock_and_its_pid_in_the_file(pidfile):
    assert start(pidfile, before="os.umask(0o022)") == (0, "")
    assert pidfile.read_text() == f"{holder(pidfile)}\n"
    assert stat.S_IMODE(pidfile.stat().st_mode) == 0o644
    assert stat.S_IMODE(Path(f"{pidfile}.lock").stat().st_mode) == 0o600


def test_the_command_waits_until_the_daemon_is_ready(pidfile, tmp_path):
    os.mkfifo(tmp_path / "go")
    command = begin(
        pidfile,
        between=f"open({str(tmp_path / 'bound')!r}, 'w').close(); "
        f"open({str(tmp_path / 'go')!r}).read()",
    )
    wait_until((tmp_path / "bound").exists)
    assert command.poll() is None
    assert not pidfile.exists()
    (tmp_path / "go").write_text("")
    assert result(command) == (0, "")
    assert pidfile.exists()


def test_a_daemon_has_its_own_group_in_the_session_of_its_starter(pidfile, tmp_path):
    facts = tmp_path / "facts"
    report = "print(os.getppid(), os.getpgrp(), os.getsid(0), os.getcwd(), file=file, flush=True)"
    command = begin(pidfile, after=f"file = open({str(facts)!r}, 'w'); {report}", cwd=tmp_path)
    assert result(command) == (0, "")
    parent, group, session, directory = written(facts).split()
    assert int(parent) not in (command.pid, os.getpid())
    assert int(group) == holder(pidfile)
    assert int(session) == os.getsid(0)
    assert directory == str(tmp_path)


def test_a_daemon_gives_up_its_terminal(pidfile, tmp_path):
    """The starter leads a session that has one; the daemon lives on when that goes away."""
    answer = tmp_path / "answer"
    controller, terminal = pty.openpty()
    command = begin(
        pidfile,
        before="import fcntl, termios; os.setsid(); "
        f"fcntl.ioctl({terminal}, termios.TIOCSCTTY); os.close(os.open('/dev/tty', os.O_RDWR))",
        after="try: os.open('/dev/tty', os.O_RDWR)\n"
        f"except OSError as why: open({str(answer)!r}, 'w').write(f'{{why.strerror}}\\n')",
        pass_fds=(terminal,),
    )
    os.close(terminal)
    assert result(command) == (0, "")
    os.close(controller)
    assert written(answer) == "No such device or address\n"
    assert holder(pidfile)


def test_the_leader_of_a_session_outlives_leaving_its_terminal():
    controller, terminal = pty.openpty()
    script = (
        "import fcntl, os, signal, sys, termios; from courierchain import daemon; os.setsid()\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have begun all this\n"
        "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY); daemon.leave_terminal()\n"
        "sys.exit(signal.getsignal(signal.SIGHUP) != signal.SIG_DFL)"
    )
    leader = python(script, terminal, pass_fds=(terminal,))
    os.close(terminal)
    assert result(leader) == (0, "")
    os.close(controller)


def test_a_daemon_has_no_descriptors_but_null_and_one_that_is_out_of_the_way(pidfile):
    reader, writer = os.pipe()
    assert start(pidfile, pass_fds=(reader, writer)) == (0, "")
    pid = holder(pidfile)
    there = Path(f"/proc/{pid}/fd")
    wait_until(lambda: all(os.readlink(there / name) == "/dev/null" for name in "012"))
    (lock,) = {int(name) for name in os.listdir(there)} - {0, 1, 2}
    assert lock >= 10
    flags = Path(f"/proc/{pid}/fdinfo/{lock}").read_text().split("flags:")[1].split()[0]
    assert int(flags, 8) & os.O_CLOEXEC
    for end in (reader, writer):
        os.close(end)


def test_what_the_daemon_complains_of_is_seen_and_the_command_fails(pidfile):
    status, said = start(pidfile, between="raise Refused('bind: Address already in use')")
    assert (status, said) == (1, "bind: Address already in use\n" + FAILED_START)
    assert holder(pidfile) is None and not pidfile.exists()


def test_a_daemon_that_dies_before_it_is_ready_is_a_failed_start(pidfile):
    assert start(pidfile, between="os.kill(os.getpid(), 9)") == (1, FAILED_START)


def test_a_lock_file_that_cannot_be_made_is_named(tmp_path):
    lost = tmp_path / "nowhere" / "pid"
    assert start(lost) == (1, f"{lost}.lock: No such file or directory\n" + FAILED_START)


def test_a_pid_file_that_cannot_be_made_is_named(pidfile):
    pidfile.mkdir()
    assert start(pidfile) == (1, f"{pidfile}: Is a directory\n" + FAILED_START)


def test_a_link_in_the_place_of_the_pid_file_is_replaced_and_not_followed(pidfile, tmp_path):
    (tmp_path / "precious").write_text("untouched")
    pidfile.symlink_to(tmp_path / "precious")
    assert start(pidfile) == (0, "")
    assert not pidfile.is_symlink()
    assert (tmp_path / "precious").read_text() == "untouched"


def test_a_daemon_whose_command_was_ended_meanwhile_goes_on(pidfile, tmp_path):
    os.mkfifo(tmp_path / "go")
    command = begin(pidfile, between=f"open({str(tmp_path / 'go')!r}).read()")
    with open(tmp_path / "go", "w"):  # opens once the daemon reads
        command.kill()
        result(command)
    assert int(written(pidfile)) == holder(pidfile)


# Second start


def test_F_PID_1_second_start_says_so_and_leaves_the_first_alone(pidfile):
    start(pidfile)
    first = holder(pidfile)
    status, said = start(pidfile)
    assert said == f"poppy: already running (pid {first}, {pidfile}.lock is locked)\n"
    assert status == 1
    assert holder(pidfile) == first
    assert pidfile.read_text() == f"{first}\n"


def test_F_PID_1_of_many_starts_at_once_one_wins_and_each_other_says_one_line(pidfile):
    commands = [begin(pidfile) for _ in range(8)]
    results = [result(command) for command in commands]
    assert sorted(status for status, _ in results) == [0] + [1] * 7
    for status, said in results:
        assert said.startswith("poppy: already running (") if status else said == ""
        assert said.count("\n") == status
    assert pidfile.read_text() == f"{holder(pidfile)}\n"


def test_a_second_start_may_be_told_to_give_way_quietly(pidfile):
    start(pidfile)
    first = holder(pidfile)
    assert start(pidfile, how=", once_is_enough=True") == (0, "")
    assert holder(pidfile) == first
    assert pidfile.read_text() == f"{first}\n"


def test_F_PID_1_a_lock_file_that_cannot_be_opened_is_not_replaced(pidfile, monkeypatch):
    lockfile = Path(f"{pidfile}.lock")
    lockfile.touch()
    inode = lockfile.stat().st_ino

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", forbidden)
        with pytest.raises(Refused, match=f"^{lockfile}: Permission denied$"):
            daemon.acquire(str(pidfile))
    assert lockfile.stat().st_ino == inode


def test_the_lock_is_the_daemon_s_and_not_its_children_s(pidfile, tmp_path):
    os.mkfifo(tmp_path / "session")
    start(
        pidfile, after=f"if os.fork() == 0: open({str(tmp_path / 'session')!r}).read(); os._exit(0)"
    )
    with open(tmp_path / "session", "w"):  # a session that outlives the daemon
        first = holder(pidfile)
        assert first
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: holder(pidfile) is None)
        assert start(pidfile) == (0, "")
        assert holder(pidfile) not in (None, first)


# Stop and restart


def test_stop_returns_when_the_daemon_is_gone_and_leaves_the_files(pidfile):
    start(pidfile)
    assert stop(pidfile) == (0, "")
    assert holder(pidfile) is None
    assert pidfile.exists() and Path(f"{pidfile}.lock").exists()
    assert start(pidfile) == (0, "")


def test_row_13_stop_kills_a_daemon_that_does_not_want_to_go(pidfile):
    start(pidfile, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    assert stop(pidfile, patience=0.1) == (0, "")
    assert holder(pidfile) is None


def test_stop_asks_before_it_kills(pidfile, tmp_path):
    asked = tmp_path / "asked"
    on_term = f"(open({str(asked)!r}, 'w').write('asked\\n'), os._exit(0))"
    start(pidfile, before=f"signal.signal(signal.SIGTERM, lambda *_: {on_term})")
    assert stop(pidfile) == (0, "")
    assert written(asked) == "asked\n"


def test_restart_sends_one_hangup(pidfile, tmp_path):
    log = tmp_path / "log"
    handler = f"lambda *_: open({str(log)!r}, 'a').write('HUP\\n')"
    start(pidfile, before=f"signal.signal(signal.SIGHUP, {handler})")
    first = holder(pidfile)
    assert restart(pidfile) == (0, "")
    assert written(log) == "HUP\n"
    assert holder(pidfile) == first


@pytest.mark.parametrize("command", [stop, restart])
def test_without_a_daemon_there_is_nothing_to_do(command, pidfile):
    assert command(pidfile) == (0, "")
    assert not pidfile.exists()
    assert stat.S_IMODE(Path(f"{pidfile}.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [daemon.stop, daemon.restart])
def test_without_a_directory_for_the_lock_it_is_refused(command, tmp_path):
    lost = tmp_path / "nowhere" / "pid"
    with pytest.raises(Refused, match=f"^{lost}.lock: No such file or directory$"):
        command(str(lost), "poppy")


@pytest.mark.parametrize("command", [daemon.stop, daemon.restart])
@pytest.mark.parametrize("pid", [0, -1])
def test_a_daemon_of_another_container_is_not_guessed_at(command, pid, pidfile, monkeypatch, capfd):
    monkeypatch.setattr(daemon, "lock_holder", lambda lock: pid)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert command(str(pidfile), "poppy") == 1
    said = capfd.readouterr().err
    assert said == f"poppy: cannot see the process that has locked {pidfile}.lock\n"


def test_stop_gives_up_on_a_daemon_that_it_may_not_signal(pidfile, monkeypatch, capfd):
    def forbidden(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(daemon, "lock_holder", lambda lock: os.getpid())
    monkeypatch.setattr(os, "kill", forbidden)
    assert daemon.stop(str(pidfile), "poppy") == 1
    assert capfd.readouterr().err == "kill: Operation not permitted\n"


@pytest.mark.parametrize("command", [stop, restart])
def test_F_PID_2_a_stale_pid_file_leads_to_no_signal(command, pidfile, bystander):
    pidfile.write_text(f"{bystander.pid}\n")
    assert command(pidfile) == (0, "")


def test_F_PID_2_a_stale_pid_file_does_not_hinder_a_start(pidfile, bystander):
    pidfile.write_text(f"{bystander.pid}\n")
    assert start(pidfile) == (0, "")
    assert pidfile.read_text() == f"{holder(pidfile)}\n"


@pytest.mark.parametrize("content", ["{bystander}\n", "", "-1\n", "1\n", "garbage"])
def test_F_PID_2_stop_ends_the_owner_of_the_lock_whatever_the_pid_file_says(
    content, pidfile, bystander
):
    start(pidfile)
    pidfile.write_text(content.format(bystander=bystander.pid))
    assert stop(pidfile) == (0, "")
    assert holder(pidfile) is None


def test_F_PID_2_stop_does_not_end_the_successor(pidfile, monkeypatch):
    owners = iter([111, 111, 222, 222])
    sent = []
    monkeypatch.setattr(daemon, "lock_holder", lambda lock: next(owners))
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    assert daemon.stop(str(pidfile), "poppy") == 0
    assert sent == [(111, signal.SIGTERM)]


# Descriptors


def test_a_parked_descriptor_is_out_of_the_way_and_ends_with_exec():
    reader, writer = os.pipe()
    parked = daemon.park(writer)
    assert parked >= 10 and not os.get_inheritable(parked)
    os.write(parked, b"x")
    os.close(parked)
    assert os.read(reader, 2) == b"x" and os.read(reader, 2) == b""  # the old number is closed
    os.close(reader)


def test_acquire_holds_the_lock_until_its_descriptor_is_closed(pidfile):
    lock = daemon.acquire(str(pidfile))
    status, said = start(pidfile)
    assert (status, f"(pid {os.getpid()}, " in said) == (1, True)
    os.close(lock)
    assert start(pidfile) == (0, "")


# Rights

SWITCH = """
import os, sys
from courierchain import daemon
from courierchain.refusal import Refused
try:
    {calls}
except Refused as why:
    sys.exit(str(why))
try:
    os.setuid(0)
except PermissionError:
    print(os.getresuid(), os.getresgid(), sorted(os.getgroups()), file=sys.stderr, end="")
"""


def switch(*calls: str) -> tuple[int, str]:
    needs_root()
    return result(python(SWITCH.format(calls="; ".join(calls))))


def ids(uid: int, gid: int, groups: list[int]) -> str:
    return f"{(uid,) * 3} {(gid,) * 3} {sorted(groups)}"


def somebody() -> pwd.struct_passwd:
    return next(entry for entry in pwd.getpwall() if entry.pw_uid and entry.pw_gid)


def test_a_user_s_name_brings_its_groups():
    user = somebody()
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    expected = ids(user.pw_uid, user.pw_gid, groups)
    assert switch(f"daemon.change_user({user.pw_name!r})") == (0, expected)


def test_a_user_s_number_keeps_the_group_and_no_other():
    calls = ("os.setgroups([7, 8])", "daemon.change_user('54321')")
    assert switch(*calls) == (0, ids(54321, 0, [0]))


def test_a_group_that_was_chosen_stays_the_main_one():
    user = somebody()
    calls = (
        "daemon.change_group('54321')",
        f"daemon.change_user({user.pw_name!r}, keep_group=True)",
    )
    expected = ids(user.pw_uid, 54321, os.getgrouplist(user.pw_name, 54321))
    assert switch(*calls) == (0, expected)


def test_a_group_is_alone():
    calls = ("os.setgroups([7, 8])", "daemon.change_group('12345')", "daemon.change_user('54321')")
    assert switch(*calls) == (0, ids(54321, 12345, [12345]))


@pytest.mark.parametrize("call", ["change_user('54322')", "change_group('54322')"])
def test_without_the_right_to_change_it_is_refused(call):
    status, said = switch("daemon.change_user('54321')", "os.setgid(0)", f"daemon.{call}")
    assert status == 1
    assert said in ("setuid: Operation not permitted\n", "setgid: Operation not permitted\n")


@pytest.mark.parametrize("name", ["no such user", "", "4x", "\u0664"])
def test_an_unknown_user_is_refused_in_courier_s_words(name):
    with pytest.raises(Refused, match="^getpwnam: Success$"):
        daemon.change_user(name)


@pytest.mark.parametrize("name", ["no such group", "", "4x", "\u0664"])
def test_an_unknown_group_is_refused(name):
    with pytest.raises(Refused, match=f"^Group not found: {name}$"):
        daemon.change_group(name)


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "9" * 40])
def test_a_number_that_is_no_id_changes_nothing(number):
    for change in ("change_user", "change_group"):
        status, said = switch(f"daemon.{change}({number!r})")
        assert status == 1 and said.startswith("set")
