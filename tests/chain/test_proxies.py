"""-haproxy: a proxy in front of the listener says whose connection it is (checklist row 43)."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.conftest import BIN, Client, free_port, needs, wait_until

ENV = "#!/bin/sh\nenv; exec cat\n"
LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 51000 110\r\n"
BINARY = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + socket.inet_aton("192.0.2.7")
    + socket.inet_aton("192.0.2.1")
    + (51000).to_bytes(2, "big")
    + (110).to_bytes(2, "big")
)


def variables(client: Client) -> dict[str, str]:
    """What the session of `env` has in its environment: to its last line."""
    found = {}
    client.send(b"end\n")
    while (line := client.line()) != b"end\n":
        name, _, value = line.decode().removesuffix("\n").partition("=")
        found[name] = value
    return found


@pytest.fixture
def behind(serve, script, any_mode):
    def start(*options, stages=None, **kwargs):
        return serve(*any_mode, *options, stages=stages or [script("env", ENV)], **kwargs)

    return start


@pytest.mark.parametrize("header", [LINE, LINE.replace(b"\r", b""), BINARY])
def test_row_43_the_session_knows_the_client_and_where_it_wanted_to_go(behind, header):
    client = behind("-haproxy").client()
    client.send(header)
    found = variables(client)
    assert found["TCPREMOTEIP"] == "::ffff:192.0.2.7"
    assert found["TCPREMOTEPORT"] == "51000"
    assert found["TCPLOCALIP"] == "::ffff:192.0.2.1"
    assert found["TCPLOCALPORT"] == "110"
    assert found["TCPREMOTEINFO"] == "proxy via 192.0.2.1, port 110"


@pytest.mark.parametrize("header", [LINE, BINARY])
def test_every_split_of_the_header_and_not_an_octet_of_the_session_is_lost(behind, header):
    server = behind("-haproxy", "-maxperip=100", "-maxprocs=100")
    clients = []
    for length in range(1, len(header)):
        client = server.client()
        client.send(header[:length])
        clients.append((client, header[length:]))
    for client, rest in clients:
        client.send(rest + b"first\n")
    for client, _ in clients:
        client.socket.shutdown(socket.SHUT_WR)
        said = client.rest()
        assert b"TCPREMOTEPORT=51000\n" in said and said.endswith(b"\nfirst\n")
        client.close()


def test_a_health_check_of_the_proxy_is_its_own_connection(behind):
    client = behind("-haproxy").client()
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
    assert variables(client)["TCPREMOTEIP"] == "::ffff:127.0.0.1"


def test_who_isn_t_a_proxy_is_turned_away(behind):
    server = behind("-haproxy", "-haproxyfrom=192.0.2.0/24,2001:db8::1")
    client = server.client()
    client.send(LINE)
    assert client.rest() == b""
    server.logged(r"WARN: haproxy: ::ffff:127\.0\.0\.1 is none of the proxies of -haproxyfrom")


@pytest.mark.parametrize(
    "sent, why",
    [
        (b"USER joe\r\n", "missing PROXY statement"),
        (b"PROXY UNKNOWN\r\n", "unknown protocol: UNKNOWN"),
        (b"PROXY TCP4 192.0.2 192.0.2.1 1 1\r\n", "cannot parse TCP4 address"),
        (b"PROXY " + b"x" * 300, "response too long"),
    ],
)
def test_what_is_no_header_is_closed_and_logged(behind, sent, why):
    server = behind("-haproxy")
    client = server.client()
    client.send(sent)
    assert client.rest() == b""
    server.logged(f"haproxy: {why}")


def test_a_slow_proxy_keeps_nobody_waiting_and_is_closed_in_time(behind):
    server = behind("-haproxy=1")
    slow = server.client()
    slow.send(LINE[:10])
    quick = server.client()
    quick.send(LINE)
    assert variables(quick)["TCPREMOTEPORT"] == "51000"
    assert slow.rest() == b""
    server.logged("haproxy: timeout")


def test_who_leaves_before_it_has_said_anything_is_not_mentioned(behind):
    server = behind("-haproxy", "-maxprocs=4", "-warn=4")
    for _ in range(5):
        server.client().close()
    client = server.client()
    client.send(LINE)
    assert variables(client)["TCPREMOTEPORT"] == "51000"
    assert server.lines() == []


def test_limits_and_access_records_are_the_client_s(behind, public):
    access = public / "access"
    access.write_text("192.0.2.66\tdeny\n192.0.2\tallow,SEEN=yes\n127.0.0.1\tdeny\n")
    server = behind("-haproxy", f"-access={access}", "-denymsg=no", "-maxperip=1")
    first, second, other, denied = (server.client() for _ in range(4))
    first.send(LINE)
    assert variables(first)["SEEN"] == "yes"
    second.send(LINE)
    assert second.rest() == b""
    server.logged("ALERT: Maximum connection limit reached for ::ffff:192.0.2.7")
    other.send(LINE.replace(b"2.7", b"2.8"))
    assert variables(other)["SEEN"] == "yes"
    denied.send(LINE.replace(b"2.7", b"2.66"))
    assert denied.rest() == b"no\n"


def test_row_04_only_the_ports_that_are_named_expect_a_header(behind):
    port, other = free_port(), free_port()
    behind(f"-haproxy=5/port=127.0.0.1.{port},/port=1", port=port, also=other)
    client = Client(port)
    client.send(LINE)
    assert variables(client)["TCPREMOTEPORT"] == "51000"
    client = Client(other)
    assert variables(client)["TCPREMOTEPORT"] == str(client.socket.getsockname()[1])


def test_waiting_headers_are_bounded_by_the_places(behind):
    server = behind("-haproxy=1", "-maxprocs=2")
    silent = [server.client() for _ in range(2)]
    client = server.client()
    client.send(LINE)  # it is accepted when the others have gone
    assert variables(client)["TCPREMOTEPORT"] == "51000"
    assert [each.rest() for each in silent] == [b"", b""]


@pytest.mark.parametrize(
    "option, complaint",
    [
        ("-haproxy=/port=0", "Invalid port: 0"),
        ("-haproxy=/port=x.110", "Invalid IP address: x"),
        ("-haproxyfrom=x", "-haproxyfrom=x: not an address"),
    ],
)
def test_nonsense_is_refused_at_start(option, complaint):
    argv = [BIN / "couriertcpd", "-haproxy", option, "1", "/bin/cat"]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(complaint)


CONFIGURATION = """
global
    log stderr format raw local0
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen pop3
    bind 127.0.0.1:{front}
    server one 127.0.0.1:{back} {send}
"""


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front(serve, any_mode, john, public, send):
    haproxy = needs("haproxy")
    server = serve(*any_mode, "-haproxy")
    front = free_port()
    file = public / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(front=front, back=server.port, send=send))
    process = subprocess.Popen([haproxy, "-f", file], stderr=subprocess.DEVNULL)
    try:
        client = wait_until(lambda: connected(front), "haproxy listens")
        port = client.socket.getsockname()[1]
        client.login(john)
        assert client.ask("QUIT") == "+OK Bye-bye."
        server.logged(rf"INFO: LOGIN, user=john, ip=\[::ffff:127\.0\.0\.1\], port=\[{port}\]")
    finally:
        process.terminate()
        process.wait(20)


def connected(port: int) -> Client | None:
    try:
        return Client(port)
    except ConnectionRefusedError:
        return None
