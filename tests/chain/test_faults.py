"""What goes wrong in operation: no descriptors, no processes, resets, kill -9 at any instant, full
limits, a listener that goes away; and how the daemon is started, stopped and logs.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import (
    BIN,
    DEADLINE,
    ROOT,
    Account,
    Client,
    Server,
    children_of,
    free_port,
    has_client,
    is_front,
    needs,
    needs_root,
    wait_until,
)

TCPD = str(BIN / "couriertcpd")
CHAIN = ["courierpop3login", "authuserdb", "courierpop3d", "./Maildir"]
GREETING = b"+OK Hello there.\r\n"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
MANY = ("-maxprocs=400", "-maxperip=400")
KILLING = 2.0  # seconds that one test goes on killing


@pytest.fixture
def mode(any_mode):
    return any_mode


def as_owner(accounts, account: Account) -> list[str]:
    """The options of a listener that serves only this account's uid, as -uses demands."""
    if not ROOT:
        return []
    os.chown(accounts.userdb, account.uid, account.gid)
    return [f"-user={account.uid}", f"-group={account.gid}"]


def prefork(options: Sequence[str]) -> int:
    return max([int(option[9:]) for option in options if option.startswith("-prefork=")] or [0])


def stat_fields(pid: int | str) -> list[str]:
    """/proc/PID/stat from the third field on: state, parent, group, session..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_ticks(pid: int) -> int:
    """Of the process itself, without its children."""
    return sum(map(int, stat_fields(pid)[11:13]))


def session_processes(session: int) -> list[int]:
    """Processes, dead ones that wait to be reaped not counted, of the session of a Server."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and stat_fields(name)[3] == str(session):
                if stat_fields(name)[0] != "Z":
                    found.append(int(name))
        except OSError:
            pass
    return found


def descriptors(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def process_of(server: Server, client: Client) -> int:
    """The process that has this client on descriptor 0; 0 if there is none."""
    here = f"{client.socket.getsockname()[1]:04X}"
    there = f"{server.port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{there}") and words[2].endswith(f":{here}"):
            wanted = f"socket:[{words[9]}]"
            for pid in session_processes(server.process.pid):
                try:
                    if os.readlink(f"/proc/{pid}/fd/0") == wanted:
                        return pid
                except OSError:
                    pass
    return 0


def settle(server: Server, mode: Sequence[str] = ()) -> None:
    """Wait until nothing is left of all sessions but workers that wait for more."""
    if is_reused(mode):
        wait_until(lambda: all_wait(server), "all workers wait")
        return
    waiting = prefork(mode)
    wait_until(lambda: len(server.children()) == waiting, f"{waiting} children")


def is_reused(mode: Sequence[str]) -> bool:
    return any(option.startswith("-uses=") for option in mode)


def own_descriptors(server: Server) -> int:
    """Those that are not the channel to a worker."""
    return len(descriptors(server.process.pid)) - len(server.children())


