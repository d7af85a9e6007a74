"""The program from outside: descriptors, environment, log, exit status."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from courierpop3d.maildir import CHUNK
from courierpop3d.main import main
from tests.conftest import wait_until

MAIL = b"Subject: test\n\nLine 1\n"
WHO = "user=joe, ip=[192.0.2.7], port=[4711]"
USER = 29999  # as in conftest.py
PEER = {"TCPREMOTEIP": "192.0.2.7", "TCPREMOTEPORT": "4711"}
QUESTION = b"pop3\nlogin\njoe\nsecret\n\n"


def test_a_session_from_login_to_log(box, program):
    box.put("new/1.a", MAIL)
    server = program(**PEER)
    assert server.line() == b"+OK logged in.\r\n"
    assert server.ask("STAT") == b"+OK 1 25\r\n"
    assert len(server.many("RETR 1")) == 3
    assert len(server.many("TOP 1 0")) == 2
    assert len(server.many("CAPA")) == 8
    assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"
    status, log = server.end()
    assert server.line() == b""
    assert status == 0
    login, logout = log
    assert login == f"INFO: LOGIN, {WHO}"
    sent = 16 + 10 + (23 + 25 + 3) + (21 + 17 + 3) + 14  # CAPA is not counted
    counts = rf"top=15, retr=22, rcvd=35, sent={sent}, time=\d+"
    assert re.fullmatch(re.escape(f"INFO: LOGOUT, {WHO}, ") + counts, logout)
    assert box.names() == ["1.a:2,S"]


# Who is served


@pytest.mark.parametrize(
    "record",
    [b"pop3\nauthenticated\njoe\n", b"pop3\nauthenticated\njoe", b"", None],
    ids=["answer", "answer without its LF", "empty", "closed"],
)
def test_a_validated_login_is_served(box, program, record):
    server = program(record=record)
    assert server.line() == b"+OK logged in.\r\n"


@pytest.mark.parametrize(
    "record, user",
    [
        *[(QUESTION, "joe"), (QUESTION, None), (b"pop3\nauthenticated\njim\n", "joe")],
        *[(b"pop3\nauthenticated\njoe\nx\n", "joe"), (b"pop3\nauthenticated\njoe\n", None)],
        *[(b"pop3\nauthenticated\n\n", ""), (b"", None), (None, None), (None, ""), (b"x", "joe")],
        *[(b"pop3\nauthenticated\njoe\0\n", "joe"), (b"x" * 5000, "joe")],
    ],
)
def test_AUTHCHAIN_02_a_login_that_is_not_validated_is_never_served(box, program, record, user):
    box.put("new/1.a", MAIL)
    server = program(record=record, AUTHENTICATED=user)
    assert server.rest() == b""
    status, log = server.end()
    assert status == 1
    assert log[-1] == "AUTHFAILURE"
    assert box.names("new") == ["1.a"]


def test_a_login_that_is_not_validated_starts_the_login_program_again(box, program):
    login = box.home / "login"
    login.write_text('#!/bin/sh\necho "$0" "$@" "$AUTHARGC"\n')
    login.chmod(0o755)
    inside = {"AUTHUSER": "/proc/self/cwd/login", "AUTHARGC": "3"}
    argv = {"AUTHARGV0": "login", "AUTHARGV1": "module", "AUTHARGV2": "./Maildir"}
    server = program(record=QUESTION, AUTHENTICATED="", **inside, **argv)
    assert server.rest().rstrip().endswith(b"login module ./Maildir 3")
    assert server.end()[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
def test_AUTHCHAIN_05_uid_0_is_refused(box, program):
    server = program(uid=0)
    assert server.rest() == b"-ERR Root has no mailbox here.\r\n"
    status, log = server.end()
    assert status == 1
    assert "does not serve root (uid 0)" in log[0]


# Where the mail is


@pytest.mark.parametrize(
    "arguments, maildir, served",
    [
        *[(["./Other"], None, "Other"), (["./Other"], "", "Other"), ([], None, "Maildir")],
        *[(["./Nowhere"], "Other", "Other"), (["./Maildir", "extra"], None, "Maildir")],
    ],
)
def test_MAILDIR_beats_the_argument(box, program, arguments, maildir, served):
    for name in ("Maildir", "Other"):
        for folder in ("cur", "new", "tmp"):
            (box.home / name / folder).mkdir(parents=True, exist_ok=True)
    (box.home / served / "new/1.a").write_bytes(MAIL)
    (box.home / served / "new/2.b").write_bytes(MAIL)
    server = program(*arguments, MAILDIR=maildir)
    server.line()
    assert server.ask("STAT") == b"+OK 2 50\r\n"


def test_a_maildir_that_is_not_there_is_said_with_a_whole_line_end(box, program):
    server = program("./Nowhere")
    assert server.rest() == b"-ERR chdir ./Nowhere failed\r\n"
    assert server.end() == (1, ["chdir ./Nowhere: No such file or directory"])


def test_F_FILE_7_without_cur_the_client_is_told_and_is_back_with_it(box, program):
    (box.path / "cur").rmdir()
    server = program(**PEER)
    assert server.rest() == b"-ERR Maildir invalid (no 'cur' directory)\r\n"
    log = [f"INFO: LOGIN, {WHO}", 'scancur opendir("cur"): No such file or directory']
    assert server.end() == (0, log)
    (box.path / "cur").mkdir()
    assert program().line() == b"+OK logged in.\r\n"


def test_F_FILE_7_an_unreadable_cur_is_none(box, program):
    (box.path / "cur").chmod(0)
    server = program()
    assert server.rest() == b"-ERR Maildir invalid (no 'cur' directory)\r\n"
    (box.path / "cur").chmod(0o700)


def test_F_FILE_13_a_sticky_home_is_locked(box, program):
    box.home.chmod(0o700 | stat.S_ISVTX)
    server = program(**PEER)
    text = b"-ERR Your account is temporarily unavailable (+t bit set on home directory).\r\n"
    assert server.rest() == text
    assert server.end() == (0, [f"INFO: LOCKED, {WHO}"])


def test_a_sticky_maildir_is_not(box, program):
    box.path.chmod(0o700 | stat.S_ISVTX)
    assert program().line() == b"+OK logged in.\r\n"


# Account options


@pytest.mark.parametrize(
    "options, tls, text",
    [
        ("disablepop3=1", "1", b"-ERR POP3 access disabled for this account.\r\n"),
        ("x=y,disablepop3", None, b"-ERR POP3 access disabled for this account.\r\n"),
        ("disableinsecurepop3=1", None, b"-ERR POP3 access disabled via insecure connection.\r\n"),
        ("disableinsecurepop3=1", "0", b"-ERR POP3 access disabled via insecure connection.\r\n"),
    ],
)
def test_a_disabled_account_is_refused_and_nothing_logged(box, program, options, tls, text):
    server = program(OPTIONS=options, POP3_TLS=tls)
    assert server.rest() == text
    assert server.end() == (1, [])


@pytest.mark.parametrize("options, tls", [("disableinsecurepop3=1", "1"), ("disablepop3=0", None)])
def test_an_account_that_is_not_disabled_is_served(box, program, options, tls):
    assert program(OPTIONS=options, POP3_TLS=tls).line() == b"+OK logged in.\r\n"


# The log


@pytest.mark.parametrize(
    "env, who",
    [
        ({"AUTHADDR": "j@d"}, "user=j@d, ip=[127.0.0.1], port=[0]"),
        ({"AUTHADDR": ""}, "user=joe, ip=[127.0.0.1], port=[0]"),
        ({"TCPREMOTEIP": "", "TCPREMOTEPORT": ""}, "user=joe, ip=[], port=[]"),
        ({"POP3_TLS": "1"}, "user=joe, ip=[127.0.0.1], port=[0], stls=1"),
        ({"AUTHADDR": "a, ip=[6.6.6.6]\r\nINFO: b\x1b"}, "user=a..ip=.6.6.6.6...INFO:.b."),
        ({"TCPREMOTEIP": "1], user=x"}, "user=joe, ip=[1...user=x], port=[0]"),
    ],
)
def test_CVE_38_CVE_40_log_fields_are_safe_and_have_courier_s_defaults(box, program, env, who):
    server = program(**env)
    server.line()
    server.send(b"QUIT\r\n")
    login, logout = server.end()[1]
    assert login.startswith(f"INFO: LOGIN, {who}")
    assert logout.startswith("INFO: LOGOUT, user=")
    assert logout.endswith(", stls=1") == ("POP3_TLS" in env)


@pytest.mark.parametrize(
    "setting, logged", [("1", True), ("", True), ("0", False), ("0x", False), (None, False)]
)
def test_deletions_are_logged_when_asked_for(box, program, setting, logged):
    box.put("cur/1.a:2,F S]", MAIL)
    server = program(POP3_LOG_DELETIONS=setting, **PEER)
    server.send(b"DELE 1\r\nQUIT\r\n")
    line = f"INFO: DELETED, {WHO}, filename=cur/1.a:2,F.S."
    assert (line in server.end()[1]) is logged


def test_F_DISK_4_a_log_that_is_gone_disturbs_nobody(box, program, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda path, mode: open("/dev/full", mode))
    server = program()
    assert server.line() == b"+OK logged in.\r\n"
    assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"


# How sessions end


@pytest.fixture
def one(box):
    box.put("cur/1.a:2,", MAIL)
    return box


@pytest.mark.parametrize("ending", [b"", b"QUIT", b"QUIT\r", b"RSE"])
def test_1939_10_ROB_04_ROB_05_F_KILL_2_without_quit_nothing_is_deleted(one, program, ending):
    server = program()
    server.line()
    assert server.ask("DELE 1") == b"+OK Deleted.\r\n"
    server.send(ending)
    server.socket.shutdown(socket.SHUT_WR)
    assert server.rest() == b""
    status, log = server.end()
    assert (status, log[-1].split(",")[0]) == (0, "INFO: DISCONNECTED")
    assert one.names() == ["1.a:2,"]


def test_ROB_03_a_half_close_after_quit_gets_all_replies(one, program):
    server = program()
    server.send(b"STAT\r\nDELE 1\r\nQUIT\r\n")
    server.socket.shutdown(socket.SHUT_WR)
    replies = b"+OK logged in.\r\n+OK 1 25\r\n+OK Deleted.\r\n+OK Bye-bye.\r\n"
    assert server.rest() == replies
    assert one.names() == []


def test_1939_48_2449_13_one_packet_is_carried_out_up_to_quit(one, program):
    one.put("cur/2.b:2,", MAIL)
    server = program()
    server.send(b"DELE 1\r\nQUIT\r\nDELE 2\r\nQUIT\r\nNOOP\r\n")
    assert server.rest() == b"+OK logged in.\r\n+OK Deleted.\r\n+OK Bye-bye.\r\n"
    assert one.names() == ["2.b:2,"]
    assert "rcvd=14," in server.end()[1][-1]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_ROB_01_ROB_02_one_byte_at_a_time_and_bare_line_ends_work(one, program, ends):
    server = program()
    for octet in b"STAT" + ends + b"QUIT" + ends:
        server.send(bytes([octet]))
    assert server.rest() == b"+OK logged in.\r\n+OK 1 25\r\n+OK Bye-bye.\r\n"


def test_1939_53_an_idle_client_is_cut_silently_and_nothing_deleted(one, program):
    server = program(POP3_IDLE_TIMEOUT="1")
    server.send(b"DELE 1\r\nNO")
    assert server.rest() == b"+OK logged in.\r\n+OK Deleted.\r\n"
    status, log = server.end()
    assert (status, log[-1].split(",")[0]) == (0, "INFO: TIMEOUT")
    assert one.names() == ["1.a:2,"]


@pytest.mark.parametrize("name", ["POP3_IDLE_TIMEOUT", "POP3_SEND_TIMEOUT"])
def test_a_setting_that_makes_no_sense_is_said(box, program, name):
    server = program(**{name: "soon"})
    assert server.rest() == b"-ERR Temporary problem, please try again later\r\n"
    status, log = server.end()
    assert status == 1
    assert log == [f"ERR: {name}=soon: not a number of seconds from 0 to 86400, user=joe"]


def test_F_NET_2_a_client_that_takes_nothing_is_cut_and_nothing_deleted(box, program):
    for number in range(10):
        box.put(f"cur/{number}.a:2,", b"x" * 79 + b"\n" * 200_000)
    server = program(POP3_SEND_TIMEOUT="1")
    server.send(b"DELE 1\r\nRETR 2\r\nQUIT\r\n")
    status, log = server.end()
    assert (status, log[-1].split(",")[0]) == (0, "INFO: TIMEOUT")
    assert len(box.names()) == 10


def test_ROB_10_F_KILL_4_a_client_that_goes_in_mid_retr_leaves_the_mailbox_whole(box, program):
    content = (b"x" * 79 + b"\n") * 50_000
    box.put("cur/1.a:2,", content)
    server = program()
    server.send(b"DELE 1\r\nRSET\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
    server.socket.recv(1000)
    server.hang_up()
    status, log = server.end()
    assert (status, log[-1].split(",")[0]) == (0, "INFO: DISCONNECTED")
    assert box.names() == ["1.a:2,"]
    assert box.contents() == [content]


def test_F_FILE_11_a_message_that_breaks_off_ends_the_connection(box, resident, monkeypatch):
    box.put("cur/1.a:2,", b"x\n" * 400_000)
    real, reads = os.read, []

    def read(descriptor, size):
        reads.append(size)
        if size == CHUNK and len(reads) > 6:
            raise OSError(5, "Input/output error")
        return real(descriptor, size)

    box.list.write_bytes(b"/3 2 200\n1.a:2, 300000 1:200:0\n")
    monkeypatch.setattr(os, "read", read)
    server = resident()
    server.send(b"DELE 1\r\nRSET\r\nRETR 1\r\nQUIT\r\n")
    replies = server.rest()
    assert server.wait() == 1
    assert b"+OK 300000 octets follow.\r\n" in replies
    assert not replies.endswith(b".\r\n")
    assert server.logged()[-2:][0] == (
        "ERR: I/O error while reading message file cur/1.a:2,: Input/output error, user=joe"
    )
    assert server.logged()[-1].startswith("INFO: I/O error disconnect, user=joe, ip=[127.0.0.1]")
    assert box.names() == ["1.a:2,"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of another user")
def test_F_FILE_2_an_unreadable_message_is_an_error_for_itself_alone(box, program, monkeypatch):
    box.put("cur/1.a:2,", MAIL)
    box.put("cur/2.b:2,", MAIL)
    (box.path / "cur/1.a:2,").chmod(0)
    server = program()
    assert server.line() == b"+OK logged in.\r\n"
    assert server.ask("LIST 1") == b"+OK 1 0\r\n"
    assert server.ask("RETR 1") == b"-ERR Can't open the message file - it's gone!\r\n"
    assert len(server.many("RETR 2")) == 3
    assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a directory of another user")
def test_F_DISK_2_a_maildir_that_can_not_be_written_is_read(box, program):
    box.put("cur/1.a:2,", MAIL)
    box.list.write_bytes(b"/3 2 200\n1.a:2, 25 1:200:0\n")
    box.put("cur/2.b:2,", MAIL)
    box.put("new/3.c", MAIL)
    own, box.own = box.own, lambda: None
    own()
    for folder in ("", "cur", "tmp", "new"):
        os.chown(box.path / folder, 0, 0)
        os.chmod(box.path / folder, 0o755)
    server = program()
    assert server.line() == b"+OK logged in.\r\n"
    assert server.many("UIDL") == [b"1 UID1-200\r\n"]
    assert server.many("RETR 1")[-1] == b"Line 1\r\n"
    assert server.ask("DELE 1") == b"+OK Deleted.\r\n"
    assert server.ask("QUIT") == b"-ERR Some deleted messages not removed.\r\n"
    assert box.names() == ["1.a:2,", "2.b:2,"]
    who = "user=joe"
    assert server.end()[1][1:-1] == [
        f"ERR: rename(./new/3.c,./cur/3.c:2,) failed: Permission denied, {who}",
        f"ERR: Error while saving courierpop3dsizelist, {who}, error=Permission denied",
        f"ERR: cannot remove cur/1.a:2,: Permission denied, {who}",
    ]


# Much of everything


def test_2449_07_09_500_commands_sent_ahead_are_answered_in_order(one, program):
    server = program()
    commands = [b"NOOP", b"STAT", b"LIST 1", b"NOPE", b"UIDL 9"] * 100
    server.send(b"\r\n".join([*commands, b"QUIT", b""]))
    replies = server.rest().split(b"\r\n")
    expected = [
        *(b"+OK Yup.", b"+OK 1 25", b"+OK 1 25", b"-ERR Invalid command."),
        b"-ERR Invalid message number.",
    ]
    assert replies == [b"+OK logged in.", *expected * 100, b"+OK Bye-bye.", b""]


def test_ROB_07_1939_54_30_sessions_at_once(one, residents):
    servers = residents(30)
    for server in servers:
        assert server.line() == b"+OK logged in.\r\n"
    for server in servers:
        assert server.ask("UIDL 1") == servers[0].ask("UIDL 1")
    for server in servers:
        server.send(b"QUIT\r\n")
        assert server.rest() == b"+OK Bye-bye.\r\n"
        assert server.wait() == 0


def test_ROB_08_200_wrong_commands_are_answered(one, program):
    server = program()
    server.send(b"WRONG\r\n" * 200 + b"QUIT\r\n")
    assert server.rest().count(b"-ERR Invalid command.\r\n") == 200


def test_CVE_02_ROB_09_a_megabyte_without_line_end_is_one_error(one, program):
    server = program()
    server.send(b"x" * 2**20 + b"\r\nSTAT\r\n")
    server.line()
    assert server.line() == b"-ERR Invalid command.\r\n"
    assert server.line() == b"+OK 1 25\r\n"
    memory = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", memory)[1]) < 60_000


def test_F_BIG_2_a_large_message_takes_little_memory(box, program):
    with (box.path / "cur/1.a:2,").open("wb") as file:
        for _ in range(64):
            file.write((b"x" * 1023 + b"\n") * 1024)
    server = program()
    server.send(b"RETR 1\r\n")
    received = 0
    while received < 64 * 1025 * 1024:
        received += len(server.socket.recv(2**20))
    memory = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", memory)[1]) < 60_000


def test_one_process_may_serve_many_sessions_one_after_another(one):
    """As a child of couriertcpd that is used again: nothing of a session stays behind."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(serve_three_times(one))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert one.names() == ["1.a:2,"]


