"""couriertls -server -relay: many connections, reload, workers that die, and the end."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import threading

import pytest

from courierchain import relay as protocol
from tests.conftest import DEADLINE, needs, needs_root, wait_until
from tests.couriertls.conftest import ENVIRONMENT, RELAY, connected, descriptors_of, hello, read_all


def names(tls: ssl.SSLSocket) -> set[str]:
    return {name for _, name in tls.getpeercert()["subjectAltName"]}


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_8314_02_a_connection_is_relayed_both_ways(relay, files, version):
    wanted = ssl.TLSVersion[version]
    context = files.client(minimum_version=wanted, maximum_version=wanted)
    connection = relay().hello(context=context)
    connection.program.sendall(b"+OK Hello there.\r\n")
    assert connection.client.recv(100) == b"+OK Hello there.\r\n"
    connection.client.sendall(b"QUIT\r\n")
    assert connection.program.recv(100) == b"QUIT\r\n"
    connection.program.sendall(b"+OK Bye\r\n")
    connection.program.close()
    assert connection.client.recv(100) == b"+OK Bye\r\n"
    assert connection.client.recv(100) == b""  # close_notify: else an SSLError


def test_the_answer_has_the_variables_and_the_ident(relay, files):
    connection = relay().connect({"TCPREMOTEIP": "::1"})
    tls = files.client().wrap_socket(connection.client, server_hostname="mail.example")
    connection.client = tls
    answer = connection.answer()
    assert (answer.ident, answer.connected, answer.text) == (b"1", True, "")
    cipher, _, bits = tls.cipher()
    assert answer.variables.pop("TLS_CONNECTED_PROTOCOL") == f"TLSv1.3,{bits}bits,{cipher}"
    assert set(answer.variables) == {"TLS_BINDING_EXPORTER", "TLS_BINDING_SERVER_END_POINT"}


def test_without_a_reply_descriptor_the_channel_takes_the_answers(relay, files):
    server = relay()
    clients = []
    for number in range(20):
        client, network = connected()
        ours, plain = socket.socketpair()
        clients.append((client, ours))
        with network, plain:
            ident = b"%d" % number
            protocol.ask(server.channel, ident, {}, network.fileno(), plain.fileno())
    for client, _ in clients[1:]:
        client.close()
    files.client().wrap_socket(clients[0][0], server_hostname="mail.example")
    answers = [protocol.answered(server.channel.recv(protocol.LARGEST)) for _ in clients]
    connected_ones = [answer.ident for answer in answers if answer.connected]
    assert connected_ones == [b"0"]
    assert {answer.ident for answer in answers} == {b"%d" % number for number in range(20)}
    for _, ours in clients:
        ours.close()


def test_cve_23_handshakes_that_never_end_are_cut_and_hinder_nobody(relay, files):
    server = relay(TLS_HANDSHAKE_TIMEOUT="2")
    silent = [server.connect({"TCPREMOTEIP": "192.0.2.9"}) for _ in range(100)]
    for half in silent[::2]:
        half.client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert server.hello().client.version() == "TLSv1.3"
    for connection in silent:
        answer = connection.answer()
        assert (answer.connected, answer.text) == (
            False,
            "couriertls: accept: Connection timed out",
        )
        assert connection.client.recv(1) == b""
        assert connection.program.recv(1) == b""
    line = "ip=[192.0.2.9], couriertls: accept: Connection timed out"
    assert server.lines().count(line) == 100


def test_cve_22_broken_handshakes_leave_nothing_behind(relay, files):
    server = relay()
    server.hello().close()
    chance = random.Random(5)
    before = wait_until(lambda: len(set(settled(server))) == 1 and settled(server))
    workers = server.workers()
    for number in range(300):
        connection = server.connect({"TCPREMOTEIP": "192.0.2.9"})
        octets = chance.randbytes(chance.randrange(1, 300))
        octets = [octets, b"\x16\x03\x01\x00\x80\x01" + octets, b"USER x\r\n", b""][number % 4]
        try:
            connection.client.sendall(octets)
            if number % 3:
                connection.client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was all sent
        if number % 5 == 0:
            # The kernel sends a reset.
            connection.client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4)
            )
        if number % 3 == 0:
            connection.client.close()
        assert not connection.answer().connected
        assert connection.program.recv(1) == b""
        connection.close()
    assert server.workers() == workers
    wait_until(lambda: settled(server) == before, f"{before} descriptors")
    assert server.hello().client.version() == "TLSv1.3"
    assert all("192.0.2.9" in line for line in server.lines())


def settled(server) -> list[int]:
    return sorted(descriptors_of(pid) for pid in server.workers())


def test_8314_04_plain_text_gets_an_alert_and_a_close(relay):
    connection = relay().connect()
    connection.client.sendall(b"CAPA\r\nUSER john\r\n")
    answer = read_all(connection.client)
    assert (answer[0], answer[5], len(answer)) == (0x15, 2, 7)
    assert connection.answer().text.endswith("wrong version number")
    assert connection.program.recv(1) == b""


def test_8314_05_a_client_that_vanishes_is_the_end_for_the_program(relay):
    connection = relay().hello()
    connection.client.sendall(b"DELE 1\r\n")
    assert connection.program.recv(100) == b"DELE 1\r\n"
    os.close(connection.client.detach())  # FIN, and no close_notify
    assert connection.program.recv(100) == b""


def test_a_client_that_says_no_more_still_reads_the_answer(relay):
    connection = relay().hello()
    connection.client.sendall(b"STAT\r\nQUIT\r\n")
    end_output(connection.client)
    assert read_all(connection.program) == b"STAT\r\nQUIT\r\n"
    connection.program.sendall(b"+OK 0 0\r\n+OK Bye\r\n")
    connection.program.close()
    assert read_all(connection.client) == b"+OK 0 0\r\n+OK Bye\r\n"


def test_what_a_program_said_before_it_left_is_read_though_it_has_not_listened(relay):
    connection = relay().hello()
    connection.program.sendall(b"-ERR Go away.\r\n")
    connection.program.close()
    for _ in range(20):
        try:
            connection.client.sendall(b"NOOP\r\n" * 500)
        except OSError:
            break
    assert read_all(connection.client) == b"-ERR Go away.\r\n"


@pytest.mark.parametrize("direction", ["retr", "send"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_large_transfer_is_exact_whatever_the_chunks(relay, files, direction, version):
    wanted = ssl.TLSVersion[version]
    context = files.client(minimum_version=wanted, maximum_version=wanted)
    connection = relay().hello(context=context)
    sides = (connection.program, connection.client)
    source, drain = sides if direction == "retr" else reversed(sides)
    chance = random.Random(7)
    sent = chance.randbytes(5_000_000)

    def send() -> None:
        at = 0
        while at < len(sent):
            size = chance.choice([1, 7, 500, 16384, 16385, 70_000, 300_000])
            source.sendall(sent[at : at + size])
            at += size
        end_of(source)

    sender = threading.Thread(target=send)
    sender.start()
    other = random.Random(8)
    found = bytearray()
    while data := drain.recv(other.choice([1, 100, 4096, 65536, 200_000])):
        found += data
    sender.join(DEADLINE)
    assert bytes(found) == sent


def end_of(side: socket.socket) -> None:
    if isinstance(side, ssl.SSLSocket):
        end_output(side)
    else:
        side.close()


def end_output(tls: ssl.SSLSocket) -> None:
    """FIN, and no close_notify."""
    with socket.socket(fileno=os.dup(tls.fileno())) as network:
        network.shutdown(socket.SHUT_WR)


def test_f_net_2_a_client_that_reads_nothing_is_cut_and_memory_is_bounded(relay):
    server = relay(POP3_SEND_TIMEOUT="2", TLS_RELAYS="1")
    others = [server.hello() for _ in range(3)]
    stalled = server.hello(env={"TCPREMOTEIP": "192.0.2.9"})
    (worker,) = server.workers()
    before = resident(worker)
    stalled.program.settimeout(DEADLINE)
    with pytest.raises(OSError):  # the end of it: not a time-out
        while True:
            stalled.program.sendall(bytes(65536))
    assert resident(worker) - before < 2000  # KiB
    for other in others:
        other.program.sendall(b"x")
        assert other.client.recv(1) == b"x"
    assert "ip=[192.0.2.9], couriertls: write: Connection timed out" in server.lines()


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def ticks(pid: int) -> int:
    """CPU time, in 10 ms."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_waiting_in_any_half_closed_or_full_state_takes_no_cpu_time(relay):
    server = relay(TLS_RELAYS="1")
    (worker,) = server.workers()
    full_out, full_in, half, silent = (server.hello() for _ in range(4))
    fill(full_out.program)
    fill(full_in.client)
    end_output(half.client)
    assert half.program.recv(1) == b""
    gone = server.hello()
    fill(gone.program)
    gone.program.close()  # the client has still to read what there is
    before = ticks(worker)
    for _ in range(30):
        pinged(silent)
        wait(0.05)
    assert ticks(worker) - before <= 8  # ticks of 10 ms, in 1.5 s


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def pinged(connection) -> None:
    connection.program.sendall(b"x")
    assert connection.client.recv(1) == b"x"


