"""-reload and SIGUSR2: the listener executes itself anew, and no client notices."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import daemon
from courierchain.refusal import Refused
from couriertcpd import reload
from couriertcpd.options import parse
from tests.conftest import (
    BIN,
    DEADLINE,
    Client,
    children_of,
    free_port,
    has_client,
    needs_root,
    wait_until,
)

TCPD = str(BIN / "couriertcpd")
MARK = reload.VARIABLE.encode()  # in the environment of who has been reloaded
CHAIN = ("courierpop3login", "authuserdb", "courierpop3d", "./Maildir")


class Listener:
    """A daemon with -pid=FILE; `reload` is the command, and its outcome."""

    def __init__(self, directory: Path, env: dict[str, str]):
        self.directory = directory
        self.env = env
        self.port = free_port()
        self.pidfile = directory / "pid"
        self.log = directory / "log"
        self.options = ["-address=127.0.0.1", "-nodnslookup", f"-stderr={self.log}"]

    def line(self, *options: str, ports: object = None, chain=CHAIN) -> list[str]:
        return [*self.options, *options, str(ports or self.port), *chain]

    def run(self, *arguments: str, env=None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [TCPD, f"-pid={self.pidfile}", *arguments],
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def start(self, *options: str, **how) -> Listener:
        done = self.run(*self.line(*options, **how))
        assert (done.returncode, done.stderr) == (0, "")
        return self

    def reload(self, *line: str, env=None) -> None:
        done = self.run("-reload", *line, env=env)
        assert (done.returncode, done.stderr) == (0, "")

    def reload_fails(self, *line: str) -> str:
        done = self.run("-reload", *line)
        assert done.returncode == 1
        return done.stderr

    @property
    def pid(self) -> int:
        pid = daemon.holder(str(self.pidfile))
        assert pid
        return pid

    def client(self, port: int = 0) -> Client:
        return Client(port or self.port)

    def said(self, port: int = 0) -> str:
        with self.client(port) as client:
            return client.rest().decode()

    def logged(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def stop(self) -> None:
        self.run("-stop")


@pytest.fixture
def listener(public, environment):
    made = Listener(public, environment)
    yield made
    made.stop()


@pytest.fixture
def says(script):
    """A program that says one line, and ends."""

    def write(name: str, shell: str) -> tuple[str]:
        return (script(name, f"#!/bin/sh\n{shell}\n"),)

    return write


def program_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def sessions_until(end: threading.Event, account, port: int, done: list, failed: list) -> None:
    while not end.is_set():
        try:
            with Client(port).login(account) as client:
                assert client.ask("STAT").startswith("+OK 1 ")
                assert client.ask("QUIT") == "+OK Bye-bye."
            done.append(1)
        except (OSError, AssertionError) as why:
            failed.append(repr(why))


def test_F_PID_3_no_session_is_dropped_and_none_refused_in_five_reloads(listener, any_mode, john):
    john.deliver(b"Subject: one\n\nbody\n")
    listener.start("-maxperip=20", *any_mode)
    pid, end, done, failed = listener.pid, threading.Event(), [], []
    clients = [
        threading.Thread(target=sessions_until, args=(end, john, listener.port, done, failed))
        for _ in range(2)
    ]
    lasting = listener.client().login(john)
    for client in clients:
        client.start()
    try:
        for _ in range(5):
            before = len(done)
            listener.reload()
            wait_until(lambda before=before: len(done) > before or failed, "a session")
    finally:
        end.set()
        for client in clients:
            client.join()
    assert not failed
    assert lasting.ask("RETR 1").startswith("+OK ")
    lasting.close()
    assert listener.pid == pid
    assert not [line for line in listener.logged() if "ERR" in line or "internal" in line]


def test_a_session_that_logs_in_after_the_reload_goes_on(listener, any_mode, john):
    listener.start(*any_mode)
    with listener.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"
        assert client.ask("USER john").startswith("+OK")
        listener.reload()
        assert client.ask(f"PASS {john.password}") == "+OK logged in."
        listener.reload()
        assert client.ask("QUIT") == "+OK Bye-bye."


@pytest.mark.parametrize("mode", [(), ("-uses=5",), ("-prefork=1",)])
def test_F_NET_4_sessions_of_before_go_on_counting_until_they_end(listener, mode, john):
    listener.start("-maxperip=2", *mode)
    with listener.client().login(john):
        with listener.client().login(john):
            listener.reload()
            assert listener.said() == ""

        def has_place() -> bool:
            with listener.client() as client:
                return bool(client.line())

        wait_until(has_place, "a place is free")
    assert any("Maximum connection limit" in line for line in listener.logged())


def test_new_settings_and_another_program_are_taken_up(listener, says):
    listener.start(
        chain=says("first", "echo first $SHOWN"),
    )
    assert listener.said() == "first\n"
    listener.reload(*listener.line(chain=says("second", "echo second $SHOWN")), env={"SHOWN": "x"})
    assert listener.said() == "second x\n"
    listener.reload()  # as it was last
    assert listener.said() == "second x\n"
    assert f"-pid={listener.pidfile} " in program_of(listener.pid)


def test_a_session_finds_no_descriptor_and_no_variable_of_the_reload(listener, says):
    chain = says("show", "ls -C -w 9999 /proc/self/fd; env | grep -e LISTEN -e COURIERTCPD_")
    listener.start(chain=chain)
    before = listener.said()
    descriptors = len(os.listdir(f"/proc/{listener.pid}/fd"))
    listener.reload()
    listener.reload()
    assert listener.said() == before
    wait_until(lambda: len(os.listdir(f"/proc/{listener.pid}/fd")) == descriptors)
    assert os.readlink(f"/proc/{listener.pid}/fd/3") == "/dev/null"


def test_ports_come_and_go(listener, says):
    other = free_port()
    listener.start(chain=says("hello", "echo $TCPLOCALPORT"))
    chain = says("hello", "echo $TCPLOCALPORT")
    listener.reload(*listener.line(ports=f"{listener.port},{other}", chain=chain))
    assert (listener.said(), listener.said(other)) == (f"{listener.port}\n", f"{other}\n")
    listener.reload(*listener.line(ports=other, chain=chain))
    assert listener.said(other) == f"{other}\n"
    with pytest.raises(ConnectionRefusedError):
        listener.client()


def test_a_port_may_move_to_another_address(listener, says):
    chain = says("hello", "echo hello")
    listener.start(chain=chain)
    listener.reload(*listener.line("-address=127.0.0.2", chain=chain))
    with socket.create_connection(("127.0.0.2", listener.port), DEADLINE) as client:
        assert client.recv(100) == b"hello\n"
    with pytest.raises(ConnectionRefusedError):
        listener.client()


def test_the_lock_stays(listener, says):
    listener.start(chain=says("hello", "echo hello"))
    pid = listener.pid
    listener.reload()
    assert listener.pid == pid
    assert listener.pidfile.read_text() == f"{pid}\n"
    second = listener.run(*listener.line(ports=free_port()))
    assert second.returncode == 1
    assert "already running" in second.stderr
    listener.stop()
    assert is_gone(pid)


def test_row_09_F_KILL_5_after_kill_9_the_session_goes_on_and_a_start_binds_at_once(listener, john):
    listener.start()
    pid = listener.pid
    with listener.client().login(john) as client:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: daemon.holder(str(listener.pidfile)) is None)
        assert listener.pidfile.read_text() == f"{pid}\n"
        listener.start()
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert listener.pidfile.read_text() == f"{listener.pid}\n"
    with listener.client().login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."


@pytest.mark.parametrize(
    "line, said",
    [
        (["-access=/nowhere"], "/nowhere: No such file or directory (make it, or leave out -acc"),
        (["-user=nobody-of-that-name"], "getpwnam: Success"),
        (["-maxprocs=0"], "Invalid -maxprocsarg option."),
        (["-stderr=/nowhere/log"], "/nowhere/log: cannot be made"),
    ],
)
def test_what_is_wrong_is_told_to_the_command_and_logged_and_nothing_changes(
    listener, says, line, said
):
    chain = says("hello", "echo hello")
    listener.start(chain=chain)
    with listener.client() as client:
        answer = listener.reload_fails(*listener.line(*line, chain=chain))
        assert said in answer
        assert client.rest() == b"hello\n"
    assert listener.said() == "hello\n"
    if "maxprocs" not in said:  # that the command has found out by itself
        assert any(f"ERR: couriertcpd: not reloaded: {said}" in one for one in listener.logged())
    listener.reload()


def test_a_program_that_is_not_there_is_found_out_before(listener, says):
    listener.start(chain=says("hello", "echo hello"))
    said = listener.reload_fails(*listener.line(chain=["authnobody"]))
    assert "authnobody: No such file or directory" in said
    assert listener.said() == "hello\n"


def test_a_port_that_is_taken_is_found_out_before(listener, says):
    chain = says("hello", "echo hello")
    listener.start(chain=chain)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = listener.reload_fails(*listener.line(ports=f"{listener.port},{port}", chain=chain))
    expected = f"bind: Address already in use (port 127.0.0.1.{port})"
    assert said == f"couriertcpd: not reloaded: {expected}\n"
    assert listener.said() == "hello\n"


def test_a_port_that_the_user_may_not_bind_is_found_out_before(listener, says):
    needs_root()
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() != "1024\n":
        pytest.skip("every user may bind every port here")
    chain = says("hello", "id -u")
    listener.log.touch()
    listener.log.chmod(0o666)
    listener.start("-user=65534", chain=chain)
    assert listener.said() == "65534\n"
    said = listener.reload_fails(*listener.line(ports=f"{listener.port},713", chain=chain))
    assert said == "couriertcpd: not reloaded: bind: Permission denied (port 127.0.0.1.713)\n"
    listener.reload(*listener.line("-user=65534", chain=chain))
    assert listener.said() == "65534\n"


def test_only_what_stands_alone_beside_pid_means_the_same_command_line(listener, says):
    listener.start(chain=says("hello", "echo hello"))
    assert "Usage: " in listener.reload_fails("-maxprocs=3")


def test_where_none_runs_none_is_reloaded(listener):
    said = f"none is running ({listener.pidfile}.lock is not locked)"
    assert listener.reload_fails() == f"couriertcpd: not reloaded: {said}\n"


def ask(listener: Listener, program: str) -> None:
    reload.command(str(listener.pidfile), [program, *listener.line()], listener.env)


def ask_in_vain(listener: Listener, program: str) -> None:
    with contextlib.suppress(Refused):
        ask(listener, program)


def test_an_exec_that_fails_after_a_good_trial_leaves_all_as_it_was(listener, script, any_mode):
    listener.start(*any_mode)
    once = script("once", '#!/bin/sh\nrm "$0"\n')
    with listener.client() as client:
        client.line()
        with pytest.raises(Refused, match="once: No such file or directory"):
            ask(listener, once)
        assert client.ask("NOOP") == "-ERR Invalid command."
    with listener.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"
    listener.reload()
    with listener.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"


SLOW = """\
#!{python} -I
import os, sys, time
if (sys.argv[1] == "-check") == {in_trial}:
    open("{begun}", "w").close()
    while not os.path.exists("{go}"):
        time.sleep(0.02)
