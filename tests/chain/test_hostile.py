"""Clients that mean harm, or are broken, over the wire: overlong and binary input, forged fields,
numbers that are none, names made for log files, half-closed and dribbling connections.

What holds in all cases: one clear -ERR or a closed connection, nobody gets in, no traceback, one
log line an event, and the next client is served.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from authmodules import authpam, authpwd, authshadow, authuserdb
from courierchain import passwords
from courierchain.authmodule import Rejected
from courierchain.request import encode, parse
from courierchain.settings import Settings
from tests.conftest import (
    DEADLINE,
    ROOT,
    Account,
    Client,
    Server,
    has_client,
    needs_root,
    sha,
    wait_until,
)

GREETING = b"+OK Hello there.\r\n"
FAILED = b"-ERR Login failed.\r\n"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"
SERVED = b"+OK logged in.\r\n"
BYE = b"+OK Bye-bye.\r\n"

# The log lines that there are, with nothing in them that a client could have added to.
LOG_LINE = re.compile(
    rf"(DEBUG: (Connection|Disconnected), {PEER}"
    rf"|INFO: LOGIN( FAILED)?, user=[!-+\--Z\\^-~]+, {PEER}"
    rf"|INFO: LOGOUT, {PEER}"
    rf"|INFO: (LOGOUT|DISCONNECTED|TIMEOUT), user=[!-+\--Z\\^-~]+, {PEER}(, \w+=\d+)+)"
)

# Debian's fail2ban, courier-auth.conf, with <F-USER> and <HOST> as groups.
FAIL2BAN = re.compile(
    r"^.*LOGIN FAILED, (?:(?!ip=)(?:user=(?P<user>[^,]*)|\w+=[^,]*), )*ip=\[(?P<host>[^\]]*)\]"
)


@pytest.fixture
def mode(any_mode):
    return any_mode


@pytest.fixture
def quick(serve):
    """A listener that answers failed logins at once."""

    def start(*options: str, env=None, **more) -> Server:
        return serve(*options, env={"POP3_FAILURE_DELAY": "0", **(env or {})}, **more)

    return start


def talk(server: Server, data: bytes) -> bytes:
    """All that the server says to one packet of input that ends in QUIT or a half close."""
    answer = b""
    with server.client() as client:
        client.send(data)
        try:
            client.socket.shutdown(socket.SHUT_WR)
            while piece := client.socket.recv(65536):
                answer += piece
        except OSError as why:
            if why.errno not in (errno.ECONNRESET, errno.ENOTCONN):
                raise
            # the server did not want all of it
    return answer


def login(account: Account) -> bytes:
    return f"USER {account.name}\r\nPASS {account.password}\r\n".encode()


def still_serves(server: Server, account: Account) -> None:
    with server.client().login(account) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert server.process.poll() is None


def assert_plain_log(server: Server) -> None:
    for line in server.lines():
        assert LOG_LINE.fullmatch(line), line


def memory(pid: int) -> int:
    """Resident KiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def cpu_ticks_of_dead_children(server: Server) -> int:
    words = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[13]) + int(words[14])


# Long input


@pytest.mark.parametrize("name", [b"a" * 65536, b"john+" + b"a" * 65536, b"%s" * 5000])
def test_CVE_01_a_name_of_64_kib(quick, mode, john, name):
    server = quick(*mode)
    answer = talk(server, b"USER %s\r\nPASS x\r\nQUIT\r\n" % name)
    lines = answer.splitlines(keepends=True)
    assert lines[0] == GREETING
    assert all(line.startswith(b"-ERR") for line in lines[1:-1]) and len(lines) <= 4
    assert lines[-1] in (b"+OK Better luck next time.\r\n", lines[1])
    still_serves(server, john)
    assert_plain_log(server)


@pytest.mark.parametrize("phase", ["login", "service"])
def test_CVE_02_a_mebibyte_without_line_end_takes_no_memory(quick, process_mode, john, phase):
    server = quick(*process_mode)
    with server.client() as client:
        if phase == "service":
            client.login(john)
        else:
            assert client.line() == GREETING
        (pid,) = wait_until(
            lambda: len(pids := list(filter(has_client, server.children()))) == 1 and pids,
            "one process with the client",
        )
        before = memory(pid)
        for _ in range(16):
            client.send(b"a" * 65536)
        wait_until(lambda: unread(client, server) == 0, "the server has read all")
        assert memory(pid) - before < 512
        client.send(b"\r\n")
        assert client.line().startswith(b"-ERR")
        assert client.ask("QUIT").startswith("+OK")
    still_serves(server, john)


def unread(client: Client, server: Server) -> int:
    """Octets that the kernel holds for the server."""
    here, there = f":{client.socket.getsockname()[1]:04X}", f":{server.port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(there) and words[2].endswith(here):
            return int(words[4].partition(":")[2], 16)
    return -1


BEFORE_LOGIN = [b"AUTH", b"AUTH PLAIN", b"APOP", b"USER", b"XTND", b"LIST", b"EUIDL", b"LANG"]
AFTER_LOGIN = [b"LIST", b"UIDL", b"RETR", b"TOP", b"TOP 1", b"DELE", b"XTND", b"EUIDL", b"LANG"]


def test_CVE_03_arguments_of_9000_octets(quick, mode, john):
    john.deliver(b"Subject: one\n\n")
    server = quick(*mode)
    with server.client() as client:
        assert client.line() == GREETING
        for command in (*BEFORE_LOGIN, b"PASS"):
            client.send(command + b" " + b"A" * 9000 + b"\r\n")
            assert client.line().startswith(b"-ERR "), command
        assert client.ask("USER john") == "+OK Password required."
        assert client.ask("PASS " + john.password) == "+OK logged in."
        for command in (*AFTER_LOGIN, b"USER", b"PASS", b"AUTH", b"APOP"):
            for argument in (b"A" * 9000, b"1" * 9000, b" " * 9000, b"A" * 400):
                client.send(command + b" " + argument + b"\r\n")
                if argument[:1] == b" ":
                    continue
                assert client.line().startswith(b"-ERR "), (command, argument)
        client.send(b"STAT\r\nQUIT\r\n")
        lines = client.rest().splitlines()
        assert lines[-2:] == [b"+OK 1 16", BYE.rstrip()]
    assert len(john.files()) == 1


