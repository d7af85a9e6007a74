"""-prefork and -uses: one process serves several sessions, one after another, and no session finds
anything of the one before it.

Where all mailboxes have one uid, the listener runs as that one (-user). As root there are processes
that log people in, and for each user processes that have become the user, and serve nobody else.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from couriertcpd import children, worker
from couriertcpd.limits import Limits
from tests.conftest import DEADLINE, ROOT, Account, Server, needs_root, sha, wait_until

GREETING = b"+OK Hello there.\r\n"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
UNICODE = "Subject: \u00e4\n\nbody\n".encode()


@pytest.fixture
def virtual(accounts):
    """john's and mary's mailboxes belong to one uid; the options for a listener that runs as it."""
    john, mary = accounts.add("john", listed=False), accounts.add("mary", listed=False)
    mary.uid, mary.gid = john.uid, john.gid
    mary.own()
    for account in (john, mary):
        fields = {"uid": john.uid, "gid": john.gid, "home": account.home}
        accounts.record(account.name, **fields, systempw=sha(account.password))
    options = []
    if ROOT:
        os.chown(accounts.userdb, john.uid, john.gid)
        options = [f"-user={john.uid}", f"-group={john.gid}"]
    return john, mary, options


def socket_of(pid: int) -> str:
    try:
        target = os.readlink(f"/proc/{pid}/fd/0")
    except OSError:
        return ""
    return target if target.startswith("socket:") else ""


def busy(server: Server) -> list[int]:
    return [pid for pid in server.children() if socket_of(pid)]


def state(pid: int) -> str:
    """S for a process that waits for something; Z also if it is not there any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def idle(server: Server) -> None:
    """Wait until no worker has a client, and the listener knows that."""

    def settled() -> bool:
        if busy(server) or not all(state(pid) == "S" for pid in server.children()):
            return False
        # What the workers had to tell has been sent; once it waits again, the listener has read it.
        return state(server.process.pid) == "S"

    wait_until(settled, "all workers wait")


def the_server_of(server: Server) -> int:
    """The process of the only client."""
    (pid,) = wait_until(
        lambda: (pids := busy(server)) and len(pids) == 1 and pids, "one process with a client"
    )
    return pid


class State:
    """What the kernel says about a process, as far as a session could change it."""

    def __init__(self, pid: int):
        folder = Path(f"/proc/{pid}")
        status = (folder / "status").read_text()
        self.directory = os.readlink(folder / "cwd")
        self.umask = re.search(r"^Umask:\s+(\d+)", status, re.MULTILINE)[1]
        self.signals = re.findall(r"^(Sig(?:Blk|Ign|Cgt)):\s+(\w+)", status, re.MULTILINE)
        self.ids = re.findall(r"^([UG]id|Groups):\s+(.*)$", status, re.MULTILINE)
        self.descriptors = {int(name) for name in os.listdir(folder / "fd")}
        self.limits = (folder / "limits").read_text()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))


def one_session(server: Server, account: Account) -> int:
    """Log in and out; the pid of the process that served it."""
    with server.client().login(account) as client:
        pid = the_server_of(server)
        assert client.ask("QUIT") == "+OK Bye-bye."
        assert client.rest() == b""
    idle(server)
    return pid


@pytest.mark.parametrize("prefork", [[], ["-prefork=1"]])
def test_a_worker_serves_as_many_sessions_as_it_may_and_then_another_does(serve, virtual, prefork):
    john, mary, options = virtual
    server = serve("-uses=3", *prefork, *options)
    pids = [one_session(server, account) for account in (john, mary, john, mary, john, john)]
    assert len(set(pids[:3])) == 1
    assert len(set(pids[3:])) == 1
    assert pids[0] != pids[3]
    assert f"/proc/{pids[0]}" not in [f"/proc/{pid}" for pid in server.children()]


def test_without_uses_each_session_has_a_process_of_its_own(serve, virtual):
    john, _, options = virtual
    server = serve("-prefork=2", *options)
    pids = [one_session(server, john) for _ in range(4)]
    assert len(set(pids)) == 4


