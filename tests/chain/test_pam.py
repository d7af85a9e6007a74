"""Real PAM, with pam_unix and accounts made by useradd: who gets in, and as whom; and that a PAM
session is opened before the service and closed after it, whatever ends it.

The PAM service has a name of its own for each test, chosen by AUTHSERVICE<port>; its session stack
runs a script (pam_exec) that writes down what PAM told it.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import (
    BIN,
    DEADLINE,
    Account,
    Client,
    Server,
    children_of,
    free_port,
    has_client,
    needs,
    needs_root,
    sha,
    wait_until,
)

SERVICES = Path("/etc/pam.d")
UNIX = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
STAGES = ("courierpop3login", "authpam", "courierpop3d", "./Maildir")
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"

serial = itertools.count()


@pytest.fixture
def mode(any_mode):
    return any_mode


def command(*argv: str, text: str = "") -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (argv, done.stderr)


def unique() -> str:
    return f"p3t{os.getpid()}n{next(serial)}"


@pytest.fixture
def add_user(public):
    """Make system accounts with a home and a Maildir; removed after the test."""
    needs_root()
    for program in ("useradd", "userdel", "chpasswd", "chage", "usermod"):
        needs(program)
    made: list[str] = []

    def add(*options: str, password: str = "") -> Account:
        name = unique()
        home = public / f"home-of-{name}"
        home.mkdir(mode=0o755)
        command(needs("useradd"), "-M", "-d", str(home), *options, name)
        made.append(name)
        entry = pwd.getpwnam(name)
        account = Account(name, home, entry.pw_uid, entry.pw_gid)
        account.password = password or account.password
        command(needs("chpasswd"), text=f"{name}:{account.password}\n")
        return account

    yield add
    for name in made:
        subprocess.run([needs("userdel"), "-f", name], capture_output=True, check=False)


@pytest.fixture
def user(add_user):
    return add_user()


@pytest.fixture
def trace(public):
    """The file that the PAM stacks of a test write into."""
    path = public / "trace"
    path.touch()
    path.chmod(0o666)
    return path


@pytest.fixture
def tell(script, trace):
    """A line for a PAM stack: `TYPE optional pam_exec.so ...`, without the TYPE."""
    program = script(
        "tell", f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER $PAM_RHOST $PAM_SERVICE" >> {trace}\n'
    )
    return f"required pam_exec.so quiet {program}\n"


@pytest.fixture
def pam_service():
    """Write a PAM service file and give its name; removed after the test."""
    needs_root()
    written: list[Path] = []

    def write(stack: str) -> str:
        path = SERVICES / unique()
        path.write_text(stack)
        written.append(path)
        return path.name

    yield write
    for path in written:
        path.unlink()


@pytest.fixture
def serve_pam(serve, tell, pam_service):
    """Start a listener whose authpam uses this stack, or the service of this name."""

    def start(*options: str, stack: str = "", service: str = "", stages=STAGES) -> Server:
        port = free_port()
        service = service or pam_service(stack or f"{UNIX}session {tell}")
        env = {"POP3_FAILURE_DELAY": "0", f"AUTHSERVICE{port}": service}
        return serve(*options, stages=stages, env=env, port=port)

    return start


def told(trace: Path) -> list[str]:
    """The PAM_TYPE of each line, or its first word."""
    return [line.split()[0] for line in trace.read_text().splitlines()]


def attempt(client: Client, name: str, password: str) -> str:
    assert client.ask(f"USER {name}") == "+OK Password required."
    return client.ask(f"PASS {password}")


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def descendants(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [deeper for child in found for deeper in descendants(child)]


def serving(server: Server, uid: int) -> int:
    """The process that has become the user."""

    def find() -> int:
        for pid in descendants(server.process.pid):
            try:
                if os.stat(f"/proc/{pid}").st_uid == uid:
                    return pid
            except FileNotFoundError:
                pass
        return 0

    return wait_until(find, f"a process with uid {uid}")


def is_reused(mode: list[str]) -> bool:
    return any(option.startswith("-uses=") for option in mode)


def wait_for_end(server: Server) -> None:
    """No process with a client, no zombie, and none that isn't a child of the listener."""

    def over() -> bool:
        pids = descendants(server.process.pid)
        states = []
        for pid in pids:
            try:
                states.append(status_of(pid)["State"][0])
            except OSError:
                return False
        return (
            sorted(pids) == sorted(server.children())
            and "Z" not in states
            and not any(map(has_client, pids))
        )

    wait_until(over, "sessions leave no process")