def test_ROB_09_an_overlong_line_is_one_error_and_its_tail_is_no_command(quick, mode, john):
    john.deliver(b"Subject: one\n\n")
    server = quick(*mode)
    for filler in (8192, 9000, 65536):
        # In front of the line end there is a command, at an offset where a buffer may have ended.
        for text in (b"DELE 1", b"\rDELE 1", b" QUIT"):
            overlong = b"x" * filler + text + b"\r\n"
            with server.client() as client:
                client.send(overlong + b"CAPA\r\n")
                assert client.line() == GREETING
                assert client.line().startswith(b"-ERR")
                assert client.line().startswith(b"+OK Here")
            answer = talk(server, login(john) + overlong + b"STAT\r\nQUIT\r\n")
            assert answer.splitlines()[-3:-1] == [b"-ERR Invalid command.", b"+OK 1 16"]
    assert len(john.files()) == 1


def test_2449_10_commands_of_255_octets_are_taken(quick, mode, accounts):
    name = "n" * (255 - len("USER \r\n"))
    account = accounts.add(name)
    server = quick(*mode)
    assert len(f"USER {name}\r\n") == 255
    still_serves(server, account)
    with server.client().login(account) as client:
        assert client.ask("NOOP " + " " * 248) == "+OK Yup."


# Binary and strange input


FORMATS = ["%s%n%x%d", "{0.__class__}", "{env}", "%(name)s", "$(id)", "`id`", "${HOME}", "%{env:X}"]


@pytest.mark.parametrize("name", FORMATS)
def test_CVE_04_format_strings_are_text(quick, john, name):
    server = quick()
    answer = talk(server, f"USER {name}\r\nPASS {name}\r\n{name} {name}\r\nQUIT\r\n".encode())
    assert answer.splitlines() == [
        GREETING.rstrip(),
        b"+OK Password required.",
        FAILED.rstrip(),
        b"-ERR Invalid command.",
        b"+OK Better luck next time.",
    ]
    shown = re.escape(name)
    server.logged(rf"INFO: LOGIN FAILED, user={shown}, {PEER}")
    assert_plain_log(server)


def test_CVE_04_format_strings_in_file_names_and_headers(quick, john):
    letter = b"Subject: %s%n {0.__class__}\nX-%d: %x\n\n%s%n {0}\n"
    john.deliver(letter, name="%s%n{0.__class__}.host")
    server = quick(env={"POP3_LOG_DELETIONS": "1"})
    with server.client().login(john) as client:
        assert client.listing("RETR 1") == letter.decode().split("\n")[:-1]
        assert client.ask("DELE 1") == "+OK Deleted."
        assert client.ask("QUIT") == "+OK Bye-bye."
    name = re.escape("cur/%s%n{0.__class__}.host:2,S")
    server.logged(rf"INFO: DELETED, user=john, {PEER}, filename={name}")


INJECTIONS = [
    b"john' OR '1'='1",
    b"john\\",
    b'john"',
    b"*",
    b"*)(uid=*",
    b"j*",
    b"john;id",
    b"$(id)",
    b"%{env:HOME}",
    b"john\xc3",
    b"john\xff\x27",
    b"john\t",
    b"john\tuid=0|gid=0|home=/",
    b"john|systempw=x",
    b"../john",
    b"john:",
    b"#john",
    b" john",
    b"john ",
    b"JOHN",
    b"john\xa0",
    b"20001=",
]


@pytest.mark.parametrize("order", [("authuserdb", "authpwd", "authshadow"), ("authpwd",)])
def test_CVE_05_CVE_34_nobody_gets_in_by_a_name_that_is_nearly_one(quick, john, order):
    if "authshadow" in order:
        needs_root()
    server = quick(stages=["courierpop3login", *order, "courierpop3d", "./Maildir"])
    for name in INJECTIONS:
        answer = talk(server, b"USER %s\r\nPASS %s\r\nSTAT\r\n" % (name, john.password.encode()))
        lines = answer.splitlines(keepends=True)
        assert SERVED not in lines, name
        assert lines[-1] == b"-ERR Invalid command.\r\n", (name, lines)
    assert_plain_log(server)


CUT = [
    b"USER john\0\r\nPASS %s\r\n",
    b"USER john\0garbage\r\nPASS %s\r\n",
    b"USER john\r\nPASS %s\0\r\n",
    b"USER john\r\nPASS %s\0garbage\r\n",
    b"USER \0john\r\nPASS %s\r\n",
    b"\0USER john\r\nPASS %s\r\n",
    b"USER\0john\r\nPASS %s\r\n",
]


@pytest.mark.parametrize("number", range(len(CUT)))
def test_CVE_06_a_nul_never_cuts_a_name_or_password(quick, mode, john, number):
    server = quick(*mode)
    with server.client() as client:
        client.send(CUT[number] % john.password.encode() + b"STAT\r\n")
        assert client.line() == GREETING
        answers = [client.line(), client.line(), client.line()]
        assert any(answer.startswith(b"-ERR") for answer in answers[:2])
        assert answers[2] == b"-ERR Invalid command.\r\n"
        assert client.ask("QUIT").startswith("+OK")
    still_serves(server, john)


