"""pop3d under Cyrus's own master, Debian's, with a section SERVICES as its manual page shows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import (
    DEADLINE,
    Account,
    Client,
    children_of,
    free_port,
    needs,
    needs_root,
    sha,
    wait_until,
)
from tests.cyruspop3d.conftest import PEERS, POP3D, Cyrus

MASTER = PEERS / "usr/lib/cyrus/bin/master"
USER = 65534  # nobody, as whom master and all mailboxes are here


class Master:
    """A running master, with pop3d on `port`."""

    def __init__(self, cyrus: Cyrus, *, options: str, keys: str):
        self.cyrus = cyrus
        self.port = free_port()
        self.log = cyrus.public / "master.log"
        services = cyrus.public / "cyrus.conf"
        command = f"{POP3D} -C {cyrus.conf} {options}"
        services.write_text(
            "START {\n}\nSERVICES {\n"
            f'  pop3 cmd="{command}" listen="127.0.0.1:{self.port}" proto=tcp4 {keys}\n'
            "}\nEVENTS {\n}\n"
        )
        libraries = next(PEERS.glob("usr/lib/*/libcyrus_min.so.0")).parent
        environment = {
            **cyrus.environment,
            **{"CYRUS_USER": "nobody", "CYRUS_GROUP": "nogroup"},
            "LD_LIBRARY_PATH": str(libraries),
        }
        argv = [MASTER, "-D", "-C", cyrus.conf, "-M", services, "-p", cyrus.directory / "pid"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self.is_listening, "master listens")

    def is_listening(self) -> bool:
        wanted = f":{self.port:04X} "
        tables = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return any(wanted in line and line.split()[3] == "0A" for line in tables)

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    def session(self, command: str = "STAT") -> str:
        """The reply to a command in a session."""
        with Client(self.port) as client:
            assert client.line().startswith(b"+OK mail.example")
            client.ask("USER john")
            assert client.ask(f"PASS {self.cyrus.john.password}").startswith("+OK Mailbox locked")
            reply = client.ask(command)
            assert client.ask("QUIT") == "+OK"
            return reply

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


@pytest.fixture(scope="module")
def nobodys(tmp_path_factory):
    """Configuration and mailbox, all of them of the uid that master has."""
    needs_root()
    needs(str(MASTER))
    directory = Path("/var/tmp") / f"courierpop3-master-{os.getpid()}"
    directory.mkdir(mode=0o755)
    cyrus = Cyrus(directory)
    home = directory / "nobody"
    home.mkdir()
    cyrus.john = Account("john", home, USER, USER)
    record = {"uid": USER, "gid": USER, "home": home, "systempw": sha(cyrus.john.password)}
    cyrus.accounts.userdb.write_text("")
    cyrus.accounts.record("john", **record)
    cyrus.configure(f"defaultpartition: x\npartition-x: {directory}/spool\n")
    for path in (directory, *directory.rglob("*")):
        os.lchown(path, USER, USER)
    yield cyrus
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def master(nobodys):
    running: list[Master] = []

    def start(options: str = "-U 30", keys: str = "prefork=1 maxchild=5") -> Master:
        running.append(Master(nobodys, options=options, keys=keys))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_sessions_use_a_process_again_and_master_starts_the_next(master):
    one = master("-U 3", keys="prefork=1 maxchild=1")
    (first,) = wait_until(one.workers)
    for _ in range(3):
        assert one.session() == "+OK 0 0"
    wait_until(lambda: first not in one.workers(), "the first worker has ended")
    (second,) = wait_until(one.workers)
    assert one.session() == "+OK 0 0"
    assert one.workers() == [second]


def test_more_clients_than_maxchild_wait_for_each_other(master):
    one = master(keys="prefork=0 maxchild=2")
    clients = [Client(one.port) for _ in range(3)]
    first, second, third = clients
    assert first.line() and second.line()
    assert len(one.workers()) == 2
    assert first.ask("QUIT") == "+OK"
    assert third.line().startswith(b"+OK")
    for client in clients:
        client.close()


def test_a_worker_killed_in_a_session_does_not_stop_the_service(master):
    one = master()
    with Client(one.port) as client:
        client.line()
        (busy,) = [pid for pid in wait_until(one.workers) if children_of(pid)]
        os.kill(busy, signal.SIGKILL)
    assert one.session() == "+OK 0 0"


def test_sighup_to_master_replaces_idle_workers(master):
    one = master()
    (first,) = wait_until(one.workers)
    assert one.session() == "+OK 0 0"
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: one.workers() and first not in one.workers(), "another worker")
    assert one.session() == "+OK 0 0"


def test_master_stops_all_of_them(master):
    one = master(keys="prefork=3")
    wait_until(lambda: len(one.workers()) == 3, "three workers")
    workers = one.workers()
    assert one.stop() == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_telemetry_is_named_by_the_process_that_master_knows(master, nobodys):
    place = nobodys.directory / "log/john"
    place.mkdir(mode=0o700)
    os.chown(place, USER, USER)
    one = master()
    (worker,) = wait_until(one.workers)
    one.session()
    one.session()
    (log,) = place.iterdir()
    assert log.name == str(worker)
    assert len(re.findall(rb"^-{10} john ", log.read_bytes(), re.MULTILINE)) == 2