def test_wrong_password_then_the_right_one(serve_pam, mode, user):
    user.deliver(b"Subject: one\n\nx\n")
    server = serve_pam(*mode)
    with server.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"
        assert attempt(client, user.name, "wrong") == "-ERR Login failed."
        assert attempt(client, user.name, user.password[:-1]) == "-ERR Login failed."
        assert attempt(client, user.name, user.password + "x") == "-ERR Login failed."
        assert attempt(client, user.name, user.password) == "+OK logged in."
        assert client.ask("STAT") == "+OK 1 19"
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert len(user.files()) == 1


def test_a_password_with_blanks_and_8_bit_characters(serve_pam, add_user):
    user = add_user(password="  pässwörd, %s \\ ")
    server = serve_pam()
    with server.client() as client:
        client.line()
        assert attempt(client, user.name, user.password.strip()) == "-ERR Login failed."
        assert attempt(client, user.name, user.password) == "+OK logged in."


def test_an_unknown_user_is_refused_and_pam_is_not_asked(serve_pam, mode, user, tell, trace):
    stack = f"auth {tell}{UNIX}session required pam_permit.so\n"
    server = serve_pam(*mode, stack=stack)
    with server.client() as client:
        client.line()
        assert attempt(client, "p3tnobody", user.password) == "-ERR Login failed."
        assert trace.read_text() == ""
        assert attempt(client, user.name, user.password) == "+OK logged in."
    assert told(trace) == ["auth"]


ACCOUNT_STATES = {
    "expired": ("chage", "-E", "0"),
    "expired-yesterday": ("chage", "-E", "-1d"),
    "password-must-be-changed": ("chage", "-d", "0"),
    "password-too-old": ("chage", "-d", "2000-01-01", "-M", "5", "-I", "5"),
    "locked": ("usermod", "-L"),
}


@pytest.mark.parametrize("state", ACCOUNT_STATES)
def test_CVE_30_the_right_password_of_a_closed_account_is_refused(serve_pam, user, trace, state):
    server = serve_pam()
    with server.client().login(user) as client:
        client.ask("QUIT")
    program, *options = ACCOUNT_STATES[state]
    if options[-1] == "-1d":
        options[-1] = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400))
    wait_until(lambda: told(trace)[-1:] == ["close_session"], "the first session is closed")
    command(needs(program), *options, user.name)
    with server.client() as client:
        client.line()
        assert attempt(client, user.name, user.password) == "-ERR Login failed."
        assert client.ask("STAT") == "-ERR Invalid command."
    server.logged(rf"INFO: LOGIN FAILED, user={user.name}, {PEER}")
    assert told(trace) == ["open_session", "close_session"]


def test_CVE_30_an_expired_account_is_refused_in_every_mode(serve_pam, mode, user):
    command(needs("chage"), "-E", "0", user.name)
    server = serve_pam(*mode)
    with server.client() as client:
        client.line()
        assert attempt(client, user.name, user.password) == "-ERR Login failed."
    server.logged(rf"INFO: authpam: user={user.name} refused: User account has expired")
    wait_for_end(server)