def reset(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_silent(client: Client, seconds: float) -> bool:
    """Whether nothing comes from the server, not even the end, for so long."""
    client.socket.settimeout(seconds)
    try:
        client.socket.recv(1, socket.MSG_PEEK)
        return False
    except TimeoutError:
        return True
    finally:
        client.socket.settimeout(DEADLINE)


def begin_login(server: Server, account: Account) -> Client:
    """A client that has only to send PASS."""
    client = server.client()
    assert client.line() == GREETING
    assert client.ask(f"USER {account.name}") == "+OK Password required."
    return client


# Network and resources


def test_F_NET_1_sixty_silent_connections_keep_nobody_out_and_are_cut(serve, mode, john):
    server = serve(*mode, *MANY, env={"POP3_LOGIN_TIMEOUT": "2"})
    with ExitStack() as stack:
        silent = [stack.enter_context(server.client()) for _ in range(60)]
        with server.client().login(john) as client:
            for other in silent:
                assert other.rest() == GREETING
            assert client.ask("NOOP") == "+OK Yup."
            assert client.ask("QUIT") == "+OK Bye-bye."
    settle(server, mode)


def test_F_NET_1_one_octet_a_second_does_not_prolong_the_login(serve, john):
    server = serve(env={"POP3_LOGIN_TIMEOUT": "1"})
    with server.client() as client:
        assert client.line() == GREETING

        def dribble() -> bool:
            try:
                client.send(b"U")
                heard = select.select([client.socket], [], [], 0)[0]
                return bool(heard) and client.socket.recv(1) == b""
            except ConnectionError:
                return True

        wait_until(dribble, "the server closes")
    settle(server)


def test_F_NET_2_a_client_that_stops_reading_is_cut_and_nothing_is_deleted(serve, mode, john):
    john.deliver(b"Subject: large\n\n" + b"0123456789 abcdef\n" * 600000)
    john.deliver(b"Subject: small\n\n")
    server = serve(*mode, env={"POP3_SEND_TIMEOUT": "1"})
    with Client(server.port) as client, server.client().login(john) as other:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.login(john)
        assert client.ask("DELE 2") == "+OK Deleted."
        client.send(b"RETR 1\r\nQUIT\r\n")
        server.logged(rf"INFO: TIMEOUT, user=john, {PEER}, .*")
        assert other.ask("NOOP") == "+OK Yup."
    assert len(john.files()) == 2


PHASES = [
    b"",
    b"USER",
    b"USER john\r\n",
    b"USER john\r\nPASS secr",
    b"USER john\r\nPASS wrong\r\n",
    b"USER john\r\nPASS secret of john\r\n",
    b"USER john\r\nPASS secret of john\r\nRETR 1\r\n",
    b"USER john\r\nPASS secret of john\r\nDELE 1\r\nDELE 2\r\n",
    b"USER john\r\nPASS secret of john\r\nDELE 1\r\nUIDL\r\nQUI",
    b"CAPA\r\nQUIT\r\n",
]


def test_F_NET_3_resets_in_all_phases_leave_nothing_behind(serve, mode, john):
    letters = [b"Subject: large\n\n" + b"0123456789 abcdef\n" * 100000, b"Subject: small\n\n"]
    for letter in letters:
        john.deliver(letter)
    server = serve(*mode, *MANY, env={"POP3_FAILURE_DELAY": "0"})
    with server.client().login(john) as client:
        uids = client.listing("UIDL")
        client.ask("QUIT")
    settle(server, mode)
    before = own_descriptors(server)
    for phase in PHASES:
        for round_ in range(4 if "-coldexec" in mode else 30):
            client = server.client()
            client.send(phase)
            if round_ % 3:  # else without having read a thing
                assert client.line() == GREETING
            if round_ % 3 == 2 and phase.endswith(b"\n"):
                client.line()
            reset(client)
    settle(server, mode)
    wait_until(lambda: own_descriptors(server) == before, f"{before} descriptors")
    settle(server, mode)
    assert list((john.maildir / "tmp").iterdir()) == []
    with server.client().login(john) as client:
        assert client.listing("UIDL") == uids
    names = [john.maildir / "cur" / name for name in john.files()]
    assert sorted(path.read_bytes() for path in names) == sorted(letters)


def test_F_NET_3_connections_that_are_gone_before_they_are_accepted(serve, mode, john):
    """The listener stands still meanwhile: some are reset in the queue (ECONNABORTED)."""
    server = serve(*mode, *MANY)
    settle(server, mode)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        for _ in range(60):
            reset(server.client())
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    with server.client().login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
    settle(server, mode)
    assert not [line for line in server.lines() if "rror" in line or "Traceback" in line]


def test_row_30_F_NET_4_maxprocs_is_exact_and_every_place_comes_back(serve, mode, john):
    server = serve(*mode, "-maxprocs=3", "-maxperip=10")
    for _ in range(3):
        with ExitStack() as stack:
            served = [stack.enter_context(server.client()) for _ in range(3)]
            assert [client.line() for client in served] == [GREETING] * 3
            waiting = stack.enter_context(server.client())
            assert is_silent(waiting, 0.2)
            served[0].close()
            assert waiting.line() == GREETING
            another = stack.enter_context(server.client())
            assert is_silent(another, 0.2)
        settle(server, mode)
    alerts = [line for line in server.lines() if line.startswith("ALERT")]
    assert alerts == ["ALERT: 3 maximum active connections."]  # once a minute at most


def test_row_26_F_NET_4_maxperip_is_exact_and_every_place_comes_back(serve, mode, john):
    server = serve(*mode, "-maxperip=2")
    alert = "ALERT: Maximum connection limit reached for ::ffff:127.0.0.1"
    for refused in (1, 2, 3):
        with ExitStack() as stack:
            served = [stack.enter_context(server.client()) for _ in range(2)]
            assert [client.line() for client in served] == [GREETING] * 2
            assert stack.enter_context(server.client()).rest() == b""
            wait_until(lambda: server.lines().count(alert) >= refused, "an ALERT")  # noqa: B023
            assert server.lines().count(alert) == refused
            with socket.create_connection(
                ("127.0.0.1", server.port), DEADLINE, source_address=("127.0.0.2", 0)
            ) as elsewhere:
                assert elsewhere.recv(100) == GREETING
        settle(server, mode)


def test_row_29_F_NET_4_maxperc_is_exact_and_silent(serve, mode, john):
    server = serve(*mode, "-maxperc=2", "-maxperip=10")

    def connect(address: str) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", server.port), DEADLINE, source_address=(address, 0)
        )

    with connect("127.0.0.1") as one, connect("127.0.0.9") as two, connect("127.0.0.7") as three:
        assert one.recv(100) == two.recv(100) == GREETING
        assert three.recv(100) == b""
        with connect("127.0.1.1") as other_network:
            assert other_network.recv(100) == GREETING
    settle(server, mode)
    assert not [line for line in server.lines() if line.startswith("ALERT")]