def test_CVE_06_a_nul_in_a_command_after_the_login(quick, mode, john):
    john.deliver(b"Subject: one\n\n")
    server = quick(*mode)
    with server.client().login(john) as client:
        for command in (b"DELE 1\0", b"DELE\x001", b"\0DELE 1", b"QUIT\0", b"STAT\0x"):
            client.send(command + b"\r\n")
            assert client.line().startswith(b"-ERR"), command
        assert client.ask("STAT") == "+OK 1 16"
    assert len(john.files()) == 1


NOT_UTF8 = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"a\x80b", b"\xc0\xaf"]


@pytest.mark.parametrize("modules", [["authuserdb"], ["authpwd"]])
def test_CVE_24_names_that_are_not_utf_8(quick, mode, john, modules):
    server = quick(*mode, stages=["courierpop3login", *modules, "courierpop3d", "./Maildir"])
    for name in NOT_UTF8:
        answer = talk(server, b"USER %s\r\nPASS x\r\nQUIT\r\n" % name)
        assert answer.splitlines(keepends=True)[2] == FAILED, name
    failed = [line for line in server.lines() if "LOGIN FAILED" in line]
    assert len(failed) == len(NOT_UTF8)
    assert_plain_log(server)


def test_4616_03_names_and_passwords_of_any_encoding_are_compared_as_bytes(quick, mode, accounts):
    """Not cut, not folded, not normalised: composed and decomposed are two names."""
    account = accounts.add("plain")
    names = ["j\u00f6rg", "jo\u0308rg", "\u65e5\u672c", "JOHN"]
    for name in names:
        fields = {"uid": account.uid, "gid": account.gid, "home": account.home}
        accounts.record(name, **fields, systempw=sha(f"p\u00e4ss {name}"))
    server = quick(*mode)
    for name in names:
        for other in [*names, "j\u00f6r", "john"]:
            attempt = f"USER {name}\r\nPASS p\u00e4ss {other}\r\nQUIT\r\n".encode()
            assert (SERVED in talk(server, attempt)) == (name == other), (name, other)
    assert_plain_log(server)


ALL_BYTES = [bytes([octet]) for octet in range(256)]


@pytest.mark.parametrize("where", ["name", "password"])
def test_CVE_32_every_byte_in_name_and_password(quick, john, where):
    """None of them hangs, crashes or gets in; 13, 10 and 0 among them."""
    server = quick()
    password = john.password.encode()
    for octet in ALL_BYTES:
        name, secret = b"john", password + octet
        if where == "name":
            name, secret = b"john" + octet, password
        if octet in b"\r\n ":  # they end the line, or separate; at a line's end CR is its own
            name, secret = b"jo" + octet + b"hn", b"x" + octet
        answer = talk(server, b"USER %s\r\nPASS %s\r\n" % (name, secret))
        assert answer.startswith(GREETING)
        assert SERVED not in answer, octet
        assert b"-ERR" in answer, octet
    still_serves(server, john)
    assert_plain_log(server)


def test_CVE_32_CVE_45_odd_names_take_no_more_cpu_than_plain_ones(quick, john):
    """Characters repeated thousands of times, for the sake of patterns that would backtrack."""
    server = quick()

    def ticks(name: bytes) -> int:
        before = cpu_ticks_of_dead_children(server)
        for _ in range(5):
            assert FAILED in talk(server, b"USER %s\r\nPASS wrong\r\nQUIT\r\n" % name)
        wait_until(lambda: server.children() == [], "the children are gone")
        return cpu_ticks_of_dead_children(server) - before

    plain = ticks(b"plain")
    for octet in (b"a", b"=", b",", b"[", b"%", b"\\", b"|", b" ", b"@", b"+", b"\xff", b".", b"/"):
        assert ticks(octet * 3000) <= plain + 10, octet


# Who is there, and who is not


class Spy:
    """Counts the dummy hashes that passwords.verify computes."""

    def __init__(self, monkeypatch):
        self.settings: list[bytes] = []
        real = passwords.crypt

        def crypt(secret: bytes, setting: bytes):
            self.settings.append(setting)
            return real(secret, setting)

        monkeypatch.setattr(passwords, "crypt", crypt)

    @property
    def dummies(self) -> int:
        return self.settings.count(passwords.DUMMY)


def ask_module(module, env: dict[str, str], name: bytes, password: bytes = b"wrong") -> None:
    question = parse(encode(b"pop3", b"login", name, password))
    with pytest.raises(Rejected):
        module.verify(question, Settings(env))


@pytest.mark.parametrize("module", [authuserdb.authuserdb, authpwd.authpwd, authshadow.authshadow])
def test_CVE_07_an_unknown_name_costs_a_hash_too(module, accounts, environment, monkeypatch):
    if module.name == "authshadow":
        needs_root()
    spy = Spy(monkeypatch)
    ask_module(module, environment, b"surely-nobody")
    assert spy.dummies == 1


def test_CVE_07_an_unknown_name_costs_a_hash_with_pam_too(environment, monkeypatch):
    monkeypatch.setattr(authpam, "has_service", lambda name: True)
    spy = Spy(monkeypatch)
    ask_module(authpam.authpam, environment, b"surely-nobody")
    assert spy.dummies == 1


@pytest.mark.parametrize("stored", ["", "*", "!", "x", "{NOSUCH}x", "$9$x", sha("right"), None])
def test_CVE_07_locked_broken_and_quickly_hashed_entries_cost_one_too(
    accounts, environment, monkeypatch, stored
):
    fields = {"systempw": stored} if stored is not None else {}
    accounts.record("mary", uid=1234, gid=1234, home="/", **fields)
    spy = Spy(monkeypatch)
    ask_module(authuserdb.authuserdb, environment, b"mary")
    assert spy.dummies == 1