def serve_three_times(box) -> int:
    os.closerange(3, 1024)
    os.open("/dev/null", os.O_RDONLY)  # descriptor 3, as long as there is no session
    home = os.open(box.home, os.O_RDONLY)
    if os.geteuid() == 0:
        box.own()
        os.setresuid(USER, USER, USER)
    replies = set()
    for _ in range(3):
        os.fchdir(home)
        client, server = socket.socketpair()
        for descriptor in (0, 1):
            os.dup2(server.fileno(), descriptor)
        server.close()
        client.sendall(b"DELE 1\r\nSTAT\r\nRSET\r\nQUIT\r\n")
        if main(["courierpop3d"], {"AUTHENTICATED": "joe"}) != 0:
            return 1
        replies.add((client.recv(4096), *os.listdir("/proc/self/fd")))
        client.close()
        os.open("/dev/null", os.O_RDONLY)
    return 0 if len(replies) == 1 else 2


def test_a_session_on_pipes_works_as_well(one, program):
    """As from a shell: AUTHENTICATED=joe courierpop3d ./Maildir"""
    server = program(record=None)
    server.process.kill()
    run = subprocess.run(
        server.process.args,
        input=b"STAT\nQUIT\n",
        capture_output=True,
        cwd=one.home,
        env={"AUTHENTICATED": "joe"},
        timeout=20,
    )
    assert run.stdout == b"+OK logged in.\r\n+OK 1 25\r\n+OK Bye-bye.\r\n"
    assert run.returncode == 0


def test_the_end_of_a_long_reply_is_not_held_back_for_an_acknowledgement(one, program):
    """Behind a listener that doesn't see to it, as Courier's doesn't."""
    started = program(record=None)
    started.process.kill()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), timeout=20)
        server, _ = listening.accept()
    run = subprocess.Popen(
        started.process.args,
        stdin=server,
        stdout=server,
        stderr=subprocess.DEVNULL,
        cwd=one.home,
        env={"AUTHENTICATED": "joe"},
    )
    with client, server:
        assert client.recv(100) == b"+OK logged in.\r\n"
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.sendall(b"QUIT\r\n")
        assert client.recv(100) == b"+OK Bye-bye.\r\n"
    assert run.wait(20) == 0


def test_seen_is_set_when_the_client_pauses(one, program):
    server = program()
    server.line()
    server.many("RETR 1")
    wait_until(lambda: one.names() == ["1.a:2,S"], "the flag")
    assert server.ask("NOOP") == b"+OK Yup.\r\n"


def test_seen_is_set_when_the_client_goes(one, program):
    server = program()
    server.line()
    server.many("RETR 1")
    server.hang_up()
    server.end()
    assert one.names() == ["1.a:2,S"]