os.execv("{tcpd}", ["{tcpd}", *sys.argv[1:]])
"""


@pytest.fixture
def slow(script, public):
    """A couriertcpd that takes its time, in the trial or in our place: its path, what exists once
    it has begun, and what it waits for. (No shell: that would take the signals.)"""

    def write(when: str) -> tuple[str, Path, Path]:
        begun, go = public / "begun", public / "go"
        names = {"python": sys.executable, "tcpd": TCPD, "begun": begun, "go": go}
        return script("slow", SLOW.format(in_trial=when == "trial", **names)), begun, go

    return write


@pytest.mark.parametrize("when", ["trial", "place"])
def test_SIGTERM_in_a_reload_ends_all(listener, slow, when, john):
    program, begun, go = slow(when)
    listener.start()
    pid = listener.pid
    with listener.client().login(john) as client:
        asking = threading.Thread(target=ask_in_vain, args=(listener, program))
        asking.start()
        wait_until(begun.exists)
        os.kill(pid, signal.SIGTERM)
        if when == "place":
            assert not is_gone(pid)
            go.touch()
        assert client.rest() == b""
        wait_until(lambda: is_gone(pid))
        go.touch()
        asking.join()


def test_sessions_that_end_and_clients_who_come_meanwhile_are_not_forgotten(listener, slow, john):
    program, begun, go = slow("place")
    listener.start("-maxperip=1")
    pid = listener.pid
    client = listener.client().login(john)
    asking = threading.Thread(target=ask, args=(listener, program))
    asking.start()
    wait_until(begun.exists)
    session = next(one for one in children_of(pid))
    client.close()
    wait_until(lambda: is_gone(session))
    with listener.client() as waiting:
        go.touch()
        assert waiting.line() == b"+OK Hello there.\r\n"
    asking.join()
    wait_until(lambda: session not in children_of(pid))


def test_a_second_reload_meanwhile_is_refused(listener, slow):
    program, begun, go = slow("trial")
    listener.start()
    asking = threading.Thread(target=ask, args=(listener, program))
    asking.start()
    wait_until(begun.exists)
    assert listener.reload_fails() == "couriertcpd: not reloaded: a reload is under way\n"
    os.kill(listener.pid, signal.SIGUSR2)
    go.touch()
    asking.join()
    with listener.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"


def test_SIGUSR2_reloads_with_the_same_command_line(serve, john):
    server = serve("-uses=3")
    with server.client().login(john) as client:
        os.kill(server.process.pid, signal.SIGUSR2)
        wait_until(lambda: MARK in environment_of(server.process.pid))
        assert client.ask("STAT") == "+OK 0 0"
    with server.client().login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."


def environment_of(pid: int) -> bytes:
    """What a process was executed with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.fixture