def test_a_session_that_pam_denies_is_no_login(serve_pam, mode, user):
    server = serve_pam(*mode, stack=f"{UNIX}session required pam_deny.so\n")
    with server.client() as client:
        client.line()
        assert attempt(client, user.name, user.password) == "-ERR Login failed."
        assert client.ask("STAT") == "-ERR Invalid command."
    wait_for_end(server)


def test_pam_learns_the_clients_address_in_every_step(serve_pam, mode, user, tell, trace):
    """PAM_RHOST, which pam_access, pam_faillock and pam_abl decide by."""
    stack = f"auth {tell}auth required pam_unix.so nodelay\naccount {tell}session {tell}"
    server = serve_pam(*mode, stack=stack)
    with server.client().login(user) as client:
        client.ask("QUIT")
    wait_until(lambda: len(told(trace)) == 4, "four steps")
    lines = [line.split() for line in trace.read_text().splitlines()]
    assert [line[0] for line in lines] == ["auth", "account", "open_session", "close_session"]
    assert {tuple(line[1:3]) for line in lines} == {(user.name, "::ffff:127.0.0.1")}
    assert len({line[3] for line in lines}) == 1


@pytest.fixture
def marking(script, trace):
    """A stage that writes `service` into the trace before it becomes the next program."""
    return script("mark", f'#!/bin/sh\necho service >> {trace}\nexec "$@"\n')


WHOLE = ["open_session", "service", "close_session"]


def test_the_session_is_open_before_the_service_and_closed_after_quit(
    serve_pam, mode, user, trace, marking
):
    stages = ["courierpop3login", "authpam", marking, BIN / "courierpop3d", "./Maildir"]
    server = serve_pam(*mode, stages=stages)
    with server.client().login(user) as client:
        assert told(trace) == WHOLE[:2]
        assert client.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: told(trace) == WHOLE, f"{WHOLE}")
    wait_for_end(server)


def test_the_session_is_closed_when_the_client_goes_away(serve_pam, mode, user, trace):
    server = serve_pam(*mode)
    server.client().login(user).close()
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")
    wait_for_end(server)


def test_the_session_is_closed_when_the_server_process_is_killed(
    serve_pam, process_mode, user, trace
):
    server = serve_pam(*process_mode)
    with server.client().login(user) as client:
        os.kill(serving(server, user.uid), signal.SIGKILL)
        assert client.rest() == b""
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")
    wait_for_end(server)


def test_the_session_is_closed_when_the_listener_gets_sigterm(serve_pam, mode, user, trace):
    server = serve_pam(*mode)
    with server.client().login(user) as client:
        server.process.terminate()
        assert client.rest() == b""
        assert server.process.wait(DEADLINE) == 0
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")


def test_the_session_is_closed_when_the_process_that_keeps_it_gets_sigterm(
    serve_pam, process_mode, user, trace
):
    """An administrator ends one session by the pid that is the listener's child."""
    if is_reused(process_mode):
        pytest.skip("here it serves others too, and ends with the listener only")
    server = serve_pam(*process_mode)
    with server.client().login(user) as client:
        keeper = int(status_of(serving(server, user.uid))["PPid"])
        assert keeper in server.children()
        os.kill(keeper, signal.SIGTERM)
        assert client.rest() == b""
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")
    wait_for_end(server)


def test_the_session_goes_on_when_the_listener_is_killed(serve_pam, process_mode, user, trace):
    """F-KILL-5, with the process that has to close the PAM session."""
    server = serve_pam(*process_mode)
    with server.client().login(user) as client:
        server.process.kill()
        server.process.wait(DEADLINE)
        assert client.ask("NOOP") == "+OK Yup."
        assert client.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")


def test_a_parked_session_keeps_its_pam_session_open(serve_pam, user, trace):
    """Also when it goes on in a process that is new."""
    server = serve_pam("-uses=9", "-park=0.05")
    with server.client().login(user) as client:
        for _ in range(2):
            pid = serving(server, user.uid)
            wait_until(lambda pid=pid: not has_client(pid), "the session is parked")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: pid not in server.children(), "its process is gone")
            assert client.ask("NOOP") == "+OK Yup."
        time.sleep(0.3)
        assert told(trace) == ["open_session"]
        assert client.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")


