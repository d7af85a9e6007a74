"""-park: the session of a silent client waits without a process, and then goes on.

Where all mailboxes have one uid any worker goes on with it; as root, one of the same user.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from couriertcpd import children, worker
from couriertcpd.limits import Limits
from couriertcpd.parkinglot import Parked, ParkingLot, Terms
from tests.conftest import (
    BIN,
    DEADLINE,
    ROOT,
    Account,
    Accounts,
    Client,
    Server,
    has_client,
    sha,
    wait_until,
)

GREETING = b"+OK Hello there.\r\n"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
PARK = ("-uses=100", "-park=0.05")
MANY = ("-maxprocs=400", "-maxperip=400")
UNICODE = "Subject: \u00e4\n\nbody\n".encode()
JOHN, MARY = b"20001 20001 john", b"20002 20002 mary"


class People:
    """john and mary, and the options of a listener that serves them."""

    def __init__(self, accounts: Accounts, one_uid: bool):
        self.options = list(PARK)
        if not one_uid:
            self.john, self.mary = accounts.add("john"), accounts.add("mary")
            return
        self.john, self.mary = (accounts.add(name, listed=False) for name in ("john", "mary"))
        self.mary.uid, self.mary.gid = self.john.uid, self.john.gid
        self.mary.own()
        for account in (self.john, self.mary):
            ids = {"uid": account.uid, "gid": account.gid, "home": account.home}
            accounts.record(account.name, **ids, systempw=sha(account.password))
        if ROOT:
            os.chown(accounts.userdb, self.john.uid, self.john.gid)
            self.options += [f"-user={self.john.uid}", f"-group={self.john.gid}"]


@pytest.fixture(params=["one uid", "a uid each"] if ROOT else ["one uid"])
def people(request, accounts) -> People:
    return People(accounts, request.param == "one uid")


def with_client(server: Server) -> list[int]:
    return list(filter(has_client, server.children()))


def pause(server: Server) -> None:
    """Be silent until no process has a client."""
    wait_until(lambda: not with_client(server), "all sessions are parked")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def reset(client: Client) -> None:
    """Close with RST."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


COMMANDS = """\
STAT / LIST / UIDL / RETR 2 / TOP 1 0 / DELE 1 / DELE 1 / STAT / LIST / LIST 1 / UIDL 2 / RETR 3 /
NOOP / nonsense / RSET / STAT / LIST / DELE 3 / UIDL / CAPA / LANG / TOP 2 1 / RETR 4 / UTF8 /
RETR 4 / QUIT"""


def conversation(server: Server, account: Account, paused: bool) -> Iterator[str]:
    """All that a client hears, and what the log says of it at the end."""
    with server.client() as client:
        for command in (f"USER {account.name}", f"PASS {account.password}"):
            if paused:
                pause(server)
            yield client.line().decode()
            client.send(command.encode() + b"\r\n")
        yield client.line().decode()
        for command in COMMANDS.replace("\n", " ").split(" / "):
            if paused:
                pause(server)
            status = client.ask(command)
            yield re.sub(r"UID(\d)-\d+", r"UID\1", status)
            verb = command.split()[0]
            if status[:3] == "+OK" and (
                verb in ("RETR", "TOP", "CAPA", "LANG") or command in ("LIST", "UIDL")
            ):
                while (line := client.line()) != b".\r\n":
                    assert line
                    yield re.sub(r"(=_|UID\d)-?\d+-?\d*", r"\1", line.decode())
        assert client.rest() == b""
    found = server.logged(rf"INFO: LOGOUT, user={account.name}, {PEER}, (.*), time=\d+")
    yield re.sub(r"sent=\d+", "sent", found[1])


def test_a_conversation_with_pauses_is_the_same_as_without(serve, people):
    """STAT, LIST, UIDL, marks, Seen, UTF8, and all counts of the log."""
    for account in (people.john, people.mary):
        for text in (b"Subject: 1\n\none\n", b"Subject: 2\n\n.two\n", b"Subject: 3\n\n", UNICODE):
            account.deliver(text)
    server = serve(*people.options)
    without = list(conversation(server, people.mary, paused=False))
    assert list(conversation(server, people.john, paused=True)) == without
    assert people.john.files() == people.mary.files()
    assert len(people.john.files()) == 3
    assert [line for line in server.lines() if line.startswith("ERR")] == []


