"""What an administrator gets wrong: one clear line each, no traceback, the right exit status, and a
proper -ERR for the client that meets it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import (
    BIN,
    DEADLINE,
    ROOT,
    Account,
    Client,
    Server,
    free_port,
    needs_root,
    sha,
    wait_until,
)

TCPD = str(BIN / "couriertcpd")
CHAIN = ("courierpop3login", "authuserdb", "courierpop3d", "./Maildir")
GREETING = b"+OK Hello there.\r\n"
FAILED = "-ERR Login failed."
TEMPORARY = "-ERR Temporary problem, please try again later"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"

# What every log may have besides the line that a test is about.
ORDINARY = re.compile(
    rf"DEBUG: (Connection|Disconnected), {PEER}"
    rf"|INFO: (LOGIN|LOGIN FAILED|LOGOUT|DISCONNECTED)(, user=[!-~]+)?, {PEER}.*"
)


@pytest.fixture
def environment(environment):
    return {**environment, "POP3_FAILURE_DELAY": "0"}


def start(*argv: str, env=None, cwd=None) -> subprocess.CompletedProcess:
    """Run couriertcpd, which is expected to refuse."""
    return subprocess.run(
        [TCPD, *argv],
        env={"PATH": "/usr/bin:/bin", **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess, pattern: str) -> None:
    """Exit status 1, nothing on descriptor 1, and one line on 2 that matches."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.fullmatch(pattern, done.stderr.rstrip("\n")), done.stderr


def attempt(server: Server, name: str, password: str) -> tuple[str, bytes]:
    """The reply to PASS, and what comes after it when the client says QUIT."""
    with server.client() as client:
        assert client.line() == GREETING
        assert client.ask(f"USER {name}") == "+OK Password required."
        answer = client.ask(f"PASS {password}")
        try:
            client.send(b"QUIT\r\n")
        except ConnectionError:
            pass
        return answer, client.rest()


def extraordinary(server: Server) -> list[str]:
    return [line for line in server.lines() if not ORDINARY.fullmatch(line)]


def assert_one_line(server: Server, pattern: str) -> None:
    """The log has one line beyond the ordinary ones, and it matches."""
    server.logged(pattern)
    lines = extraordinary(server)
    assert len(lines) == 1, lines


# The command line


@pytest.mark.parametrize(
    "option", ["-nosuch", "-nosuch=1", "--maxprocs=3", "-h", "--help", "--", "-maxproc=3", "-Pid=x"]
)
def test_row_01_an_unknown_option(option):
    done = start(option, "110", *CHAIN)
    assert_refused(done, rf"{TCPD}: Invalid option: {re.escape(option)}")


@pytest.mark.parametrize("argv", [[], ["110"], ["-maxprocs=3"], ["-maxprocs=3", "110"], ["-"]])
def test_row_02_too_few_arguments(argv):
    done = start(*argv)
    assert_refused(done, rf"Usage: {TCPD} \[options\] port prog arg1 arg2\.\.\.")


@pytest.mark.parametrize(
    "option, shown",
    [
        *[
            ("-maxprocs=0", "maxprocsarg"),
            ("-maxprocs=x", "maxprocsarg"),
            ("-maxprocs", "maxprocs"),
        ],
        *[("-maxperip=-1", "maxperip"), ("-maxperc=0", "maxperc"), ("-listen=", "listen")],
        *[("-prefork=-1", "prefork"), ("-prefork=x", "prefork"), ("-prefork=1x", "prefork")],
        *[("-uses=0", "uses"), ("-uses=", "uses"), ("-uses=99999999999", "uses")],
    ],
)
def test_a_number_that_is_none(option, shown):
    done = start(option, str(free_port()), *CHAIN)
    assert_refused(done, rf"Invalid -{shown}(arg)? option\.")


@pytest.mark.parametrize("port", ["0", "65536", "x", "", "-1", "pop3x", "99999999999"])
def test_row_06_a_bad_port(port):
    done = start("-address=127.0.0.1", f"127.0.0.1.{port}", *CHAIN)
    assert_refused(done, rf"Invalid port: {re.escape(port)}")


@pytest.mark.parametrize("address", ["localhost", "1.2.3.4.5", "127.0.0.256", "0x7f.1", ":::", "x"])
def test_row_06_a_bad_address(address):
    done = start(f"-address={address}", str(free_port()), *CHAIN)
    assert_refused(done, rf"Invalid IP address: {re.escape(address)}")