def logger(public, environment):
    """courierlogger as it is started for Courier: it has the pid file, and the listener for a
    child."""
    made = Listener(public, environment)
    made.options = ["-address=127.0.0.1", "-nodnslookup"]
    command = [BIN / "courierlogger", f"-pid={made.pidfile}", f"-file={made.log}", "-start", TCPD]
    subprocess.run([*command, *made.line()], env=environment, timeout=DEADLINE, check=True)

    def answers() -> bool:
        try:
            with made.client() as client:
                return bool(client.line())
        except ConnectionRefusedError:
            return False

    wait_until(answers)
    yield made
    subprocess.run([BIN / "courierlogger", f"-pid={made.pidfile}", "-stop"], check=True)


def test_a_listener_below_courierlogger_is_reloaded_by_its_pid_file(logger, says, john):
    logger_pid = logger.pid
    (listener,) = children_of(logger_pid)
    with logger.client().login(john) as client:
        logger.reload(*logger.line(chain=says("hello", "echo hello; echo WARN: seen >&2")))
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert logger.said() == "hello\n"
    assert (logger.pid, children_of(logger_pid)) == (logger_pid, [listener])
    assert "-pid=" not in program_of(listener)
    wait_until(lambda: any("seen" in line for line in logger.logged()))


def test_SIGUSR2_to_courierlogger_reloads_the_listener(logger, john):
    (listener,) = children_of(logger.pid)
    with logger.client().login(john) as client:
        os.kill(logger.pid, signal.SIGUSR2)
        wait_until(lambda: MARK in environment_of(listener))
        assert client.ask("STAT") == "+OK 0 0"
    assert children_of(logger.pid) == [listener]


