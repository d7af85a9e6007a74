"""cyrusmaster as a command: its options, what it refuses, the other sections of cyrus.conf.

How its workers fare is tested beside Cyrus's own master, in tests/cyruspop3d/test_master.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import (
    BIN,
    DEADLINE,
    Client,
    Server,
    children_of,
    free_port,
    needs_root,
    wait_until,
)
from tests.cyruspop3d.conftest import POP3D, cyrus

__all__ = ["cyrus"]

PROGRAM = str(BIN / "cyrusmaster")
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def run(*options: object) -> tuple[int, str]:
    """Exit status and what was said, of a master that doesn't start."""
    done = subprocess.run(
        [PROGRAM, *map(str, options)],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def write(path: Path, **sections: str) -> Path:
    conf = path / "cyrus.conf"
    texts = (f"{name} {{\n{lines}\n}}\n" for name, lines in sections.items())
    conf.write_text("".join(texts))
    return conf


@pytest.fixture
def master(tmp_path):
    """Start one: master(port, option..., SECTION=lines)."""
    running: list[Server] = []

    def start(port: int, *options: object, **sections: str) -> Server:
        conf = write(tmp_path, **sections)
        argv = [PROGRAM, "-M", str(conf), *map(str, options)]
        running.append(Server(argv, ENV, port, tmp_path / "log"))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def sleeper(port: int, keys: str = "prefork=1") -> str:
    """A service whose workers only wait."""
    return f'sleeper cmd="/bin/sleep 60" listen="127.0.0.1:{port}" {keys}'


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["-d", "-D"], "-d and -D exclude each other"),
        (["-l"], "-l needs a value"),
        (["-l", "0"], "-l 0: write a number from 1 to 65535"),
        (["-x"], "'-x': no such option; usage: cyrusmaster [-M cyrus.conf]"),
        (["cyrus.conf"], "'cyrus.conf': no option"),
    ],
)
def test_a_wrong_command_line_is_64(options, complaint):
    status, said = run(*options)
    assert (status, said.count("\n")) == (64, 1)
    assert said.startswith(f"ERR: cyrusmaster: {complaint}")


def test_the_version():
    assert run("-V") == (0, "cyrusmaster, of courierpop3\n")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("pop-3 cmd=/bin/true listen=110", "bad character '-' in name on line 2"),
        ("pop3 cmd=/no/such listen=110", "line 2: pop3: cannot find executable /no/such"),
        ("a cmd=/bin/true listen=1\na cmd=/bin/true listen=2", "line 3: a is also in"),
    ],
)
def test_a_wrong_file_is_78(tmp_path, lines, complaint):
    status, said = run("-M", write(tmp_path, SERVICES=lines))
    assert (status, said.count("\n")) == (78, 1)
    assert complaint in said


def test_no_file_is_78():
    status, said = run("-M", "/no/such")
    assert (status, said) == (
        78,
        "ERR: cyrusmaster: can't open configuration file /no/such: No such file or directory\n",
    )


def test_with_nothing_to_run_it_ends_with_71(tmp_path):
    lines = "notify cmd=/bin/true listen=/tmp/x proto=udp"
    status, said = run("-M", write(tmp_path, SERVICES=lines))
    assert status == 71
    assert "notify: proto=udp: only tcp is served here; this service does not run" in said
    assert "nothing to run; write a service into SERVICES" in said


def test_a_service_that_cannot_be_bound_leaves_the_others_alone(master):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port, taken = free_port(), other.getsockname()[1]
        line = sleeper(taken).replace("sleeper", "taken", 1)
        one = master(port, SERVICES=f"{line}\n{sleeper(port)}")
        one.logged("ERR: unable to bind to taken/ipv4 socket: .*: Address already in use")
        wait_until(one.children)


def test_start_runs_first_and_in_its_order_and_events_are_named(master, tmp_path):
    port = free_port()
    told = tmp_path / "told"
    script = tmp_path / "tell"
    script.write_text(f"#!/bin/sh\necho $1 >> {told}\n")
    script.chmod(0o755)
    one = master(
        port,
        START=f'a cmd="{script} first"\nb cmd="{script} second"',
        SERVICES=sleeper(port),
        EVENTS='checkpoint cmd="x" period=30\ndelprune cmd="y" at=0400',
    )
    assert told.read_text() == "first\nsecond\n"
    one.logged("WARN: EVENTS are not run here: checkpoint, delprune; use cron or timers of systemd")


def test_a_start_that_fails_is_the_end(tmp_path):
    conf = write(tmp_path, START="recover cmd=/bin/false", SERVICES=sleeper(free_port()))
    status, said = run("-M", conf)
    assert status == 71
    assert said == (f"ERR: cyrusmaster: can't run startup: {conf} line 2: recover: exit status 1\n")


def test_a_daemon_is_started_again_and_has_no_descriptors_of_a_worker(master, tmp_path):
    port = free_port()
    told = tmp_path / "told"
    script = tmp_path / "idled"
    script.write_text(
        f"#!/bin/sh\nexec 2>> {told}\nreadlink /proc/$$/fd/3 /proc/$$/fd/4 >&2\n"
        f"echo $CYRUS_SERVICE $CYRUS_ISDAEMON $? >&2\nexec sleep 60\n"
    )
    script.chmod(0o755)
    one = master(port, SERVICES=sleeper(port), DAEMON=f'idled cmd="{script}"')
    wait_until(lambda: told.exists() and told.read_text().endswith("\n"))
    assert told.read_text() == "idled 1 1\n"  # 1: there was nothing to be read
    for child in one.children():
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: told.read_text().count("idled") == 2, "another one")