@pytest.mark.parametrize("more", [["-uses=2"], ["-uses=20", "-prefork=2"]])
def test_F_NET_4_limits_are_exact_with_uses(serve, accounts, john, more):
    """A worker's place is free when it is done with a connection, not when it has ended."""
    server = serve(*more, "-maxprocs=3", "-maxperip=2", *as_owner(accounts, john))

    def elsewhere() -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", server.port), DEADLINE, source_address=("127.0.0.2", 0)
        )

    for _ in range(4):
        with ExitStack() as stack:
            served = [stack.enter_context(server.client()) for _ in range(2)]
            assert [client.line() for client in served] == [GREETING] * 2
            assert stack.enter_context(server.client()).rest() == b""
            assert stack.enter_context(elsewhere()).recv(100) == GREETING
            waiting = stack.enter_context(elsewhere())
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(100)
        wait_until(lambda: all_wait(server), "all workers have done")
    server.logged(re.escape("ALERT: 3 maximum active connections."))


def all_wait(server: Server) -> bool:
    """No worker has a client; each has told the listener so, and the listener has read it."""
    workers = server.children()
    if any(map(has_client, workers)) or not all(map(is_waiting, workers)):
        return False
    return is_waiting(server.process.pid)


def is_waiting(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] == "S"
    except OSError:
        return False


def test_F_NET_5_no_descriptor_left_for_accept(serve, mode, john):
    server = serve(*mode)
    pid = server.process.pid
    with server.client().login(john) as client:
        client.ask("QUIT")
    settle(server, mode)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    lowest_free = next(n for n in itertools.count() if n not in descriptors(pid))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, hard))
    with server.client() as client:
        server.logged("ERR: accept: Too many open files")
        before = cpu_ticks(pid)
        assert is_silent(client, 1.0)
        assert cpu_ticks(pid) - before <= 20  # of 100: no busy loop
        assert server.process.poll() is None
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        client.login(john)
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert server.lines().count("ERR: accept: Too many open files") == 1
    settle(server, mode)


def allow_processes(account: Account, pid: int, number: int) -> None:
    """Set the soft limit, as the user, which is enough for it."""
    argv = [needs("prlimit"), "--pid", str(pid), f"--nproc={number}:"]
    as_user = {"user": account.uid, "group": account.gid, "extra_groups": []}
    subprocess.run(argv, check=True, timeout=DEADLINE, **as_user)


def test_F_NET_6_no_process_left_for_fork(serve, process_mode, accounts, john):
    needs_root()
    server = serve(*process_mode, "-maxperip=6", *as_owner(accounts, john))
    pid = server.process.pid
    with server.client().login(john) as client:
        client.ask("QUIT")
    settle(server, process_mode)
    allow_processes(john, pid, 1)
    with ExitStack() as stack:
        for _ in server.children():  # these wait already
            client = stack.enter_context(server.client())
            client.socket.settimeout(5)
            assert client.line() == GREETING
        before = cpu_ticks(pid)
        for _ in range(8):
            with server.client() as client:
                answer = client.rest()
                assert answer == b"" or answer.startswith(b"-ERR")
        assert cpu_ticks(pid) - before <= 20  # a pause after each, and no busy loop
    server.logged("ERR: fork: Resource temporarily unavailable")
    assert server.process.poll() is None
    allow_processes(john, pid, 1000)
    settle(server, process_mode)
    with ExitStack() as stack:  # no place was lost
        clients = [stack.enter_context(server.client()) for _ in range(6)]
        assert [client.line() for client in clients] == [GREETING] * 6


# kill -9


def letter(number: int) -> bytes:
    return b"Subject: %d\n\n" % number + b"%d\n" % number * (number % 50 + 1)


def listing_of(server: Server, account: Account) -> dict[bytes, str]:
    """What each message is, and its id, as a client sees it; fails if one is not whole."""
    with server.client().login(account) as client:
        found = {}
        for line in client.listing("UIDL"):
            number, uid = line.split()
            text = "\n".join(client.listing(f"RETR {number}")).encode() + b"\n"
            assert uid not in found.values()
            found[text] = uid
        assert client.ask("QUIT") == "+OK Bye-bye."
    return found


def process_found(server: Server, client: Client) -> int:
    return wait_until(lambda: process_of(server, client), "the client's process")


def spin(seconds: float) -> None:
    """Let time pass; a sleep would be longer than what is to be hit."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def kill(server: Server, *pids: int) -> None:
    """kill -9 children of the listener, and wait until it knows."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has come to its end
    wait_until(lambda: not set(pids) & set(server.children()), "the killed are buried")


def processes_of_users(server: Server) -> list[int]:
    """The children that are not as the listener is."""
    found = []
    for pid in server.children():
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                found.append(pid)
        except FileNotFoundError:
            pass
    return found


