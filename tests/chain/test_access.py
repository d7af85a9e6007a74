"""-access, -accesslocal, -denymsg, -drop and MAXCPERIP, as a client and the next program see them,
however processes are started; and Debian's listener with the file that our makedat made."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from couriertcpd.worker import LONGEST
from tests.conftest import (
    BIN,
    DEADLINE,
    Server,
    children_of,
    has_newer_courier,
    needs,
    needs_module,
    wait_until,
)

GREETING = b"+OK Hello there.\r\n"
DUMP = "#!/bin/sh\nenv | grep -E '^(A|B|TCP|LONG|MAX)'\necho .\n"


@pytest.fixture(params=["database", "text"])
def access(request, public):
    """Write the access file, of either kind, in the place of the one before; its path."""

    def write(text: str) -> Path:
        source, file = public / "access.txt", public / "access"
        source.write_text(text)
        if request.param == "text":
            os.replace(source, file)
        else:
            makedat(source, file)
        return file

    return write


def makedat(source: Path, file: Path) -> None:
    needs_module("dbm.gnu")
    tmp = f"{file}.tmp"
    command = [BIN / "makedat", f"-src={source}", f"-file={file}", f"-tmp={tmp}", "-cidr"]
    subprocess.run(command, check=True, timeout=DEADLINE)


@pytest.fixture
def dump(script):
    """A program that shows the client its environment."""
    return script("dump", DUMP)


def connect(server: Server, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), DEADLINE, (address, 0))


def told(server: Server, address: str = "127.0.0.1") -> bytes:
    """All that a client of this address gets."""
    with connect(server, address) as client:
        data = b""
        try:
            while piece := client.recv(65536):
                data += piece
        except ConnectionResetError:
            data += b"RESET"
        return data


def shown(server: Server, address: str) -> dict[str, str]:
    data = told(server, address)
    assert data.endswith(b".\n"), data
    lines = data.decode().splitlines()[:-1]
    return dict(line.split("=", 1) for line in lines)


def hang_up(server: Server) -> None:
    """Send SIGHUP and wait until it has been acted on."""
    server.process.send_signal(signal.SIGHUP)
    status = Path(f"/proc/{server.process.pid}/status")

    def settled() -> bool:
        text = status.read_text()
        pending = [
            line.split()[1]
            for line in text.splitlines()
            if line.startswith("S") and line.split(":")[0] in ("SigPnd", "ShdPnd")
        ]
        return set(pending) == {"0" * 16} and "State:\tS" in text

    wait_until(settled, "the listener waits again")


def test_a_record_denies_or_allows_and_the_rest_is_served(serve, any_mode, access, john):
    file = access("127.0.0.2\tdeny\n127.0.1\tdeny\n127.0.1.1\tallow\n127.2.0.0/15\tdeny\n")
    server = serve(*any_mode, f"-access={file}")
    for address in ("127.0.0.2", "127.0.1.2", "127.2.0.1", "127.3.255.1"):
        assert told(server, address) == b""
    for address in ("127.0.0.1", "127.0.1.1", "127.4.0.1"):
        with connect(server, address) as client:
            assert client.recv(100) == GREETING
    with server.client().login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."


def test_CVE_41_an_ipv4_client_on_a_socket_for_both_meets_the_rules_for_ipv4(
    serve, any_mode, access, john
):
    file = access("127\tdeny\n:0000\tallow\n")
    server = serve("-address=0", *any_mode, f"-access={file}")
    assert told(server) == b""
    with socket.create_connection(("::1", server.port), DEADLINE) as client:
        assert client.recv(100) == GREETING
    file = access(":0000\tdeny\n127\tallow\n")
    hang_up(server)
    with socket.create_connection(("::1", server.port), DEADLINE) as client:
        assert client.recv(100) == b""
    with connect(server) as client:
        assert client.recv(100) == GREETING


def test_a_denied_client_costs_no_process_and_no_place(serve, access, john):
    file = access("127.0.0.2\tdeny\n")
    server = serve("-maxprocs=1", f"-access={file}", "-denymsg=go away")
    for _ in range(50):
        assert told(server, "127.0.0.2") == b"go away\n"
        assert children_of(server.process.pid) == []
    with server.client() as client:
        assert client.line() == GREETING


def test_row_34_row_35_denymsg_is_for_the_denied_client_not_for_a_denied_address_of_ours(
    serve, any_mode, access, john
):
    file = access("127.0.0.2\tdeny\n*.1\tdeny\n")
    server = serve(*any_mode, f"-access={file}", "-denymsg=Go away.", "-accesslocal")
    assert told(server, "127.0.0.2") == b"Go away.\n"
    access(f"127.0.0.1.{server.port}\tdeny\n127.0.0.2\tdeny\n")
    hang_up(server)
    assert told(server, "127.0.0.2") == b""


def test_a_denied_client_that_reads_nothing_holds_up_nobody(serve, access, john):
    file = access("127.0.0.2\tdeny\n")
    server = serve(f"-access={file}", f"-denymsg={'x' * 100_000}")
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.bind(("127.0.0.2", 0))
            client.connect(("127.0.0.1", server.port))
        with server.client() as client:
            assert client.line() == GREETING


def test_the_program_finds_the_variables_of_the_record(serve, any_mode, access, dump):
    file = access(
        '127.0.0.2\tallow,A="q,u",B\n127.0.0.3\tTCPREMOTEIP=6.6.6.6,TCPLOCALPORT=1,A=\n'
        "127.0.0.4\tallow\n"
    )
    server = serve(*any_mode, f"-access={file}", stages=[dump], env={"A": "inherited"})
    for _ in range(2):
        found = shown(server, "127.0.0.2")
        assert (found["A"], found["B"]) == ("q,u", "")
        found = shown(server, "127.0.0.3")
        assert (found["A"], found["TCPREMOTEIP"]) == ("", "::ffff:127.0.0.3")
        assert found["TCPLOCALPORT"] == str(server.port)
        found = shown(server, "127.0.0.4")
        assert found["A"] == "inherited" and "B" not in found


def test_variables_of_one_session_are_not_those_of_the_next_in_the_same_worker(
    serve, any_mode, access, john
):
    """DEFDOMAIN changes who logs in."""
    file = access("127.0.0.2\tallow,DEFDOMAIN=@nowhere.example\n")
    server = serve(*any_mode, f"-access={file}", env={"POP3_FAILURE_DELAY": "0"})
    for _ in range(4):
        for address, expected in (("127.0.0.2", b"-ERR"), ("127.0.0.1", b"+OK")):
            with connect(server, address) as client, client.makefile("rb") as lines:
                lines.readline()
                client.sendall(f"USER john\r\nPASS {john.password}\r\n".encode())
                assert lines.readline() == b"+OK Password required.\r\n"
                assert lines.readline().startswith(expected)
                client.sendall(b"QUIT\r\n")
                lines.read()


def test_a_record_longer_than_a_channel_carries_arrives_whole(serve, any_mode, access, dump):
    long = "x" * (LONGEST + 1000)
    file = access(f"127.0.0.2\tallow,LONG={long},B=1\n127.0.0.3\tallow,A=1\n")
    server = serve(*any_mode, f"-access={file}", stages=[dump])
    for _ in range(3):
        found = shown(server, "127.0.0.2")
        assert (found["LONG"], found["B"]) == (long, "1")
        found = shown(server, "127.0.0.3")
        assert found["A"] == "1" and "LONG" not in found


def test_row_28_MAXCPERIP_replaces_maxperip_for_its_address(serve, any_mode, access, john):
    file = access("127.0.0.2\tMAXCPERIP=3\n127.0.0.3\tMAXCPERIP=0\n")
    server = serve(*any_mode, f"-access={file}", "-maxperip=1")
    with ExitStack() as stack:
        for address, most in (("127.0.0.1", 1), ("127.0.0.2", 3), ("127.0.0.3", 1)):
            for _ in range(most):
                client = stack.enter_context(connect(server, address))
                assert client.recv(100) == GREETING
            assert told(server, address) == b""
            server.logged(f"ALERT: Maximum connection limit reached for ::ffff:{address}")


def test_MAXCPERIP_of_the_listener_s_own_environment(serve, any_mode, john):
    server = serve(*any_mode, "-maxperip=1", env={"MAXCPERIP": "2"})
    with connect(server) as one, connect(server) as two:
        assert one.recv(100) == two.recv(100) == GREETING
        assert told(server) == b""


def test_row_39_drop_closes_whom_a_record_marks(serve, any_mode, access, john):
    file = access("127.0.0.2\tallow,BLOCK=spammer\n127.0.0.3\tallow,BLOCK=\n")
    server = serve(*any_mode, f"-access={file}", "-drop", "-denymsg=blocked")
    assert told(server, "127.0.0.2") == b"blocked\n"
    server.logged(r"WARN: dropped blocked connection from ::ffff:127\.0\.0\.2")
    with connect(server, "127.0.0.3") as client:
        assert client.recv(100) == GREETING
    assert len([line for line in server.lines() if "127.0.0.3" not in line]) == 1


def test_row_16_sighup_reads_the_file_again_at_once_and_drops_no_session(
    serve, any_mode, access, john
):
    file = access("127.0.0.2\tdeny\n")
    server = serve(*any_mode, f"-access={file}")
    with server.client().login(john) as client:
        access("127.0.0.1\tdeny\n")
        assert told(server, "127.0.0.2") == b""
        hang_up(server)
        assert told(server) == b""
        with connect(server, "127.0.0.2") as other:
            assert other.recv(100) == GREETING
        assert client.ask("NOOP").startswith("+OK")


def test_sighup_that_comes_before_the_listener_is_ready_is_not_lost(serve, access, john):
    """Nor does it end the listener, which has the port before it has its handlers."""
    for _ in range(20):
        file = access("127.0.0.2\tdeny\n")
        server = serve(f"-access={file}")
        access("127.0.0.3\tdeny\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda server=server: told_nothing(server, "127.0.0.3"), "127.0.0.3 is denied")
        server.stop()


def told_nothing(server: Server, address: str) -> bool:
    with connect(server, address) as client:
        return client.recv(100) == b""


@pytest.mark.parametrize("spoil", [os.unlink, lambda path: os.truncate(path, 0)])
def test_sighup_with_a_broken_file_keeps_the_old_records_and_says_so(
    serve, any_mode, access, john, spoil
):
    file = access("127.0.0.2\tdeny\n")
    server = serve(*any_mode, f"-access={file}")
    spoil(file)
    server.process.send_signal(signal.SIGHUP)
    server.logged(rf"ERR: {file}: .*; the records read before stay in force")
    assert told(server, "127.0.0.2") == b""
    with connect(server) as client:
        assert client.recv(100) == GREETING
    assert sum(str(file) in line for line in server.lines()) == 1


def start(*options: str) -> tuple[int, str]:
    command = [BIN / "couriertcpd", *options, "-address=127.0.0.1", "1", "/bin/true"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    return run.returncode, run.stderr


@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, ": No such file or directory"),
        (b"", ": empty"),
        (b"192.0.2.1 deny\n", ", line 1: 192.0.2.1.deny: not an address"),
        (0x13579ACF.to_bytes(4, "little") + b"x" * 5000, ": broken"),
    ],
)
def test_row_36_where_courier_lets_everybody_in_we_don_t_start(public, daemon, content, complaint):
    file = public / "access"
    if content is not None:
        file.write_bytes(content)
    pid = public / "pid"
    status, line = start(f"-access={file}", *([f"-pid={pid}"] if daemon else []))
    assert status == 1
    assert line.startswith(f"{file}{complaint}") and line.count("\n") == 1
    assert "(" in line  # the remedy
    assert not pid.exists()


def test_accesslocal_without_access_is_refused():
    assert start("-accesslocal") == (1, "-accesslocal requires -access\n")


def test_row_14_restart_of_a_daemon_reads_the_file_again(public, access, dump):
    """makedat's -hup does the same, with the pid file of couriertcpd."""
    source, file, pid = public / "source", public / "file", public / "pid"
    source.write_text("127.0.0.2\tdeny\n")
    makedat(source, file)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    daemon = [BIN / "couriertcpd", f"-pid={pid}", "-address=127.0.0.1", "-nodnslookup"]
    daemon += [f"-access={file}", f"-stderr={public}/log", str(port), dump]
    subprocess.run(daemon, check=True, timeout=DEADLINE)

    def answer(address: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port), DEADLINE, (address, 0)) as client:
            return client.recv(10)

    try:
        assert answer("127.0.0.2") == b""
        source.write_text("127.0.0.3\tdeny\n")
        makedat(source, file)
        subprocess.run([*daemon[:2], "-restart"], check=True, timeout=DEADLINE)
        wait_until(lambda: answer("127.0.0.3") == b"", "127.0.0.3 is denied")
        assert answer("127.0.0.2") != b""
        source.write_text("127.0.0.4\tdeny\n")
        command = [BIN / "makedat", f"-src={source}", f"-file={file}", f"-tmp={file}.tmp"]
        subprocess.run([*command, f"-hup={pid}"], check=True, timeout=DEADLINE)
        wait_until(lambda: answer("127.0.0.4") == b"", "127.0.0.4 is denied")
    finally:
        subprocess.run([*daemon[:2], "-stop"], check=True, timeout=DEADLINE)