def fill(side: socket.socket) -> None:
    side.settimeout(0.3)
    try:
        while True:
            side.send(bytes(65536))
    except (TimeoutError, ssl.SSLError):
        pass


def test_the_workers_are_unprivileged_and_keep_their_secrets(relay):
    needs_root()
    server = relay(options=["-user=nobody"])
    assert server.hello().client.version() == "TLSv1.3"
    for worker in server.workers():
        with open(f"/proc/{worker}/status") as status:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in status)
        assert lines["Uid"].split() == lines["Gid"].split() == ["65534"] * 4
        assert lines["Groups"].split() == ["65534"]
        assert os.stat(f"/proc/{worker}/environ").st_uid == 0  # not dumpable


def renewed(server, workers: set[int]) -> None:
    """Wait until the workers that knew the old certificates have gone."""
    wait_until(lambda: server.workers() and not set(server.workers()) & workers)
    assert "INFO: couriertls: certificates read again" in server.lines()


def test_8314_07_a_new_certificate_is_shown_to_new_connections(relay, files):
    server = relay()
    old = server.hello()
    assert names(old.client) == {"mail.example"}
    workers = set(server.workers())
    files.write("new.example", rsa=True)
    server.process.send_signal(signal.SIGHUP)  # or wait a second
    # The worker without a connection goes, the other one when it has none any more.
    wait_until(lambda: len(server.workers()) == 3 and len(set(server.workers()) & workers) == 1)
    assert names(server.hello("new.example").client) == {"new.example"}
    pinged(old)
    old.close()
    wait_until(lambda: not set(server.workers()) & workers)
    assert len(server.workers()) == 2