def test_a_worker_goes_on_after_sessions_that_end_badly(serve, virtual):
    john, mary, options = virtual
    server = serve("-uses=20", *options, env={"POP3_FAILURE_DELAY": "0"})
    pids = {one_session(server, john)}
    client = server.client()  # leaves before it says a word
    assert client.line() == GREETING
    client.close()
    idle(server)
    with server.client() as client:  # wrong password, no QUIT
        client.line()
        client.ask("USER john")
        assert client.ask("PASS wrong") == "-ERR Login failed."
    idle(server)
    with server.client().login(john):  # no QUIT
        pass
    idle(server)
    john.maildir.rename(john.home / "away")
    with server.client() as client:  # no Maildir
        client.line()
        client.ask("USER john")
        assert client.ask("PASS " + john.password) == "-ERR chdir ./Maildir failed"
        assert client.rest() == b""
    idle(server)
    pids.add(one_session(server, mary))
    assert len(pids) == 1


def test_1939_08_the_next_client_is_not_logged_in(serve, virtual):
    john, _, options = virtual
    john.deliver(b"Subject: one\n\n")
    server = serve("-uses=9", *options)
    pid = one_session(server, john)
    with server.client() as client:
        assert client.line() == GREETING
        assert the_server_of(server) == pid
        for command in ("STAT", "RETR 1", "DELE 1", "LIST"):
            assert client.ask(command) == "-ERR Invalid command."
        assert client.ask("PASS " + john.password) == "-ERR USER/PASS required."
        assert client.ask("QUIT") == "+OK Better luck next time."
    assert len(john.files()) == 1


def test_the_name_of_an_unfinished_login_is_forgotten(serve, virtual):
    john, _, options = virtual
    server = serve("-uses=9", *options, env={"POP3_FAILURE_DELAY": "0"})
    with server.client() as client:
        assert client.line() == GREETING
        assert client.ask("USER john") == "+OK Password required."
        pid = the_server_of(server)
    idle(server)
    with server.client() as client:
        assert client.line() == GREETING
        assert the_server_of(server) == pid
        assert client.ask("PASS " + john.password) == "-ERR USER/PASS required."
    idle(server)
    with server.client() as client:  # and a failed one's, with all that the login program keeps
        client.line()
        client.ask("USER john")
        assert client.ask("PASS wrong") == "-ERR Login failed."
        assert the_server_of(server) == pid
    idle(server)
    with server.client() as client:
        assert client.line() == GREETING
        assert client.ask("QUIT") == "+OK Better luck next time."
    server.logged(rf"INFO: LOGOUT, {PEER}")


def test_the_deadline_of_the_login_is_new_for_each_client(serve, virtual):
    """AUTHEXPIRE of a session that took its time doesn't end the next one early."""
    john, _, options = virtual
    server = serve("-uses=9", *options, env={"POP3_LOGIN_TIMEOUT": "1"})
    with server.client() as client:
        assert client.rest() == GREETING
    idle(server)
    assert one_session(server, john)


def test_half_a_command_of_one_client_is_not_the_beginning_of_the_nexts(serve, virtual):
    john, mary, options = virtual
    john.deliver(b"Subject: one\n\n")
    server = serve("-uses=9", *options)
    with server.client() as client:
        client.line()
        client.send(b"USER john\r\nPASS " + john.password.encode())
        pid = the_server_of(server)
    idle(server)
    with server.client().login(john) as client:
        assert the_server_of(server) == pid
        client.send(b"DELE 1\r\nQUI")
        assert client.line() == b"+OK Deleted.\r\n"
    idle(server)
    with server.client().login(john) as client:
        assert the_server_of(server) == pid
        client.send(b"T\r\n")
        assert client.line() == b"-ERR Invalid command.\r\n"
        assert client.ask("STAT") == "+OK 1 16"