RECORDS = """\
127.0.0.2	deny
127.0.0.3	denyfoo
127.0.1	deny,A=1
127.0.1.1	allow
127.0.1.2	allow,A="q,u",B
127.0.1.3	allowed,A='x"y', B = it's
127.0.1.4	A=bare
127.0.1.5	allow,BLOCK=x
127.0.1.6	allow,BLOCK=,A=" q "
127.0.1.7
127.0.1.8	allow,A="unterminated,B=2
127.1	deny
127.1.2	B=two
*	A=everybody
*.%(port)d	B=local
127.0.0.1.%(port)d	LONG=local
127.0.0.1	allow,MAXCPERIP=1
"""
CLIENTS = [f"127.0.0.{host}" for host in (1, 2, 3, 9)] + [
    *(f"127.0.1.{host}" for host in range(1, 10)),
    *("127.1.0.1", "127.1.2.1", "127.2.0.1"),
]


@pytest.mark.parametrize(
    "options", [[], ["-denymsg=no"], ["-accesslocal"], ["-drop", "-denymsg="], ["-drop=A,B"]]
)
def test_debian_s_couriertcpd_and_ours_answer_alike_with_the_file_of_our_makedat(
    serve, public, dump, options
):
    original = needs("/usr/sbin/couriertcpd")
    answers, logs = [], []
    for tcpd in (original, BIN / "couriertcpd"):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        source, file = public / "source", public / "file"
        source.write_text(RECORDS % {"port": port})
        makedat(source, file)
        listening = [f"-access={file}", *options]
        if not has_newer_courier():
            listening.insert(0, "-noidentlookup")
        server = serve(*listening, stages=[dump], tcpd=str(tcpd), port=port)
        answers.append([comparable(told(server, address)) for address in CLIENTS])
        logs.append(server.lines())
    assert answers[0] == answers[1]
    assert logs[0] == logs[1]


def comparable(answer: bytes) -> list[bytes]:
    return sorted(line for line in answer.split(b"\n") if b"PORT=" not in line)
