"""-maxfailsperip, -maxfailsperuser: who fails to log in too often is refused, however processes are
started (conformance CVE-08)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import pytest

from tests.chain.test_access import connect, told
from tests.conftest import BIN, DEADLINE, Client, Server, needs_root, wait_until

GREETING = b"+OK Hello there.\r\n"
REFUSED = b"-ERR Too many failed logins, please try again later.\r\n"
QUICK = {"POP3_FAILURE_DELAY": "0"}
EXPORT = """#!/bin/sh
echo "$COURIER_THROTTLE" > {0}.tmp && mv {0}.tmp {0}
exec courierpop3login "$@"
"""


def client_from(server: Server, address: str) -> Client:
    client = Client(server.port)
    client.close()
    client.socket = connect(server, address)
    client.file = client.socket.makefile("rb")
    return client


def try_password(client: Client, user: str, password: str) -> str:
    assert client.ask(f"USER {user}") == "+OK Password required."
    return client.ask(f"PASS {password}")


def fail(server: Server, user: str, times: int, address: str = "127.0.0.1") -> None:
    with client_from(server, address) as client:
        assert client.line() == GREETING
        for _ in range(times):
            assert try_password(client, user, "wrong") == "-ERR Login failed."


def log_in(server: Server, account, address: str = "127.0.0.1") -> str:
    with client_from(server, address) as client:
        assert client.line() == GREETING
        return try_password(client, account.name, account.password)


def count(server: Server, line: str) -> int:
    return server.lines().count(line)


def test_CVE_08_without_the_options_nothing_is_counted(serve, any_mode, john):
    server = serve(*any_mode, env=QUICK)
    fail(server, "john", 12)
    assert log_in(server, john) == "+OK logged in."


def test_CVE_08_an_address_that_failed_too_often_gets_no_process(serve, any_mode, john):
    server = serve(*any_mode, "-maxfailsperip=3", env=QUICK)
    fail(server, "john", 2)
    assert log_in(server, john) == "+OK logged in."
    fail(server, "mary", 1)
    for _ in range(3):
        assert told(server) == REFUSED
    assert count(server, "ALERT: Too many failed logins from ::ffff:127.0.0.1") == 1
    assert log_in(server, john, "127.0.0.2") == "+OK logged in."


def test_CVE_08_a_connection_that_is_open_already_has_no_more_tries(serve, any_mode, john):
    server = serve(*any_mode, "-maxfailsperip=2", env=QUICK)
    with server.client() as client:
        assert client.line() == GREETING
        fail(server, "john", 2)
        assert try_password(client, "john", john.password) == "-ERR Login failed."
        assert client.ask("QUIT") == "+OK Better luck next time."


def test_CVE_08_an_account_is_locked_for_all_addresses_and_it_does_not_show(
    serve, any_mode, accounts, john, public
):
    mary = accounts.add("mary")
    server = serve(*any_mode, "-maxfailsperuser=3", env=QUICK)
    for number, user in enumerate(["john", "JOHN", "john"], 2):
        fail(server, user, 1, f"127.0.0.{number}")
    assert log_in(server, john) == "-ERR Login failed."
    assert log_in(server, john, "127.0.0.2") == "-ERR Login failed."
    assert log_in(server, mary) == "+OK logged in."
    failed = r"INFO: LOGIN FAILED, user=john, ip=\[::ffff:127.0.0.1\], port=\[\d+\]"
    server.logged(failed)
    assert count(server, "ALERT: Too many failed logins as john") == 1


def test_CVE_08_no_module_is_asked_about_a_locked_account(serve, any_mode, script, public):
    asked = public / "asked"
    asked.touch(mode=0o666)
    module = script("authcount", f'#!/bin/sh\necho >> {asked}\nexec "$@"\n')
    stages = ["courierpop3login", module, "courierpop3d", "./Maildir"]
    server = serve(*any_mode, "-maxfailsperuser=3", stages=stages, env=QUICK)
    fail(server, "john", 5)
    fail(server, "john", 5)
    assert asked.read_text() == 3 * "\n"


def test_CVE_08_the_window_ends_although_somebody_keeps_trying(serve, any_mode, john):
    server = serve(*any_mode, "-maxfailsperuser=2", "-failswindow=2", env=QUICK)
    fail(server, "john", 2)
    wait_until(lambda: log_in(server, john) == "+OK logged in.", "the window is over")


def test_a_module_that_cannot_say_locks_nobody_out(serve, any_mode, accounts, john):
    kept = accounts.userdb.rename(accounts.userdb.with_suffix(".kept"))
    accounts.userdb.mkdir()
    server = serve(*any_mode, "-maxfailsperuser=2", "-maxfailsperip=2", env=QUICK)
    fail(server, "john", 4)
    accounts.userdb.rmdir()
    kept.rename(accounts.userdb)
    assert log_in(server, john) == "+OK logged in."


def test_a_record_of_the_access_file_has_a_limit_of_its_own(serve, any_mode, public, john):
    access = public / "access"
    access.write_text("127.0.0.2\tallow,MAXFAILSPERIP=0\n127.0.0.3\tallow,MAXFAILSPERIP=1\n")
    server = serve(*any_mode, "-maxfailsperip=2", f"-access={access}", env=QUICK)
    for address, most in (("127.0.0.1", 2), ("127.0.0.3", 1)):
        fail(server, "mary", most, address)
        assert told(server, address) == REFUSED
    fail(server, "mary", 6, "127.0.0.2")
    assert log_in(server, john, "127.0.0.2") == "+OK logged in."


def test_CVE_08_an_ipv6_client_is_known_by_its_network(serve, john, tmp_path):
    server = serve("-address=::1", "-maxfailsperip=1", env=QUICK)
    client = Client.__new__(Client)
    client.socket = socket.create_connection(("::1", server.port), DEADLINE)
    client.file = client.socket.makefile("rb")
    with client:
        assert client.line() == GREETING
        assert try_password(client, "john", "wrong") == "-ERR Login failed."
    with socket.create_connection(("::1", server.port), DEADLINE) as again:
        assert again.recv(1000) == REFUSED


@pytest.fixture
def exported(serve, script, public):
    """A listener, and the name of its socket, that a program in its chain has written down."""
    file = public / "name"
    script_path = script("login", EXPORT.format(file))
    stages = [script_path, "authuserdb", "courierpop3d", "./Maildir"]
    env = {**QUICK, "PATH": f"{BIN}:/usr/bin:/bin"}
    server = serve("-maxfailsperip=1", "-maxfailsperuser=1", stages=stages, env=env)
    with server.client() as client:
        assert client.line() == GREETING
    return server, file.read_text().strip()


SAY = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("")
s.connect("\\0" + sys.argv[1])
for word in sys.argv[2:]:
    s.send(bytes.fromhex(word))
s.send(b"try ::ffff:192.0.2.1 - nobody")
s.settimeout(float(sys.stdin.readline()))
print(s.recv(9))
"""