def test_utf8_of_one_client_is_not_the_nexts(serve, virtual):
    """RFC 6856: whoever has not said UTF8 gets the wrapped message."""
    john, mary, options = virtual
    mary.deliver(UNICODE)
    server = serve("-uses=9", *options)
    with server.client() as client:  # before a login that comes to nothing
        client.line()
        assert client.ask("UTF8") == "+OK UTF8 enabled"
        assert client.ask("QUIT") == "+OK Better luck next time."
    idle(server)
    for said in ("before", "after"):
        with server.client() as client:
            client.line()
            pid = the_server_of(server)
            if said == "before":
                assert client.ask("UTF8") == "+OK UTF8 enabled"
            client.ask("USER mary")
            assert client.ask("PASS " + mary.password) == "+OK logged in."
            if said == "after":
                assert client.ask("UTF8") == "+OK UTF8 enabled"
            assert client.listing("RETR 1") == UNICODE.decode().split("\n")[:-1]
            client.ask("QUIT")
        idle(server)
        with server.client().login(mary) as client:
            assert the_server_of(server) == pid
            lines = client.listing("RETR 1")
            assert "Subject: Cannot display Unicode content" in lines
            assert client.ask("QUIT") == "+OK Bye-bye."
        idle(server)


def test_maildir_and_options_of_one_account_are_not_the_nexts(serve, virtual, accounts):
    john, mary, options = virtual
    other = john.home / "Other"
    john.maildir.rename(other)
    john.maildir.mkdir()
    fields = {"uid": john.uid, "gid": john.gid, "systempw": sha("x")}
    accounts.record("elsewhere", **fields, home=john.home, mail=other)
    accounts.record("closed", **fields, home=john.home, mail=other, options="disablepop3=1")
    mary.deliver(b"Subject: mary's\n\n")
    (other / "cur" / "1700000009.x.host:2,").write_bytes(b"Subject: john's\n\nlonger\n")
    for path in other.rglob("*"):
        os.chown(path, john.uid, john.gid)
    server = serve("-uses=30", *options)
    for _ in range(2):
        with server.client() as client:
            client.line()
            client.ask("USER elsewhere")
            assert client.ask("PASS x") == "+OK logged in."
            assert client.listing("RETR 1") == ["Subject: john's", "", "longer"]
            client.ask("QUIT")
        with server.client() as client:
            client.line()
            client.ask("USER closed")
            assert client.ask("PASS x") == "-ERR POP3 access disabled for this account."
        with server.client().login(mary) as client:
            assert client.listing("RETR 1") == ["Subject: mary's", ""]
            client.ask("QUIT")
        idle(server)
    for name in ("elsewhere", "mary"):
        server.logged(rf"INFO: LOGOUT, user={name}, {PEER}, .*")


def test_the_process_is_as_before_after_a_session(serve, virtual):
    """Directory, umask, signals, ids, descriptors and limits of the worker between clients."""
    john, mary, options = virtual
    for number in range(3):
        john.deliver(b"Subject: %d\n\n" % number)
    server = serve("-uses=9", "-prefork=1", *options, env={"POP3_FAILURE_DELAY": "0"})
    (pid,) = wait_until(server.children, "a worker")
    wait_until(lambda: max(State(pid).descriptors) < 10, "the worker has settled")
    before = State(pid)
    with server.client() as client:
        client.line()
        client.ask("USER john")
        assert client.ask("PASS wrong") == "-ERR Login failed."
        client.ask("USER john")
        assert client.ask("PASS " + john.password) == "+OK logged in."
        assert the_server_of(server) == pid
        assert State(pid).directory == str(john.maildir)
        client.listing("RETR 1")
        assert client.ask("DELE 2") == "+OK Deleted."
        assert client.ask("QUIT") == "+OK Bye-bye."
    idle(server)
    after = State(pid)
    assert after.directory == before.directory
    assert after.umask == before.umask
    assert after.signals == before.signals
    assert after.ids == before.ids
    assert after.descriptors <= before.descriptors
    assert after.limits == before.limits
    assert one_session(server, mary) == pid
    assert State(pid) == after