def test_row_08_a_busy_port():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        done = start("-address=127.0.0.1", str(busy.getsockname()[1]), *CHAIN)
    assert_refused(done, r"bind: Address already in use")


def test_row_08_a_busy_port_with_pid_is_told_by_the_command(public):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        done = start(f"-pid={public}/pid", "-address=127.0.0.1", port, *CHAIN)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bind: Address already in use",
        "ll_daemon_start: Resource temporarily unavailable",
    ]
    assert not (public / "pid").exists()


def test_a_pid_file_in_a_directory_that_is_not_there(public):
    done = start(f"-pid={public}/no/pid", "-address=127.0.0.1", str(free_port()), *CHAIN)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"{public}/no/pid.lock: No such file or directory"


def test_a_port_that_only_root_may_bind():
    """As anybody else: a line, and no start."""
    if not ROOT:
        done = start("-address=127.0.0.1", "110", *CHAIN)
        assert_refused(done, r"bind: Permission denied")
        return
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 110:
            pytest.skip("anybody may bind port 110 here")
    done = subprocess.run(
        [*argv, TCPD, "-address=127.0.0.1", "110", *CHAIN],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert_refused(done, r"bind: Permission denied")


@pytest.mark.parametrize("option", ["-stop", "-restart", "-pid", "-pid="])
def test_options_that_need_a_pid_file(option):
    assert_refused(start(option, "110", *CHAIN), rf"{TCPD}: -pid argument is required\.")


def test_an_unknown_user_and_group():
    needs_root()
    port = str(free_port())
    where = ("-address=127.0.0.1", port, *CHAIN)
    assert_refused(start("-user=nosuchuser", *where), r"getpwnam: Success")
    assert_refused(start("-group=nosuchgroup", *where), r"Group not found: nosuchgroup")


def test_a_log_file_that_cannot_be_opened(public):
    where = ("-address=127.0.0.1", str(free_port()), *CHAIN)
    done = start(f"-stderr={public}/no/log", *where)
    assert_refused(done, rf"{public}/no/log: No such file or directory")


def test_a_stderrlogger_that_is_not_there_is_told_and_the_service_goes_on(serve, john, public):
    server = serve(f"-stderrlogger={public}/nosuch")
    server.logged(rf"(ERR: )?{public}/nosuch: No such file or directory")
    assert attempt(server, "john", john.password)[0] == "+OK logged in."


# The chain


@pytest.mark.parametrize(
    "chain, missing",
    [
        (["nosuchlogin", "authuserdb", "courierpop3d", "./Maildir"], "nosuchlogin"),
        (["/nowhere/login", "authuserdb", "courierpop3d", "./Maildir"], "/nowhere/login"),
        (["courierpop3login", "authnosuch", "courierpop3d", "./Maildir"], "authnosuch"),
        (["courierpop3login", "/nowhere/auth", "courierpop3d", "./Maildir"], "/nowhere/auth"),
        (["courierpop3login", "authuserdb", "courierpop9d", "./Maildir"], "courierpop9d"),
        (["courierpop3login", "authuserdb", "authpwd", "nosuch", "./Maildir"], "nosuch"),
    ],
)
@pytest.mark.parametrize("more", [[], ["-coldexec"]])
def test_a_missing_program_or_module_is_told_at_the_start(chain, missing, more):
    done = start(*more, "-address=127.0.0.1", str(free_port()), *chain)
    text = re.escape(missing)
    assert_refused(done, rf"{TCPD}: {text}: No such file or directory( \(.*\))?")


def test_a_program_that_is_not_executable_is_told_at_the_start(public):
    """And not as one that isn't there, which would send the administrator the wrong way."""
    module = public / "authmine"
    module.write_text("#!/bin/sh\n")
    module.chmod(0o644)
    chain = ["courierpop3login", str(module), "courierpop3d", "./Maildir"]
    done = start("-address=127.0.0.1", str(free_port()), *chain)
    assert_refused(done, rf"{TCPD}: {module}: (Permission denied|.*not executable.*)")


def test_a_login_program_without_modules_and_without_authdaemond_is_told_in_the_log(
    serve, mode, john, public
):
    stages = ["courierpop3login", "courierpop3d", "./Maildir"]
    server = serve(*mode, stages=stages, env={"AUTHDAEMON_SOCKET": str(public / "none")})
    assert attempt(server, "john", john.password)[0].startswith("-ERR Temporary problem")
    server.logged(f"ERR: authdaemon: {public}/none: .*is authdaemond running.*")


def test_a_chain_that_ends_in_a_module(serve, mode, john):
    """Nothing behind authuserdb: the client gets an -ERR or an end, the log a line."""
    server = serve(*mode, stages=["courierpop3login", "authuserdb"])
    answer, _ = attempt(server, "john", john.password)
    assert answer == "" or answer.startswith("-ERR")
    wait_until(lambda: extraordinary(server), "a line in the log")
    assert_plain(server)


def test_a_foreign_stage_that_vanishes_while_the_listener_runs(serve, mode, john, script, public):
    last = script("last", "#!/bin/sh\nexit 0\n")
    server = serve(*mode, stages=["courierpop3login", "authuserdb", last, "./Maildir"])
    os.unlink(last)
    assert attempt(server, "john", john.password)[0].startswith("-ERR")
    server.logged(rf"ERR: .*{last}: No such file or directory.*")
    assert_plain(server)


def test_a_foreign_stage_with_a_bad_interpreter(serve, mode, john, script):
    last = script("last", "#!/nowhere/sh\nexit 0\n")
    server = serve(*mode, stages=["courierpop3login", "authuserdb", last, "./Maildir"])
    assert attempt(server, "john", john.password)[0].startswith("-ERR")
    server.logged(rf"ERR: .*{last}: .*")
    assert_plain(server)


def assert_plain(server: Server) -> None:
    """No traceback, and no error that nobody has foreseen."""
    for line in server.lines():
        assert "Traceback" not in line and "internal error" not in line, line
        assert not line.startswith("  "), line


# The user database


def test_a_userdb_that_is_not_there(serve, mode, accounts, john):
    accounts.userdb.unlink()
    server = serve(*mode)
    assert attempt(server, "john", john.password)[0] == FAILED
    assert_one_line(
        server, rf"ERR: authuserdb: cannot read {accounts.userdb}: No such file or directory"
    )


def test_a_userdb_that_cannot_be_read(serve, mode, accounts, john):
    """Also for root: a directory in its place."""
    accounts.userdb.unlink()
    accounts.userdb.mkdir()
    server = serve(*mode)
    assert attempt(server, "john", john.password)[0] == FAILED
    assert_one_line(server, rf"ERR: authuserdb: .*{accounts.userdb}.*: Is a directory.*")


def test_a_userdb_that_the_listeners_user_may_not_read(serve, accounts, john):
    needs_root()
    server = serve(f"-user={john.uid}", f"-group={john.gid}")
    assert attempt(server, "john", john.password)[0] == FAILED
    assert_one_line(server, rf"ERR: authuserdb: cannot read {accounts.userdb}: Permission denied")


@pytest.mark.parametrize("mode_", [0o604, 0o644, 0o602, 0o666])
def test_CVE_31_a_userdb_that_everybody_can_read_is_refused(serve, accounts, john, mode_):
    accounts.userdb.chmod(mode_)
    server = serve()
    assert attempt(server, "john", john.password)[0] == FAILED
    assert_one_line(server, rf"ERR: authuserdb: {accounts.userdb} is open.*chmod .*")


BROKEN_RECORDS = {
    "no-uid": "gid=5|home=/tmp",
    "no-gid": "uid=5|home=/tmp",
    "no-home": "uid=5|gid=5",
    "text-uid": "uid=five|gid=5|home=/tmp",
    "negative-uid": "uid=-1|gid=5|home=/tmp",
    "huge-uid": "uid=99999999999999999999|gid=5|home=/tmp",
    "large-uid": "uid=4294967296|gid=5|home=/tmp",
    "no-id": "uid=4294967295|gid=5|home=/tmp",
    "digit-uid": "uid=\u00b2|gid=5|home=/tmp",
    "uid-0": "uid=0|gid=5|home=/tmp",
    "gid-0": "uid=5|gid=0|home=/tmp",
    "relative-home": "uid=5|gid=5|home=tmp",
    "empty-home": "uid=5|gid=5|home=",
    "dotted-home": "uid=5|gid=5|home=../tmp",
    "long-home": "uid=5|gid=5|home=/" + "x" * 5000,
    "nul-home": "uid=5|gid=5|home=/tmp\0",
    "control-mail": "uid=5|gid=5|home=/tmp|mail=/tmp\x1b[2J",
}


@pytest.mark.parametrize("record", BROKEN_RECORDS)
def test_a_record_that_cannot_be_served(serve, accounts, record):
    with accounts.userdb.open("a") as file:
        file.write(f"mary\t{BROKEN_RECORDS[record]}|systempw={sha('x')}\n")
    server = serve()
    answer, rest = attempt(server, "mary", "x")
    assert answer in (FAILED, TEMPORARY)
    assert rest in (b"+OK Better luck next time.\r\n", b"")
    assert_one_line(server, r"ERR: authuserdb: .*")
    assert_plain(server)


def test_a_line_of_rubbish_in_the_userdb_harms_nobody_else(serve, accounts):
    with accounts.userdb.open("ab") as file:
        file.write(b"\n\n#comment\tuid=1\nno tab here\n\t|=|\n\xff\xfe\tuid=1\nx\t\n=\t=\nj\t|||\n")
    john = accounts.add("john")
    with accounts.userdb.open("ab") as file:
        file.write(b"last\tuid=1|gid=1|home=/|systempw=x")  # no line end
    server = serve()
    assert attempt(server, "john", john.password)[0] == "+OK logged in."
    for name in ("#comment", "x", "=", "j", "last", "no tab here"):
        assert attempt(server, name, "x")[0] == FAILED
    assert_plain(server)


# Homes and Maildirs


def gone(account: Account) -> None:
    account.home.rename(account.home.with_name("elsewhere"))


def closed(account: Account) -> None:
    account.home.chmod(0)
    os.chown(account.home, 0, 0)


def a_file(account: Account) -> None:
    gone(account)
    account.home.write_text("")


@pytest.mark.parametrize("harm", [gone, closed, a_file])
def test_a_home_that_cannot_be_entered(serve, mode, john, harm):
    if harm is closed:
        needs_root()
    harm(john)
    server = serve(*mode)
    answer, rest = attempt(server, "john", john.password)
    assert (answer, rest) == (TEMPORARY, b"")
    assert_one_line(
        server, rf"ERR: (authuserdb: )?user=john: cannot enter the home {john.home}: .+"
    )


def no_maildir(account: Account) -> None:
    account.maildir.rename(account.home / "Mail")


def maildir_is_a_file(account: Account) -> None:
    no_maildir(account)
    account.maildir.write_text("From someone\n")


def closed_maildir(account: Account) -> None:
    os.chown(account.maildir, 0, 0)
    account.maildir.chmod(0)


@pytest.mark.parametrize("harm", [no_maildir, maildir_is_a_file, closed_maildir])
def test_a_maildir_that_cannot_be_entered(serve, mode, john, harm):
    if harm is closed_maildir:
        needs_root()
    harm(john)
    server = serve(*mode)
    answer, rest = attempt(server, "john", john.password)
    assert (answer, rest) == ("-ERR chdir ./Maildir failed", b"")
    assert_one_line(server, r"chdir \./Maildir: .+")


def no_cur(account: Account) -> None:
    (account.maildir / "cur").rmdir()


def cur_is_a_file(account: Account) -> None:
    no_cur(account)
    (account.maildir / "cur").write_text("")


def cur_is_closed(account: Account) -> None:
    os.chown(account.maildir / "cur", 0, 0)
    (account.maildir / "cur").chmod(0o700)


@pytest.mark.parametrize("harm", [no_cur, cur_is_a_file, cur_is_closed])
def test_F_FILE_7_a_maildir_that_is_none(serve, mode, john, harm):
    if harm is cur_is_closed:
        needs_root()
    harm(john)
    server = serve(*mode)
    answer, rest = attempt(server, "john", john.password)
    assert (answer, rest) == ("-ERR Maildir invalid (no 'cur' directory)", b"")
    assert_one_line(server, r'scancur opendir\("cur"\): .+')


def test_a_directory_that_is_no_maildir_stays_as_it_is(serve, mode, john):
    for name in ("new", "cur", "tmp"):
        (john.maildir / name).rmdir()
    (john.maildir / "something").write_text("precious")
    server = serve(*mode)
    assert attempt(server, "john", john.password)[0].startswith("-ERR Maildir invalid")
    assert [path.name for path in john.maildir.iterdir()] == ["something"]


@pytest.mark.parametrize("folder", ["new", "tmp"])
def test_F_FILE_6_new_or_tmp_is_missing(serve, mode, john, folder):
    (john.maildir / "cur" / "1700000001.a.host:2,").write_bytes(b"Subject: one\n\n")
    john.own()
    (john.maildir / folder).rmdir()
    server = serve(*mode)
    with server.client() as client:
        assert client.line() == GREETING
        client.ask("USER john")
        answer = client.ask("PASS " + john.password)
        assert answer == "+OK logged in." or answer.startswith("-ERR ")
        if answer.startswith("+OK"):
            assert client.ask("STAT") == "+OK 1 16"
    assert_plain(server)


def test_F_FILE_13_the_sticky_bit_on_the_home_locks_the_mailbox(serve, mode, john):
    john.home.chmod(0o1755)
    server = serve(*mode)
    answer, rest = attempt(server, "john", john.password)
    expected = "-ERR Your account is temporarily unavailable (+t bit set on home directory)."
    assert (answer, rest) == (expected, b"")
    server.logged(rf"INFO: LOCKED, user=john, {PEER}")


# Settings


NO_SECONDS = ["x", "-1", "1.5", "60s", "86401", "99999999999", "00000864009", " 5", "\u00b2", "1e9"]


@pytest.mark.parametrize("value", NO_SECONDS)
def test_a_login_timeout_that_is_no_number(serve, john, value):
    server = serve(env={"POP3_LOGIN_TIMEOUT": value})
    with server.client() as client:
        assert client.line().startswith(b"-ERR ")
    server.logged(r"ERR: .*POP3_LOGIN_TIMEOUT.*")
    assert_plain(server)


@pytest.mark.parametrize("name", ["POP3_LOGIN_TIMEOUT", "POP3_FAILURE_DELAY"])
def test_a_login_setting_that_is_no_number_in_every_mode(serve, mode, john, name):
    """The line names the setting and its value; the client is told, not just cut off."""
    server = serve(*mode, env={name: "soon"})
    with server.client() as client:
        greeting = client.line()
        if greeting == GREETING:  # it isn't needed yet
            client.ask("USER john")
            client.send(b"PASS wrong\r\n")
            greeting = client.line()
        assert greeting.startswith(b"-ERR ")
    server.logged(rf"ERR: .*{name}=soon.*")
    assert_plain(server)


@pytest.mark.parametrize("name", ["POP3_IDLE_TIMEOUT", "POP3_SEND_TIMEOUT"])
def test_a_setting_of_the_mail_server_that_is_no_number(serve, mode, john, name):
    server = serve(*mode, env={name: "soon"})
    answer, rest = attempt(server, "john", john.password)
    assert answer.startswith("-ERR ") and rest == b""
    assert_one_line(server, rf"ERR: .*{name}=soon.*")
    assert_plain(server)


def test_settings_that_are_empty_count_as_not_set(serve, mode, john):
    names = ("POP3_LOGIN_TIMEOUT", "POP3_IDLE_TIMEOUT", "POP3_SEND_TIMEOUT", "DEFDOMAIN")
    server = serve(*mode, env=dict.fromkeys(names, ""))
    assert attempt(server, "john", john.password) == ("+OK logged in.", b"+OK Bye-bye.\r\n")
    assert extraordinary(server) == []


@pytest.mark.parametrize("value", ["", "x", "0", "-1", "99999999999999999999", "1"])
def test_a_deadline_of_the_login_that_comes_from_outside(serve, john, value):
    """AUTHEXPIRE in the listener's own environment; the past means an end, nonsense nothing."""
    server = serve(env={"AUTHEXPIRE": value})
    with server.client() as client:
        expected = b"" if value in ("0", "1") else GREETING
        assert client.line() == expected
    assert_plain(server)


def test_a_program_started_under_a_name_that_is_none_of_ours(public):
    """A copy of the launcher under some other name."""
    other = public / "courierpop4d"
    other.symlink_to(BIN / "courierpop3d")
    done = subprocess.run([other], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (1, "AUTHFAILURE\n")  # it is courierpop3d
    copy = public / "nothing"
    copy.write_bytes((BIN / "courierpop3d").read_bytes())
    (public / "courier-python").write_bytes((BIN / "courier-python").read_bytes())
    copy.chmod(0o755)
    done = subprocess.run([copy], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_installation_that_users_cannot_enter_is_told_at_the_start(serve, john, public):
    """Only where the tests run from such a place; elsewhere there is no such line."""
    needs_root()
    server = serve()
    closed = [
        parent
        for parent in Path(os.path.realpath(sys.executable)).parents
        if not parent.stat().st_mode & 0o001
    ]
    warned = [line for line in server.lines() if "users cannot enter" in line]
    assert bool(warned) == bool(closed)
    with Client(server.port).login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
