"""The line that the product is for, seen from outside: couriertcpd, login, modules, courierpop3d.

All of it three ways: resident stages, -coldexec, and -prefork=4.
"""

from __future__ import annotations

import os

import pytest

from tests.conftest import BIN, DEADLINE, needs, needs_root, sha, wait_until

MAIL = b"Subject: one\n\nfirst line\n.dot\n"
SENT = b"Subject: one\r\n\r\nfirst line\r\n..dot\r\n.\r\n"


def test_1939_01_13_greeting_wrong_password_and_right_one(serve, any_mode, john):
    server = serve(*any_mode)
    with server.client() as client:
        assert client.line() == b"+OK Hello there.\r\n"
        assert client.ask("user john") == "+OK Password required."
        assert client.ask("PASS wrong") == "-ERR Login failed."
        assert client.ask("PASS " + john.password) == "-ERR USER/PASS required."
        assert client.ask("USER john") == "+OK Password required."
        assert client.ask("PASS " + john.password) == "+OK logged in."
        assert client.ask("QUIT") == "+OK Bye-bye."
        assert client.line() == b""


def test_mail_is_listed_fetched_and_deleted(serve, any_mode, john):
    john.deliver(MAIL)
    john.deliver(b"Subject: two\n\n")
    server = serve(*any_mode)
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 2 50"
        assert client.listing("LIST") == ["1 34", "2 16"]
        assert client.ask("RETR 1") == "+OK 34 octets follow."
        assert b"".join(iter(client.line, b".\r\n")) + b".\r\n" == SENT
        assert client.ask("DELE 1") == "+OK Deleted."
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert len(john.files()) == 1


def test_2449_08_everything_in_one_packet_reaches_its_stage(serve, any_mode, john):
    john.deliver(MAIL)
    server = serve(*any_mode)
    with server.client() as client:
        client.send(f"USER john\r\nPASS {john.password}\r\nSTAT\r\nDELE 1\r\nQUIT\r\n".encode())
        assert client.rest() == (
            b"+OK Hello there.\r\n+OK Password required.\r\n+OK logged in.\r\n"
            b"+OK 1 34\r\n+OK Deleted.\r\n+OK Bye-bye.\r\n"
        )
    assert john.files() == []


def test_ROB_01_one_byte_at_a_time(serve, any_mode, john):
    server = serve(*any_mode)
    with server.client() as client:
        for octet in f"USER john\r\nPASS {john.password}\r\nNOOP\r\nQUIT\r\n".encode():
            client.send(bytes([octet]))
        assert client.rest().endswith(b"+OK logged in.\r\n+OK Yup.\r\n+OK Bye-bye.\r\n")


def test_1939_14_a_password_keeps_its_spaces(serve, any_mode, accounts):
    account = accounts.add("spaced")
    accounts.record(
        "blank", uid=account.uid, gid=account.gid, home=account.home, systempw=sha("  a b  ")
    )
    server = serve(*any_mode)
    with server.client() as client:
        client.line()
        client.ask("USER blank")
        assert client.ask("PASS   a b  ") == "+OK logged in."


