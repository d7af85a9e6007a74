"""-front: who has not logged in yet has no process, and hears and leaves behind the same.

The whole suite runs with it too, in the mode `parked` of the other files here.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from courierchain import front as words
from couriertcpd import front
from couriertcpd.arrival import Arrival
from tests.chain.test_tls import authority, issue, tls  # noqa: F401
from tests.conftest import BIN, DEADLINE, ROOT, Server, has_client, is_front, wait_until

GREETING = b"+OK Hello there.\r\n"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
MANY = ("-maxprocs=400", "-maxperip=400")
WAYS = {"a process each": ["-front"], "reused": ["-front", "-uses=100"]}
NO_DELAY = {"POP3_FAILURE_DELAY": "0"}


@pytest.fixture(params=WAYS)
def way(request) -> list[str]:
    return WAYS[request.param]


def front_of(server: Server) -> int:
    return wait_until(lambda: next(filter(is_front, server.children()), 0), "there is a front")


def others(server: Server) -> list[int]:
    return [pid for pid in server.children() if not is_front(pid)]


def of_fronts(server: Server, pid: int) -> list[str]:
    """What its descriptors are, but the first three."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            if int(entry.name) > 2:
                found.append(os.readlink(entry))
    return found


# The same conversation


STEPS = {
    "all verbs": "CAPA/LANG/LANG en/UTF8/USER/USER john/PASS/STLS/NOOP/stat//  capa /QUIT",
    "pass without user": "PASS x/USER john/QUIT",
    "a whole session": "USER john/PASS secret of john/STAT/UTF8/CAPA/RETR 1/QUIT",
    "wrong, then right": "USER john/PASS no/PASS no/USER john/PASS secret of john/STAT/QUIT",
    "utf8 stays": "UTF8/USER john/PASS no/USER john/PASS secret of john/CAPA/RETR 1/QUIT",
    "plain": "AUTH PLAIN AGpvaG4Ac2VjcmV0IG9mIGpvaG4=/STAT/QUIT",
    "plain, asked": "AUTH PLAIN/AGpvaG4Ac2VjcmV0IG9mIGpvaG4=/STAT/QUIT",
    "plain, wrong": "AUTH PLAIN AGpvaG4Abm8=/AUTH PLAIN/*/AUTH PLAIN !/AUTH/AUTH NO/QUIT",
    "login": "AUTH LOGIN/am9obg==/c2VjcmV0IG9mIGpvaG4=/STAT/QUIT",
    "cram": "AUTH CRAM-MD5/am9obiAwMTIz/AUTH CRAM-SHA1/x/AUTH CRAM-MD5 x/QUIT",
    "nobody's userid": "USER a\x01b/PASS x/QUIT",
    "too long": f"USER {'n' * 3000}/PASS {'p' * 3000}/{'x' * 9000}/USER a\0b/QUIT",
}
AT_ONCE = {
    # Without UTF8 the message would be wrapped, within lines that have a process's number.
    "2449-08 behind PASS": b"UTF8\r\nUSER john\r\nPASS secret of john\r\nRETR 1\r\nQUIT\r\n",
    "behind a refused one": b"USER john\r\nPASS x\r\nUSER john\r\nPASS secret of john\r\nQUIT\r\n",
    "behind QUIT": b"QUIT\r\nUSER john\r\n",
    "many": b"NOOP\r\n" * 3000 + b"QUIT\r\n",
    "LF": b"USER john\nPASS secret of john\nQUIT\n",
    "ROB-05 half a line": b"USER john\r\nPASS secret of john",
    "octets": bytes(range(256)) * 8 + b"\r\nQUIT\r\n",
    "no end": b"x" * 20000,
}


def heard_step_by_step(server: Server, steps: str) -> list[bytes]:
    heard = []
    with server.client() as client:
        heard.append(client.line())
        for step in steps.split("/"):
            client.send(step.encode() + b"\r\n")
            heard.append(client.line())
            if heard[-1].startswith(b"+OK Here") or step.startswith(("RETR", "LANG")):
                while heard[-1] not in (b".\r\n", b"") and not heard[-1].startswith(b"-ERR"):
                    if step == "LANG en":
                        break
                    heard.append(client.line())
        heard.append(client.rest())
    return heard


def heard_at_once(server: Server, octets: bytes) -> list[bytes]:
    with server.client() as client:
        client.send(octets)
        client.socket.shutdown(socket.SHUT_WR)
        return [client.rest()]