def test_8314_07_a_change_is_seen_within_a_second_or_two(relay, files):
    server = relay()
    workers = set(server.workers())
    files.write("sni.example", ".sni.example")
    renewed(server, workers)
    assert names(server.hello("sni.example").client) == {"sni.example"}


def test_8314_07_a_bad_certificate_keeps_the_old_one_and_logs(relay, files):
    server = relay()
    workers = server.workers()
    files.put(b"-----BEGIN CERTIFICATE-----\nnonsense\n")
    wait_until(lambda: server.lines())
    (line,) = server.lines()
    assert line.startswith(f"ERR: couriertls: TLS_CERTFILE={files.file}: no private key in it;")
    assert line.endswith(" (the certificates read before stay in use)")
    assert names(server.hello().client) == {"mail.example"}
    assert server.workers() == workers
    server.asked[0].close()
    files.write("new.example")
    renewed(server, set(workers))
    assert names(server.hello("new.example").client) == {"new.example"}


def test_8314_07_a_bad_certificate_of_one_name_keeps_the_old_one_of_that_name(relay, files):
    files.write("sni.example", ".sni.example")
    server = relay()
    workers = set(server.workers())
    files.put(b"nonsense", ".sni.example")
    files.write("new.example")
    renewed(server, workers)
    assert names(server.hello("new.example").client) == {"new.example"}
    assert names(server.hello("sni.example").client) == {"sni.example"}
    warnings = [line for line in server.lines() if line.startswith("WARN: ")]
    assert len(warnings) == 1
    assert warnings[0].endswith(" (the one read before stays in use)")


def test_a_worker_that_is_killed_is_replaced(relay):
    server = relay(TLS_RELAYS="1")
    connection = server.hello()
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    assert connection.program.recv(1) == b""
    (new,) = wait_until(lambda: [pid for pid in server.workers() if pid != worker])
    assert server.hello().client.version() == "TLSv1.3"
    lines = [line for line in server.lines() if f"relay {worker} has ended (-9)" in line]
    assert len(lines) == 1 and lines[0].startswith("ERR: ")
    assert new in server.workers()


def test_the_end_of_the_channel_ends_all_with_the_last_connection(relay):
    server = relay()
    connection = server.hello()
    server.channel.close()
    wait_until(lambda: len(server.workers()) == 1)
    pinged(connection)
    connection.close()
    assert server.process.wait(DEADLINE) == 0


