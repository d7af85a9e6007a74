"""courierlogger from outside: what it sends, what it starts, and how it ends.

What is sent to syslog is read from a socket that is /dev/log for the program under test, and for
no other: a private mount namespace. The rest is read with -stderr=journal or from a -file, and
needs no root.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import BIN, DEADLINE, children_of, free_port, needs, needs_root, wait_until
from tests.privatedev import PrivateDev

LOGGER = str(BIN / "courierlogger")
STAMP = r"\w{3} [ \d]\d \d\d:\d\d:\d\d"

HOSTILE = b"""\
ERR: error
WARN:   warning, blanks
ALERT:alert
CRIT: critical
DEBUG: debug
INFO: info
plain

   blanks
err: no prefix
 ERR: nor this
ERR: ERR: only once
ERR:\t tab
ERR:
%s%n 100% $(id) \\n
\xe4\xff \xc3\xa4 8-bit
CVE-38 \x1b[31m \r forged\r\x07\x7f
"""
# Not over 4096 octets in all: after a long line Courier's loses what comes behind those.
LONG = b"".join(
    [b"ERR: " + b"0" * 1200 + b"\n", b"1" * 510 + b"\n", b"2" * 511 + b"\n", b"3" * 512 + b"\n"]
    + [b"4" * 511 + b"WARN: the rest\n", b"5" * 700 + b"\n", b"the last line"]
)


def run(*argv: str, data: bytes = b"", **how) -> subprocess.CompletedProcess:
    return subprocess.run(argv, input=data, capture_output=True, timeout=DEADLINE, **how)


def logged(*arguments: str, **how) -> list[str]:
    """The lines of -stderr=journal; the exit status is 0."""
    done = run(LOGGER, "-stderr=journal", *arguments, **how)
    assert done.returncode == 0
    return done.stderr.decode().splitlines()


class DevLog:
    """The socket; `devlog.behind(argv)` is a command that has it as /dev/log."""

    def __init__(self, directory: Path):
        self.path = directory / "syslog"
        private = directory / "dev"
        private.mkdir()
        self.behind = PrivateDev(private, self.path).behind
        self.listen()

    def listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.path.chmod(0o666)
        self.socket.settimeout(DEADLINE)

    def sent_by(self, *argv: str, data: bytes = b"") -> list[bytes]:
        """What a program sends, without time stamps. (The socket's queue is short.)"""
        with subprocess.Popen(self.behind(*argv), stdin=subprocess.PIPE) as process:
            assert process.stdin
            process.stdin.write(data)
            process.stdin.close()
            self.socket.settimeout(0.05)
            sent = []
            ended = None
            while True:
                try:
                    sent.append(self.message())
                except TimeoutError:
                    if ended is not None:
                        break
                    ended = process.poll()
        assert ended == 0
        self.socket.settimeout(DEADLINE)
        return sent

    def message(self) -> bytes:
        message = self.socket.recv(4096)
        match = re.fullmatch(rf"(<\d+>){STAMP} (.*)".encode(), message, re.DOTALL)
        assert match, message
        return match[1] + match[2]


@pytest.fixture
def devlog(public):
    devlog = DevLog(public)
    yield devlog
    devlog.socket.close()


@pytest.fixture
def begin():
    """Start a logger that runs on: begin(argument...); ended after the test."""
    running = []

    def start(*arguments: str, **how) -> subprocess.Popen:
        argv = arguments if arguments[0] == "unshare" else (LOGGER, *arguments)
        process = subprocess.Popen(argv, start_new_session=True, **how)
        running.append(process)
        return process

    yield start
    for process in running:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


@pytest.fixture
def pidfile(tmp_path):
    path = tmp_path / "pop3d.pid"
    yield path
    run(LOGGER, f"-pid={path}", "-stop")


class Log:
    """A -file=FILE, and what it holds."""

    def __init__(self, path: Path):
        self.path = path
        self.option = f"-file={path}"

    def texts(self) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        matches = [re.fullmatch(rf"{STAMP} (\S+): (.*)", line) for line in lines]
        assert all(matches), lines
        return [match[2] for match in matches if match]

    def wait_for(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.texts().count(text) >= times, f"{text!r} in {self.texts()}")


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


# What is sent


def test_lines_of_descriptor_0_go_to_syslog_as_name(devlog):
    sent = devlog.sent_by(LOGGER, "pop3d", data=b"INFO: LOGIN, user=john\nERR: e\n\n%s last")
    assert sent == [
        b"<22>pop3d: LOGIN, user=john",
        b"<19>pop3d: e",
        b"<22>pop3d: ",
        b"<22>pop3d: %s last",
    ]


def test_the_name_is_that_of_the_program_unless_it_is_given(devlog, script):
    noisy = script("noisy", "#!/bin/sh\necho DEBUG: hello >&2\nexit 7\n")
    assert devlog.sent_by(LOGGER, noisy, "with an argument") == [b"<23>noisy: hello"]
    assert devlog.sent_by(LOGGER, "-name=pop3d", noisy) == [b"<23>pop3d: hello"]
    assert devlog.sent_by(LOGGER, "-facility=local7", noisy) == [b"<191>noisy: hello"]


def test_CVE_38_nul_becomes_a_dot_and_hides_no_line(devlog):
    sent = devlog.sent_by(LOGGER, "pop3d", data=b"a\0b\nERR:\0c\nnext\n")
    assert sent == [b"<22>pop3d: a.b", b"<19>pop3d: .c", b"<22>pop3d: next"]


def test_CVE_38_a_line_is_one_message_whatever_is_in_it(devlog):
    hostile = bytes(octet for octet in range(256) if octet not in b"\0\n")
    assert devlog.sent_by(LOGGER, "pop3d", data=hostile + b"\n") == [b"<22>pop3d: " + hostile]


def test_a_program_runs_on_without_syslog_and_is_logged_once_there_is_one(devlog, begin, tmp_path):
    devlog.socket.close()
    devlog.path.unlink()
    os.mkfifo(tmp_path / "go")
    talk = f"echo lost >&2; echo > {tmp_path}/go; read x < {tmp_path}/go; echo found >&2"
    process = begin(*devlog.behind(LOGGER, "sh", "-c", talk))
    (tmp_path / "go").read_text()
    devlog.listen()
    (tmp_path / "go").write_text("\n")
    while (message := devlog.message()) != b"<22>sh: found":
        assert message == b"<22>sh: lost"  # it may have taken longer than we
    assert process.wait(DEADLINE) == 0


# The same as Courier's

FORMS = {
    "one argument": ["pop3d"],
    "standalone": ["-name=pop3d"],
    "facility": ["-facility=local3", "-name=pop3d"],
    "program": ["-name=pop3d", "sh", "-c", "cat {file} >&2; exit 3"],
    "program's name": ["/bin/cat", "/no/such/file"],
    "not there": ["no-such-program", "x"],
    "not there either": ["/no/such/program"],
    "not a program": ["/etc/passwd"],
    "no name": [""],
    "odd name": ["a b: %s"],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [HOSTILE, LONG], ids=["hostile", "long"])
def test_row_52_the_datagrams_are_those_of_courier_s_own(form, data, devlog, public):
    original = needs("courierlogger")
    (public / "data").write_bytes(data)
    arguments = [word.format(file=public / "data") for word in FORMS[form]]
    expected = devlog.sent_by(original, *arguments, data=data)
    assert devlog.sent_by(LOGGER, *arguments, data=data) == expected
    assert expected


REFUSED = [
    [],
    ["-nonsense"],
    ["-nonsense=x", "true"],
    ["-"],
    ["--", "true"],
    ["-start"],
    ["-start", "true"],
    ["-stop"],
    ["-restart"],
    ["-stop", "-nonsense"],
    ["-pid"],
    ["-pid=", "true"],
    ["-name="],
    ["-start=x", "true"],
    ["-respawn=1", "true"],
    ["-facility=bogus", "true"],
    ["-facility=MAIL", "true"],
    ["-facility=console", "-stop"],
    ["-facility=local0"],
    ["-respawn"],
    ["", "x"],
    ["-pid=/tmp/pid"],
    ["-pid=/tmp/pid", "-name=x"],
    ["-pid=/tmp/pid", "-start", "-name=x"],
    ["-pid=/no/such/directory/pid", "true"],
    ["-pid=/no/such/directory/pid", "-stop"],
    ["-pid=/no/such/directory/pid", "-restart"],
    ["-user=no such user", "-name=x"],
    ["-group=no such group", "-name=x"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_complaints_are_courier_s(arguments):
    original = run(needs("courierlogger"), *arguments)
    ours = run(LOGGER, *arguments)
    assert (ours.returncode, ours.stdout) == (original.returncode, original.stdout) == (1, b"")
    assert ours.stderr == original.stderr or not original.stderr  # it has lost descriptor 2 by then


@pytest.mark.parametrize(
    "facility",
    [
        *("auth", "authpriv", "console", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news"),
        *("security", "user", "uucp", "local0", "local7"),
    ],
)
def test_facilities_have_courier_s_numbers(facility, devlog):
    arguments = [f"-facility={facility}", "-name=x"]
    if run(needs("courierlogger"), *arguments).returncode:
        assert run(LOGGER, *arguments).returncode == 1
        return
    expected = devlog.sent_by(needs("courierlogger"), *arguments, data=b"ERR: x\n")
    assert devlog.sent_by(LOGGER, *arguments, data=b"ERR: x\n") == expected


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-stop"], "-pid argument required"),
        (["-x=y"], "Unknown option '-x=y'"),
        (["-stderr=file", "true"], "Unknown option '-stderr=file'"),
        (["-facility=bogus"], "Unknown facility name 'bogus'"),
        (["-respawn"], "-name option required for standalone logger"),
        (["-pid=x", "-name=x"], "-start must be followed by a command to execute"),
        (["-file=/no/such/file", "true"], "/no/such/file: No such file or directory"),
        (["-user=no such user", "true"], "getpwnam: Success"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_status_1(arguments, said):
    done = run(LOGGER, *arguments)
    assert (done.returncode, done.stderr.decode()) == (1, said + "\n")


def test_usage_has_two_lines():
    done = run(LOGGER)
    assert done.returncode == 1
    first, second = done.stderr.decode().splitlines()
    assert first == "Usage: courierlogger [-name=name] [-pid=pidfile] [-facility=type]"


# The program


def test_the_exit_status_is_0_whatever_the_program_s_was():
    assert run(LOGGER, "false").returncode == 0
    assert run(LOGGER, "sh", "-c", "kill -9 $$").returncode == 0
    assert logged("no-such-program") == ["<6>exec: No such file or directory"]
    assert logged("/etc/passwd") == ["<6>exec: Permission denied"]


def test_the_program_reads_and_writes_null_and_inherits_no_other_descriptor(begin, log):
    process = begin(log.option, "sleep", "600")
    (program,) = wait_until(lambda: children_of(process.pid))
    wait_until(lambda: Path(f"/proc/{program}/comm").read_text() == "sleep\n")
    there = Path(f"/proc/{program}/fd")
    found = {entry.name: os.readlink(entry) for entry in there.iterdir()}
    assert found.pop("2").startswith("pipe:")
    assert found == {"0": "/dev/null", "1": "/dev/null"}


def test_the_program_has_signals_at_their_defaults():
    status = logged("sh", "-c", "exec grep -E '^Sig(Blk|Ign)' /proc/self/status >&2")
    masks = [int(line.split()[1], 16) for line in status]
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]  # 1 to 31; the others are libc's own


def test_the_program_stays_where_it_was_called_and_the_logger_does_not(begin, log, tmp_path):
    process = begin(log.option, "sh", "-c", "pwd >&2; exec sleep 600", cwd=tmp_path)
    log.wait_for(str(tmp_path))
    wait_until(lambda: os.readlink(f"/proc/{process.pid}/cwd") == "/")
    process.send_signal(signal.SIGHUP)
    log.wait_for(str(tmp_path), times=2)


def test_the_program_is_looked_up_in_path(script, public):
    script("noisy", "#!/bin/sh\necho found >&2\n")
    assert logged("noisy", env={"PATH": f"/bin:{public}"}) == ["<6>found"]
    relative = logged("noisy", env={"PATH": ".:/bin"}, cwd=public)
    assert relative == ["<6>exec: No such file or directory"]
    assert logged("./noisy", cwd=public) == ["<6>found"]


def test_lines_of_those_that_outlive_the_program_are_logged(tmp_path):
    os.mkfifo(tmp_path / "go")
    talk = f"(read x < {tmp_path}/go; echo late >&2) & echo early >&2"
    process = subprocess.Popen(
        [LOGGER, "-stderr=journal", "sh", "-c", talk], stderr=subprocess.PIPE
    )
    assert process.stderr and process.stderr.readline() == b"<6>early\n"
    (tmp_path / "go").write_text("\n")
    assert process.stderr.readline() == b"<6>late\n"
    assert process.wait(DEADLINE) == 0


# Signals

COUNTED = """
trap 'echo HUP >&2; [ -e stay ] || exit' HUP
trap 'echo TERM >&2; exit' TERM
echo started >&2
while :; do sleep 0.02; done
"""


def test_hangup_is_passed_on_and_the_program_started_once_more(begin, log, tmp_path):
    process = begin(log.option, "sh", "-c", COUNTED, cwd=tmp_path)
    for times in (1, 2):
        log.wait_for("started", times)
        process.send_signal(signal.SIGHUP)
    log.wait_for("started", 3)
    (program,) = children_of(process.pid)
    os.kill(program, signal.SIGKILL)
    assert process.wait(DEADLINE) == 0
    assert log.texts() == ["started", "HUP"] * 2 + ["started"]


def test_a_program_that_bears_a_hangup_is_started_once_more_when_it_ends(begin, log, tmp_path):
    (tmp_path / "stay").touch()
    process = begin(log.option, "sh", "-c", COUNTED, cwd=tmp_path)
    log.wait_for("started")
    (program,) = children_of(process.pid)
    process.send_signal(signal.SIGHUP)
    log.wait_for("HUP")
    assert children_of(process.pid) == [program]
    os.kill(program, signal.SIGTERM)
    log.wait_for("started", 2)
    assert log.texts() == ["started", "HUP", "TERM", "started"]


def test_term_is_passed_on_and_ends_both(begin, log, tmp_path):
    process = begin(log.option, "-respawn", "sh", "-c", COUNTED, cwd=tmp_path)
    log.wait_for("started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0
    assert log.texts() == ["started", "TERM"]


def test_row_53_a_program_that_does_not_want_to_go_is_killed_after_8_seconds(begin, log):
    process = begin(log.option, "sh", "-c", "trap '' TERM; echo started >&2; exec sleep 600")
    log.wait_for("started")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(DEADLINE) == 0
    assert 7.5 < time.monotonic() - began < 12


def test_term_without_a_program_ends_at_once_whoever_still_has_the_pipe(begin, log):
    process = begin(log.option, "sh", "-c", "sleep 600 & echo started >&2")
    log.wait_for("started")
    wait_until(lambda: not children_of(process.pid))
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == 0


def test_respawn_starts_the_program_again_after_5_seconds(begin, log, tmp_path):
    times = tmp_path / "times"
    times.touch()
    process = begin(log.option, "-respawn", "sh", "-c", f"date +%s.%N >> {times}")
    first, second = wait_until(lambda: len(t := times.read_text().split()) == 2 and t)
    assert 4.9 < float(second) - float(first) < 8
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


def test_respawn_does_not_wait_for_those_that_outlive_the_program(begin, log):
    process = begin(log.option, "-respawn", "sh", "-c", "sleep 600 & echo started >&2")
    log.wait_for("started", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


# The daemon


def start(pidfile: Path, log: Log, *program: str, cwd: Path | None = None) -> int:
    """Start a daemon, as the scripts do; its pid."""
    done = run(LOGGER, f"-pid={pidfile}", "-start", "-name=pop3d", log.option, *program, cwd=cwd)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return int(pidfile.read_text())


def test_row_53_start_and_stop(pidfile, log, tmp_path):
    daemon = start(pidfile, log, "sh", "-c", COUNTED, cwd=tmp_path)
    log.wait_for("started")
    assert pidfile.read_text() == f"{daemon}\n"
    (program,) = children_of(daemon)
    assert os.getpgid(program) == daemon
    wait_until(lambda: os.readlink(f"/proc/{daemon}/fd/2") == "/dev/null")
    done = run(LOGGER, f"-pid={pidfile}", "-stop")
    assert (done.returncode, done.stderr) == (0, b"")
    wait_until(lambda: not Path(f"/proc/{daemon}").exists())  # as soon as init has seen it
    assert not Path(f"/proc/{program}").exists()
    assert log.texts() == ["started", "TERM"]
    assert pidfile.exists()


def test_a_second_start_quietly_gives_way(pidfile, log, tmp_path):
    daemon = start(pidfile, log, "sh", "-c", COUNTED, cwd=tmp_path)
    assert start(pidfile, log, "sh", "-c", COUNTED, cwd=tmp_path) == daemon
    log.wait_for("started")
    run(LOGGER, f"-pid={pidfile}", "-stop")
    assert log.texts() == ["started", "TERM"]


def test_restart_sends_the_daemon_a_hangup(pidfile, log, tmp_path):
    daemon = start(pidfile, log, "sh", "-c", COUNTED, cwd=tmp_path)
    log.wait_for("started")
    assert run(LOGGER, f"-pid={pidfile}", "-restart").returncode == 0
    log.wait_for("started", 2)
    assert int(pidfile.read_text()) == daemon


@pytest.mark.parametrize("command", ["-stop", "-restart"])
def test_without_a_daemon_there_is_nothing_to_do(command, pidfile):
    done = run(LOGGER, f"-pid={pidfile}", command)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not pidfile.exists()


def test_pop3d_started_and_stopped_as_by_courier_s_scripts(pidfile, public, john, environment):
    log = Log(public / "maillog")
    port = free_port()
    stages = ["courierpop3login", "authuserdb", "courierpop3d", "./Maildir"]
    tcpd = ["couriertcpd", "-address=127.0.0.1", "-nodnslookup", "-noidentlookup", str(port)]
    command = [LOGGER, f"-pid={pidfile}", "-start", "-name=pop3d", log.option, *tcpd, *stages]
    assert run(*command, env=environment).returncode == 0

    def greeting() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        except ConnectionRefusedError:
            return None

    with wait_until(greeting) as client, client.makefile("rb") as answers:
        client.sendall(f"USER {john.name}\r\nPASS {john.password}\r\nSTAT\r\n".encode())
        assert [answers.readline()[:3] for _ in range(4)] == [b"+OK"] * 4
        wait_until(lambda: any("LOGIN, user=john" in text for text in log.texts()))
        assert run(LOGGER, f"-pid={pidfile}", "-stop").returncode == 0
        assert answers.read() == b""


# Rights

IDS = "echo $(id -u) $(id -g) $(id -G) >&2; exec sleep 600"


@pytest.mark.parametrize(
    ("options", "program", "logger"),
    [
        (["-user=54321", "-group=54322"], "0 0", 54321),
        (["-user=54321", "-group=54322", "-droproot"], "54321 54322 54322", 54321),
        (["-droproot"], "0 0", 0),
    ],
)
def test_rights_are_dropped_after_the_start_or_before_it(options, program, logger, begin, log):
    needs_root()
    process = begin(log.option, *options, "sh", "-c", IDS)
    wait_until(lambda: log.texts() and log.texts()[0].startswith(program))
    wait_until(lambda: os.stat(f"/proc/{process.pid}").st_uid == logger)


def test_a_logger_that_may_not_signal_the_program_says_so(begin, log):
    needs_root()
    process = begin(log.option, "-user=54321", "sh", "-c", IDS)
    wait_until(log.texts)
    wait_until(lambda: os.stat(f"/proc/{process.pid}").st_uid == 54321)
    (program,) = children_of(process.pid)
    process.send_signal(signal.SIGHUP)
    log.wait_for(f"courierlogger: cannot signal pid {program}: Operation not permitted")


# Ours: a file, and the journal


def test_a_file_is_appended_to_with_time_and_name(log):
    log.path.write_text("Nov 22 03:41:21 pop3d: before\n")
    assert run(LOGGER, log.option, "-name=pop3d", data=b"INFO: one\ntwo").returncode == 0
    assert log.texts() == ["before", "one", "two"]
    assert re.fullmatch(rf"{STAMP} pop3d: two", log.path.read_text().splitlines()[-1])


def test_a_file_is_opened_again_at_hangup_by_a_logger_of_descriptor_0(begin, log, tmp_path):
    process = begin(log.option, "-name=pop3d", stdin=subprocess.PIPE, bufsize=0)
    process.stdin.write(b"one\n")
    log.wait_for("one")
    log.path.rename(tmp_path / "log.1")
    process.send_signal(signal.SIGHUP)
    wait_until(log.path.exists)
    process.stdin.write(b"two\n")
    process.stdin.close()
    assert process.wait(DEADLINE) == 0
    assert log.texts() == ["two"]


def test_a_file_is_opened_again_at_hangup_by_a_logger_of_a_program(begin, log, tmp_path):
    process = begin(log.option, "sh", "-c", COUNTED, cwd=tmp_path)
    log.wait_for("started")
    log.path.rename(tmp_path / "log.1")
    process.send_signal(signal.SIGHUP)
    log.wait_for("started")
    assert log.texts() == ["HUP", "started"]


def test_CVE_38_no_control_character_reaches_a_file_or_the_journal(log):
    hostile = b"user=\x1b[2J\r\x00\x07\x7f\ttab \xc3\xa4\nERR: next\n"
    shown = "user=.[2J....\ttab ä"
    assert run(LOGGER, log.option, "-name=x", data=hostile).returncode == 0
    assert log.texts() == [shown, "next"]
    assert logged("-name=x", data=hostile) == [f"<6>{shown}", "<3>next"]


def test_a_full_disk_disturbs_nobody():
    assert run(LOGGER, "-file=/dev/full", "sh", "-c", "echo lost >&2").returncode == 0