def test_F_KILL_1_killed_at_any_instant_of_quit(serve, process_mode, john):
    server = serve(*process_mode)
    end = time.monotonic() + KILLING
    rounds = interrupted = 0
    while time.monotonic() < end:
        letters = [letter(number) for number in range(30)]
        for text in letters:
            john.deliver(text)
        marks = b"".join(b"DELE %d\r\n" % number for number in range(1, 31, 2))
        with server.client().login(john) as client:
            client.send(marks)
            assert [client.line() for _ in range(15)] == [b"+OK Deleted.\r\n"] * 15
            pid = process_found(server, client)
            os.kill(pid, signal.SIGSTOP)
            client.send(b"QUIT\r\n")
            rounds += 1
            if rounds % 3:
                os.kill(pid, signal.SIGCONT)
            spin(random.uniform(0, 0.002))
            kill(server, pid)
            answer = client.rest()
        there = {(john.maildir / "cur" / name).read_bytes() for name in john.files()}
        assert set(letters[1::2]) <= there <= set(letters)
        if answer:
            assert answer == b"+OK Bye-bye.\r\n"
            assert there == set(letters[1::2])
        interrupted += not answer
        with server.client().login(john) as client:
            for position in range(1, len(there) + 1):
                assert client.ask(f"DELE {position}") == "+OK Deleted."
            assert client.ask("QUIT") == "+OK Bye-bye."
        assert john.files() == []
    assert interrupted


def test_F_KILL_2_killed_with_marks_and_no_quit(serve, process_mode, john):
    letters = [letter(n) for n in range(4)]
    for text in letters:
        john.deliver(text)
    server = serve(*process_mode)
    before = listing_of(server, john)
    assert sorted(before) == sorted(letters)
    with server.client().login(john) as client:
        for position in range(1, 5):
            assert client.ask(f"DELE {position}") == "+OK Deleted."
        kill(server, process_found(server, client))
        assert client.rest() == b""
    assert listing_of(server, john) == before
    settle(server, process_mode)


def test_F_KILL_3_killed_during_login_while_mail_comes(serve, process_mode, john):
    server = serve(*process_mode)
    end = time.monotonic() + KILLING
    known: dict[bytes, str] = {}
    sent: list[bytes] = []
    interrupted = 0
    while time.monotonic() < end:
        sent.append(letter(len(sent)))
        john.deliver(sent[-1])
        client = begin_login(server, john)
        pid = process_found(server, client)
        client.send(f"PASS {john.password}\r\n".encode())
        spin(random.uniform(0, 0.12 if "-coldexec" in process_mode else 0.006))
        kill(server, pid, *processes_of_users(server))
        try:
            client.socket.shutdown(socket.SHUT_WR)  # what has survived ends now
        except OSError:
            pass
        interrupted += client.rest() == b""
        client.close()
        if len(sent) % 5 == 0:
            now = listing_of(server, john)
            assert sorted(now) == sorted(sent)
            assert known.items() <= now.items()  # no id of old mail has changed
            known = now
    assert len(known) >= 5 and interrupted
    leftover = list((john.maildir / "tmp").iterdir())
    for path in leftover:
        os.utime(path, (0, 0))
    assert known.items() <= listing_of(server, john).items()
    assert list((john.maildir / "tmp").iterdir()) == []  # cleaned by age


def test_F_KILL_4_killed_in_mid_retr(serve, mode, john):
    large = b"Subject: large\n\n" + (b"0123456789 abcdef" * 50 + b"\n") * 15000
    john.deliver(large)  # more than fits into the buffers of two sockets
    server = serve(*mode)
    before = listing_of(server, john)
    assert list(before) == [large]
    for _ in range(6):
        with server.client() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.login(john).send(b"RETR 1\r\n")
            assert client.line().startswith(b"+OK ")
            client.file.read(random.randrange(300000))
            kill(server, process_found(server, client))
            assert not client.rest().endswith(b"\r\n.\r\n")  # not ended as if it were whole
    assert listing_of(server, john) == before
    settle(server, mode)


def test_F_KILL_5_the_listener_is_killed(serve, process_mode, john):
    """Sessions go on, waiting workers end, and a new listener binds at once."""
    john.deliver(b"Subject: one\n\n")
    first = serve(*process_mode)
    with first.client().login(john) as client, first.client() as stranger:
        assert stranger.line() == GREETING
        # A worker that has been forked this instant still holds the listening socket.
        wait_until(
            lambda: (
                len(first.children()) >= 2 + prefork(process_mode)
                and all(map(is_waiting, first.children()))
            ),
            "all processes wait",
        )
        first.process.kill()
        first.process.wait(DEADLINE)
        second = serve(*process_mode, port=first.port)
        with second.client().login(john) as another:
            assert another.ask("QUIT") == "+OK Bye-bye."
        assert client.ask("STAT") == "+OK 1 16"
        assert stranger.ask("USER john") == "+OK Password required."
        wait_until(lambda: len(session_processes(first.process.pid)) == 2, "two sessions are left")
        assert client.ask("DELE 1") == "+OK Deleted."
        assert client.ask("QUIT") == "+OK Bye-bye."
        assert stranger.ask(f"PASS {john.password}") == "+OK logged in."
        assert stranger.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: not session_processes(first.process.pid), "all of the first is gone")
    assert john.files() == []


