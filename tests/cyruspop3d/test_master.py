"""pop3d under a master, with a section SERVICES as Cyrus's manual pages show it: under Cyrus's own,
Debian's, and under cyrusmaster. What holds for one holds for the other.

cyrus_24 and so on are the lines of the checklist in the reference of Cyrus's pop3d.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import trustme

from tests.conftest import (
    BIN,
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
from tests.cyruspop3d.conftest import POP3D, Cyrus
from tests.cyruspop3d.realcyrus import PASSWORD, environment, program

USER = 65534  # nobody, as whom master and all mailboxes are here
MASTERS = ("cyrus", "ours")


class Master:
    """A running master, with pop3d on `port`. more: other lines of SERVICES."""

    def __init__(self, kind: str, cyrus: Cyrus, options: str, keys: str, more: str = ""):
        self.cyrus = cyrus
        self.port = free_port()
        self.log = cyrus.public / f"master{time.monotonic_ns()}.log"
        self.conf = cyrus.public / "cyrus.conf"
        self.configure(options, keys, more)
        if kind == "cyrus":
            argv = [program("master"), "-D", "-C", str(cyrus.conf), "-M", str(self.conf)]
            env = {**cyrus.environment, **environment()}
        else:
            argv = [str(BIN / "cyrusmaster"), "-D", "-C", str(cyrus.conf), "-M", str(self.conf)]
            env = {**cyrus.environment, "CYRUS_USER": "nobody", "CYRUS_GROUP": "nogroup"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "-p", cyrus.directory / "pid"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # told to end, Cyrus's ends its whole group
            )
        wait_until(self._is_listening, "master listens")

    def configure(self, options: str, keys: str, more: str = "") -> None:
        command = f"{POP3D} -C {self.cyrus.conf} {options}"
        place = "" if "listen=" in keys else f'listen="127.0.0.1:{self.port}" proto=tcp4'
        keys = keys.replace("PORT", str(self.port))
        self.conf.write_text(
            "START {\n}\nSERVICES {\n"
            f'  pop3 cmd="{command}" {place} {keys}\n{more}\n'
            "}\nEVENTS {\n}\n"
        )

    def _is_listening(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return on(self.port)

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    def has_workers(self, number: int) -> list[int]:
        """Waits until there are as many, and each is pop3d already: a signal to Cyrus's master
        between fork and exec of a worker would not get to that one."""

        def are_there() -> bool:
            found = self.workers()
            return len(found) == number and all(map(is_pop3d, found))

        wait_until(are_there, f"{number} workers")
        return self.workers()

    def session(self, command: str = "STAT", tls=None) -> str:
        """The reply to a command in a session."""
        with Client(self.port, tls) as client:
            assert client.line().startswith(b"+OK mail.example")
            client.ask("USER john")
            assert client.ask(f"PASS {self.cyrus.john.password}").startswith("+OK Mailbox locked")
            reply = client.ask(command)
            assert client.ask("QUIT") == "+OK"
            return reply

    def served_by(self) -> int:
        """The process that has served a session of all commands at once. Its id is in SESSIONID,
        beside the time, which is larger."""
        with Client(self.port) as client:
            client.send(f"USER john\r\nPASS {self.cyrus.john.password}\r\nQUIT\r\n".encode())
            said = client.rest().decode()
        found = re.search(r"SESSIONID=<mail\.example-(\d+)-(\d+)-", said)
        assert found and said.endswith("\r\n+OK\r\n"), said
        return min(map(int, found.groups()))

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)


def on(port: int) -> bool:
    """Whether somebody listens there."""
    wanted = f":{port:04X} "
    tables = ("/proc/net/tcp", "/proc/net/tcp6")
    lines = [line for table in tables for line in Path(table).read_text().splitlines()[1:]]
    return any(wanted in line and line.split()[3] == "0A" for line in lines)


def is_pop3d(pid: int) -> bool:
    try:
        return b"/pop3d\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def nobodys(authority):
    """Configuration and mailbox, all of them of the uid that master has."""
    needs_root()
    needs(program("master"))
    directory = Path("/var/tmp") / f"courierpop3-master-{os.getpid()}"
    directory.mkdir(mode=0o755)
    cyrus = Cyrus(directory)
    home = directory / "nobody"
    home.mkdir()
    cyrus.john = Account("john", home, USER, USER)
    record = {"uid": USER, "gid": USER, "home": home, "systempw": sha(cyrus.john.password)}
    cyrus.accounts.userdb.write_text("")
    cyrus.accounts.record("john", **record)
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "pem")
    cyrus.configure(
        f"defaultpartition: x\npartition-x: {directory}/spool\n"
        f"tls_server_cert: {directory}/pem\ntls_server_key: {directory}/pem\n"
    )
    for path in (directory, *directory.rglob("*")):
        os.lchown(path, USER, USER)
    yield cyrus
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=MASTERS)
def master(nobodys, request):
    running: list[Master] = []

    def start(options: str = "-U 30", keys: str = "prefork=1 maxchild=5", more: str = "") -> Master:
        running.append(Master(request.param, nobodys, options, keys, more))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_500_sessions_with_30_uses_take_17_processes(master):
    one = master("-U 30", keys="prefork=1 maxchild=1")
    served = Counter(one.served_by() for _ in range(500))
    assert sorted(served.values()) == [20] + 16 * [30]
    (last,) = one.has_workers(1)
    assert served[last] == 20


def test_c10_24_prefork_keeps_workers_ready_at_each_socket(master):
    one = master(keys='prefork=2 listen="localhost:PORT" proto=tcp')
    sockets = len(socket.getaddrinfo("localhost", one.port, type=socket.SOCK_STREAM))
    one.has_workers(2 * sockets)
    with Client(one.port) as client:
        assert client.line().startswith(b"+OK")
        one.has_workers(2 * sockets + 1)


def test_c10_25_more_clients_than_maxchild_wait_for_each_other(master):
    one = master(keys="prefork=0 maxchild=2")
    clients = [Client(one.port) for _ in range(3)]
    first, second, third = clients
    assert first.line() and second.line()
    assert len(one.workers()) == 2
    assert first.ask("QUIT") == "+OK"
    assert third.line().startswith(b"+OK")
    for client in clients:
        client.close()


def test_c10_26_an_idle_worker_is_preferred_to_a_new_one(master):
    one = master(keys="prefork=0 maxchild=9")
    assert one.workers() == []
    served = {one.served_by() for _ in range(10)}
    assert one.has_workers(1) == list(served)


def test_c10_27_maxforkrate_bounds_how_fast_workers_are_started(master):
    one = master(keys="prefork=0 maxforkrate=4")
    began = time.monotonic()
    clients = [Client(one.port) for _ in range(12)]
    for client in clients:
        assert client.line().startswith(b"+OK")
    assert time.monotonic() - began > 1  # six at once, and then four a second
    one.has_workers(12)
    for client in clients:
        client.close()


def test_c10_28_five_failures_close_a_service_and_no_other(master, nobodys):
    port = free_port()
    line = f'  bad cmd="/bin/false" listen="127.0.0.1:{port}" proto=tcp4 prefork=1'
    one = master(more=line)
    wait_until(lambda: not on(port), "the service is closed")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    assert one.session() == "+OK 0 0"


def test_c10_29_a_worker_killed_in_a_session_is_no_failure(master):
    one = master(keys="prefork=0 maxchild=1")
    for _ in range(7):
        with Client(one.port) as client:
            client.line()
            (busy,) = one.workers()
            os.kill(busy, signal.SIGKILL)
            assert client.rest() == b""
        wait_until(lambda pid=busy: gone(pid))
    assert one.session() == "+OK 0 0"


def test_a_worker_that_ends_after_sigterm_is_no_failure(master):
    one = master(keys="prefork=1 maxchild=1")
    for _ in range(6):
        (idle,) = one.has_workers(1)
        one.served_by()  # it is there, and has its handlers
        os.kill(idle, signal.SIGTERM)
        wait_until(lambda pid=idle: gone(pid))
    assert one.session() == "+OK 0 0"


def test_c10_30_babysit_alone_keeps_one_worker_ready(master):
    one = master(keys="babysit=yes")
    (first,) = one.has_workers(1)
    one.served_by()
    for worker in one.workers():
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: one.workers() and first not in one.workers(), "another worker")
    assert one.session() == "+OK 0 0"


def test_c10_31_sighup_replaces_idle_workers_and_lets_sessions_finish(master):
    one = master()
    before = set(one.has_workers(1))
    with Client(one.port) as client:
        client.line()
        before |= set(one.has_workers(2))
        assert client.ask("USER john") == "+OK Name is a valid mailbox"
        one.hang_up()
        wait_until(lambda: set(one.workers()) - before, "another worker")
        wait_until(lambda: len(set(one.workers()) & before) == 1, "the session alone is left")
        assert client.ask(f"PASS {one.cyrus.john.password}").startswith("+OK Mailbox locked")
        assert client.ask("QUIT") == "+OK"
    wait_until(lambda: not set(one.workers()) & before, "all are new")
    assert one.session() == "+OK 0 0"


def test_c10_31_sighup_adds_changes_and_removes_services(master, nobodys):
    one = master(keys="prefork=1")
    one.has_workers(1)
    second = free_port()
    line = f'cmd="{POP3D} -C {nobodys.conf}" listen="127.0.0.1:{second}" proto=tcp4 prefork=1'
    one.configure("", "prefork=2", f"  another {line}")
    one.hang_up()
    wait_until(lambda: on(second), "the new service")
    one.has_workers(3)
    with Client(second) as client:
        assert client.line().startswith(b"+OK mail.example")
        one.configure("", "prefork=2")
        one.hang_up()
        wait_until(lambda: not on(second), "it has been closed")
        assert client.ask("QUIT") == "+OK"
    one.has_workers(2)
    assert one.session() == "+OK 0 0"


def test_c10_32_sigterm_stops_all_of_them(master):
    one = master(keys="prefork=3")
    workers = one.has_workers(3)
    with Client(one.port) as client:
        client.line()
        workers += one.has_workers(4)
        assert one.stop() == 0
        assert client.rest() == b""
    wait_until(lambda: all(gone(pid) for pid in workers), "all have gone")
    assert not on(one.port)


def test_after_its_timeout_a_worker_that_has_served_leaves(master):
    one = master("-T 1", keys="prefork=1")
    used = one.served_by()
    wait_until(lambda: gone(used), "it has left")
    (fresh,) = one.has_workers(1)
    assert fresh != used
    assert one.session() == "+OK 0 0"


def test_tls_from_the_first_octet(master, nobodys, authority):
    one = master("-s -U 3", keys="prefork=1")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    for _ in range(4):
        assert one.session(tls=context) == "+OK 0 0"


def test_telemetry_is_named_by_the_process_that_master_knows(master, nobodys):
    place = nobodys.directory / "log/john"
    place.mkdir(mode=0o700)
    os.chown(place, USER, USER)
    try:
        one = master(keys="prefork=1 maxchild=1")
        (worker,) = one.has_workers(1)
        one.session()
        one.session()
        (log,) = place.iterdir()
        assert log.name == str(worker)
        assert len(re.findall(rb"^-{10} john ", log.read_bytes(), re.MULTILINE)) == 2
    finally:
        shutil.rmtree(place)


def test_workers_leave_when_master_is_killed(master):
    one = master(keys="prefork=2")
    workers = one.has_workers(2)
    one.served_by()
    workers += [worker for worker in one.workers() if worker not in workers]
    one.process.kill()
    one.process.wait()
    wait_until(lambda: all(gone(pid) for pid in workers), "they have left")
    assert not on(one.port)


def test_cyrus_own_pop3d_is_a_worker_of_ours(real_cyrus, tmp_path):
    port = free_port()
    conf = tmp_path / "cyrus.conf"
    command = f"{program('pop3d')} -C {real_cyrus.conf} -U 3"
    place = f'listen="127.0.0.1:{port}" proto=tcp4'
    conf.write_text(f'SERVICES {{\n  pop3own cmd="{command}" {place} prefork=1 maxchild=1\n}}\n')
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "cyrusmaster", "-D", "-M", conf], env=environment(), stdout=log, stderr=log
        )
    try:
        wait_until(lambda: on(port), "master listens")
        (worker,) = wait_until(lambda: children_of(process.pid))
        for number in range(1, 4):
            with Client(port) as client:
                assert client.line().startswith(b"+OK mail.example Cyrus POP3 ")
                assert "PIPELINING" in client.listing("CAPA")
                assert client.ask("USER john") == "+OK Name is a valid mailbox"
                assert client.ask("PASS wrong").startswith("-ERR [AUTH]")
                assert client.ask("USER john") == "+OK Name is a valid mailbox"
                assert client.ask(f"PASS {PASSWORD}").startswith("+OK Mailbox locked and ready")
                assert children_of(process.pid) == [worker], number
                assert client.ask("QUIT") == "+OK"
        wait_until(lambda: gone(worker), "its three uses are over")
        (idle,) = wait_until(lambda: children_of(process.pid))
        with Client(port) as client:
            client.line()
            process.send_signal(signal.SIGTERM)
            assert client.rest() == b""
        assert process.wait(DEADLINE) == 0
        assert gone(idle)
    finally:
        process.kill()
        process.wait()