def test_nobody_but_root_and_who_started_it_is_heard(listener):
    needs_root()
    listener.start()
    text = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
    text += f"s.connect('\\0couriertcpd/{listener.pid}'); print(s.recv(99).decode())"
    done = subprocess.run(
        ["/usr/bin/python3", "-Ic", text], user=65534, capture_output=True, text=True, check=True
    )
    assert done.stdout == "only root and the user who started it may reload it\n"
    listener.reload()


@pytest.mark.parametrize("content", [b"", b"x\0y", b"\xff"])
def test_a_message_that_is_none_of_ours_changes_nothing(listener, content):
    listener.start()
    file = os.memfd_create("test")
    os.write(file, content)
    asker = reload._reach(listener.pid)
    with asker:
        socket.send_fds(asker, [b"r"], [file])
        assert asker.recv(99) == b"the message is none of couriertcpd's"
    os.close(file)
    for message in (b"", b"r"):
        with reload._reach(listener.pid) as silent:
            silent.send(message)
    listener.reload()


def test_the_environment_is_told_to_nobody_who_has_taken_the_name(monkeypatch):
    monkeypatch.setattr(reload, "START_TIME", 0.1)
    with (
        subprocess.Popen(["sleep", "60"]) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter,
    ):
        squatter.bind(f"\0couriertcpd/{other.pid}")
        squatter.listen()
        with pytest.raises(Refused, match="can't be reached"):
            reload._reach(other.pid)
        other.kill()