def test_1939_08_12_43_what_belongs_after_login_and_what_is_not_offered_is_refused(
    serve, any_mode, john
):
    server = serve(*any_mode)
    with server.client() as client:
        client.line()
        for command in ("STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "RSET", "TOP 1 1", "UIDL", ""):
            assert client.ask(command) == "-ERR Invalid command."
        assert client.ask("APOP john c4c9334bac560ecc979e58001b3e22fb") == "-ERR Invalid command."
        assert client.ask("PASS x") == "-ERR USER/PASS required."
        assert client.ask("USER") == "-ERR Invalid command."
        assert client.ask("STLS") == "-ERR TLS support not available."


def test_1939_11_quit_before_login(serve, any_mode, john):
    server = serve(*any_mode)
    with server.client() as client:
        client.line()
        assert client.ask("QUIT") == "+OK Better luck next time."
        assert client.line() == b""
    server.logged(r"INFO: LOGOUT, ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]")
    server.logged(r"DEBUG: Disconnected, ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]")


def test_2449_01_02_15_16_capa_is_the_same_for_all_before_and_after_login(serve, any_mode, john):
    server = serve(*any_mode)
    with server.client() as client:
        client.line()
        before = client.listing("CAPA")
        client.ask("USER john")
        assert client.listing("CAPA") == before
        client.ask("PASS " + john.password)
        after = client.listing("CAPA")
    assert (
        before
        == after
        == [
            *("TOP", "USER", "LOGIN-DELAY 10", "PIPELINING", "UIDL", "UTF8 USER", "LANG"),
            "IMPLEMENTATION Courier Mail Server",
        ]
    )


def test_the_log_tells_connection_failure_login_and_logout(serve, any_mode, john):
    server = serve(*any_mode)
    with server.client() as client:
        client.line()
        client.ask("USER john")
        client.ask("PASS wrong")
        client.ask("USER john")
        client.ask("PASS " + john.password)
        client.ask("QUIT")
    peer = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
    server.logged(rf"DEBUG: Connection, {peer}")
    server.logged(rf"INFO: LOGIN FAILED, user=john, {peer}")
    server.logged(rf"INFO: LOGIN, user=john, {peer}")
    server.logged(rf"INFO: LOGOUT, user=john, {peer}, top=0, retr=0, rcvd=6, sent=30, time=\d+")


def test_the_server_runs_as_the_user_and_nothing_else_stays_open(serve, process_mode, john):
    """AUTHCHAIN-03, AUTHCHAIN-05: ids, groups and descriptors of the serving process."""
    needs_root()
    server = serve(*process_mode)
    with server.client().login(john):
        pid = wait_until(
            lambda: next((p for p in server.children() if os.stat(f"/proc/{p}").st_uid), 0),
            "a child that has become the user",
        )
        status = dict(
            line.split(":\t", 1)
            for line in open(f"/proc/{pid}/status").read().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == [str(john.uid)] * 4
        assert status["Gid"].split() == [str(john.gid)] * 4
        assert status["Groups"].split() == [str(john.gid)]
        kept = {4, 5} if "-uses=5" in process_mode else set()  # the channel, and a copy of 2
        assert {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")} == {0, 1, 2} | kept
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert john.password.encode() not in file.read()


@pytest.mark.parametrize("order", [("authuserdb", "authpwd"), ("authpwd", "authuserdb")])
def test_modules_in_either_order_find_the_user(serve, any_mode, john, order):
    server = serve(*any_mode, stages=["courierpop3login", *order, "courierpop3d", "./Maildir"])
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"


def test_a_shell_script_can_be_a_module(serve, any_mode, john, script):
    """It reads the record, lets itself be convinced by one password, and does all by hand."""
    needs("setpriv")
    module = script(
        "authsesame",
        f"""#!/bin/sh
        {{ read service; read type; read user; read password; }} <&3
        exec 3<&-
        if [ "$type/$password" = login/sesame ]; then
            cd {john.home}
            export AUTHENTICATED=$user AUTHADDR=$user MAILDIR= MAILDIRQUOTA= OPTIONS=
            exec setpriv --reuid={john.uid} --regid={john.gid} --clear-groups "$@"
        fi
        printf '%s\\n%s\\n%s\\n%s\\n\\n' "$service" "$type" "$user" "$password" |
            {{ exec 3<&0; exec "$@" <&4; }} 4<&0
        """
        if os.geteuid() == 0
        else f"""#!/bin/sh
        {{ read service; read type; read user; read password; }} <&3
        exec 3<&-
        cd {john.home}
        export AUTHENTICATED=$user AUTHADDR=$user MAILDIR= MAILDIRQUOTA= OPTIONS=
        exec "$@"
        """,
    )
    server = serve(*any_mode, stages=["courierpop3login", module, "courierpop3d", "./Maildir"])
    with server.client() as client:
        client.line()
        client.ask("USER anybody")
        assert client.ask("PASS sesame") == "+OK logged in."
        assert client.ask("QUIT") == "+OK Bye-bye."
    server.logged(r"INFO: LOGOUT, user=anybody, .*")


def test_maildir_of_the_account_beats_the_argument(serve, any_mode, accounts):
    account = accounts.add("elsewhere", listed=False)
    account.deliver(MAIL)
    account.maildir.rename(account.home / "Other")
    accounts.record(
        "elsewhere",
        uid=account.uid,
        gid=account.gid,
        home=account.home,
        mail=account.home / "Other",
        systempw=sha(account.password),
    )
    server = serve(*any_mode)
    with server.client().login(account) as client:
        assert client.ask("STAT") == "+OK 1 34"


def test_debians_courierpop3d_as_the_last_program(serve, any_mode, john):
    original = "/usr/lib/courier/courier/courierpop3d"
    needs(original)
    john.deliver(MAIL)
    server = serve(*any_mode, stages=["courierpop3login", "authuserdb", original, "./Maildir"])
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 1 34"
        assert client.ask("QUIT") == "+OK Bye-bye."


def test_our_chain_behind_debians_couriertcpd(serve, john):
    tcpd = needs("/usr/sbin/couriertcpd")
    john.deliver(MAIL)
    stages = [BIN / "courierpop3login", "authuserdb", "courierpop3d", "./Maildir"]
    server = serve(tcpd=tcpd, stages=stages)
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 1 34"
        assert client.ask("QUIT") == "+OK Bye-bye."
    server.logged(r"INFO: LOGOUT, user=john, ip=\[::ffff:127\.0\.0\.1\], .*")


def test_the_login_phase_ends_after_its_time(serve, any_mode, john):
    """F-NET-1: silent connections are cut, others get in meanwhile."""
    server = serve(*any_mode, "-maxperip=20", env={"POP3_LOGIN_TIMEOUT": "1"})
    silent = [server.client() for _ in range(10)]
    with server.client().login(john) as client:
        for other in silent:
            other.socket.settimeout(DEADLINE)
            assert other.rest() == b"+OK Hello there.\r\n"
        assert client.ask("NOOP") == "+OK Yup."