def test_CVE_07_the_reply_does_not_tell_names_apart(quick, mode, accounts):
    known = accounts.add("known")
    accounts.record("locked", uid=1234, gid=1234, home="/", systempw="!")
    accounts.record("nohash", uid=1234, gid=1234, home="/")
    server = quick(*mode)
    replies = set()
    for name in ("known", "locked", "nohash", "unknown", "KNOWN"):
        replies.add(talk(server, f"USER {name}\r\nPASS wrong\r\nQUIT\r\n".encode()))
    assert replies == {
        GREETING + b"+OK Password required.\r\n" + FAILED + b"+OK Better luck next time.\r\n"
    }
    still_serves(server, known)


def test_CVE_08_a_failed_login_is_delayed_and_holds_up_nobody(serve, mode, john):
    """All others are served before the first of the refused gets its answer."""
    server = serve(*mode, "-maxperip=20", env={"POP3_FAILURE_DELAY": "2"})
    with ExitStack() as stack:
        refused = [stack.enter_context(server.client()) for _ in range(8)]
        for client in refused:
            assert client.line() == GREETING
            assert client.ask("USER john") == "+OK Password required."
            client.send(b"PASS wrong\r\n")
        still_serves(server, john)
        for client in refused:
            assert not select.select([client.socket], [], [], 0)[0]
        for client in refused:
            assert client.line() == FAILED
    failed = [line for line in server.lines() if line.startswith("INFO: LOGIN FAILED, user=john,")]
    assert len(failed) == 8  # one line for each, for ban scripts to count


EMPTY_HASHES = ["", "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "{MD5RAW}d41d8cd98f00b204e9800998ecf8427e"]


@pytest.mark.parametrize("stored", EMPTY_HASHES)
def test_CVE_09_an_empty_password_is_never_right(quick, accounts, stored):
    account = accounts.add("mary", systempw=stored)
    server = quick()
    for line in (b"PASS\r\n", b"PASS \r\n"):
        answer = talk(server, b"USER mary\r\n" + line + b"QUIT\r\n").splitlines()
        assert answer[2] == b"-ERR USER/PASS required.", account.name
    for password in (b" ", b"\t", b"  "):
        assert SERVED not in talk(server, b"USER mary\r\nPASS %s\r\nQUIT\r\n" % password)


# A hash that some account has, and that nobody's password makes.
BROKEN = [
    *("x", "*", "!", "!!", "*0", "$", "$$", "$1", "$6$", "$6$salt", "$6$$", "$5$rounds=1$"),
    *("$2y$", "$2y$99$" + "a" * 53, "$y$", "$y$j9T$", "$7$", "$argon2id$v=19$m=1", "{SHA}"),
    *("{SHA}!!!!", "{SSHA}AAAA", "{SSHA}" + "A" * 200, "{MD5}", "{}", "{", "{CRYPT}", "{CRYPT}*"),
    *("{PLAIN}secret", "{CLEARTEXT}secret", "secret", "{SSHA256}AAAA", "ab", "a", "\xff\xfe"),
    *("{SHA", "$6$rounds=999999999999$a$b", "$pbkdf2-sha256$", "$apr1$", "{ARGON2ID}x", "_" * 20),
]


def test_CVE_49_a_broken_hash_refuses_and_crashes_nothing(quick, accounts):
    for number, stored in enumerate(BROKEN):
        accounts.record(f"user{number}", uid=1234, gid=1234, home="/", systempw=stored)
    server = quick()
    for number, stored in enumerate(BROKEN):
        for password in (b"secret", os.fsencode(stored), b"*0"):
            attempt = b"USER user%d\r\nPASS %s\r\nQUIT\r\n" % (number, password)
            answer = talk(server, attempt).splitlines(keepends=True)
            assert answer[2] == FAILED, (stored, password, answer)
    # Only a missing library may have a word of its own.
    assert not [line for line in server.lines() if "internal" in line or "Traceback" in line]


# Numbers


NO_NUMBERS = [
    *("0", "3", "-1", "+1", "1x", "x1", "0x1", "1.0", "1e0", "4294967297", "18446744073709551617"),
    *(
        "9" * 250,
        "9" * 8000,
        "\u0661",
        "\u00b2",
        "\uff11",
        "",
        "--1",
        "1-2",
        "1,2",
        "*",
        "%d",
        "''",
    ),
    *("2147483648", "-2147483648", "99999999999", "1_0", "\x1f1", "1\x1f"),
]


VERBS = ["LIST", "UIDL", "RETR", "DELE", "TOP"]


@pytest.mark.parametrize("verb", VERBS)
def test_CVE_10_CVE_46_numbers_that_are_none(quick, john, verb):
    john.deliver(b"Subject: one\n\nx\n")
    john.deliver(b"Subject: two\n\nx\n")
    server = quick()
    with server.client().login(john) as client:
        for number in NO_NUMBERS:
            if number == "" and verb in ("LIST", "UIDL"):
                continue  # that's the whole listing
            more = " 0" if verb == "TOP" else ""
            assert client.ask(f"{verb} {number}{more}").startswith("-ERR"), number
        if verb == "TOP":
            for count in NO_NUMBERS[2:]:
                if count.isascii() and count.isdigit() and len(count) <= 40:
                    continue  # a number, if a large one
                assert client.ask(f"TOP 1 {count}").startswith("-ERR"), count
        assert client.ask("STAT") == "+OK 2 38"
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert len(john.files()) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_1939_42_only_space_tab_and_cr_separate_a_number(quick, john, verb):
    """Vertical tab and form feed are neither separators nor digits."""
    john.deliver(b"Subject: one\n\nx\n")
    server = quick()
    more = " 0" if verb == "TOP" else ""
    with server.client().login(john) as client:
        for argument in ("\x0b1", "1\x0b", "\x0c1", "1\x0c"):
            assert client.ask(f"{verb} {argument}{more}").startswith("-ERR"), argument


def test_CVE_46_a_million_digits_are_one_error(quick, mode, john):
    john.deliver(b"Subject: one\n\nx\n")
    server = quick(*mode)
    with server.client().login(john) as client:
        client.send(b"RETR " + b"1" * 1_000_000 + b"\r\n")
        assert client.line().startswith(b"-ERR")
        assert client.ask("STAT") == "+OK 1 19"


def test_CVE_11_top_with_a_huge_count_is_the_whole_message(quick, mode, john):
    john.deliver(b"Subject: one\n\n" + b"line\n" * 1000)
    server = quick(*mode)
    with server.client().login(john) as client:
        whole = client.listing("RETR 1")
        before = cpu_of(server)
        for count in (1000, 1001, 4294967296, 9999999999, 10**39):
            assert client.listing(f"TOP 1 {count}") == whole
        assert cpu_of(server) - before <= 50


def cpu_of(server: Server) -> int:
    words = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        for pid in server.children()
    ]
    return sum(int(word[11]) + int(word[12]) for word in words)