def test_the_environment_of_a_session_is_new(serve, virtual, script, public, accounts):
    """What a foreign program finds behind a worker's second session, with nothing of the first."""
    john, mary, options = virtual
    public.chmod(0o777)
    dump = script("dump", f"#!/bin/sh\nenv > {public}/env\nls -l /proc/self/fd > {public}/fds\n")
    stages = ["courierpop3login", "authuserdb", dump, "./Maildir"]
    server = serve("-uses=9", *options, stages=stages, env={"POP3_FAILURE_DELAY": "0"})
    accounts.userdb.chmod(0o666)  # so that the first is refused before it comes to the dump
    with server.client() as client:
        client.line()
        client.ask("UTF8")
        client.ask("USER john")
        first_port = client.socket.getsockname()[1]
        assert client.ask("PASS " + john.password) == "-ERR Login failed."
        pid = the_server_of(server)
        client.ask("QUIT")
    idle(server)
    accounts.userdb.chmod(0o600)
    with server.client() as client:
        assert client.line() == GREETING
        assert the_server_of(server) == pid
        second_port = client.socket.getsockname()[1]
        client.ask("USER mary")
        client.ask("PASS " + mary.password)
        assert client.rest() == b""
    text = (public / "env").read_text()
    env = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert env["AUTHENTICATED"] == env["AUTHADDR"] == "mary"
    assert env["UTF8"] == "0"
    assert env["TCPREMOTEPORT"] == str(second_port) != str(first_port)
    assert env["HOME"] == str(mary.home)
    assert "john" not in text and str(first_port) not in text.replace(str(second_port), "")
    descriptors = [line.split()[-3] for line in (public / "fds").read_text().splitlines()[1:]]
    assert set(descriptors) <= {"0", "1", "2", "3", "4"}


def test_with_stderr_socket_a_client_sees_the_end_of_its_session(serve, virtual):
    """The worker lets go of the first client's connection, of descriptor 2 too."""
    john, mary, options = virtual
    server = serve("-uses=9", "-stderr=socket", *options)
    with server.client() as client:
        client.socket.settimeout(3)
        assert client.line().startswith(b"DEBUG: Connection")
        client.send(b"QUIT\r\n")
        lines = client.rest().splitlines()
        assert lines[:2] == [GREETING.rstrip(), b"+OK Better luck next time."]
        client.socket.close()
    with server.client() as client:
        assert client.line().startswith(b"DEBUG: Connection")
        assert client.line() == GREETING


def test_uses_works_in_a_directory_that_the_user_may_not_enter(serve, virtual, public):
    """Started by root in root's private home, say."""
    john, mary, options = virtual
    private = public / "private"
    private.mkdir(mode=0o700)
    here = os.getcwd()
    os.chdir(private)
    try:
        server = serve("-uses=5", *options)
    finally:
        os.chdir(here)
    pids = [one_session(server, account) for account in (john, mary, john)]
    assert len(set(pids)) == 1


def test_several_clients_at_once_have_a_worker_each(serve, virtual):
    john, mary, options = virtual
    john.deliver(b"Subject: one\n\n")
    mary.deliver(b"Subject: two, longer\n\n")
    server = serve("-uses=50", "-prefork=1", "-maxperip=20", *options)
    for _ in range(3):
        with ExitStack() as stack:
            johns = [stack.enter_context(server.client().login(john)) for _ in range(3)]
            marys = [stack.enter_context(server.client().login(mary)) for _ in range(3)]
            assert len({socket_of(pid) for pid in busy(server)}) == 6
            assert [client.ask("STAT") for client in johns] == ["+OK 1 16"] * 3
            assert [client.ask("STAT") for client in marys] == ["+OK 1 24"] * 3
            for client in johns + marys:
                assert client.ask("QUIT") == "+OK Bye-bye."
        idle(server)
    assert len(server.children()) <= 7  # they are used again, not forked anew


def test_a_killed_worker_is_replaced(serve, virtual):
    john, mary, options = virtual
    server = serve("-uses=9", "-prefork=2", *options)
    first = set(wait_until(lambda: len(server.children()) == 2 and server.children(), "workers"))
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: len(server.children()) == 2 and not first & set(server.children()), "new workers"
    )
    assert one_session(server, john) not in first
    with server.client().login(john) as client:
        os.kill(the_server_of(server), signal.SIGKILL)
        assert client.rest() == b""
    idle(server)
    assert one_session(server, mary)