def test_F_KILL_6_a_module_is_killed(serve, mode, script, public, john):
    """Its client is disconnected, without a yes or a no; the next login works."""
    pid = public / "pid"
    module = script(
        "authslow", f'#!/bin/sh\n[ -e {pid} ] && exec "$@"\necho $$ > {pid}\nexec sleep 99\n'
    )
    server = serve(*mode, stages=["courierpop3login", module, *CHAIN[1:]])
    with server.client() as client:
        assert client.line() == GREETING
        assert client.ask(f"USER {john.name}") == "+OK Password required."
        client.send(f"PASS {john.password}\r\n".encode())
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), "the module runs")
        os.kill(int(pid.read_text()), signal.SIGKILL)
        assert client.rest() == b""
    with server.client().login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
    settle(server, mode)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_F_KILL_5_workers_that_wait_to_be_used_again_end_with_the_listener(
    serve, accounts, john, number
):
    server = serve("-uses=9", "-prefork=2", "-maxperip=9", *as_owner(accounts, john))
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(5)]
        assert [client.line() for client in clients] == [GREETING] * 5
        for client in clients:
            assert client.ask("QUIT") == "+OK Better luck next time."
    assert len(session_processes(server.process.pid)) >= 5
    server.process.send_signal(number)
    server.process.wait(DEADLINE)
    wait_until(lambda: not session_processes(server.process.pid), "no worker is left")


# Several at once


def test_F_CONC_1_mail_comes_while_sessions_fetch_and_delete(serve, mode, john):
    server = serve(*mode)
    letters = [letter(n) for n in range(30 if "-coldexec" in mode else 120)]

    def deliver() -> None:
        for text in letters:
            john.deliver(text)
            time.sleep(0.005)

    fetched: list[bytes] = []
    deliverer = threading.Thread(target=deliver)
    deliverer.start()
    last = False
    while not last:
        last = not deliverer.is_alive()
        with server.client().login(john) as client:
            for position in range(1, int(client.ask("STAT").split()[1]) + 1):
                fetched.append("\n".join(client.listing(f"RETR {position}")).encode() + b"\n")
                assert client.ask(f"DELE {position}") == "+OK Deleted."
            assert client.ask("QUIT") == "+OK Bye-bye."
    deliverer.join(DEADLINE)
    assert sorted(fetched) == sorted(letters)
    assert john.files() == []
    assert list((john.maildir / "new").iterdir()) == []


def test_F_CONC_2_two_sessions_delete_the_same_message(serve, mode, john):
    for number in range(3):
        john.deliver(letter(number))
    server = serve(*mode)
    with server.client().login(john) as one, server.client().login(john) as two:
        for client in (one, two):
            assert client.ask("DELE 2") == "+OK Deleted."
        assert one.ask("QUIT") == "+OK Bye-bye."
        assert two.ask("QUIT")[:4] in ("+OK ", "-ERR")
    there = {(john.maildir / "cur" / name).read_bytes() for name in john.files()}
    assert there == {letter(0), letter(2)}


def test_F_CONC_6_many_logins_at_once_give_each_message_one_id(serve, mode, john):
    for number in range(40):
        john.deliver(letter(number))
    server = serve(*mode, *MANY)
    with ExitStack() as stack:
        clients = []
        for _ in range(6):
            clients.append(stack.enter_context(begin_login(server, john)))
        for client in clients:
            client.send(f"PASS {john.password}\r\n".encode())
        for client in clients:
            assert client.line() == b"+OK logged in.\r\n"
        listings = [client.listing("UIDL") for client in clients]
    assert len(set(line.split()[1] for line in listings[0])) == 40
    assert all(listing == listings[0] for listing in listings)


# The daemon


@pytest.fixture
def daemon(public, environment):
    """Run couriertcpd with -pid=FILE, to its exit: daemon(option...); stopped after the test."""
    pidfile = public / "pid"
    port = free_port()

    def run(*options: str, more=(f"{port}", *CHAIN)) -> subprocess.CompletedProcess:
        argv = [TCPD, "-address=127.0.0.1", "-nodnslookup", f"-pid={pidfile}", *options, *more]
        return subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    run.pidfile, run.port = pidfile, port
    run.lock = Path(f"{pidfile}.lock")
    run.pid = lambda: int(pidfile.read_text())
    yield run
    run("-stop", more=())


def is_running(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] != "Z"
    except OSError:
        return False


def test_row_10_a_daemon_writes_its_pid_and_listens_when_the_command_returns(daemon, mode, john):
    done = daemon(*mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert daemon.pidfile.read_text() == f"{daemon.pid()}\n"
    assert stat.S_IMODE(daemon.lock.stat().st_mode) == 0o600
    with Client(daemon.port).login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
    pid = daemon.pid()
    assert os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}


def test_row_11_F_PID_1_a_second_start_says_so_and_the_first_is_unharmed(daemon, mode, john):
    daemon(*mode)
    pid = daemon.pid()
    with Client(daemon.port).login(john) as client:
        done = daemon(*mode)
        assert done.returncode == 1
        assert "already running" in done.stderr and str(pid) in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert daemon.pid() == pid and is_running(pid)
        assert client.ask("NOOP") == "+OK Yup."
    with Client(daemon.port) as client:
        assert client.line() == GREETING