def test_AUTHCHAIN_05_CVE_37_the_service_has_the_users_ids_and_groups(
    serve_pam, process_mode, add_user
):
    user = add_user("-G", "mail,games")
    server = serve_pam(*process_mode)
    with server.client().login(user):
        pid = serving(server, user.uid)
        status = status_of(pid)
        assert status["Uid"].split() == [str(user.uid)] * 4
        assert status["Gid"].split() == [str(user.gid)] * 4
        expected = {user.gid, *os.getgrouplist(user.name, user.gid)}
        assert {int(gid) for gid in status["Groups"].split()} == expected
        assert len(expected) == 3
        assert int(status["CapEff"], 16) == 0
        channels = {4, 5, 6, 7} if is_reused(process_mode) else {4}
        assert {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")} <= {0, 1, 2} | channels
        assert os.readlink(f"/proc/{pid}/cwd") == str(user.maildir)


def test_what_pam_sets_for_a_session_holds_in_the_service_and_for_nobody_else(
    serve_pam, process_mode, add_user, public
):
    """pam_limits and pam_umask change the process that opens the session, for what comes after."""
    limited, other = add_user(), add_user()
    limits = public / "limits.conf"
    limits.write_text(f"{limited.name} - nofile 77\n")
    stack = (
        f"{UNIX}session required pam_limits.so conf={limits}\n"
        f"session [success=1 default=ignore] pam_succeed_if.so quiet user != {limited.name}\n"
        "session required pam_umask.so umask=0027 nousergroups\nsession required pam_permit.so\n"
    )
    server = serve_pam(*process_mode, stack=stack)

    def found(user: Account) -> tuple[str, str]:
        with server.client().login(user) as client:
            pid = serving(server, user.uid)
            (files,) = re.findall(
                r"Max open files +(\d+) ", Path(f"/proc/{pid}/limits").read_text()
            )
            umask = status_of(pid)["Umask"]
            assert client.ask("QUIT") == "+OK Bye-bye."
        wait_for_end(server)
        return files, umask

    before = found(other)
    assert before[0] != "77" and before[1] != "0027"
    assert found(limited) == ("77", "0027")
    assert found(other) == before


def test_AUTHCHAIN_03_no_password_in_argv_or_environment_of_any_process(
    serve_pam, process_mode, user
):
    server = serve_pam(*process_mode)
    with server.client().login(user):
        pids = descendants(server.process.pid)
        assert serving(server, user.uid) in pids
        for pid in pids:
            for name in ("cmdline", "environ"):
                assert user.password.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_no_zombie_and_no_process_of_root_is_left(serve_pam, mode, user):
    server = serve_pam(*mode)
    for _ in range(3):
        with server.client().login(user) as client:
            client.ask("QUIT")
        with server.client() as client:
            client.line()
            attempt(client, user.name, "wrong")
    wait_for_end(server)
    if not is_reused(mode):
        waiting = 4 if "-prefork=4" in mode else 0
        wait_until(lambda: len(server.children()) == waiting, f"{waiting} children")


def test_a_missing_pam_service_is_one_line_that_names_the_remedy(serve_pam, mode, user):
    name = unique()
    server = serve_pam(*mode, service=name)
    with server.client() as client:
        client.line()
        assert attempt(client, user.name, user.password) == "-ERR Login failed."
    server.logged(rf"ERR: authpam: PAM has no service '{name}': .*/etc/pam\.d/{name}.*")
    server.logged(rf"INFO: LOGIN FAILED, user={user.name}, {PEER}")
    errors = [line for line in server.lines() if line.startswith("ERR:")]
    assert len(errors) == 1, server.lines()


def test_AUTHCHAIN_04_a_missing_pam_module_is_no_wrong_password(serve_pam, mode, accounts, user):
    """The next module, which knows the name too, is not asked."""
    fields = {"uid": user.uid, "gid": user.gid, "home": user.home}
    accounts.record(user.name, **fields, systempw=sha(user.password))
    stages = ["courierpop3login", "authpam", "authuserdb", "courierpop3d", "./Maildir"]
    stack = f"auth required pam_does_not_exist.so\n{UNIX}session required pam_permit.so\n"
    server = serve_pam(*mode, stack=stack, stages=stages)
    with server.client() as client:
        client.line()
        assert attempt(client, user.name, user.password) == "-ERR Login failed."
    server.logged(r"ERR: authpam: PAM service .*")


def test_AUTHCHAIN_01_who_is_unknown_to_pam_is_asked_for_in_the_next_module(
    serve_pam, mode, user, john, trace
):
    stages = ["courierpop3login", "authpam", "authuserdb", "courierpop3d", "./Maildir"]
    server = serve_pam(*mode, stages=stages)
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"
    with server.client().login(user) as client:
        assert client.ask("STAT") == "+OK 0 0"
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "one PAM session")