# What is logged


FORGERIES = [
    b"x, ip=[192.0.2.7]",
    b"x, ip=[192.0.2.7], port=[1]",
    b"LOGIN FAILED, ip=[192.0.2.7]",
    b"x\x1b[2J\x07",
    b"x\tINFO: LOGIN, user=root",
    b"user=root",
    b"x] [y",
    b"\xe2\x80\xa8INFO: LOGIN",
    b"x\x7f\x80\x9b2J",
    b"=,=,=",
    b",",
    b"x\rINFO: LOGIN FAILED, user=y, ip=[192.0.2.7]",
    b"x\x0bINFO: LOGIN FAILED, user=y, ip=[192.0.2.7]",
]


@pytest.mark.parametrize("modules", [["authuserdb"], ["authpwd", "authuserdb"]])
def test_CVE_38_a_name_cannot_forge_a_field_or_a_line(quick, mode, john, modules):
    server = quick(*mode, stages=["courierpop3login", *modules, "courierpop3d", "./Maildir"])
    for name in FORGERIES:
        assert FAILED in talk(server, b"USER %s\r\nPASS x\r\n" % name), name
    assert_plain_log(server)
    failed = [line for line in server.lines() if "FAILED" in line]
    assert len(failed) == len(FORGERIES)
    for line in failed:
        assert FAIL2BAN.match(line)["host"] == "::ffff:127.0.0.1", line
    assert not [line for line in server.lines() if FAIL2BAN.match(line) and line not in failed]


def test_a_plain_failure_is_what_fail2ban_looks_for(quick, mode, john):
    server = quick(*mode)
    assert FAILED in talk(server, b"USER john\r\nPASS wrong\r\nQUIT\r\n")
    still_serves(server, john)
    found = [match for line in server.lines() if (match := FAIL2BAN.match(line))]
    assert [(match["user"], match["host"]) for match in found] == [("john", "::ffff:127.0.0.1")]


def test_CVE_38_a_name_in_the_userdb_cannot_forge_log_fields_after_login(quick, mode, accounts):
    name = "x,ip=[192.0.2.7]"
    account = accounts.add(name)
    server = quick(*mode)
    still_serves(server, account)
    server.logged(rf"INFO: LOGOUT, user=x\.ip=\.192\.0\.2\.7\., {PEER}, .*")
    assert_plain_log(server)


def provoke_every_failure(server: Server, accounts) -> None:
    """Passwords that are wrong, right for accounts that can't be served, and not even asked for."""
    for name in (b"john", b"nohome", b"nouid", b"isroot", b"toobig", b"nobody-at-all", b"\xff"):
        for password in (b"Xyzzy-Plugh", b"Xyzzy-Plugh\xff", b"Xyzzy-Plugh" * 50):
            talk(server, b"USER %s\r\nPASS %s\r\nQUIT\r\n" % (name, password))
    talk(server, b"PASS Xyzzy-Plugh\r\nXyzzy-Plugh\r\nUSER john\r\nPASS Xyzzy-Plugh")
    accounts.userdb.chmod(0o666)
    talk(server, b"USER john\r\nPASS Xyzzy-Plugh\r\nQUIT\r\n")
    accounts.userdb.chmod(0o600)


@pytest.fixture
def unservable(accounts):
    for name, fields in {
        "nohome": {"uid": 1234, "gid": 1234, "home": "/nowhere"},
        "nouid": {"gid": 1234, "home": "/"},
        "isroot": {"uid": 0, "gid": 0, "home": "/"},
        "toobig": {"uid": 2**40, "gid": 5, "home": "/"},
    }.items():
        accounts.record(name, **fields, systempw=sha("Xyzzy-Plugh"))


STAGES = ["courierpop3login", "authpwd", "authuserdb", "courierpop3d", "./Maildir"]


def test_CVE_39_no_password_in_the_log(quick, mode, accounts, john, unservable):
    server = quick(*mode, stages=STAGES)
    provoke_every_failure(server, accounts)
    still_serves(server, john)
    log = "\n".join(server.lines())
    assert "nohome" in log and "isroot" in log
    assert "Plugh" not in log
    assert john.password not in log


@pytest.mark.parametrize("level", ["0", "1"])
def test_CVE_39_no_password_in_the_log_of_debug_login_below_2(
    quick, accounts, john, unservable, level
):
    server = quick(stages=STAGES, env={"DEBUG_LOGIN": level})
    provoke_every_failure(server, accounts)
    still_serves(server, john)
    log = "\n".join(server.lines())
    assert "LOGIN" in log
    assert "Plugh" not in log
    assert john.password not in log


# Python, and the record on descriptor 3


