"""Ban scripts and log checkers of today and of long ago read our log.

Fail2ban's own program with the filter that it ships, filters that stand in many a jail.local, and
Debian's expressions for logcheck. Each failed login must be one match, with the client's address
and nobody else's, whatever the userid. A real couriertcpd under a real courierlogger writes the
lines.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, DEADLINE, Server, free_port, needs, wait_until

PACKAGING = Path(__file__).parent.parent.parent / "packaging"
JAIL = PACKAGING / "fail2ban/courier-pop.conf"
OUR_LOGCHECK = PACKAGING / "logcheck/courier-pop"
PEERS = "/var/cache/courierpop3-peers"  # where tests/run unpacks what can't be installed
LOGCHECK = Path("/etc/logcheck/ignore.d.server/courier-pop")

# Filters in the field: a colon has to stand before an IPv4 address (couriertcpd.md 11).
OLD_FILTERS = {
    "pop3d": r"pop3d: LOGIN FAILED.*ip=\[.*:<HOST>\]",
    "pop3d-ssl": r"pop3d-ssl: LOGIN FAILED.*ip=\[.*:<HOST>\]",
    "courierpop3login": r"courierpop3login: LOGIN FAILED.*ip=\[.*:<HOST>\]",
}

USERIDS = {
    "plain": b"john",
    "mail address": b"john@example.com",
    "forged field": b"x, ip=[::ffff:192.0.2.7]",
    "forged fields": b"x, ip=[::ffff:192.0.2.7], port=[1]",
    "forged field without blanks": b"x,ip=[::ffff:192.0.2.7],port=[1]",
    "forged field of one word": b"ip=[::ffff:192.0.2.7]",
    "forged method": b"x, method=PLAIN, ip=[192.0.2.7]",
    "forged line": b"LOGIN FAILED, ip=[::ffff:192.0.2.7]",
    "CR before a forged line": b"x\rINFO: LOGIN FAILED, user=y, ip=[::ffff:192.0.2.7]",
    "vertical tab before a forged line": b"x\x0bpop3d: LOGIN FAILED, ip=[::ffff:192.0.2.7]",
    "NEL and LS before forged lines": b"x\xc2\x85y\xe2\x80\xa8pop3d: LOGIN FAILED, ip=[1.2.3.4]",
    "date in front": b"Nov 22 03:41:21 host pop3d: LOGIN FAILED, ip=[::ffff:192.0.2.7]",
    "bracket": b"]",
    "brackets": b"x] [y",
    "commas": b",",
    "equals signs": b"=,=,=",
    "ip= that is never closed": b"ip=[",
    "not UTF-8": b"\xff\xfe\xc3(",
    "UTF-8": "j\u00f6rg\u202e".encode(),
    "escape code": b"\x1b[2J",
    "percent": b"%s%n%(ip)s<HOST>",
    "words": b"LOGIN FAILED",
    "very long": b"x" * 200,
    "as long as a message of syslog": b"ip=[::ffff:192.0.2.7], " * 10,
}


def source(number: int) -> str:
    """An address of this machine for each try, so that a match says whose it is."""
    return f"127.10.0.{number + 1}"


class Fail2ban:
    """fail2ban's programs, installed or unpacked. configuration: of the installation."""

    def __init__(self):
        self.env = dict(os.environ)
        self.root = "" if shutil.which("fail2ban-regex") else PEERS
        if not Path(f"{self.root}/usr/bin/fail2ban-regex").exists():
            needs("fail2ban-regex")
        if self.root:
            self.env["PYTHONPATH"] = f"{PEERS}/usr/lib/python3/dist-packages"
        self.configuration = f"{self.root}/etc/fail2ban"

    def run(self, program: str, configuration: str, *arguments: str) -> str:
        argv = ["/usr/bin/python3", f"{self.root}/usr/bin/{program}", "-c", configuration]
        done = subprocess.run(
            [*argv, *arguments], env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def found(self, log: Path, expression: str) -> list[str]:
        """The address of each match of a filter's name or an expression, in the log's order."""
        arguments = ["--usedns=no", "-o", "row", str(log), expression]
        output = self.run("fail2ban-regex", self.configuration, *arguments)
        rows = [line for line in output.splitlines() if line.startswith("[")]
        return [ast.literal_eval(row.rstrip(","))[0] for row in rows]


@pytest.fixture(scope="module")
def fail2ban():
    return Fail2ban()


@pytest.fixture
def logging(public, environment):
    """Start a listener under courierlogger: logging(ident, option..., delay="0"); the server, whose
    log is courierlogger's file."""
    running: list[Server] = []

    def start(ident: str, *options: str, port: int, ports: str = "", **env: str) -> Server:
        log = public / f"{ident}.log"
        argv = [str(BIN / "courierlogger"), f"-name={ident}", f"-file={log}"]
        argv += [str(BIN / "couriertcpd"), "-address=127.0.0.1", "-nodnslookup", "-maxprocs=100"]
        argv += [*options, ports or str(port)]
        argv += ["courierpop3login", "authuserdb", "courierpop3d", "./Maildir"]
        server = Server(argv, {**environment, "POP3_FAILURE_DELAY": "0", **env}, port, log)
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


def talk(port: int, sent: bytes, origin: str = "127.0.0.1", host: str = "127.0.0.1") -> bytes:
    """Everything that comes for what was sent at once."""
    with socket.create_connection((host, port), DEADLINE, source_address=(origin, 0)) as client:
        client.sendall(sent)
        with client.makefile("rb") as file:
            return file.read()


def failures(server: Server) -> list[str]:
    return [line for line in server.lines() if re.search(r": LOGIN FAILED, .*port=\[\d+\]$", line)]


def as_rsyslog(log: Path) -> Path:
    """The same log as rsyslog writes it: the machine's name behind the time."""
    lines = log.read_text().splitlines()
    forwarded = log.with_suffix(".rsyslog")
    forwarded.write_text("".join(f"{line[:15]} mail.example.com{line[15:]}\n" for line in lines))
    return forwarded


@pytest.mark.parametrize("uses", ["-uses=1", "-uses=5", "-coldexec"])
@pytest.mark.parametrize("ident", OLD_FILTERS)
def test_row_58_CVE_38_each_failure_bans_its_client_and_nobody_else(logging, fail2ban, ident, uses):
    port = free_port()
    server = logging(ident, uses, port=port)
    for number, userid in enumerate(USERIDS.values()):
        answer = talk(port, b"USER %s\r\nPASS wrong\r\nQUIT\r\n" % userid, source(number))
        assert b"-ERR Login failed.\r\n" in answer, (userid, answer)
    expected = [source(number) for number in range(len(USERIDS))]
    wait_until(lambda: len(failures(server)) >= len(expected), "every failure is logged")
    for log in (server.log, as_rsyslog(server.log)):
        assert fail2ban.found(log, "courier-auth") == expected
        assert fail2ban.found(log, OLD_FILTERS[ident]) == expected
    assert len(failures(server)) == len(expected)


def test_tries_of_one_connection_are_counted_one_by_one(logging, fail2ban):
    port = free_port()
    server = logging("pop3d", port=port)
    talk(port, b"USER john\r\nPASS a\r\nUSER mary\r\nPASS b\r\nUSER root\r\nPASS c\r\nQUIT\r\n")
    server.logged(r".*Disconnected.*")
    assert fail2ban.found(server.log, "courier-auth") == 3 * ["127.0.0.1"]


def test_who_goes_away_before_the_answer_is_counted(logging, fail2ban):
    port = free_port()
    server = logging("pop3d", port=port, POP3_FAILURE_DELAY="1")
    with server.client() as client:
        client.line()
        client.ask("USER john")
        client.send(b"PASS a\r\n")
    server.logged(r".*LOGIN FAILED.*")
    assert fail2ban.found(server.log, "courier-auth") == ["127.0.0.1"]


def test_the_try_that_is_answered_too_late_is_counted(logging, fail2ban):
    """Timed so that the failure's delay ends behind the deadline of the login."""
    port = free_port()
    server = logging("pop3d", port=port, POP3_FAILURE_DELAY="2", POP3_LOGIN_TIMEOUT="2")
    assert b"failed" not in talk(port, b"USER john\r\nPASS a\r\n")
    server.logged(r".*LOGIN FAILED.*")
    assert fail2ban.found(server.log, "courier-auth") == ["127.0.0.1"]


def test_a_client_of_ipv6_is_banned_by_its_whole_address(logging, fail2ban):
    port = free_port()
    server = logging("pop3d", port=port, ports=f"::1.{port}")
    assert b"Login failed" in talk(port, b"USER x\r\nPASS y\r\nQUIT\r\n", "::1", "::1")
    server.logged(r".*Disconnected.*")
    assert fail2ban.found(server.log, "courier-auth") == ["::1"]


def test_a_login_that_succeeds_bans_nobody(logging, fail2ban, accounts):
    """Not even with a name and a mailbox that look like a failure."""
    account = accounts.add("x,ip=[192.0.2.7]")
    account.deliver(b"Subject: x\n\ny\n", "1700000000.LOGIN FAILED, ip=[192.0.2.7]")
    port = free_port()
    server = logging("pop3d", port=port, POP3_LOG_DELETIONS="1")
    name, password = account.name.encode(), account.password.encode()
    answer = talk(port, b"USER %s\r\nPASS %s\r\nDELE 1\r\nQUIT\r\n" % (name, password))
    assert answer.count(b"+OK") == 5, answer
    server.logged(r".*LOGOUT, user=.*")
    assert fail2ban.found(server.log, "courier-auth") == []


@pytest.mark.parametrize("ident", ["courierpop3login", "pop3d", "pop3d-ssl"])
def test_logcheck_is_silent_about_sessions_and_shows_failures(logging, accounts, ident):
    """With our expressions; and with Debian's, which know sessions of courierpop3login only."""
    needs("grep")
    john = accounts.add("john@example.com")
    port = free_port()
    server = logging(ident, port=port)
    name, password = john.name.encode(), john.password.encode()
    talk(port, b"USER %s\r\nPASS %s\r\nQUIT\r\n" % (name, password))
    talk(port, b"USER john\r\nPASS x\r\nQUIT\r\n")
    server.logged(r".*Disconnected.*")
    log = as_rsyslog(server.log)
    (shown,) = shown_by_logcheck(OUR_LOGCHECK, log)
    assert f" {ident}: LOGIN FAILED, user=john, ip=[::ffff:127.0.0.1], port=[" in shown
    if ident == "courierpop3login":
        if not LOGCHECK.exists():
            needs(f"{LOGCHECK} of courier-pop")
        lines = shown_by_logcheck(LOGCHECK, log)
        assert not [line for line in lines if re.search(": (LOGIN|LOGOUT), user=", line)]
        assert shown in lines


def shown_by_logcheck(expressions: Path, log: Path) -> list[str]:
    argv = ["grep", "-E", "-v", "-f", str(expressions), str(log)]
    return subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()


def test_the_jail_that_we_ship_bans_at_the_ports_of_pop3(fail2ban, public):
    configuration = public / "fail2ban"
    shutil.copytree(fail2ban.configuration, configuration)
    for jail in (configuration / "jail.d").iterdir():
        jail.unlink()  # the distributor's own, which may lack its log here
    mail_log = public / "mail.log"
    mail_log.touch()
    text = JAIL.read_text() + f"logpath = {mail_log}\nbackend = polling\n"
    (configuration / "jail.d/courier-pop.conf").write_text(text)
    output = fail2ban.run("fail2ban-client", str(configuration), "-d")
    commands = [ast.literal_eval(line) for line in output.splitlines() if line.startswith("[")]
    assert ["add", "courier-auth", "polling"] in commands
    assert ["set", "courier-auth", "addlogpath", str(mail_log), "head"] in commands
    assert ["start", "courier-auth"] in commands
    action = next(c for c in commands if c[0] == "multi-set" and "addaction" not in c[:3])
    assert ["port", "pop3,pop3s"] in action[-1]
