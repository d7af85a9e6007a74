"""pop3d as a worker of master: the protocol on descriptors 3 and 4 (cyrus-pop3d.md 2)."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from courierchain.cram import state_of
from tests.conftest import DEADLINE, Client, needs, wait_until
from tests.cyruspop3d.conftest import PEERS, POP3D

AVAILABLE, UNAVAILABLE, CONNECTION = 1, 2, 3


class Worker:
    """One worker, its listening socket, and what it tells master."""

    def __init__(self, cyrus, *options: str, listening: socket.socket | None = None, **env):
        self.cyrus = cyrus
        self.listening = listening or socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.reader = reader
        self.log = cyrus.public / f"log{time.monotonic_ns()}"
        environment = {
            **cyrus.environment,
            **{"CYRUS_SERVICE": "pop3", "CYRUS_ID": "0"},
            **env,
        }
        argv = [POP3D, "-C", str(cyrus.conf), *options]
        mine = self.listening.fileno()

        def inherit() -> None:  # whatever the numbers are, neither is overwritten before it is used
            status, sock = os.dup(writer), os.dup(mine)
            os.dup2(status, 103)
            os.dup2(sock, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                env={name: value for name, value in environment.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=inherit,
                close_fds=False,
            )
        os.close(writer)

    def told(self) -> list[int]:
        """Messages since the last call; each with the worker's process id."""
        try:
            octets = os.read(self.reader, 4096)
        except BlockingIOError:
            return []
        pairs = list(struct.iter_unpack("=ii", octets))
        assert {pid for _, pid in pairs} <= {self.process.pid}
        return [message for message, _ in pairs]

    def tells(self, *wanted: int) -> None:
        found: list[int] = []

        def all_there() -> bool:
            found.extend(self.told())
            return len(found) >= len(wanted)

        wait_until(all_there, f"{wanted} in {found}")
        assert found == list(wanted)

    def client(self) -> Client:
        client = Client(self.port)
        assert client.line().startswith(b"+OK mail.example")
        return client

    def session(self) -> None:
        with self.client() as client:
            client.ask("USER john")
            assert client.ask(f"PASS {self.cyrus.john.password}").startswith("+OK Mailbox locked")
            assert client.ask("QUIT") == "+OK"

    def status(self) -> int:
        return self.process.wait(DEADLINE)

    def is_waiting(self) -> bool:
        """Whether it waits for a connection."""
        return "poll" in Path(f"/proc/{self.process.pid}/wchan").read_text()

    def waits_for_lock(self) -> bool:
        words = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return any(line[1] == "->" and line[5] == str(self.process.pid) for line in words)


@pytest.fixture
def worker(cyrus):
    running: list[Worker] = []

    def start(*options: str, **more) -> Worker:
        running.append(Worker(cyrus, *options, **more))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()
        os.close(one.reader)
        one.listening.close()


def test_c10_06_c10_07_c10_08_a_worker_tells_master_and_ends_after_its_last(
    worker,
):
    one = worker("-U", "2")
    wait_until(one.is_waiting)
    assert one.told() == []  # nothing at the start
    one.session()
    one.tells(UNAVAILABLE, CONNECTION, AVAILABLE)
    one.session()
    assert one.status() == 0
    assert one.told() == [UNAVAILABLE, CONNECTION]
    assert one.log.read_text().count(" john plaintext User logged in ") == 2


@pytest.mark.parametrize("uses", ["0", "1"])
def test_c10_09_uses_0_and_1_are_one_session(worker, uses):
    one = worker("-U", uses)
    one.session()
    assert one.status() == 0
    assert one.told() == [UNAVAILABLE, CONNECTION]


def test_c10_10_a_session_that_ends_without_quit_ends_the_worker(worker):
    one = worker()
    one.client().close()
    assert one.status() == 0
    assert one.told() == [UNAVAILABLE, CONNECTION]


@pytest.mark.parametrize(("name", "left"), [("CYRUS_SERVICE", ""), ("CYRUS_ID", None)])
def test_c10_01_without_masters_variables_it_ends_with_70(worker, name, left):
    one = worker(**{name: left})
    assert one.status() == 70
    assert one.log.read_text() == f"ERR: pop3d: could not getenv({name}); exiting\n"


def test_c10_16_only_one_worker_is_in_accept(worker, cyrus):
    first = worker()
    second = worker(listening=first.listening.dup())
    wait_until(lambda: first.is_waiting() and second.is_waiting())
    with (cyrus.directory / "socket/pop3-0.lock").open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # as somebody who is
        with Client(first.port) as client:
            wait_until(lambda: first.waits_for_lock() or second.waits_for_lock())
            assert first.told() + second.told() == []
            fcntl.lockf(lock, fcntl.LOCK_UN)
            assert client.line().startswith(b"+OK mail.example")
    assert wait_until(lambda: first.told() + second.told()) == [UNAVAILABLE, CONNECTION]