def test_CVE_47_nothing_of_the_users_is_imported(quick, mode, accounts, public):
    """Neither by the environment, nor from home, Maildir or the directory that it started in."""
    john = accounts.add("john")
    marker = public / "imported"
    marker.mkdir()
    marker.chmod(0o777)
    evil = f"open({str(marker)!r} + '/' + __name__.replace('.', '-'), 'w')\n"
    names = ["os", "pam", "courierchain", "courierpop3d", "pop3proto", "sitecustomize", "fcntl"]
    for directory in (john.home, john.maildir, public):
        for name in [*names, "usercustomize", "encodings", "_strptime", "__main__", "pwd"]:
            (directory / f"{name}.py").write_text(evil)
    john.own()
    env = {"PYTHONPATH": f"{public}:{john.home}", "PYTHONSTARTUP": f"{public}/os.py"}
    env |= {"PYTHONHOME": "/nowhere", "PYTHONUSERBASE": str(public), "HOME": str(public)}
    env |= {"PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONBREAKPOINT": "os.abort"}
    here = os.getcwd()
    os.chdir(public)
    try:
        server = quick(*mode, env=env)
    finally:
        os.chdir(here)
    assert FAILED in talk(server, b"USER john\r\nPASS wrong\r\nQUIT\r\n")
    still_serves(server, john)
    assert list(marker.iterdir()) == []
    assert not [path for path in john.home.rglob("*") if path.suffix == ".pyc"]
    assert not [path for path in john.home.rglob("__pycache__")]


RECORD_BYTES = [
    (b"a|b=c", b"p|q=r"),
    (b"a=b", b"=" * 20),
    (b"\xff\xfe", b"\x80\x7f"),
    (b"name with blanks", b"  "),
    (b"pop3", b"login"),
    (b"\\n", b"\\0\\n"),
]


@pytest.mark.parametrize("name, password", RECORD_BYTES)
def test_CVE_48_the_record_has_two_lines_of_authdata_whatever_they_hold(
    quick, script, public, name, password
):
    dump = script("dump", f"#!/bin/sh\ncat <&3 > {public}/record\n")
    server = quick(stages=["courierpop3login", dump])
    talk(server, b"USER %s\r\nPASS %s\r\n" % (name, password))
    assert (public / "record").read_bytes() == b"pop3\nlogin\n%s\n%s\n\n" % (name, password)


CONTROLS = [octet for octet in range(32) if octet not in (0, 10)]


@pytest.mark.parametrize("where", ["name", "password"])
def test_CVE_48_control_characters_never_reach_a_module(quick, script, public, where):
    dump = script("dump", f"#!/bin/sh\ncat <&3 > {public}/record\n")
    server = quick(stages=["courierpop3login", dump])
    for octet in CONTROLS:
        odd = b"jo%chn" % octet
        name, password = (odd, b"x") if where == "name" else (b"john", odd)
        answer = talk(server, b"USER %s\r\nPASS %s\r\n" % (name, password))
        assert answer.splitlines(keepends=True)[2] == FAILED, octet
        assert not (public / "record").exists(), octet


def test_CVE_48_a_userdb_line_is_found_by_its_whole_name_only(quick, accounts):
    john = accounts.add("john")
    accounts.record("other", uid=1, gid=1, home="/", gecos="x")
    server = quick()
    for name in (b"ohn", b"joh", b"other\tuid=1", b"uid=1", b"systempw", b"=", b"|", b"john\t"):
        answer = talk(server, b"USER %s\r\nPASS %s\r\n" % (name, john.password.encode()))
        assert answer.splitlines(keepends=True)[2] == FAILED, name


def test_a_request_that_is_too_long_for_the_record_is_refused_and_never_cut(
    quick, script, public, mode
):
    dump = script("dump", f"#!/bin/sh\ncat <&3 > {public}/record\n")
    server = quick(*mode, stages=["courierpop3login", dump])
    for name, password in ((3000, 3000), (8000, 1), (1, 8000), (4082, 1)):
        answer = talk(server, b"USER %s\r\nPASS %s\r\nCAPA\r\n" % (b"n" * name, b"p" * password))
        lines = answer.splitlines()
        assert lines[2].startswith(b"-ERR"), lines
        assert b"+OK Here's what I can do:" in lines  # and it can go on
        assert not (public / "record").exists()
    talk(server, b"USER %s\r\nPASS p\r\n" % (b"n" * (4096 - len(b"pop3\nlogin\n\np\n\n"))))
    assert len((public / "record").read_bytes()) == 4096


# Robustness on the wire


def test_ROB_01_one_byte_at_a_time_each_in_its_own_packet(quick, mode, john):
    john.deliver(b"Subject: one\n\n.\n")
    server = quick(*mode)
    with server.client() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert client.line() == GREETING
        for command, answer in {
            b"USER john\r\n": b"+OK Password required.\r\n",
            f"PASS {john.password}\r\n".encode(): SERVED,
            b"TOP 1 1\r\n": b"+OK headers follow.\r\n",
            b"QUIT\r\n": b"Subject: one\r\n",
        }.items():
            for octet in command:
                client.send(bytes([octet]))
            assert client.line() == answer
        assert client.rest() == b"\r\n..\r\n.\r\n" + BYE


def test_ROB_02_bare_line_feeds_are_answered(quick, mode, john):
    john.deliver(b"Subject: one\n\n")
    server = quick(*mode)
    answer = talk(server, login(john).replace(b"\r", b"") + b"STAT\nNOOP\nQUIT\n")
    assert answer.endswith(SERVED + b"+OK 1 16\r\n+OK Yup.\r\n" + BYE)