def test_1939_51_marks_count_at_quit_however_long_the_client_was_silent(serve, people):
    john = people.john
    names = [john.deliver(b"Subject: %d\n\n" % number) for number in range(3)]
    server = serve(*people.options)
    with server.client().login(john) as client:
        assert client.ask("DELE 2") == "+OK Deleted."
        pause(server)
        assert client.ask("QUIT") == "+OK Bye-bye."
        assert client.rest() == b""
    assert [file.partition(":")[0] for file in john.files()] == [names[0], names[2]]


@pytest.mark.parametrize("leave", [Client.close, reset])
def test_1939_50_without_quit_nothing_is_removed(serve, people, leave):
    john = people.john
    john.deliver(b"Subject: one\n\n")
    server = serve(*people.options, "-maxprocs=1")
    with server.client().login(john) as client:
        assert client.ask("DELE 1") == "+OK Deleted."
        pause(server)
        leave(client)
    server.logged(rf"INFO: DISCONNECTED, user=john, {PEER}, top=0, retr=0, rcvd=8, .*")
    assert len(john.files()) == 1
    with server.client().login(john) as client:  # its place is free
        assert client.ask("STAT") == "+OK 1 16"


def test_F_CONC_3_F_CONC_4_mail_that_moves_goes_and_comes_meanwhile(serve, people):
    john = people.john
    for number in range(1, 4):
        john.deliver(b"Subject: %d\n\n" % number)
    server = serve(*people.options)
    with server.client().login(john) as client:
        before = client.listing("LIST"), client.listing("UIDL")
        pause(server)
        first, second, third = sorted((john.maildir / "cur").iterdir())
        first.rename(first.with_name(first.name + "FS"))
        second.unlink()
        john.deliver(b"Subject: new\n\n")
        assert client.listing("RETR 1") == ["Subject: 1", ""]
        assert client.ask("RETR 2") == "-ERR Can't open the message file - it's gone!"
        assert (client.listing("LIST"), client.listing("UIDL")) == before
        pause(server)
        third.unlink()
        assert client.ask("DELE 1") == client.ask("DELE 3") == "+OK Deleted."
        pause(server)
        assert client.ask("QUIT") == "+OK Bye-bye."
        assert client.rest() == b""
    assert john.files() == []
    assert len(list((john.maildir / "new").iterdir())) == 1


def test_a_maildir_that_is_another_one_meanwhile_is_left_alone(serve, people):
    john = people.john
    name = john.deliver(b"Subject: one\n\n")
    server = serve(*people.options)
    with server.client().login(john) as client:
        assert client.ask("DELE 1") == "+OK Deleted."
        pause(server)
        john.maildir.rename(john.home / "Away")
        for folder in ("new", "cur", "tmp"):
            (john.maildir / folder).mkdir(parents=True)
        (john.maildir / "cur" / f"{name}:2,").write_text("Subject: another\n\n")
        john.own()
        assert client.ask("QUIT") == "-ERR Temporary problem, please try again later"
        assert client.rest() == b""
    assert len(john.files()) == 1
    why = "another directory is in its place"
    server.logged(f"ERR: cannot enter the Maildir again: {why}, user=john")
    server.logged(rf"INFO: DISCONNECTED, user=john, {PEER}, .*")


def test_1939_08_the_time_limit_is_that_of_the_silence(serve, people):
    john = people.john
    john.deliver(b"Subject: one\n\n")
    server = serve(*people.options, env={"POP3_IDLE_TIMEOUT": "1"})
    with server.client().login(john) as client:
        assert client.ask("DELE 1") == "+OK Deleted."
        pause(server)
        assert client.rest() == b""
    found = server.logged(rf"INFO: TIMEOUT, user=john, {PEER}, .*, rcvd=8, sent=\d+, time=(\d+)")
    assert int(found[1]) >= 1
    assert len(john.files()) == 1


@pytest.mark.parametrize("count", [30, 300])
def test_larger_mailboxes_are_parked_too(serve, people, count):
    john = people.john
    for number in range(count):
        john.deliver(b"Subject: %d\n\n" % number)
    server = serve(*people.options)
    with server.client().login(john) as client:
        before = client.listing("LIST"), client.listing("UIDL")
        pause(server)
        assert (client.listing("LIST"), client.listing("UIDL")) == before
        assert client.listing(f"RETR {count}") == [f"Subject: {count - 1}", ""]
        pause(server)
        assert client.ask("QUIT") == "+OK Bye-bye."