def test_F_PID_1_of_two_that_are_started_at_once_one_wins(public, environment, john):
    pidfile = public / "pid"
    ports = [free_port(), free_port()]
    started = [
        subprocess.Popen(
            [TCPD, f"-pid={pidfile}", "-address=127.0.0.1", "-nodnslookup", str(port), *CHAIN],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]
    try:
        results = [process.wait(DEADLINE) for process in started]
        assert sorted(results) == [0, 1]
        with Client(ports[results.index(0)]) as client:
            assert client.line() == GREETING
        with pytest.raises(ConnectionRefusedError):
            Client(ports[results.index(1)])
    finally:
        subprocess.run([TCPD, f"-pid={pidfile}", "-stop"], timeout=DEADLINE, check=False)


@pytest.fixture
def bystander():
    """A process that has nothing to do with us, whose pid a stale pid file has."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_F_PID_2_a_stale_pid_file_with_a_pid_reused_by_another_program(daemon, john, bystander):
    daemon.pidfile.write_text(f"{bystander.pid}\n")
    daemon.lock.touch(0o600)
    for option in ("-stop", "-restart"):
        done = daemon(option, more=())
        assert (done.returncode, done.stderr) == (0, "")
    assert bystander.poll() is None
    assert daemon().returncode == 0
    assert daemon.pid() != bystander.pid
    daemon.pidfile.write_text(f"{bystander.pid}\n")  # somebody's mistake while it runs
    assert daemon("-stop", more=()).returncode == 0
    assert bystander.poll() is None
    with pytest.raises(ConnectionRefusedError):
        Client(daemon.port)


def test_F_KILL_5_a_killed_daemons_pid_file_is_replaced_by_the_next(daemon, john):
    daemon("-prefork=2")
    first = daemon.pid()
    with Client(daemon.port).login(john) as client:
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not is_running(first), "the daemon is gone")
        done = daemon()
        assert (done.returncode, done.stderr) == (0, "")
        assert daemon.pid() != first
        assert client.ask("QUIT") == "+OK Bye-bye."
    with Client(daemon.port) as client:
        assert client.line() == GREETING


def test_row_12_stop_ends_the_daemon_and_its_sessions_and_returns_when_it_is_gone(
    daemon, mode, john
):
    john.deliver(letter(1))
    daemon(*mode)
    pid = daemon.pid()
    with Client(daemon.port).login(john) as client:
        assert client.ask("DELE 1") == "+OK Deleted."
        done = daemon("-stop", more=())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        # Its lock, by which -stop knows, goes a moment before its pid.
        wait_until(lambda: not is_running(pid), "the daemon is gone")
        assert client.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        Client(daemon.port)
    assert daemon.pidfile.exists() and daemon.lock.exists()
    assert len(john.files()) == 1
    assert daemon(*mode).returncode == 0  # and it can be started again at once


def test_row_12_stop_and_restart_without_a_daemon_are_no_error(daemon):
    for option in ("-stop", "-restart"):
        done = daemon(option, more=())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert daemon.lock.exists()


def test_F_PID_3_restart_keeps_the_daemon_and_its_sessions(daemon, mode, john):
    daemon(*mode)
    pid = daemon.pid()
    with Client(daemon.port).login(john) as client:
        done = daemon("-restart", more=())
        assert (done.returncode, done.stderr) == (0, "")
        with Client(daemon.port).login(john) as another:
            assert another.ask("QUIT") == "+OK Bye-bye."
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert daemon.pid() == pid and is_running(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_15_sigterm_ends_the_listener_and_sessions_in_every_phase(serve, mode, john, number):
    john.deliver(letter(1))
    server = serve(*mode, env={"POP3_FAILURE_DELAY": "60"})
    with server.client() as greeted, begin_login(server, john) as refused:
        assert greeted.line() == GREETING
        refused.send(b"PASS wrong\r\n")
        with server.client().login(john) as client:
            assert client.ask("DELE 1") == "+OK Deleted."
            server.process.send_signal(number)
            assert client.rest() == greeted.rest() == refused.rest() == b""
    assert server.process.wait(DEADLINE) == 0
    wait_until(lambda: not session_processes(server.process.pid), "nothing is left")
    assert len(john.files()) == 1


# The log


def test_stderr_file_has_the_lines_of_all_programs(serve, mode, public, john):
    log = public / "the.log"
    log.write_text("what was there\n")
    server = serve(*mode, f"-stderr={log}", "-maxperip=1")
    with server.client().login(john) as client:
        with server.client() as one_more:
            assert one_more.rest() == b""
        wait_until(lambda: "ALERT" in log.read_text(), "ALERT")
        client.ask("QUIT")
    wait_until(lambda: "LOGOUT" in log.read_text(), "LOGOUT")
    lines = log.read_text().splitlines()
    assert lines[0] == "what was there"
    events = [line.split(",")[0] for line in lines[1:]]
    assert events == [
        "DEBUG: Connection",
        "INFO: LOGIN",
        "ALERT: Maximum connection limit reached for ::ffff:127.0.0.1",
        "INFO: LOGOUT",
    ]
    assert server.lines() == []


def test_stderr_file_is_made_with_courierlogs_mode(serve, public, john):
    log = public / "new.log"
    old = os.umask(0o027)
    try:
        serve(f"-stderr={log}")
    finally:
        os.umask(old)
    wait_until(log.exists, "the file")
    assert stat.S_IMODE(log.stat().st_mode) == 0o640


def test_row_40_stderr_socket_shows_the_client_the_log(serve, mode, john):
    server = serve(*mode, "-stderr=socket", "-maxperip=1")
    with server.client() as client:
        assert client.line().startswith(b"DEBUG: Connection, ip=[::ffff:127.0.0.1], port=[")
        assert client.line() == GREETING
        with server.client() as refused:
            assert refused.rest() == b""
        assert client.ask("QUIT") == "+OK Better luck next time."
        rest = client.rest().splitlines()
        assert [line.split(b",")[0] for line in rest] == [b"INFO: LOGOUT", b"DEBUG: Disconnected"]
    # The listener itself has no client to tell.
    server.logged(r"ALERT: Maximum connection limit reached for ::ffff:127\.0\.0\.1")
    assert len(server.lines()) == 1


def test_stderrlogger_reads_what_all_programs_write(serve, mode, script, public, john):
    log = public / "logged"
    logger = script("logger", f'#!/bin/sh\necho "name $*" > {log}\nexec cat >> {log}\n')
    server = serve(*mode, f"-stderrlogger={logger}", f"-stderr={public}/unused")
    with server.client().login(john) as client:
        client.ask("QUIT")
    wait_until(lambda: "LOGOUT" in log.read_text(), "LOGOUT")
    lines = log.read_text().splitlines()
    assert lines[0] == "name courierpop3login"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "DEBUG: Connection",
        "INFO: LOGIN",
        "INFO: LOGOUT",
    ]
    assert not (public / "unused").exists()


def test_row_41_stderrlogger_gets_the_name_and_the_last_lines(serve, script, public, john):
    """It outlives the listener, reads the pipe to its end, and ends."""
    log = public / "logged"
    program = f'#!/bin/sh\necho "name $*" > {log}\ncat >> {log}\necho end >> {log}\n'
    logger = script("logger", program)
    server = serve(f"-stderrlogger={logger}", "-stderrloggername=pop3d")
    with server.client().login(john) as client:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(DEADLINE)
        assert client.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: log.read_text().endswith("end\n"), "the logger's end")
    lines = log.read_text().splitlines()
    assert lines[0] == "name pop3d"
    assert lines[-2].startswith("INFO: LOGOUT, user=john, ")
    wait_until(lambda: not session_processes(server.process.pid), "nothing is left")


@pytest.mark.parametrize("log", ["full", "gone"])
def test_F_DISK_4_a_log_that_is_full_or_gone_disturbs_nobody(serve, mode, script, john, log):
    options = ["-stderr=/dev/full"]
    if log == "gone":
        options = ["-stderrlogger=" + script("logger", "#!/bin/sh\nexit 1\n")]
    server = serve(*mode, *options, env={"POP3_FAILURE_DELAY": "0"})
    if log == "gone":
        wait_until(
            lambda: (
                sum(is_running(pid) and not is_front(pid) for pid in server.children())
                == prefork(mode)
            ),
            "the logger's end",
        )
    for _ in range(2):
        with begin_login(server, john) as client:
            assert client.ask("PASS wrong") == "-ERR Login failed."
        with server.client().login(john) as client:
            assert client.ask("QUIT") == "+OK Bye-bye."
    assert server.process.poll() is None


def test_F_DISK_4_a_log_that_nobody_reads_any_more_disturbs_nobody(serve, mode, public, john):
    """A logger that hangs: the pipe to it is full, and a write to it would wait for ever."""
    fifo = public / "log"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    pipe = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        server = serve(*mode, f"-stderr={fifo}")
        for size in (4096, 1):
            try:
                while True:
                    os.write(pipe, b"x" * size)
            except BlockingIOError:
                pass
        with server.client() as client:
            client.socket.settimeout(3)
            assert client.login(john).ask("QUIT") == "+OK Bye-bye."
    finally:
        os.close(pipe)  # whoever writes now gets SIGPIPE or EPIPE, and can be ended


def test_a_listener_for_one_mailbox_opens_it_for_clients_only(
    serve, mode, script, john, monkeypatch
):
    """AUTHENTICATED=me couriertcpd PORT courierpop3d ./Maildir: no login, all as the one user. What
    a listener does to prepare itself must not be a session in the mailbox."""
    john.deliver(letter(1))
    switch = ""
    if ROOT:
        setpriv = needs("setpriv")
        switch = f"{setpriv} --reuid={john.uid} --regid={john.gid} --clear-groups"
    tcpd = script("start", f'#!/bin/sh\nexec {switch} {TCPD} "$@"\n')
    monkeypatch.chdir(john.home)
    stages, env = ["courierpop3d", "./Maildir"], {"AUTHENTICATED": "john"}
    server = serve(*mode, tcpd=tcpd, stages=stages, env=env)
    assert len(list((john.maildir / "new").iterdir())) == 1
    assert os.readlink(f"/proc/{server.process.pid}/cwd") == str(john.home)
    for _ in range(2):
        with server.client() as client:
            assert client.line() == b"+OK logged in.\r\n"
            assert client.ask("STAT").startswith("+OK 1 ")
            assert client.ask("QUIT") == "+OK Bye-bye."


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_row_17_a_listener_started_with_descriptors_closed_gives_all_three_to_its_programs(
    serve, process_mode, script, john, closed
):
    """Else the next file that is opened becomes descriptor 2, and the log is written into it."""
    tcpd = script("start", f'#!/bin/sh\nexec {TCPD} "$@" {closed}\n')
    server = serve(*process_mode, tcpd=tcpd)
    john.deliver(letter(1))
    with server.client().login(john) as client:
        pid = process_found(server, client)
        links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in descriptors(pid)}
        assert links[0] == links[1] and links[0].startswith("socket:")
        assert 2 in links and not links[2].startswith(str(john.home))
        assert client.listing("RETR 1")
        assert client.ask("QUIT") == "+OK Bye-bye."
    text = (john.maildir / "courierpop3dsizelist").read_text()
    assert "INFO" not in text and len(text.splitlines()) == 2


SYSLOG = """\
mount -t tmpfs none {private} &&
touch {private}/null {private}/full {private}/urandom &&
for node in null full urandom; do mount --bind /dev/$node {private}/$node || exit 1; done &&
ln -s {socket} {private}/log &&
mount --rbind {private} /dev &&
exec "$@"
"""


@pytest.fixture
def syslog(public):
    """A socket that is /dev/log for programs started with `syslog.wrapped`, and for no other."""
    needs_root()
    unshare = needs("unshare")
    path, private = public / "syslog", public / "dev"
    private.mkdir()
    wrapper = public / "with-syslog"
    inside = SYSLOG.format(private=private, socket=path)
    wrapper.write_text(
        f"#!/bin/sh\nexec {unshare} -m --propagation private sh -c '{inside}' sh {TCPD} \"$@\"\n"
    )
    wrapper.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sink:
        sink.bind(str(path))
        path.chmod(0o666)
        sink.settimeout(DEADLINE)
        probe = subprocess.run([unshare, "-m", "mount", "-t", "tmpfs", "x", str(private)])
        if probe.returncode:
            pytest.skip("no mount namespaces here")
        yield sink, str(wrapper)


def test_stderr_syslog(serve, mode, syslog, john):
    """Facility mail (2), the prefix as priority, the identity of the program, no pid."""
    sink, tcpd = syslog
    server = serve(*mode, "-stderr=syslog", "-maxperip=1", tcpd=tcpd)
    with server.client().login(john) as client:
        messages = [sink.recv(4096), sink.recv(4096)]
        with server.client() as one_more:
            assert one_more.rest() == b""
        messages.append(sink.recv(4096))
        client.ask("QUIT")
    messages.append(sink.recv(4096))
    stamped = r"<(\d+)>\w{3} [ \d]\d \d\d:\d\d:\d\d courierpop3login: "
    texts = [message.rstrip(b"\0").decode() for message in messages]
    shown = [re.sub(f"^{stamped}", r"\1 ", text).split(",")[0] for text in texts]
    assert shown == [
        f"{2 * 8 + 7} Connection",
        f"{2 * 8 + 6} LOGIN",
        f"{2 * 8 + 1} Maximum connection limit reached for ::ffff:127.0.0.1",
        f"{2 * 8 + 6} LOGOUT",
    ]


def test_stderr_syslog_takes_any_text_as_text(serve, script, syslog):
    """No format strings, no NUL, errors and warnings by their prefix, long lines in pieces."""
    sink, tcpd = syslog
    noisy = script(
        "noisy",
        "#!/bin/sh\n"
        "printf 'ERR: %%s%%n 100%%\\nWARN:  two\\nplain, \\303\\244 \\377\\nCRIT: c\\n' >&2\n"
        "printf '%01200d' 0 >&2\n",
    )
    server = serve("-stderr=syslog", "-stderrloggername=pop3d", stages=[noisy], tcpd=tcpd)
    with server.client() as client:
        assert client.rest() == b""
    server.stop()
    messages = [sink.recv(4096).rstrip(b"\0") for _ in range(7)]
    assert all(b" pop3d: " in message for message in messages)
    shown = [(int(m[1 : m.index(b">")]), m.partition(b" pop3d: ")[2]) for m in messages]
    assert shown[0] == (19, b"%s%n 100%")
    assert shown[1] == (20, b"two")
    assert shown[2][0] == 22 and shown[2][1].startswith("plain, ä ".encode())
    assert shown[3] == (18, b"c")
    assert [len(text) for _, text in shown[4:]] == [511, 511, 178]
    assert b"".join(text for _, text in shown[4:]) == b"0" * 1200
    assert children_of(server.process.pid) == []