def everything(server: Server) -> tuple[dict[str, list[bytes]], list[str]]:
    """What is heard in each conversation, and the log, without what differs each time."""
    heard = {name: heard_step_by_step(server, steps) for name, steps in STEPS.items()}
    heard |= {name: heard_at_once(server, octets) for name, octets in AT_ONCE.items()}
    count = len(heard)
    wait_until(lambda: sum(map(is_last, server.lines())) == count, "all have left")
    for replies in heard.values():
        replies[:] = [re.sub(rb"^\+ [A-Za-z0-9+/=]{40,}", b"", line) for line in replies]
    return heard, sorted(re.sub(r"(port=\[|time=)\d+", r"\1", line) for line in server.lines())


def is_last(line: str) -> bool:
    before_login = line.startswith("DEBUG: Disconnected, ip=")
    return before_login or line.startswith(("INFO: LOGOUT, user=", "INFO: DISCONNECTED, user="))


def test_each_conversation_and_its_log_are_those_of_a_login_program(serve, way, john):
    john.deliver("Subject: \u00e4\n\nbody\n".encode())
    env = {**NO_DELAY, "POP3AUTH": "PLAIN LOGIN CRAM-MD5"}
    without, log_without = everything(serve(env=env))
    heard, log = everything(serve(*way, env=env))
    assert heard == without
    assert log == log_without
    assert heard["a whole session"][-2] == b"+OK Bye-bye.\r\n"  # it's a conversation indeed


@pytest.mark.parametrize("dump", ["login", "refused"])
def test_the_first_module_finds_the_same(serve, way, script, public, dump):
    """Environment, arguments, descriptors, the record: also after a refused login."""
    text = f'#!/bin/sh\n(env | sort; echo "$@"; ls /proc/self/fd; cat <&3) > {public}/found\n'
    again = 'exec "$AUTHUSER" "$AUTHARGV1" "$AUTHARGV2" 3<&-\n' if dump == "refused" else ""
    module = script("module", text + f"mv {public}/found {public}/found.$TCPLOCALPORT\n{again}")
    found = []
    for options in ([], way):
        server = serve(
            *options, stages=["courierpop3login", module, "x"], env={**NO_DELAY, "DEFDOMAIN": "@x"}
        )
        with server.client() as client:
            assert client.line() == GREETING
            client.send(b"UTF8\r\nUSER john\r\nPASS secret\r\n")
            client.line(), client.line()
            path = public / f"found.{server.port}"
            wait_until(path.exists, "the module has been called")
            found.append(re.sub(r"(PORT|EXPIRE)=\d+", r"\1", path.read_text()))
    assert found[0] == found[1]
    assert "AUTHARGV1=" in found[0] and "pop3\nlogin\njohn@x\nsecret" in found[0]


# No process, and no rights


def test_who_has_not_logged_in_has_no_process(serve, way, john):
    server = serve(*way, *MANY)
    clients = [server.client() for _ in range(100)]
    assert {client.line() for client in clients} == {GREETING}
    assert {client.ask("USER john") for client in clients} == {"+OK Password required."}
    assert others(server) == []
    for client in clients[:3]:
        assert client.ask("PASS secret of john") == "+OK logged in."
        assert client.ask("QUIT") == "+OK Bye-bye."
    for client in clients[3:]:
        assert client.ask("QUIT") == "+OK Better luck next time."


def test_after_a_refused_login_nobody_waits_in_a_process(serve, way, john):
    server = serve(*way, env={"POP3_FAILURE_DELAY": "2"})
    with server.client() as client:
        assert client.line() == GREETING
        assert client.ask("USER john") == "+OK Password required."
        begin = time.monotonic()
        client.send(b"PASS wrong\r\n")
        server.logged(rf"INFO: LOGIN FAILED, user=john, {PEER}")
        wait_until(lambda: not any(map(has_client, others(server))), "nobody has the client")
        assert client.line() == b"-ERR Login failed.\r\n"
        assert time.monotonic() - begin > 1.9
        assert client.ask("USER john") == "+OK Password required."
        assert client.ask("PASS secret of john") == "+OK logged in."


@pytest.mark.skipif(not ROOT, reason="otherwise it has the tester's rights")
def test_CVE_37_the_front_has_no_rights_and_nothing_but_its_clients(serve, way, john):
    server = serve(*way)
    with server.client() as client, server.client() as other:
        assert client.line() == other.line() == GREETING
        assert client.ask("USER john") == "+OK Password required."
        pid = front_of(server)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        assert len(set(status["Uid"])) == len(set(status["Gid"])) == 1
        assert not {"0"} & {*status["Uid"], *status["Gid"], *status["Groups"]}
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name][0], 16) == 0, name
        found = of_fronts(server, pid)  # the channel, and two clients
        assert sorted(name.split(":")[0] for name in found) == [
            "anon_inode",
            "socket",
            "socket",
            "socket",
        ]