def test_ROB_03_all_replies_come_after_a_half_close(quick, mode, john):
    large = b"Subject: large\n\n" + b"0123456789 abcdef\n" * 100000
    john.deliver(large)
    server = quick(*mode)
    answer = talk(server, login(john) + b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    assert answer.endswith(b"\r\n.\r\n+OK Deleted.\r\n" + BYE)
    assert large.replace(b"\n", b"\r\n") in answer
    assert john.files() == []


@pytest.mark.parametrize("end", [b"", b"QUIT", b"QUIT\r", b"QUI", b"DELE 2\r\nQUIT"])
def test_ROB_04_ROB_05_a_half_close_without_a_whole_quit_deletes_nothing(quick, mode, john, end):
    john.deliver(b"Subject: one\n\n")
    john.deliver(b"Subject: two\n\n")
    server = quick(*mode)
    answer = talk(server, login(john) + b"DELE 1\r\n" + end)
    assert b"+OK Deleted.\r\n" in answer
    assert BYE not in answer
    server.logged(rf"INFO: DISCONNECTED, user=john, {PEER}, .*")
    assert len(john.files()) == 2


def test_ROB_06_a_hundred_connections_opened_and_dropped(quick, mode, john):
    server = quick(*mode, "-maxprocs=200", "-maxperip=200")
    for number in range(100):
        client = server.client()
        if number % 2:
            client.send(b"USER x\r\n")
        client.close()
    still_serves(server, john)
    wait_until(lambda: not any(map(has_client, server.children())), "all are gone")
    assert len(server.children()) <= 100


def test_ROB_07_thirty_sessions_at_once(quick, mode, accounts):
    server = quick(*mode, "-maxperip=40")
    users = [accounts.add(f"user{number}") for number in range(30)]
    with ExitStack() as stack:
        clients = []
        for number, user in enumerate(users):
            user.deliver(b"Subject: %d\n\n" % number)
            clients.append(stack.enter_context(server.client().login(user)))
        for number, client in enumerate(clients):
            assert client.listing("RETR 1") == [f"Subject: {number}", ""]
            assert client.ask("DELE 1") == "+OK Deleted."
        for client in clients:
            assert client.ask("QUIT") == "+OK Bye-bye."
    assert [user.files() for user in users] == [[]] * 30


def test_ROB_08_two_hundred_wrong_commands(quick, mode, john):
    server = quick(*mode)
    with server.client() as client:
        assert client.line() == GREETING
        for number in range(200):
            assert client.ask(f"WRONG{number}") == "-ERR Invalid command."
        client.ask("USER john")
        assert client.ask("PASS " + john.password) == "+OK logged in."
        for number in range(200):
            assert client.ask(f"WRONG{number}") == "-ERR Invalid command."
        assert client.ask("QUIT") == "+OK Bye-bye."


def test_ROB_10_a_reset_in_mid_retr(quick, mode, john):
    large = b"Subject: large\n\n" + (b"0123456789 abcdef" * 50 + b"\n") * 15000
    john.deliver(large)
    server = quick(*mode)
    for _ in range(3):
        client = server.client().login(john)
        client.send(b"DELE 1\r\nRSET\r\nRETR 1\r\nDELE 1\r\n")
        client.file.read(100000)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_until(
        lambda: len([line for line in server.lines() if "DISCONNECTED, user=john" in line]) == 3,
        "three lines",
    )
    assert len(john.files()) == 1
    still_serves(server, john)


LETTERS = {  # stored, and what a client has after taking the doubled dots away
    "crlf": (b"Subject: crlf\r\n\r\nx\r\n.\r\n", b"Subject: crlf\r\n\r\nx\r\n.\r\n"),
    "mixed": (b"A: b\r\n\nx\n\r\n", b"A: b\r\n\r\nx\r\n\r\n"),
    "nul": (b"A: b\n\n\0\0\n\0", b"A: b\r\n\r\n\0\0\r\n\0\r\n"),
    "bare-cr": (b"A: b\n\na\rb\r\rc\n", b"A: b\r\n\r\na\rb\r\rc\r\n"),
    "long-line": (b"A: b\n\n" + b"x" * 1_000_000 + b"\n", None),
    "empty": (b"", b""),
    "one-byte": (b"x", b"x\r\n"),
    "lone-dot": (b".", b".\r\n"),
    "dot-line": (b".\n", b".\r\n"),
    "blank-first": (b"\nbody\n", b"\r\nbody\r\n"),
    "final-cr": (b"A: b\n\nx\r", b"A: b\r\n\r\nx\r\r\n"),
    "only-lf": (b"\n", b"\r\n"),
    "no-body": (b"A: b\n", b"A: b\r\n"),
    "8-bit-body": (b"A: b\n\n\xff\xfe\n", b"A: b\r\n\r\n\xff\xfe\r\n"),
}


def test_ROB_11_ROB_12_ROB_13_every_kind_of_message_at_its_listed_size(quick, mode, john):
    for stored, _ in LETTERS.values():
        john.deliver(stored)
    server = quick(*mode)
    with server.client().login(john) as client:
        sizes = [int(line.split()[1]) for line in client.listing("LIST")]
        assert client.ask("STAT") == f"+OK {len(LETTERS)} {sum(sizes)}"
        for number, (name, (stored, sent)) in enumerate(LETTERS.items(), 1):
            sent = stored.replace(b"\n", b"\r\n") if sent is None else sent
            assert client.ask(f"RETR {number}") == f"+OK {len(sent)} octets follow.", name
            assert sizes[number - 1] == len(sent), name
            got = b""
            while (line := client.line()) != b".\r\n":
                assert line, name
                got += line[1:] if line.startswith(b".") else line
            assert got == sent, name
        assert client.ask("QUIT") == "+OK Bye-bye."


# RFC 2449, section 6.8


def test_2449_07_2449_08_replies_come_in_order_across_the_login(quick, mode, john):
    john.deliver(b"Subject: one\n\n")
    server = quick(*mode)
    commands = b"NOOP\r\nSTAT\r\nWRONG\r\nLIST 1\r\nRETR 1\r\nRETR 2\r\nDELE 1\r\nSTAT\r\nRSET\r\n"
    answer = talk(server, b"WRONG\r\nCAPA\r\n" + login(john) + commands + b"QUIT\r\nNOOP\r\n")
    lines = answer.decode().split("\r\n")
    begin = lines.index(".") + 1
    assert lines[:2] == ["+OK Hello there.", "-ERR Invalid command."]
    assert lines[begin:] == [
        *("+OK Password required.", "+OK logged in.", "+OK Yup.", "+OK 1 16"),
        *("-ERR Invalid command.", "+OK 1 16", "+OK 16 octets follow.", "Subject: one", "", "."),
        *("-ERR Invalid message number.", "+OK Deleted.", "+OK 0 0", "+OK Resurrected."),
        *("+OK Bye-bye.", ""),
    ]
    assert len(john.files()) == 1


def test_2449_08_a_failed_login_keeps_what_was_sent_ahead(quick, mode, john):
    server = quick(*mode)
    answer = talk(server, b"USER john\r\nPASS wrong\r\n" + login(john) + b"NOOP\r\nQUIT\r\n")
    assert answer.splitlines()[2:] == [
        *(FAILED.rstrip(), b"+OK Password required.", SERVED.rstrip(), b"+OK Yup.", BYE.rstrip())
    ]


def test_2449_09_five_hundred_commands_before_a_reply_is_read(quick, mode, john):
    john.deliver(b"Subject: one\n\n" + b"x" * 70 + b"\n")
    server = quick(*mode)
    with server.client().login(john) as client:
        sender = threading.Thread(target=client.send, args=(b"RETR 1\r\nNOOP\r\n" * 500,))
        sender.start()
        sender.join(DEADLINE)
        assert not sender.is_alive()
        client.send(b"QUIT\r\n")
        answer = client.rest()
    assert answer.count(b"+OK 88 octets follow.\r\n") == answer.count(b"+OK Yup.\r\n") == 500
    assert answer.endswith(BYE)


def test_2449_09_five_hundred_commands_before_the_login(quick, mode, john):
    server = quick(*mode)
    answer = talk(server, b"NOOP\r\n" * 500 + login(john) + b"QUIT\r\n")
    assert answer.count(b"-ERR Invalid command.\r\n") == 500
    assert answer.endswith(SERVED + BYE)


def test_2449_11_2449_14_no_response_codes_where_none_are_announced(quick, mode, john):
    server = quick(*mode)
    commands = b"USER\r\nPASS\r\nRETR\r\nUSER x\r\nPASS y\r\nCAPA\r\nAUTH X\r\n" + login(john)
    answer = talk(server, commands + b"RETR 9\r\nUIDL x\r\nTOP\r\nWRONG\r\nCAPA\r\nQUIT\r\n")
    assert b"RESP-CODES" not in answer
    assert not re.search(rb"^(\+OK|-ERR) \[", answer, re.MULTILINE)


def test_2449_12_login_delay_is_a_number(quick, mode, john):
    server = quick(*mode)
    for before in (b"", login(john)):
        lines = talk(server, before + b"CAPA\r\nQUIT\r\n").splitlines()
        for line in lines:
            if line.startswith((b"LOGIN-DELAY", b"EXPIRE")):
                assert re.fullmatch(rb"LOGIN-DELAY \d+( USER)?|EXPIRE (NEVER|\d+)( USER)?", line)


def test_2449_13_dele_dele_quit_in_one_packet(quick, mode, john):
    for number in range(3):
        john.deliver(b"Subject: %d\n\n" % number)
    server = quick(*mode)
    with server.client().login(john) as client:
        client.send(b"DELE 1\r\nDELE 2\r\nQUIT\r\n")
        assert client.rest() == b"+OK Deleted.\r\n+OK Deleted.\r\n" + BYE
    assert [(john.maildir / "cur" / name).read_bytes() for name in john.files()] == [
        b"Subject: 2\n\n"
    ]


def test_1939_48_nothing_is_obeyed_after_quit(quick, mode, john):
    john.deliver(b"Subject: one\n\n")
    server = quick(*mode)
    assert talk(server, login(john) + b"QUIT\r\nDELE 1\r\nQUIT\r\n").endswith(SERVED + BYE)
    assert talk(server, b"QUIT\r\n" + login(john)).endswith(b"+OK Better luck next time.\r\n")
    assert len(john.files()) == 1


def test_the_users_uid_is_the_only_one_that_a_hostile_client_meets(quick, process_mode, john):
    """CVE-37: after the login, no process of root has the client on its descriptors."""
    if not ROOT:
        pytest.skip("all processes have one uid")
    server = quick(*process_mode)
    with server.client().login(john):
        for pid in server.children():
            if has_client(pid):
                assert os.stat(f"/proc/{pid}").st_uid == john.uid


def test_6856_01_a_client_that_has_said_utf8_logs_in_with_a_utf8_name_and_password(serve, accounts):
    accounts.add("josé", systempw=sha("пароль"))
    server = serve()
    with server.client() as client:
        client.line()
        assert "UTF8 USER" in client.listing("CAPA")
        assert client.ask("UTF8") == "+OK UTF8 enabled"
        assert client.ask("USER josé") == "+OK Password required."
        assert client.ask("PASS пароль") == "+OK logged in."
        assert client.ask("QUIT") == "+OK Bye-bye."


def test_6856_06_stls_after_utf8_is_refused_and_the_session_goes_on(serve, john):
    with serve().client() as client:
        client.line()
        assert client.ask("UTF8") == "+OK UTF8 enabled"
        assert client.ask("STLS").startswith("-ERR ")
        client.ask(f"USER {john.name}")
        assert client.ask(f"PASS {john.password}") == "+OK logged in."