def test_a_worker_finds_what_it_is_promised(master, tmp_path):
    port = free_port()
    told = tmp_path / "told"
    script = tmp_path / "worker"
    script.write_text(
        "#!/bin/sh\n"
        f"echo $CYRUS_SERVICE $CYRUS_ID x$CYRUS_ISDAEMON $CYRUS_VERBOSE $(ulimit -Sn) $* > {told}\n"
        f"readlink /proc/$$/fd/3 /proc/$$/fd/4 >> {told}\necho end >> {told}\nexec sleep 60\n"
    )
    script.chmod(0o755)
    place = f'listen="127.0.0.1:{port}"'
    line = f'pop3 cmd="{script} -U  30" {place} prefork=1 maxfds=77'
    master(port, "-vv", SERVICES=line)
    wait_until(lambda: told.exists() and told.read_text().endswith("end\n"))
    first, status, listening, _ = told.read_text().splitlines()
    assert first == "pop3 0 x 2 77 -U 30"
    assert status.startswith("pipe:")
    assert listening.startswith("socket:")


def test_what_workers_say_wrongly_is_logged_and_disturbs_nobody(master, tmp_path):
    port = free_port()
    script = tmp_path / "worker"
    script.write_text("#!/bin/sh\nprintf abc >&3\nsleep 0.2\nprintf abcdefgh >&3\nexec sleep 60\n")
    script.chmod(0o755)
    line = f'bad cmd="{script}" listen="127.0.0.1:{port}" prefork=1'
    one = master(port, SERVICES=line)
    one.logged("ERR: bad/ipv4: 3 octets are no messages; dropped")
    one.logged(r"WARN: bad/ipv4: message \d+ from process \d+, not ours")
    assert len(one.children()) == 1


def test_five_failures_are_logged_and_sighup_tries_again(master):
    port, bad = free_port(), free_port()
    line = f"bad cmd=/bin/false listen=127.0.0.1:{bad} prefork=1"
    one = master(port, SERVICES=f"{sleeper(port)}\n{line}")
    pattern = "ERR: too many failures for service bad/ipv4, disabling until next SIGHUP"
    one.logged(pattern)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", bad), timeout=DEADLINE)
    (other,) = one.children()
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: one.lines().count(pattern) == 2, "closed again")
    assert one.process.poll() is None
    wait_until(lambda: one.children() and other not in one.children(), "the other is replaced")


def test_a_file_that_has_become_wrong_changes_nothing(master, tmp_path):
    port = free_port()
    one = master(port, SERVICES=sleeper(port))
    (worker,) = wait_until(one.children)
    write(tmp_path, SERVICES="pop3 cmd=/no/such listen=110")
    one.process.send_signal(signal.SIGHUP)
    one.logged("ERR: .*cannot find executable /no/such.*; all stays as it was")
    assert one.children() == [worker]


def test_a_worker_that_does_not_listen_to_sigterm_is_killed_in_the_end(tmp_path):
    port = free_port()
    script = tmp_path / "deaf"
    script.write_text("#!/bin/sh\ntrap '' TERM\necho ready >&2\nwhile :; do sleep 60; done\n")
    script.chmod(0o755)
    conf = write(tmp_path, SERVICES=f"deaf cmd={script} listen=127.0.0.1:{port} prefork=1")
    code = (
        "import sys; from cyrusmaster import main, master; master.KILL_AFTER = 0.5; "
        f"sys.exit(main.main(['cyrusmaster', '-M', '{conf}'], {ENV}))"
    )
    one = Server([sys.executable, "-I", "-c", code], ENV, port, tmp_path / "log")
    one.logged("ready")
    (worker,) = one.children()
    sleeping = wait_until(lambda: children_of(worker))
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(DEADLINE) == 0
    assert not Path(f"/proc/{worker}").exists()
    for pid in sleeping:
        os.kill(pid, signal.SIGKILL)


def test_as_a_daemon_the_command_ends_when_it_listens(tmp_path):
    port = free_port()
    conf, pidfile, log = write(tmp_path, SERVICES=sleeper(port)), tmp_path / "pid", tmp_path / "log"
    options = ["-M", conf, "-d", "-p", pidfile, "-L", log]
    assert run(*options) == (0, "")
    pid = int(pidfile.read_text())
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        status, said = run(*options)
        assert status == 1
        assert f"already running (pid {pid}, " in said
        wait_until(lambda: "ready for work" in log.read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_as_root_each_account_is_served_with_its_own_uid(master, cyrus):
    needs_root()
    mary = cyrus.accounts.add("mary")
    port = free_port()
    line = f'pop3 cmd="{POP3D} -C {cyrus.conf} -U 5" listen="127.0.0.1:{port}" prefork=1 maxchild=1'
    one = master(port, SERVICES=line)
    (worker,) = wait_until(one.children)
    for account in (cyrus.john, mary):
        with Client(port) as client:
            client.line()
            client.ask(f"USER {account.name}")
            assert client.ask(f"PASS {account.password}").startswith("+OK Mailbox locked")
            (serving,) = children_of(worker)
            assert os.stat(f"/proc/{serving}").st_uid == account.uid
            assert client.ask("QUIT") == "+OK"
    assert one.children() == [worker]


def test_the_user_of_the_environment_runs_the_workers(tmp_path):
    needs_root()
    port = free_port()
    conf = write(tmp_path, SERVICES=sleeper(port))
    env = {**ENV, "CYRUS_USER": "nobody", "CYRUS_GROUP": "nogroup"}
    one = Server([PROGRAM, "-M", str(conf)], env, port, tmp_path / "log")
    (worker,) = wait_until(one.children)
    assert {os.stat(f"/proc/{pid}").st_uid for pid in (worker, one.process.pid)} == {65534}
    one.stop()
    env["CYRUS_USER"] = "nosuchuser"
    done = subprocess.run(
        [PROGRAM, "-M", conf], env=env, capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 1