def test_check_is_silent_where_all_is_well_and_binds_nothing(listener):
    listener.start()
    check = [TCPD, "-check", *listener.line()]
    done = subprocess.run(check, env=listener.env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-access=/nowhere", "110", "courierpop3d"], "/nowhere: No such file"),
        (["110", "authnobody"], f"{TCPD}: authnobody: No such file"),
        (["999999", "courierpop3d"], "Invalid port: 999999"),
        (["-group=nobody-of-that-name", "110", "courierpop3d"], "Group not found"),
        (["-stderrlogger=/nowhere", "110", "courierpop3d"], "/nowhere: cannot be executed"),
    ],
)
def test_check_says_what_is_wrong(arguments, said):
    done = subprocess.run([TCPD, "-check", *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 1


WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=9)


@given(
    st.lists(st.sampled_from(["-pid=/x", "-reload", "-check", "-nodnslookup", "-maxprocs=7"])),
    st.sampled_from([[], ["-"]]),
    st.lists(st.sampled_from(["-pid=/x", "-reload", "y"])),
)
def test_a_command_line_gets_the_pid_file_of_the_listener_and_keeps_all_else(some, dash, more):
    argv = ["/tcpd", *some, *dash, "110", "/prog", *more]
    new = parse(reload.with_pid(argv, "/run/own"))
    assert (new.pid, new.reload, new.check) == ("/run/own", False, False)
    assert (new.portlist, new.program) == ("110", ["/prog", *more])
    assert new.nodnslookup == ("-nodnslookup" in some)
    assert parse(reload.with_pid(argv, None)).pid == ""


@given(st.lists(WORDS), st.dictionaries(WORDS.filter(lambda name: "=" not in name and name), WORDS))
def test_what_the_command_says_is_what_the_listener_hears(argv, env):
    file = os.memfd_create("test")
    os.write(file, reload._pack(argv, env))
    assert reload._unpack(file) == (argv, env)


@pytest.mark.parametrize("after", [("-uses=9", "-park=0.05"), ("-uses=9",), ()])
@pytest.mark.parametrize("messages", [1, 200])
def test_parked_sessions_go_on_over_a_reload(listener, john, after, messages):
    """Small ones and those in a file; also if nothing is parked any more, or used again."""
    for number in range(messages):
        john.deliver(b"Subject: %d\n\n" % number)
    listener.start("-uses=9", "-park=0.05")
    stranger = listener.client()
    assert stranger.line() == b"+OK Hello there.\r\n"
    assert stranger.ask("USER john") == "+OK Password required."
    with listener.client().login(john) as client:
        ids = client.listing("UIDL")
        assert client.ask("DELE 1") == "+OK Deleted."
        wait_until(lambda: not any(map(has_client, children_of(listener.pid))), "both are parked")
        listener.reload(*listener.line(*after), env={"POP3_IDLE_TIMEOUT": "600"})
        assert client.listing("UIDL") == ids[1:]
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert stranger.ask(f"PASS {john.password}") == "+OK logged in."
    assert stranger.ask("QUIT") == "+OK Bye-bye."
    assert len(john.files()) == messages - 1
    goodbye = "INFO: LOGOUT, user=john"
    wait_until(lambda: [line.startswith(goodbye) for line in listener.logged()].count(True) == 2)
    wait_until(lambda: not any(map(has_client, children_of(listener.pid))), "nobody is left")