def test_root_is_refused_although_pam_says_yes(serve_pam, mode, tell, trace):
    """uid 0 owns no mailbox; and a session that PAM has opened is closed again."""
    stack = f"auth required pam_permit.so\naccount required pam_permit.so\nsession {tell}"
    server = serve_pam(*mode, stack=stack)
    with server.client() as client:
        client.line()
        assert attempt(client, "root", "anything").startswith("-ERR")
        assert client.ask("STAT") in ("-ERR Invalid command.", "")
    server.logged(r"ERR: authpam: .*uid 0.*")
    wait_for_end(server)
    assert told(trace) in ([], ["open_session", "close_session"])


def test_a_missing_home_is_a_temporary_problem_and_the_session_is_closed(
    serve_pam, mode, user, trace
):
    user.home.rename(user.home.with_name("elsewhere"))
    server = serve_pam(*mode)
    with server.client() as client:
        client.line()
        expected = "-ERR Temporary problem, please try again later"
        assert attempt(client, user.name, user.password) == expected
    server.logged(rf"ERR: (authpam: )?user={user.name}: cannot enter the home {user.home}: .*")
    wait_until(lambda: told(trace) == ["open_session", "close_session"], "close_session")
    wait_for_end(server)


def test_CVE_07_pam_does_not_answer_later_for_names_that_it_knows(serve_pam, user):
    """pam_unix asks for a delay of two seconds after a wrong password. The chain has a delay of its
    own, the same for unknown names, so PAM's must not come on top (PAM_FAIL_DELAY)."""
    stack = "auth required pam_unix.so\naccount required pam_unix.so\n"
    server = serve_pam(stack=f"{stack}session required pam_permit.so\n")

    def quickest(name: str) -> float:
        times = []
        for _ in range(2):
            with server.client() as client:
                client.line()
                client.ask(f"USER {name}")
                begin = time.monotonic()
                assert client.ask("PASS wrong") == "-ERR Login failed."
                times.append(time.monotonic() - begin)
        return min(times)

    assert quickest(user.name) - quickest("p3tnobody") < 1.0


def test_hostile_names_are_refused_and_cannot_forge_log_fields(serve_pam, user):
    server = serve_pam()
    names = [b"\xff\xfe", b"root,ip=[1.2.3.4]", b"a" * 2000, user.name.encode() + b"\xc3", b"../x"]
    for name in names:
        with server.client() as client:
            client.line()
            client.send(b"USER %s\r\nPASS %s\r\n" % (name, user.password.encode()))
            assert client.line() == b"+OK Password required.\r\n"
            assert client.line().startswith(b"-ERR")
    for line in server.lines():
        assert re.fullmatch(rf"(DEBUG|INFO): [A-Za-z ]+, (user=[^,\[\] ]+, )?{PEER}", line), line