def test_what_can_not_be_parked_keeps_its_process(serve, people, accounts):
    """A session that holds a lock, and one of so many messages that the listener would grow."""
    john, mary = people.john, people.mary
    for number in range(1300):
        path = mary.maildir / "cur" / f"{1700000000 + number}.{'m' * 200}.host:2,"
        path.write_text("Subject: x\n\n")
    mary.own()
    other = accounts.add("other", listed=False)
    ids = {"uid": john.uid, "gid": john.gid, "home": other.home, "systempw": sha("x")}
    accounts.record("other", **ids)
    other.uid, other.gid = john.uid, john.gid
    other.own()
    server = serve(*people.options)
    large = server.client().login(mary)
    other.password = "x"
    with server.client().login(other) as client:
        wait_until(lambda: len(with_client(server)) == 1, "other is parked")
        assert client.ask("STAT") == "+OK 0 0"
        assert large.ask("STAT").startswith("+OK 1300 ")
        wait_until(lambda: len(with_client(server)) == 1, "other is parked")
        large.close()
    pause(server)
    server = serve(*people.options, env={"POP3_EXCLUSIVE": "1"})
    with server.client().login(john) as holder, server.client().login(other):
        assert wait_until(lambda: len(with_client(server)) == 2, "neither is parked")
        with server.client() as third:
            assert third.line() == GREETING
            wait_until(lambda: len(with_client(server)) == 2, "who has not logged in is parked")
        assert holder.ask("QUIT") == "+OK Bye-bye."


@pytest.mark.parametrize("option", ["-coldexec", "-nodnslookup"])
def test_programs_that_are_executed_are_not_parked(serve, people, script, option):
    foreign = script("last", f'#!/bin/sh\nexec {BIN}/courierpop3d "$@"\n')
    last = "courierpop3d" if option == "-coldexec" else foreign
    stages = ["courierpop3login", "authuserdb", last, "./Maildir"]
    server = serve(*people.options, option, stages=stages)
    with server.client().login(people.john) as client, server.client() as other:
        assert other.line() == GREETING
        if last == foreign:
            wait_until(lambda: len(with_client(server)) == 1, "the other one is parked")
        else:
            time.sleep(0.3)
            assert len(with_client(server)) == 2
        assert client.ask("NOOP") == "+OK Yup."
        assert other.ask("QUIT") == "+OK Better luck next time."
        assert client.ask("QUIT") == "+OK Bye-bye."


# Before the login


def test_who_has_not_logged_in_is_parked_with_what_was_said(serve, people):
    john = people.john
    john.deliver(UNICODE)
    server = serve(*people.options, env={"POP3_FAILURE_DELAY": "0"})
    with server.client() as client:
        assert client.line() == GREETING
        pause(server)
        assert client.ask("UTF8") == "+OK UTF8 enabled"
        pause(server)
        assert client.ask("USER john") == "+OK Password required."
        pause(server)
        assert client.ask("PASS wrong") == "-ERR Login failed."
        pause(server)
        assert client.ask(f"PASS {john.password}") == "-ERR USER/PASS required."
        pause(server)
        assert client.ask("USER john") == "+OK Password required."
        pause(server)
        assert client.ask(f"PASS {john.password}") == "+OK logged in."
        pause(server)
        assert client.listing("RETR 1") == UNICODE.decode().split("\n")[:-1]
        assert client.ask("QUIT") == "+OK Bye-bye."
    expected = ["DEBUG: Connection", "INFO: LOGIN FAILED", "INFO: LOGIN", "INFO: LOGOUT"]
    server.logged("INFO: LOGOUT.*")
    assert [line.split(",")[0] for line in server.lines()] == expected


def test_F_NET_1_the_login_phase_ends_in_time(serve, people):
    """Attempts do not prolong it, nor does being parked."""
    env = {"POP3_LOGIN_TIMEOUT": "2", "POP3_FAILURE_DELAY": "0"}
    server = serve(*people.options, "-maxprocs=2", env=env)
    with server.client() as silent, server.client() as failing:
        assert silent.line() == failing.line() == GREETING
        pause(server)
        failing.ask("USER john")
        assert failing.ask("PASS wrong") == "-ERR Login failed."
        pause(server)
        assert silent.rest() == failing.rest() == b""
    wait_until(
        lambda: sum(line.startswith("DEBUG: Disconnected") for line in server.lines()) == 2,
        "both are logged",
    )
    with server.client() as one, server.client() as two:
        assert one.line() == two.line() == GREETING


