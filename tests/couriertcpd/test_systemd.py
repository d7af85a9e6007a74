"""Socket activation and notification, with a manager of the test's own, and with Debian's."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from couriertcpd.systemd import Notifier, carry_over
from tests.conftest import BIN, DEADLINE, Client, children_of, free_port, needs, wait_until

TCPD = str(BIN / "couriertcpd")
VARIABLES = "LISTEN_FDS LISTEN_PID LISTEN_FDNAMES NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID"


@pytest.fixture
def hello(script):
    """A program that says the local port, its descriptors, and what it has of VARIABLES."""
    shown = "".join(f" ${{{name}-}}" for name in VARIABLES.split())
    fds = "$(cd /proc/self/fd && echo [0-9] [0-9][0-9])"
    return script(
        "hello", f'#!/bin/sh\necho "$TCPLOCALPORT{shown}"; : {fds}\nls -C /proc/self/fd\n'
    )


class Manager:
    """Does what systemd does: passes sockets from descriptor 3 on, and hears notifications."""

    def __init__(self, directory: Path, env: dict[str, str], name: str):
        self.env = env
        self.log = directory / "log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.settimeout(DEADLINE)
        self.notify.bind(name.replace("@", "\0"))
        self.env["NOTIFY_SOCKET"] = name
        self.processes: list[subprocess.Popen] = []

    def start(self, *arguments: str, sockets=(), names="", pid="$$", **env) -> subprocess.Popen:
        """couriertcpd with those arguments; its pid is LISTEN_PID."""
        shell = f"exec env LISTEN_PID={pid} "
        shell += f'LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names} {TCPD} -nodnslookup "$@"'
        numbers = [sock.fileno() for sock in sockets]

        def arrange() -> None:
            aside = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in numbers]
            for index, number in enumerate(aside):
                os.dup2(number, 3 + index)

        with self.log.open("ab") as stderr:
            process = subprocess.Popen(
                ["/bin/sh", "-c", shell, "sh", *arguments],
                env={**self.env, **env},
                stderr=stderr,
                preexec_fn=arrange,
                close_fds=False,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def fails(self, *arguments: str, **how) -> str:
        assert self.start(*arguments, **how).wait(DEADLINE) == 1
        return self.log.read_text().removesuffix("\n")

    def hears(self, wanted: str) -> list[str]:
        """The lines of the first notification with a line that begins so."""
        while True:
            lines = self.notify.recv(4096).decode().split("\n")
            if any(line.startswith(wanted) for line in lines):
                return lines

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
            process.wait(DEADLINE)
        self.notify.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, public, environment):
    name = f"{public}/notify" if request.param == "path" else f"@{public}/notify"
    made = Manager(public, environment, name)
    yield made
    made.end()


@pytest.fixture
def passed():
    """Listening sockets, as a .socket unit makes them."""
    made: list[socket.socket] = []

    def listen(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.create_server((address, port or free_port()), family=family)
        made.append(sock)
        return sock

    yield listen
    for sock in made:
        sock.close()


def port_of(sock: socket.socket) -> int:
    return sock.getsockname()[1]


def said(port: int, address: str = "127.0.0.1") -> str:
    with socket.create_connection((address, port), DEADLINE) as client, client.makefile() as file:
        return file.read()


def test_passed_sockets_serve_their_elements_and_others_are_bound(manager, passed, hello):
    first, second, own = passed(), passed("127.0.0.2"), free_port()
    ports = f"127.0.0.1.{port_of(first)},127.0.0.2.{port_of(second)},127.0.0.1.{own}"
    manager.start(ports, hello, sockets=[first, second], names="pop3:other")
    manager.hears("READY=1")
    # ls reads the directory by descriptor 3; no variable of the manager's is there.
    assert said(own) == f"{own}      \n0  1  2  3\n"
    for sock in (first, second):
        address, port = sock.getsockname()
        assert said(port, address) == f"{port}      \n0  1  2  3\n"


def test_the_passed_sockets_are_out_of_the_way_of_3(manager, passed, hello):
    sock = passed()
    process = manager.start(f"127.0.0.1.{port_of(sock)}", hello, sockets=[sock])
    manager.hears("READY=1")
    assert os.readlink(f"/proc/{process.pid}/fd/3") == "/dev/null"


@pytest.mark.parametrize("address, client", [("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_a_wildcard_socket_serves_a_port_of_all_addresses(manager, passed, hello, address, client):
    port = free_port()
    if address == "::":
        sock = socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        sock = passed(address, port)
    with sock:
        process = manager.start(f"{port},0.{port}", hello, sockets=[sock])
        manager.hears("READY=1")
        assert said(port, client).startswith(f"{port} ")
        listening = subprocess.run(
            [needs("ss"), "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True
        )
        assert len(listening.stdout.splitlines()) == 1
        assert process.poll() is None


def test_a_daemon_keeps_them_and_says_its_pid(manager, passed, hello, public):
    sock = passed()
    port, pidfile = port_of(sock), public / "pid"
    manager.start(f"-pid={pidfile}", f"127.0.0.1.{port}", hello, sockets=[sock])
    sock.close()
    try:
        lines = manager.hears("READY=1")
        assert lines == ["READY=1", f"MAINPID={pidfile.read_text().strip()}"]
        assert said(port).startswith(f"{port} ")
        done = subprocess.run([TCPD, f"-pid={pidfile}", "-reload"], check=False, timeout=DEADLINE)
        assert done.returncode == 0
        assert manager.hears("RELOADING=1")
        assert manager.hears("READY=1")
        assert said(port).startswith(f"{port} ")
    finally:
        subprocess.run([TCPD, f"-pid={pidfile}", "-stop"], check=True, timeout=DEADLINE)


def test_sockets_for_another_process_are_left_alone(manager, passed, hello):
    sock, own = passed(), free_port()
    manager.start(f"127.0.0.1.{own}", hello, sockets=[sock], pid="1")
    manager.hears("READY=1")
    assert said(own).startswith(f"{own}      \n")


def test_a_socket_that_is_none_of_the_ports_is_refused(manager, passed, hello):
    sock, own = passed(), free_port()
    line = manager.fails(f"127.0.0.1.{own}", hello, sockets=[sock], names="imap")
    assert line == (
        f"LISTEN_FDS: the socket ::ffff:127.0.0.1.{port_of(sock)} (imap, descriptor 3) is none of "
        f"the ports 127.0.0.1.{own} (add it there, or take it out of the .socket unit)"
    )


ONLY = "only stream sockets that listen on IPv4 or IPv6 are taken (ListenStream=PORT, Accept=no)"


@pytest.mark.parametrize("kind", ["datagram", "unix", "connected", "pipe"])
def test_only_stream_sockets_that_listen_are_taken(manager, passed, hello, public, kind):
    listening = passed()
    if kind == "datagram":
        wrong = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif kind == "unix":
        wrong = socket.socket(socket.AF_UNIX)
        wrong.bind(f"{public}/unix")
        wrong.listen()
    elif kind == "connected":
        wrong = socket.create_connection(listening.getsockname())
    else:
        wrong = open("/dev/null")
    with wrong:
        line = manager.fails(
            f"127.0.0.1.{port_of(listening)}", hello, sockets=[listening, wrong], names="a:b"
        )
    why = "Socket operation on non-socket" if kind == "pipe" else ONLY
    assert line == f"LISTEN_FDS: descriptor 4 (b): {why}"


@pytest.mark.parametrize("count", ["x", "-1", "99999", "\u0663"])
def test_a_number_of_sockets_that_is_none_is_refused(manager, hello, count):
    shell = 'exec env LISTEN_PID=$$ "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", f"LISTEN_FDS={count}", TCPD, "110", hello],
        env=manager.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"LISTEN_FDS={count}: not a number of sockets\n")


def test_the_manager_hears_of_the_start_of_reloads_and_of_the_end(manager, john, passed):
    sock = passed()
    process = manager.start(
        f"127.0.0.1.{port_of(sock)}",
        *("courierpop3login", "authuserdb", "courierpop3d", "./Maildir"),
        sockets=[sock],
    )
    assert manager.hears("READY=1") == ["READY=1"]
    assert manager.hears("STATUS=") == ["STATUS=0 of 40 connections"]
    with Client(port_of(sock)).login(john) as client:
        for number in (signal.SIGHUP, signal.SIGUSR2):
            before = time.monotonic_ns() // 1000
            process.send_signal(number)
            kind, since = manager.hears("RELOADING=1")
            assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() / 1e3
            manager.hears("READY=1")
        assert manager.hears("STATUS=") == ["STATUS=1 of 40 connections"]
        assert client.ask("QUIT") == "+OK Bye-bye."
    process.terminate()
    assert manager.hears("STOPPING=1") == ["STOPPING=1"]
    assert process.wait(DEADLINE) == 0


def test_a_reload_that_fails_ends_with_READY_too(manager, hello, public):
    access = public / "access"
    access.write_text("*\tallow\n")
    process = manager.start(f"-access={access}", f"127.0.0.1.{free_port()}", hello)
    manager.hears("READY=1")
    access.unlink()
    process.send_signal(signal.SIGUSR2)
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    assert process.poll() is None
    assert "ERR: couriertcpd: not reloaded: " in manager.log.read_text()


def test_the_watchdog_is_fed_also_after_a_reload(manager, hello):
    process = manager.start(f"127.0.0.1.{free_port()}", hello, WATCHDOG_USEC="200000")
    manager.hears("READY=1")
    for _ in range(3):
        manager.hears("WATCHDOG=1")
    process.send_signal(signal.SIGUSR2)
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    for _ in range(3):
        manager.hears("WATCHDOG=1")


def test_a_watchdog_of_another_process_is_not_fed():
    assert Notifier({"WATCHDOG_USEC": "6000000"}).patience == 3.0
    assert Notifier({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": str(os.getpid())}).patience == 3.0
    for env in ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}, {}):
        assert Notifier(env).patience is None


def test_status_is_told_when_it_has_changed_and_not_at_every_connection(manager, monkeypatch):
    notifier = Notifier(manager.env)
    now = 100.0
    monkeypatch.setattr("couriertcpd.systemd.monotonic", lambda: now)
    for connections in (1, 2, 3):
        notifier.turn(connections, 40)
    now += 10
    notifier.turn(3, 40)
    now += 10
    notifier.turn(3, 40)
    notifier.stopping()
    heard = [manager.notify.recv(99).decode() for _ in range(3)]
    assert heard == ["STATUS=1 of 40 connections", "STATUS=3 of 40 connections", "STOPPING=1"]


def test_a_manager_that_has_gone_or_does_not_read_holds_nobody_up(manager):
    notifier = Notifier(manager.env)
    for _ in range(3000):
        notifier.ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere"}).ready()
    Notifier({"NOTIFY_SOCKET": "/" + "x" * 200}).ready()


def test_a_new_environment_has_the_manager_of_the_old_one():
    old = {"NOTIFY_SOCKET": "/a", "WATCHDOG_USEC": "7", "A": "1"}
    new = {"NOTIFY_SOCKET": "/b", "WATCHDOG_PID": "8", "INVOCATION_ID": "x", "A": "2"}
    assert carry_over(old, new) == {"NOTIFY_SOCKET": "/a", "WATCHDOG_USEC": "7", "A": "2"}


def test_systemd_socket_activate_starts_it_with_the_first_client(public, environment, hello):
    activate = needs("systemd-socket-activate")
    port = free_port()
    with (public / "log").open("ab") as stderr:
        process = subprocess.Popen(
            [activate, f"--listen=127.0.0.1:{port}", TCPD, "-nodnslookup", f"127.0.0.1.{port}"]
            + [hello],
            env=environment,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Listening on" in (public / "log").read_text())
        assert said(port).startswith(f"{port}      \n")
        process.send_signal(signal.SIGUSR2)
        wait_until(lambda: b"COURIERTCPD_RELOAD" in environ(process.pid))
        assert said(port).startswith(f"{port}      \n")
        wait_until(lambda: not children_of(process.pid))
    finally:
        process.terminate()
        assert process.wait(DEADLINE) == 0


def environ(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()
