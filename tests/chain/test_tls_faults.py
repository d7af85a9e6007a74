"""What becomes of TLS when its relay is killed or stands still, when places are scarce, and when
the listener is reloaded: a session may be lost with its relay, the next client never is."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.chain.test_tls import authority as authority  # a fixture, as the others
from tests.chain.test_tls import pop3s as pop3s
from tests.chain.test_tls import settings as settings
from tests.chain.test_tls import stls as stls
from tests.chain.test_tls import tls as tls
from tests.conftest import Account, Client, Server, children_of, wait_until

GREETING = b"+OK Hello there.\r\n"
HALF = b"\x16\x03\x01\x02\x00\x01\x00\x01"  # the begin of a handshake
PATIENT = {"TLS_HANDSHAKE_TIMEOUT": "120", "TLS_RELAYS": "2"}  # no handshake ends by time


@pytest.fixture(params=[(), ("-uses=5", "-prefork=2")], ids=["resident", "reused"])
def any_mode(request):
    return request.param


def keeper_of(server: Server) -> int:
    """The process that keeps the relay's workers; 0 if there is none just now."""
    for pid in server.children():
        with suppress(OSError):
            if b"-relay" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    return 0


def relay_of(server: Server) -> tuple[int, list[int]]:
    """Keeper and workers, as soon as they are there."""

    def ready():
        keeper = keeper_of(server)
        workers = children_of(keeper) if keeper else []
        return (keeper, workers) if len(workers) == 2 else None

    return wait_until(ready, "a relay with workers")


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def wait_for_end(pids: list[int]) -> None:
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), f"{pid} has ended")


def serves(server: Server, account: Account, tls: ssl.SSLContext) -> None:
    """The next client, over whichever kind of TLS the server has, is served to the end."""
    with open_session(server, account, tls) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."


def serves_now(server: Server, account: Account, tls: ssl.SSLContext) -> bool:
    """Whether the next client is; one that comes while the channel is full is closed at once."""
    try:
        serves(server, account, tls)
    except OSError:
        return False
    return True


def open_session(server: Server, account: Account, tls: ssl.SSLContext) -> Client:
    client = Client(server.port, None if server.is_stls else tls)
    assert client.line() == GREETING
    if server.is_stls:
        client.start_tls(tls)
    assert client.ask(f"USER {account.name}") == "+OK Password required."
    assert client.ask(f"PASS {account.password}") == "+OK logged in."
    return client


@pytest.fixture(params=["pop3s", "stls"])
def server(request, pop3s, stls, john):
    """Five places, all for one address."""
    start = {"pop3s": pop3s, "stls": stls}[request.param]
    started = start("-maxprocs=5", "-maxperip=5", env=PATIENT)
    started.is_stls = request.param == "stls"
    return started


def begin(server: Server, stack: ExitStack) -> Client:
    """A client that has begun with its handshake, and goes no further; the relay has it."""
    _, workers = relay_of(server)
    before = held(server, workers)
    client = stack.enter_context(server.client())
    if server.is_stls:
        assert client.line() == GREETING
        assert client.ask("STLS").startswith("+OK")
    client.send(HALF)
    wait_until(lambda: held(server, workers) > before, "the relay has taken it")
    return client