def test_half_a_line_is_not_parked(serve, people):
    john = people.john
    server = serve(*people.options)
    with server.client() as client, server.client() as other:
        assert client.line() == other.line() == GREETING
        assert client.ask("USER john") == "+OK Password required."
        client.send(b"PASS " + john.password.encode())
        wait_until(lambda: len(with_client(server)) == 1, "the other one is parked")
        client.send(b"\r\n")
        assert client.line() == b"+OK logged in.\r\n"
        client.send(b"NO")
        assert other.ask("NOOP") == "-ERR Invalid command."
        wait_until(lambda: len(with_client(server)) == 1, "the other one is parked")
        client.send(b"OP\r\n")
        assert client.line() == b"+OK Yup.\r\n"


# Processes, places, descriptors


def test_300_parked_sessions_that_are_reset_leave_nothing(serve, people):
    server = serve(*people.options, *MANY)
    with server.client().login(people.john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
    pause(server)
    before = descriptors(server.process.pid) - len(server.children())
    clients = []
    for number in range(300):
        client = server.client()
        if number % 2:
            client.login((people.john, people.mary)[number // 2 % 2])
        else:
            assert client.line() == GREETING
        clients.append(client)
    pause(server)
    assert len(server.children()) < 150  # in the end there are none, see below
    for client in clients:
        reset(client)
    wait_until(
        lambda: sum("isconnected" in line.lower() for line in server.lines()) == 300,
        "each has its line in the log",
    )
    pause(server)
    wait_until(
        lambda: descriptors(server.process.pid) - len(server.children()) <= before,
        "no descriptor is left",
    )
    clients = [server.client() for _ in range(400)]  # no place either
    assert {client.line() for client in clients} == {GREETING}
    for client in clients:
        client.close()


def test_idle_processes_end_sooner_where_sessions_are_parked(serve, people):
    server = serve(*people.options, *MANY)
    clients = [server.client() for _ in range(12)]
    assert {client.line() for client in clients} == {GREETING}
    pause(server)
    wait_until(lambda: not server.children(), "no process is left")
    assert clients[0].ask("USER john") == "+OK Password required."
    assert clients[0].ask(f"PASS {people.john.password}") == "+OK logged in."


def test_limits_count_parked_sessions(serve, people):
    server = serve(*people.options, "-maxperip=2")
    with server.client() as one, server.client().login(people.john) as two:
        assert one.line() == GREETING
        pause(server)
        with server.client() as three:
            assert three.rest() == b""
        assert two.ask("QUIT") == "+OK Bye-bye."
        assert two.rest() == b""
        pause(server)
        wait_until(lambda: server.client().line() == GREETING, "a place is free")


def test_CVE_37_a_session_is_gone_on_with_by_its_user_alone(serve, accounts):
    """And nothing of one session is to be seen in the other: directory, names, marks, UTF8."""
    people = People(accounts, one_uid=not ROOT)
    john, mary = people.john, people.mary
    john.deliver(b"Subject: john's\n\n")
    mary.deliver(UNICODE)
    server = serve(*people.options, *MANY)
    with server.client().login(john) as one, server.client().login(mary) as two:
        assert one.ask("UTF8") == "+OK UTF8 enabled"
        assert one.ask("DELE 1") == "+OK Deleted."
        for _ in range(3):
            for client, account, stat in ((one, john, "0 0"), (two, mary, "1 21")):
                pause(server)
                client.send(b"STAT\r\nNO")  # half a line keeps the process
                assert client.line() == f"+OK {stat}\r\n".encode()
                (pid,) = with_client(server)
                status = Path(f"/proc/{pid}/status").read_text()
                assert re.search(r"^Uid:\t(.*)$", status, re.M)[1].split() == [str(account.uid)] * 4
                assert re.search(r"^Gid:\t(.*)$", status, re.M)[1].split() == [str(account.gid)] * 4
                assert os.readlink(f"/proc/{pid}/cwd") == str(account.maildir)
                assert {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")} == {0, 1, 2, 4, 5}
                client.send(b"OP\r\n")
                assert client.line() == b"+OK Yup.\r\n"
        pause(server)
        assert "Subject: Cannot display Unicode content" in two.listing("RETR 1")
        assert two.ask("QUIT") == "+OK Bye-bye."
        pause(server)
        for pid in server.children():  # idle, and of nobody's mailbox
            assert os.readlink(f"/proc/{pid}/cwd") in ("/", os.getcwd())
            assert {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")} <= {2, 4, 5}
        one.close()
    assert len(john.files()) == 1


def memory(pid: int) -> bytes:
    """What a process can write to, or has written."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in maps:
            area, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(number, 16) for number in area.split("-"))
                file.seek(start)
                found.append(file.read(end - start))
    return b"".join(found)


@pytest.mark.skipif(not ROOT, reason="only root can look into a process")
def test_2595_05_no_password_is_in_what_is_parked(serve, people):
    john = people.john
    server = serve(*people.options)
    with server.client() as waiting, server.client().login(john) as client:
        waiting.line()
        waiting.ask("USER mary")
        pause(server)
        # This is how it would be found.
        wait_until(lambda: b"mary" in memory(server.process.pid), "the listener has read it")
        held = memory(server.process.pid)
        assert john.password.encode() not in held
        client.ask("QUIT")


def test_a_killed_process_of_a_resumed_session_gives_its_place_back(serve, people):
    server = serve(*people.options, "-maxprocs=1")
    for _ in range(3):
        with server.client().login(people.john) as client:
            pause(server)
            client.send(b"NOOP\r\nNO")
            assert client.line() == b"+OK Yup.\r\n"
            (pid,) = with_client(server)
            os.kill(pid, signal.SIGKILL)
            assert client.rest() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_parked_sessions_end_with_the_listener_and_others_by_kill_9_do_not(serve, people, number):
    people.john.deliver(b"Subject: one\n\n")
    server = serve(*people.options)
    with server.client().login(people.john) as parked, server.client().login(people.mary) as other:
        assert parked.ask("DELE 1") == "+OK Deleted."
        other.send(b"NO")
        wait_until(lambda: served(server) == {connection(other)}, "the first one alone is parked")
        server.process.send_signal(number)
        server.process.wait(DEADLINE)
        assert parked.rest() == b""
        if number == signal.SIGKILL:
            other.send(b"OP\r\n")
            assert other.line() == b"+OK Yup.\r\n"
            assert other.ask("QUIT") == "+OK Bye-bye."
        else:
            assert other.rest() == b""
    assert len(people.john.files()) == 1


def served(server) -> set[str]:
    """The connections that have a process."""
    return {os.readlink(f"/proc/{pid}/fd/0") for pid in with_client(server)}


def connection(client) -> str:
    """The server's end of it, as processes have it in /proc."""
    here, there = (
        f":{end[1]:04X}" for end in (client.socket.getsockname(), client.socket.getpeername())
    )
    lines = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}")]
    (inode,) = (line[9] for line in lines if line[1].endswith(there) and line[2].endswith(here))
    return f"socket:[{inode}]"


def open_files(pid: int) -> list[str]:
    """The soft limit and the hard one."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return re.search(r"^Max open files(.*)files", limits, re.MULTILINE)[1].split()


def test_without_descriptors_to_spare_sessions_keep_their_processes(serve, people, script):
    """RLIMIT_NOFILE is raised in the listener as far as it goes, and only there."""
    limit = script("few", '#!/bin/sh\nulimit -Sn 50 && ulimit -Hn 84 && exec couriertcpd "$@"\n')
    path = f"{os.path.dirname(os.sys.executable)}:{os.environ['PATH']}"
    server = serve(*people.options, *MANY, tcpd=limit, env={"PATH": path})
    clients = [server.client().login(people.john) for _ in range(16)]
    assert open_files(server.process.pid) == ["84", "84"]
    for _ in range(3):
        assert {client.ask("STAT") for client in clients} == {"+OK 0 0"}
    end = time.monotonic() + 1
    while time.monotonic() < end:
        kept = with_client(server)
        assert kept
        time.sleep(0.02)
    assert open_files(kept[0]) == ["50", "84"]
    assert {client.ask("QUIT") for client in clients} == {"+OK Bye-bye."}


# The listener's side


class Parent:
    """The listener's side, where no process is ever started: only noted whose it would be."""

    def __init__(self, monkeypatch, fails: bool = False):
        self.started: list[bytes] = []
        monkeypatch.setattr(children.Children, "_fork", self._fork)
        self.limits = Limits(1, 1, 1)
        self.children = children.Children(
            lambda *ends: 0,
            self.limits,
            prefork=0,
            uses=9,
            most_idle=9,
            terms=Terms(1.0, {}, is_logged_to=False),
            watch=lambda channel, child: None,
            unwatch=lambda channel: None,
        )
        self.fails = fails
        self.limits.admit(bytes(16))
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.client, self.served = socket.socketpair()

    def _fork(self, key: bytes, *_: object) -> children.Child:
        self.started.append(key)
        if self.fails:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return children.Child(os.getpid(), None, key)

    def hear(self, message: bytes, key: bytes, *descriptors: int) -> children.Child:
        child = children.Child(os.getpid(), self.ours, key)
        child.address = bytes(16)
        socket.send_fds(self.theirs, [message], descriptors or (self.served.fileno(),))
        self.children.heard(child)
        self.served.close()
        return child


def test_CVE_37_a_session_is_parked_under_the_key_that_the_listener_knows(monkeypatch):
    """Whatever a process that runs as a user writes: mary's key, a deadline of nonsense, content
    that looks like something else."""
    parent = Parent(monkeypatch)
    child = parent.hear(worker.PARK + b"99999999999999 " + MARY, JOHN)
    assert child.address is None and child.channel
    assert len(parent.children.parked) == 1
    socket.send_fds(parent.theirs, [worker.PARK + b"99999999999999 x"], [0])
    parent.children.heard(child)  # it holds no place any more, so it has nothing to park
    assert child.channel is None
    assert len(parent.children.parked) == 1
    parent.client.send(b"NOOP\r\n")
    parent.children.resume()
    assert parent.started == [JOHN]
    assert len(parent.children.parked) == 0


@pytest.mark.parametrize("text", [b"", b"x", b"12", b"-1 x", b"1e9 x", b"9" * 20 + b" x"])
def test_nonsense_ends_the_session_and_frees_its_place(monkeypatch, text):
    parent = Parent(monkeypatch)
    if text == b"12":  # a file, whose readiness nobody can wait for
        regular = os.memfd_create("x")
        parent.hear(worker.PARK + b"12 x", JOHN, regular)
        os.close(regular)
    else:
        parent.hear(worker.PARK + text, JOHN)
        assert parent.client.recv(10) == b""
    assert len(parent.children.parked) == 0
    assert not parent.limits.full


def test_CVE_37_nonsense_is_left_behind_when_the_listener_executes_itself(monkeypatch, capfd):
    parent = Parent(monkeypatch)
    parent.hear(worker.PARK + b"99999999999999 x", JOHN)
    assert parent.children.packed() == []
    assert "ERR: park: " in capfd.readouterr().err


def test_F_NET_6_no_process_left_for_a_session_that_has_to_go_on(monkeypatch, capfd):
    parent = Parent(monkeypatch, fails=True)
    parent.hear(worker.PARK + b"99999999999999 x", JOHN)
    parent.theirs.close()  # the process that has parked it is gone too
    parent.client.send(b"NOOP\r\n")
    parent.children.resume()
    with pytest.raises(ConnectionResetError):
        parent.client.recv(10)
    assert not parent.limits.full
    assert "ERR: fork: " in capfd.readouterr().err


def test_deadlines_are_kept_in_order_and_cost_nothing_once_the_session_has_left():
    lot = ParkingLot()
    pairs = [socket.socketpair() for _ in range(20)]
    for round_ in range(100):
        for number, (_, server) in enumerate(pairs):
            lot.add(Parked((server.fileno(),), b"", JOHN, bytes(16), 10**13 + number))
        for ours, _ in pairs:
            ours.send(b"x")
        assert sum(len(lot.leaving()) for _ in range(2)) == 20, round_
        assert len(lot._deadlines) <= 200
        for _, server in pairs:
            server.recv(1)
    assert lot.patience(5.0) == 5.0
    for number in (3, 1, 2, 0):
        deadline = 10**13 if number else 1
        server = pairs[number][1]
        lot.add(Parked((server.fileno(),), b"%d" % number, JOHN, bytes(16), deadline))
    assert lot.patience(5.0) == 0
    assert [parked.content for parked in lot.leaving()] == [b"0"]
    assert lot.patience(5.0) == 5.0
    assert len(lot) == 3