# What can happen to it


def test_F_KILL_5_a_front_that_is_killed_costs_those_it_held_and_nobody_else(serve, way, john):
    server = serve(*way, "-maxprocs=3")
    waiting = [server.client() for _ in range(2)]
    with server.client().login(john) as client:
        assert {other.line() for other in waiting} == {GREETING}
        os.kill(front_of(server), signal.SIGKILL)
        assert {other.rest() for other in waiting} == {b""}
        assert client.ask("NOOP") == "+OK Yup."
        server.logged(r"ERR: .*courierpop3login -front: has ended, and 2 clients with it")
        front_of(server)
        again = [server.client() for _ in range(2)]  # their places are free
        assert {other.line() for other in again} == {GREETING}
        assert client.ask("QUIT") == "+OK Bye-bye."


def test_the_front_ends_with_the_listener(serve, way, john):
    server = serve(*way)
    pid = front_of(server)
    with server.client() as waiting, server.client().login(john) as client:
        assert waiting.line() == GREETING
        server.process.kill()
        server.process.wait(DEADLINE)
        assert waiting.rest() == b""
        assert client.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: not is_front(pid), "the front has ended")


def test_places_are_counted_and_given_back(serve, way, john):
    server = serve(*way, "-maxprocs=2", "-maxperip=2", env=NO_DELAY)
    for leave in ("QUIT", "close", "login"):
        first, second = server.client(), server.client()
        assert first.line() == second.line() == GREETING
        third = server.client()
        third.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            third.line()
        third.close()
        if leave == "login":
            assert first.ask("USER john") == "+OK Password required."
            assert first.ask("PASS wrong") == "-ERR Login failed."
        for client in (first, second):
            if leave == "QUIT":
                assert client.ask("QUIT") == "+OK Better luck next time."
            client.close()
        # The one that has waited in the kernel and left is taken leave of.
        wait_until(lambda: len(of_fronts(server, front_of(server))) == 2, "all have left")


def test_whose_time_is_up_is_left_without_a_word_and_its_place_is_free(serve, way):
    server = serve(*way, "-maxprocs=1", env={"POP3_LOGIN_TIMEOUT": "1"})
    for _ in range(2):
        with server.client() as client:
            assert client.line() == GREETING
            assert client.rest() == b""


def test_a_client_that_takes_nothing_stops_nobody(serve, way):
    server = serve(*way)
    with server.client() as greedy, server.client() as other:
        assert greedy.line() == other.line() == GREETING
        greedy.socket.settimeout(0.2)
        try:
            while True:
                greedy.send(b"CAPA\r\n" * 5000)
        except OSError:
            pass  # there is no room any more, on neither side
        assert other.ask("USER john") == "+OK Password required."
        assert other.ask("QUIT") == "+OK Better luck next time."
    wait_until(lambda: len(of_fronts(server, front_of(server))) == 2, "both have left")


def test_2595_09_who_begins_no_handshake_has_no_process_either(serve, authority, public):  # noqa: F811
    issue(authority, public / "pem")
    env = {
        **{"TLS_CERTFILE": str(public / "pem"), "COURIERTLS": str(BIN / "couriertls")},
        **{"POP3_STARTTLS": "YES", "POP3_LOGIN_TIMEOUT": "4"},
    }
    server = serve("-front", "-maxprocs=1", env=env)
    with server.client() as client:
        assert client.line() == GREETING
        before = server.children()
        assert client.ask("STLS") == "+OK Begin SSL/TLS negotiation now."
        assert server.children() == before
        server.logged(rf"INFO: STLS failed: no handshake in time, {PEER}")
        server.logged(rf"DEBUG: Disconnected, {PEER}")
        with server.client() as other:  # its place is free
            assert other.line() == GREETING


# Where there is none