def test_sigterm_ends_all_at_once(relay):
    server = relay()
    connection = server.hello()
    workers = server.workers()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0
    assert connection.program.recv(1) == b""
    for worker in workers:
        wait_until(lambda worker=worker: not os.path.exists(f"/proc/{worker}"))


def test_workers_whose_keeper_was_killed_take_no_more_requests(relay):
    server = relay()
    connection = server.hello()
    server.process.kill()
    server.process.wait(DEADLINE)
    pinged(connection)
    # Askers see that there is nobody, though a worker is still there for its connection.
    assert server.channel.recv(1) == b""


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed_by_any_worker(relay, files, version):
    server = relay(TLS_RELAYS="3", TLS_DEBUG="1")
    wanted = ssl.TLSVersion[version]
    context = files.client(minimum_version=wanted, maximum_version=wanted)
    first = server.hello(context=context)
    pinged(first)
    session = first.client.session
    workers = set(server.workers())
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(set(server.workers()) - workers) == 3)
    for _ in range(2):
        connection = server.connect()
        connection.client.settimeout(DEADLINE)
        tls = context.wrap_socket(
            connection.client, server_hostname="mail.example", session=session
        )
        connection.client = tls
        assert tls.session_reused
        pinged(connection)
        connection.close()
    assert [line for line in server.lines() if line.endswith(", resumed")]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes_its_session(relay, files, version):
    needs("openssl")
    server = relay()
    kept = files.directory / "session"
    for way, expected in ((["-sess_out", kept], "New, TLSv1"), (["-sess_in", kept], "Reused, ")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = subprocess.Popen(
                [
                    *("openssl", "s_client", version, *map(str, way), "-connect"),
                    f"127.0.0.1:{listener.getsockname()[1]}",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            network, _ = listener.accept()
        ours, plain = socket.socketpair()
        with network, plain:
            protocol.ask(server.channel, b"", {}, network.fileno(), plain.fileno())
        answer = protocol.answered(server.channel.recv(protocol.LARGEST))
        assert answer.connected, answer.text
        ours.sendall(b"+OK bye\r\n")
        seen = ""
        while "+OK bye" not in seen:
            seen += client.stdout.readline()
        ours.close()
        client.communicate(timeout=DEADLINE)
        assert expected in seen


def test_what_is_no_request_is_refused_and_the_relay_goes_on(relay):
    server = relay()
    for message in (b"\xff", b"\x05ab", b"\x00=x"):
        ours, theirs = socket.socketpair()
        socket.send_fds(server.channel, [message], [ours.fileno(), theirs.fileno()])
        theirs.close()
        ours.settimeout(DEADLINE)
        assert ours.recv(1) == b""
        ours.close()
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as unconnected:
        protocol.ask(server.channel, b"pipe", {}, reader, writer)
        protocol.ask(server.channel, b"dull", {}, unconnected.fileno(), unconnected.fileno())
    os.close(reader)
    os.close(writer)
    idents = set()
    for _ in range(2):
        answer = protocol.answered(server.channel.recv(protocol.LARGEST))
        assert not answer.connected
        idents.add(answer.ident)
    assert idents == {b"pipe", b"dull"}
    assert server.hello().client.version() == "TLSv1.3"


def test_without_a_channel_on_descriptor_0_it_says_who_starts_it():
    done = subprocess.run(
        [RELAY, "-server", "-relay"],
        **{"stdin": subprocess.DEVNULL, "capture_output": True, "text": True},
        env={**ENVIRONMENT, "TLS_CERTFILE": "/x"},
        check=False,
    )
    assert done.returncode == 1
    assert "descriptor 0 is not a UNIX SOCK_SEQPACKET socket" in done.stderr


def test_8314_07_no_client_is_lost_while_certificates_are_renewed(relay, files):
    server = relay()
    over = threading.Event()
    lock = threading.Lock()
    served = []

    def keep_connecting() -> None:
        while not over.is_set():
            with lock:
                connection = server.connect()
            try:
                connection.client = hello(files.client(), connection.client)
                pinged(connection)
                served.append(connection.answer().connected)
            except (OSError, AssertionError) as why:
                served.append(why)
            connection.close()

    threads = [threading.Thread(target=keep_connecting) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        workers = set(server.workers())
        files.write("mail.example")
        renewed(server, workers)
    over.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert set(served) == {True} and len(served) > 20
    assert not [line for line in server.lines() if not line.startswith("INFO: ")]