def say(name: str, *messages: bytes, user: int | None = None, patience: float = DEADLINE) -> str:
    words = [message.hex() for message in messages]
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", SAY, name, *words],
        input=f"{patience}\n",
        capture_output=True,
        text=True,
        user=user,
        group=user,
        timeout=DEADLINE * 2,
        check=False,
    )
    return done.stdout


def test_who_has_another_uid_is_not_believed(exported, john):
    needs_root()
    server, name = exported
    lie = b"failed ::ffff:127.0.0.1 - john"
    assert say(name, lie, user=john.uid, patience=1) == ""
    assert say(name) == "b'yes'\n"
    assert log_in(server, john) == "+OK logged in."
    assert say(name, lie) == "b'yes'\n"
    assert told(server) == REFUSED


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"failed", b"failed x - john", b"failed ::1 -", b"failed ::1 - a b", b"\xff" * 99),
        *(b"other ::ffff:127.0.0.1 - john", b"failed ::ffff:127.0.0.1\0 - john", b"f" * 5000),
    ],
)
def test_what_makes_no_sense_is_nothing(exported, message, john):
    server, name = exported
    assert say(name, message) == "b'yes'\n"
    assert log_in(server, john) == "+OK logged in."


def test_a_listener_that_is_silent_or_gone_keeps_nobody_out(serve, john):
    server = serve("-maxfailsperuser=1", "-coldexec", env=QUICK)
    with server.client() as client:
        assert client.line() == GREETING
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            assert try_password(client, "john", "wrong") == "-ERR Login failed."
            assert client.ask("USER john") == "+OK Password required."
        finally:
            server.process.kill()
            server.process.wait()
        assert client.ask(f"PASS {john.password}") == "+OK logged in."


def test_CVE_08_a_listener_that_has_become_a_user_counts_too(serve, any_mode, script):
    needs_root()
    module = script("authnobody", '#!/bin/sh\nexec "$@"\n')
    stages = ["courierpop3login", module, "courierpop3d", "./Maildir"]
    server = serve(*any_mode, "-user=12345", "-maxfailsperip=2", stages=stages, env=QUICK)
    fail(server, "john", 2)
    assert told(server) == REFUSED