def test_who_has_just_served_is_the_next(worker):
    """The first to wait has all sessions that come one after the other."""
    first = worker()
    wait_until(first.is_waiting)
    second = worker(listening=first.listening.dup())
    wait_until(second.is_waiting)
    for _ in range(10):
        first.session()
        first.tells(UNAVAILABLE, CONNECTION, AVAILABLE)
        wait_until(first.is_waiting)
    assert second.told() == []


def test_c10_11_c10_12_who_has_served_leaves_after_its_timeout_a_fresh_one_stays(worker):
    fresh, used = worker("-T", "1"), worker("-T", "1", CYRUS_ID="1")
    patient = worker("-T", "0", CYRUS_ID="2")
    patient.session()
    used.session()
    assert used.status() == 0
    assert patient.process.poll() is None
    patient.session()
    assert fresh.process.poll() is None
    fresh.session()
    assert fresh.status() == 0


@pytest.mark.parametrize(
    ("number", "status"), [("HUP", 0), ("TERM", 75), ("INT", 75), ("QUIT", 75)]
)
def test_c10_13_signals_to_a_worker_that_waits(worker, number, status):
    one = worker()
    wait_until(one.is_waiting)
    one.process.send_signal(getattr(signal, f"SIG{number}"))
    assert one.status() == status
    assert one.told() == []


def test_c10_14_sighup_lets_the_session_finish(worker):
    one = worker()
    with one.client() as client:
        one.tells(UNAVAILABLE, CONNECTION)
        one.process.send_signal(signal.SIGHUP)
        assert client.ask("QUIT") == "+OK"
    assert one.status() == 0
    assert one.told() == []


def test_c10_54_a_worker_that_ends_leaves_no_proc_file(worker, cyrus):
    one = worker("-U", "2")
    files = cyrus.directory / "proc"
    with one.client():
        assert [file.name for file in files.iterdir()] == [str(one.process.pid)]
    one = worker("-U", "2")
    one.session()
    one.tells(UNAVAILABLE, CONNECTION, AVAILABLE)
    assert [file.name for file in files.glob("[!.]*")] == []
    one.session()
    assert one.status() == 0
    assert list(files.iterdir()) == []


def test_sigterm_ends_the_session_and_nothing_is_removed(worker, cyrus):
    name = cyrus.john.deliver(b"Subject: x\n\nbody\n")
    one = worker()
    with one.client() as client:
        client.ask("USER john")
        client.ask(f"PASS {cyrus.john.password}")
        assert client.ask("DELE 1") == "+OK message deleted"
        one.process.send_signal(signal.SIGTERM)
        assert client.rest() == b""
    assert one.status() == 75
    assert [file.partition(":")[0] for file in cyrus.john.files()] == [name]


def test_c10_21_k_tells_each_client_how_to_use_it_and_ends_with_64(worker):
    one = worker("-k")
    with Client(one.port) as client:
        assert client.rest() == b"-ERR usage: pop3d [-C <alt_config>] [-k] [-s]\r\n"
    assert one.status() == 64


@pytest.mark.parametrize(
    "options", [["-m", "PLAIN"], ["-m", "CRAM-MD5"], ["-m", "user"], ["-t", ""]]
)
def test_cyrus_own_client_logs_in(worker, cyrus, tls, options):
    program = needs(f"{PEERS}/usr/lib/cyrus/bin/pop3test")
    secret = state_of("md5", cyrus.john.password.encode()).decode()
    cyrus.accounts.userdb.write_text(
        cyrus.accounts.userdb.read_text().rstrip("\n") + f"|hmac-md5pw={secret}\n"
    )
    with cyrus.conf.open("a") as conf:
        conf.write("pop3_allowplaintext: yes\n")
    one = worker()
    libraries = next(PEERS.glob("usr/lib/*/libcyrus_min.so.0")).parent
    account = ["-a", "john", "-u", "john", "-w", cyrus.john.password]
    done = subprocess.run(
        [program, *options, *account, "-p", str(one.port), "127.0.0.1"],
        env={"LD_LIBRARY_PATH": str(libraries)},
        input="STAT\r\nQUIT\r\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "Authenticated." in done.stdout, done.stdout + done.stderr


def test_a_worker_whose_lock_cannot_be_had_goes_on_without(worker, cyrus):
    (cyrus.directory / "socket").rmdir()
    one = worker("-U", "1")
    one.session()
    assert one.status() == 0
    assert "locking disabled: couldn't open socket lockfile" in one.log.read_text()


def test_c10_19_x_serves_standard_input_whatever_master_has_left_open(worker):
    one = worker("-X")
    assert one.status() == 1  # descriptor 0 is empty
    assert one.told() == []