def test_uses_1_needs_no_user(serve, john):
    server = serve("-uses=1")
    assert one_session(server, john)


def test_an_account_of_another_uid_is_refused_and_said_so(serve, virtual, accounts):
    """One process can't become another user, and must not serve that one's mail as someone else."""
    needs_root()
    john, _, options = virtual
    other = accounts.add("other")
    other.deliver(b"Subject: other's\n\n")
    server = serve("-uses=9", *options)
    with server.client() as client:
        client.line()
        client.ask("USER other")
        answer = client.ask("PASS " + other.password)
        assert answer == "-ERR Temporary problem, please try again later"
        assert client.rest() == b""
    server.logged(r"ERR: (authuserdb: )?user=other: .*")
    assert stat.S_IMODE(other.maildir.stat().st_mode) & 0o777
    assert list((other.maildir / "cur").iterdir()) == []
    assert one_session(server, john)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_beyond_prefork_die_with_the_listener(serve, virtual, number):
    john, _, options = virtual
    server = serve("-uses=9", "-prefork=1", "-maxperip=20", *options)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(6)]
        assert [client.line() for client in clients] == [GREETING] * 6
    idle(server)
    workers = server.children()
    assert len(workers) >= 6
    server.process.send_signal(number)
    server.process.wait(DEADLINE)
    wait_until(lambda: all(state(pid) == "Z" for pid in workers), "the workers end")


def test_prefork_has_workers_ready_before_the_first_client(serve, john):
    """Also as root: such a worker serves one session, and is replaced."""
    server = serve("-prefork=3")
    first = wait_until(lambda: len(server.children()) == 3 and server.children(), "3 workers")
    pid = one_session(server, john)
    assert pid in first
    wait_until(lambda: len(server.children()) == 3, "3 workers")
    assert pid not in server.children()


# As root


@pytest.fixture
def people(accounts):
    """john and mary, with a uid of their own each."""
    needs_root()
    return accounts.add("john"), accounts.add("mary")


def owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def refused(server: Server, account: Account) -> str:
    """The reply to the right password of somebody who can't be served."""
    with server.client() as client:
        assert client.line() == GREETING
        assert client.ask(f"USER {account.name}") == "+OK Password required."
        answer = client.ask(f"PASS {account.password}")
        assert client.rest() == b""
    idle(server)
    return answer


@pytest.mark.parametrize("prefork", [[], ["-prefork=2"]])
def test_CVE_37_as_root_a_process_serves_one_user_only(serve, people, prefork):
    john, mary = people
    subjects = {john: "john's", mary: "mary's, longer"}
    for account, subject in subjects.items():
        account.deliver(f"Subject: {subject}\n\n".encode())
    server = serve("-uses=20", *prefork)
    served: dict[Account, set[int]] = {john: set(), mary: set()}
    for account in (john, mary, john, john, mary):
        with server.client().login(account) as client:
            pid = the_server_of(server)
            now = State(pid)
            ids = {name: value.split() for name, value in now.ids}
            assert ids["Uid"] == [str(account.uid)] * 4
            assert ids["Gid"] == [str(account.gid)] * 4
            assert ids["Groups"] == [str(account.gid)]
            assert now.directory == str(account.maildir)
            assert client.listing("RETR 1") == [f"Subject: {subjects[account]}", ""]
            served[account].add(pid)
            assert client.ask("QUIT") == "+OK Bye-bye."
        idle(server)
    assert len(served[john]) == len(served[mary]) == 1
    assert not served[john] & served[mary]


@pytest.mark.parametrize("octets", [0, 9000])
def test_as_root_a_users_process_ends_after_as_many_sessions_as_it_may(serve, people, octets):
    """However large the environment is that a session has with it."""
    john, _ = people
    server = serve("-uses=3", env={"SITE": "x" * octets})
    pids = [one_session(server, john) for _ in range(12)]
    assert max(map(pids.count, pids)) <= 3
    assert len(set(pids)) < 12