def held(server: Server, workers: list[int]) -> int:
    """How many connections of the port they have."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{server.port:04X}"
    names = {f"socket:[{entry[9]}]" for entry in table if entry[1].endswith(port)}
    return len([name for pid in workers for name in descriptors_of(pid) if name in names])


def descriptors_of(pid: int) -> list[str]:
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return found


def has_all_places(server: Server, john: Account, tls: ssl.SSLContext) -> None:
    """Five are served at once, and the sixth waits until one has gone: no place is lost, and none
    has been given back twice."""
    alerts = server.lines().count("ALERT: 5 maximum active connections.")
    with ExitStack() as stack:
        held = [stack.enter_context(open_session(server, john, tls)) for _ in range(5)]
        sixth = stack.enter_context(server.client())
        sixth.send(b"" if server.is_stls else HALF)
        sixth.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sixth.socket.recv(1)
        for client in held:
            assert client.ask("STAT") == "+OK 0 0"
    assert server.lines().count("ALERT: 5 maximum active connections.") <= alerts + 1


def test_f_kill_the_relay_s_keeper_is_killed(server, john, tls):
    """Sessions go on, handshakes are lost, and whoever comes next is served by a new relay."""
    old, workers = relay_of(server)
    with ExitStack() as stack:
        session = stack.enter_context(open_session(server, john, tls))
        shaking = [begin(server, stack) for _ in range(2)]
        kill([old])
        wait_until(lambda: keeper_of(server) not in (0, old), "a new relay")
        serves(server, john, tls)
        assert session.ask("STAT") == "+OK 0 0"
        for client in shaking:
            assert b"+OK" not in client.rest()
        assert session.ask("QUIT") == "+OK Bye-bye."
    has_all_places(server, john, tls)
    wait_for_end(workers)


def test_f_kill_the_relay_s_workers_are_killed(server, john, tls):
    """Sessions and handshakes are lost with them, and give their places back."""
    _, workers = relay_of(server)
    with ExitStack() as stack:
        session = stack.enter_context(open_session(server, john, tls))
        assert session.ask("STAT") == "+OK 0 0"
        shaking = [begin(server, stack) for _ in range(2)]
        kill(workers)
        for client in (session, *shaking):
            assert b"+OK" not in client.rest()
    serves(server, john, tls)
    has_all_places(server, john, tls)
    server.logged(r"INFO: DISCONNECTED, user=john, .*")


def test_f_kill_the_whole_relay_is_killed(server, john, tls):
    keeper, workers = relay_of(server)
    with ExitStack() as stack:
        shaking = [begin(server, stack) for _ in range(2)]
        kill([keeper, *workers])
        wait_for_end([keeper, *workers])
        serves(server, john, tls)  # at once: it needn't be tried twice
        for client in shaking:
            assert b"+OK" not in client.rest()
    has_all_places(server, john, tls)


def test_cve_23_handshakes_alone_take_all_places_and_the_next_waits_for_one(server, john, tls):
    with ExitStack() as stack:
        shaking = [begin(server, stack) for _ in range(5)]
        waiting = stack.enter_context(server.client())
        server.logged(r"ALERT: 5 maximum active connections\.")
        shaking[0].close()
        if server.is_stls:
            assert waiting.line() == GREETING
        else:
            tls.wrap_socket(waiting.socket, server_hostname="localhost").close()
    has_all_places(server, john, tls)


def test_cve_22_every_end_of_a_handshake_gives_back_one_place(server, any_mode, john, tls):
    """Plain text, a reset, an end in the middle, a handshake with an authority that we are not
    from, one with nothing behind it."""
    stranger = ssl.create_default_context()
    for _ in range(3):
        for octets in (b"USER x\r\n", HALF, b"", b"\x15\x03\x01\x00\x02\x02\x28"):
            with ExitStack() as stack:
                begin_with(server, octets, stack)
        for context in (stranger, tls):
            with ExitStack() as stack, suppress(ssl.SSLError, ConnectionError):
                client = stack.enter_context(server.client())
                if server.is_stls:
                    assert client.line() == GREETING
                    client.start_tls(context)
                else:
                    context.wrap_socket(client.socket, server_hostname="localhost").close()
    has_all_places(server, john, tls)
    if any_mode:
        return  # workers have descriptors there, and come and go
    before = descriptors(server)
    for octets in (b"USER x\r\n", HALF, b"") * 5:
        with ExitStack() as stack:
            begin_with(server, octets, stack)
    serves(server, john, tls)
    wait_until(lambda: descriptors(server) <= before, f"{before} descriptors")


def begin_with(server: Server, octets: bytes, stack: ExitStack) -> None:
    client = stack.enter_context(server.client())
    if server.is_stls:
        assert client.line() == GREETING
        assert client.ask("STLS").startswith("+OK")
    client.send(octets)


def descriptors(server: Server) -> int:
    """Of the listener when nothing but the relay is left."""
    wait_until(lambda: server.children() == keepers(server), "no session is left")
    return len(descriptors_of(server.process.pid))


def is_gone(pid: int) -> bool:
    """And has closed all that it had, though nobody may have taken leave of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_relay_that_stands_still_costs_no_more_than_its_clients(pop3s, any_mode, john, tls):
    """More clients come than the channel to it takes; when it goes on, so do those in it."""
    if any_mode:
        pytest.skip("the same")
    server = pop3s("-maxprocs=900", "-maxperip=900", env=PATIENT)
    server.is_stls = False
    serves(server, john, tls)
    before = descriptors(server)
    keeper, workers = relay_of(server)
    for pid in (keeper, *workers):
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(500)]
        server.logged(r"ERR: couriertls: Resource temporarily unavailable")
        for pid in (keeper, *workers):
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: serves_now(server, john, tls), "the channel takes clients again")
        first = clients[0]
        with tls.wrap_socket(first.socket, server_hostname="localhost") as network:
            assert network.recv(100) == GREETING
    wait_until(lambda: descriptors(server) <= before, f"{before} descriptors")


def test_f_pid_3_no_client_is_lost_and_no_session_cut_in_three_reloads(server, john, tls):
    """Sessions in TLS go on through the relay that they have, others get a new one."""
    end, done, failed = threading.Event(), [], []

    def come_and_go():
        while not end.is_set():
            try:
                serves(server, john, tls)
                done.append(1)
            except (OSError, AssertionError) as why:
                failed.append(repr(why))

    with open_session(server, john, tls) as lasting:
        first = {keeper_of(server)}
        clients = [threading.Thread(target=come_and_go) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            for _ in range(3):
                old, before = newest(server), len(done)
                os.kill(server.process.pid, signal.SIGUSR2)
                wait_until(lambda old=old: newest(server) not in (0, old), "a new relay")
                wait_until(lambda before=before: len(done) > before + 2 or failed, "sessions")
        finally:
            end.set()
            for client in clients:
                client.join()
        assert not failed
        assert first <= set(keepers(server))
        assert lasting.ask("STAT") == "+OK 0 0"
        assert lasting.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: len(keepers(server)) == 1, "one relay is left")
    has_all_places(server, john, tls)


def keepers(server: Server) -> list[int]:
    found = []
    for pid in server.children():
        with suppress(OSError):
            if b"-relay" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def newest(server: Server) -> int:
    return max(keepers(server), default=0, key=started)


def started(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0