@pytest.mark.parametrize("what", ["-coldexec", "-stderr=socket", "foreign", "cyrus"])
def test_the_plain_way_stays_where_a_front_can_not_be(serve, way, script, john, what):
    foreign = script("login", f'#!/bin/sh\nexec {BIN}/courierpop3login "$@"\n')
    first = foreign if what == "foreign" else "courierpop3login"
    options = [what] if what.startswith("-") else []
    env = {"POP3_DIALECT": "cyrus"} if what == "cyrus" else {}
    stages = [first, "authuserdb", "courierpop3d", "./Maildir"]
    server = serve(*way, *options, stages=stages, env=env)
    with server.client() as client:
        assert client.line()
        assert wait_until(lambda: others(server), "a process for the client")
        assert any(map(is_front, server.children())) == (what == "cyrus")


# The listener's side


class Places:
    """A listener, as far as its front sees it."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(front.Fronts, "_start", lambda fronts: None)
        self.served: list[Arrival] = []
        self.encrypted: list[Arrival] = []
        self.released: list[Arrival] = []
        self.fronts = front.Fronts(["/x"], {}, makes_handshakes=True, is_on=True)
        self.fronts.serve(
            *(lambda channel, callback: None, lambda channel: None),
            *(self.served.append, self.encrypted.append, self.released.append),
        )
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.one = front.Front(ours)
        self.one.channel.setblocking(False)
        self.fronts._front = self.one
        self.client, self.connection = socket.socketpair()

    def arrival(self) -> Arrival:
        ends = ("::1", 1), ("::1", 110)
        arrival = Arrival.known(bytes(16), *ends, {"TLS_SUBJECT_CN": "mary"})
        arrival.client = self.connection
        return arrival

    def hold(self) -> Arrival:
        arrival = self.arrival()
        assert self.fronts.hold(arrival)
        return arrival

    def hear(self, message: bytes, *descriptors: int) -> None:
        socket.send_fds(self.theirs, [message], descriptors)
        self.fronts._heard(self.one)


def test_CVE_37_a_front_changes_nothing_but_what_the_client_says(monkeypatch):
    """Whose connection it is, the certificate and the access record are the listener's to tell."""
    places = Places(monkeypatch)
    arrival = places.hold()
    nonsense = b"\0TCPREMOTEIP=::2\0TLS_SUBJECT_CN=root"
    places.hear(words.message(words.LOGIN, 1, nonsense), places.connection.fileno())
    assert places.served == [arrival]
    assert arrival.login == nonsense  # for the login program to judge
    assert (arrival.remote, arrival.variables) == (("::1", 1), {"TLS_SUBJECT_CN": "mary"})
    assert places.released == []
    places.hear(words.message(words.OVER, 1))  # it isn't the front's any more
    places.hear(words.message(words.LOGIN, 1, b"x"), places.connection.fileno())
    assert (len(places.served), places.released) == (1, [])


@pytest.mark.parametrize("message", [b"", b"x", b">", b">1x y", b"> 1 x", b"?1 x", b"+1 x"])
def test_nonsense_ends_a_front_and_frees_its_places_once(monkeypatch, message, capfd):
    places = Places(monkeypatch)
    arrivals = [places.hold(), places.hold()]
    if message:
        places.hear(message, places.connection.fileno())
    else:
        places.theirs.close()
        places.fronts._heard(places.one)
    assert places.released == arrivals
    assert not places.one.held
    assert "has ended, and 2 clients with it" in capfd.readouterr().err


@pytest.mark.parametrize("has_spoken", [True, False])
def test_a_front_that_can_not_run_is_not_started_over_and_over(monkeypatch, has_spoken):
    places = Places(monkeypatch)
    places.hold()
    if has_spoken:
        places.hear(words.message(words.OVER, 1))
    places.theirs.close()
    places.fronts._heard(places.one)
    assert (places.fronts.patience() > front.PAUSE) != has_spoken
    assert not places.fronts.hold(places.arrival())  # it gets a process


def test_F_NET_5_without_a_descriptor_left_one_client_is_lost_and_no_more(monkeypatch, capfd):
    places = Places(monkeypatch)
    arrival, other = places.hold(), places.hold()
    places.hear(words.message(words.LOGIN, 1, b"x"))
    assert (places.released, list(places.one.held.values())) == ([arrival], [other])
    assert "ERR: front: Too many open files" in capfd.readouterr().err


def test_a_handshake_that_ends_after_the_client_s_time_serves_nobody(monkeypatch):
    places = Places(monkeypatch)
    arrival = places.hold()
    places.hear(words.message(words.STLS, 1), places.connection.fileno())
    assert places.encrypted == [arrival]
    places.hear(words.message(words.OVER, 1))
    assert places.released == [arrival]
    places.fronts.secured(arrival)
    places.fronts.lost(arrival)
    assert places.released == [arrival]
    assert arrival.client.fileno() < 0