@pytest.mark.parametrize("most", [1, 2, 9])
def test_no_more_processes_wait_than_may_and_who_waited_longest_goes(serve, people, most):
    """Of three: one that logs people in, and two of users."""
    john, mary = people
    server = serve("-uses=20", f"-maxidle={most}")
    for account in (john, mary, john, mary):
        last = one_session(server, account)
    wait_until(lambda: len(server.children()) == min(most, 3), "as many as may wait")
    assert last in server.children()


def test_as_root_sessions_of_one_user_at_once_have_a_process_each(serve, people):
    john, mary = people
    server = serve("-uses=20", "-maxperip=10")
    one_session(server, john)
    with server.client().login(john) as one, server.client().login(john) as two:
        with server.client().login(mary) as three:
            expected = sorted([john.uid, john.uid, mary.uid])
            wait_until(lambda: sorted(map(owner, busy(server))) == expected, "three processes")
            assert len({socket_of(pid) for pid in busy(server)}) == 3
            for client in (one, two, three):
                assert client.ask("QUIT") == "+OK Bye-bye."


def test_2449_08_as_root_what_was_sent_ahead_reaches_the_users_process(serve, people):
    john, _ = people
    john.deliver(b"Subject: one\n\n")
    server = serve("-uses=20")
    ahead = f"USER john\r\nPASS {john.password}\r\nSTAT\r\nNOOP\r\nQUIT\r\n".encode()
    for _ in range(2):
        with server.client() as client:
            client.send(ahead)
            assert client.rest().endswith(b"+OK 1 16\r\n+OK Yup.\r\n+OK Bye-bye.\r\n")
        idle(server)


def test_as_root_utf8_and_the_account_are_those_of_the_session(serve, people, accounts):
    """What the module has found out goes to the user's process anew each time."""
    john, _ = people
    other = john.home / "Other"
    for folder in ("new", "cur", "tmp"):
        (other / folder).mkdir(parents=True)
    (other / "cur" / "1700000009.x.host:2,").write_bytes(UNICODE)
    john.own()
    fields = {"uid": john.uid, "gid": john.gid, "home": john.home, "systempw": sha("x")}
    accounts.record("elsewhere", **fields, mail=other)
    accounts.record("closed", **fields, options="disablepop3=1")
    server = serve("-uses=20")
    pids = set()
    for _ in range(2):
        for utf8 in (True, False):
            with server.client() as client:
                client.line()
                if utf8:
                    assert client.ask("UTF8") == "+OK UTF8 enabled"
                client.ask("USER elsewhere")
                assert client.ask("PASS x") == "+OK logged in."
                pids.add(the_server_of(server))
                wrapped = "Subject: Cannot display Unicode content" in client.listing("RETR 1")
                assert wrapped != utf8
            idle(server)
        with server.client() as client:
            client.line()
            client.ask("USER closed")
            assert client.ask("PASS x") == "-ERR POP3 access disabled for this account."
        idle(server)
        pids.add(one_session(server, john))
    assert len(pids) == 1
    for name in ("elsewhere", "john"):
        server.logged(rf"INFO: LOGIN, user={name}, {PEER}")


def test_as_root_a_killed_process_gives_its_place_back(serve, people):
    john, mary = people
    server = serve("-uses=20", "-maxprocs=2", "-maxperip=2")
    for _ in range(3):
        with server.client().login(john) as client:
            os.kill(the_server_of(server), signal.SIGKILL)
            assert client.rest() == b""
        idle(server)
        with server.client() as client:
            assert client.line() == GREETING
            os.kill(the_server_of(server), signal.SIGKILL)
            assert client.rest() == b""
        idle(server)
    with server.client().login(john) as one, server.client().login(mary) as two:
        assert one.ask("QUIT") == two.ask("QUIT") == "+OK Bye-bye."


def test_F_KILL_5_as_root_all_processes_end_with_the_listener(serve, people):
    john, mary = people
    server = serve("-uses=20", "-prefork=1")
    for account in (john, mary):
        one_session(server, account)
    with server.client().login(john) as client:
        workers = server.children()
        assert {owner(pid) for pid in workers} == {0, john.uid, mary.uid}
        server.process.kill()
        server.process.wait(DEADLINE)
        waiting = [pid for pid in workers if not socket_of(pid)]
        wait_until(lambda: all(state(pid) == "Z" for pid in waiting), "idle workers end")
        assert client.ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: all(state(pid) == "Z" for pid in workers), "all workers end")


@pytest.mark.parametrize("harm", ["no interpreter", "no home"])
def test_as_root_a_process_that_became_a_user_in_vain_logs_nobody_in_any_more(
    serve, people, script, harm
):
    """The program behind the module is a foreign one, so the process that asked for the password
    becomes the user, and then can't go on. Else john's process would hear mary's password."""
    john, mary = people
    interpreter = "/nowhere/sh" if harm == "no interpreter" else "/bin/sh"
    last = script("last", f"#!{interpreter}\nexit 0\n")
    if harm == "no home":
        john.home.rename(john.home.with_name("away"))
    stages = ["courierpop3login", "authuserdb", last, "./Maildir"]
    server = serve("-uses=20", stages=stages)
    expected = "-ERR Temporary problem, please try again later"
    assert refused(server, john) == expected
    assert {owner(pid) for pid in server.children()} <= {0}
    assert refused(server, mary) == (expected if harm == "no interpreter" else "")
    assert not [line for line in server.lines() if "not started as root" in line]


def parent_of_nobody(monkeypatch, started: list[bytes]) -> children.Children:
    """The listener's side, where no process is ever started: only noted whose it would be."""
    monkeypatch.setattr(children.Children, "_fork", lambda self, key, *_: started.append(key))
    return children.Children(
        lambda *ends: 0,
        Limits(9, 9, 9),
        prefork=0,
        uses=9,
        most_idle=9,
        watch=lambda channel, child: None,
        unwatch=lambda channel: None,
    )


def test_a_worker_that_ends_without_having_read_its_message_does_not_end_the_listener(monkeypatch):
    """Then the kernel says ECONNRESET for the channel, once, instead of its end."""
    parent = parent_of_nobody(monkeypatch, [])
    for key in (b"", b"20001 20001 john"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.send(b"a client")
        theirs.close()
        child = children.Child(os.getpid(), ours, key)
        parent.heard(child)
        assert child.channel is None  # hung up


@pytest.mark.parametrize("uses", [2, 3])
def test_sessions_without_a_pause_between_them_are_all_served(serve, accounts, uses):
    """A worker that has served its last session must not be offered one more."""
    users = [accounts.add(f"user{number}") for number in range(2)]
    server = serve(f"-uses={uses}", "-maxperip=20")
    failures: list[str] = []

    def sessions(account: Account) -> None:
        try:
            for _ in range(60):
                with server.client().login(account) as client:
                    assert client.ask("QUIT") == "+OK Bye-bye."
        except (AssertionError, OSError) as why:
            failures.append(f"{type(why).__name__}: {why}")

    threads = [threading.Thread(target=sessions, args=(users[n % 2],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert server.process.poll() is None
    assert not [line for line in server.lines() if line.startswith("ERR")]


@pytest.mark.parametrize("message", [b"20002 20002 mary", worker.STAYS + b"0 0 root"])
def test_CVE_37_a_process_of_a_user_has_nothing_delivered_to_another_one(monkeypatch, message):
    """Whoever has taken over a user's process can write anything on its channel. The listener,
    which is root, must take from there that a session is over, and nothing else."""
    started: list[bytes] = []
    parent = parent_of_nobody(monkeypatch, started)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        child = children.Child(os.getpid(), ours, b"20001 20001 john")
        child.address = bytes(16)
        socket.send_fds(theirs, [message], [theirs.fileno(), theirs.fileno()])
        try:
            parent.heard(child)
        except (AttributeError, KeyError):
            pass  # no limit was taken, and nothing is there to be given to
    assert started == []
