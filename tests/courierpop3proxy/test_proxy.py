"""POP3_PROXY: an account whose mailbox is on another host is served from there.

The mail host is a chain of ours on another port, or a thread that says what a test wants to hear.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import (
    BIN,
    DEADLINE,
    ROOT,
    Account,
    Client,
    children_of,
    free_port,
    needs,
    needs_root,
    sha,
    wait_until,
)
from tests.courierpop3proxy.conftest import GREETING, replies

CONNECTED = "+OK Connected to proxy server."
TEMPORARY = "-ERR Temporary problem, please try again later"
PEER = r"ip=\[::ffff:127\.0\.0\.1\], port=\[\d+\]"


def log_in(server, account: Account) -> Client:
    client = server.client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert client.ask(f"USER {account.name}") == "+OK Password required."
    assert client.ask(f"PASS {account.password}") == CONNECTED
    return client


def answer_to_pass(server, account: Account) -> tuple[Client, str]:
    client = server.client()
    client.line()
    client.ask(f"USER {account.name}")
    return client, client.ask(f"PASS {account.password}")


@pytest.fixture
def chain(serve, accounts, any_mode):
    """john's mailbox, on a chain of ours that is no proxy; and john, as the proxy has him."""
    account = accounts.add("john", listed=False)
    account.deliver(b"Subject: one\n\nbody\n.dot\n")
    host = serve(*any_mode)
    fields = {"uid": account.uid, "gid": account.gid, "home": account.home}
    options = f"mailhost=127.0.0.1:{host.port}"
    accounts.record("john", **fields, systempw=sha(account.password), options=options)
    return host, account


def test_a_session_at_the_mail_host(proxy, chain):
    host, john = chain
    server = proxy()
    with log_in(server, john) as client:
        assert client.ask("STAT") == "+OK 1 28"
        assert client.listing("RETR 1") == ["Subject: one", "", "body", "..dot"]
        assert client.ask("DELE 1") == "+OK Deleted."
        assert client.ask("QUIT") == "+OK Bye-bye."
        assert client.rest() == b""
    assert john.files() == []
    host.logged(f"INFO: LOGIN, user=john, {PEER}")
    server.logged(f"INFO: LOGIN, user=john, {PEER}, protocol=POP3")
    server.logged(rf"INFO: LOGOUT, user=john, {PEER}, rcvd=28, sent=\d+, time=\d+")


def test_log_lines_say_that_the_client_has_TLS(proxy, elsewhere, mail_host):
    john = elsewhere(mail_host())
    server = proxy(POP3_TLS="1")
    with log_in(server, john) as client:
        client.ask("QUIT")
    server.logged(f"INFO: LOGIN, user=john, {PEER}, protocol=POP3, stls=1")
    server.logged(rf"INFO: LOGOUT, user=john, {PEER}, rcvd=6, sent=\d+, time=\d+, stls=1")


def test_2449_08_what_is_sent_behind_PASS_reaches_the_mail_host(proxy, chain):
    _, john = chain
    with proxy().client() as client:
        commands = f"USER john\r\nPASS {john.password}\r\nSTAT\r\nNOOP\r\nQUIT\r\n"
        client.send(commands.encode())
        assert client.rest().decode().split("\r\n") == [
            "+OK Hello there.",
            "+OK Password required.",
            CONNECTED,
            "+OK 1 28",
            "+OK Yup.",
            "+OK Bye-bye.",
            "",
        ]


def test_the_mail_host_is_told_the_address_the_password_and_UTF8(proxy, elsewhere, mail_host):
    host = mail_host()
    john = elsewhere(host, name="john@example.com")
    server = proxy(DEFDOMAIN="@example.com")
    with server.client() as client:
        client.line()
        assert client.ask("UTF8") == "+OK UTF8 enabled"
        assert client.ask("USER john") == "+OK Password required."
        assert client.ask(f"PASS {john.password}") == CONNECTED
    server.logged(f"INFO: LOGIN, user=john@example.com, {PEER}, protocol=POP3")
    assert host.lines[:3] == [
        b"UTF8\r\n",
        b"USER john@example.com\r\n",
        b"PASS secret of john@example.com\r\n",
    ]


def test_a_wrong_password_does_not_reach_the_mail_host(proxy, elsewhere, mail_host):
    host = mail_host()
    john = elsewhere(host)
    john.password = "wrong"
    client, reply = answer_to_pass(proxy(), john)
    assert reply == "-ERR Login failed."
    assert host.sessions == 0
    client.close()


# Whose mailbox is where


def test_an_account_without_mailhost_is_served_here(proxy, john):
    server = proxy()
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"
    server.logged("WARN: proxy enabled, but no proxy host defined for john")


@pytest.mark.parametrize(
    "hosts, env",
    [
        ([os.uname().nodename], {}),
        (["mail.example.com"], {"PROXY_HOSTNAME": "mail.example.com"}),
        (["127.0.0.1:1", "mail.example.com"], {"PROXY_HOSTNAME": "mail.example.com"}),
        (["127.0.0.1:1"], {"POP3_PROXY": "0"}),
        (["127.0.0.1:1"], {"POP3_PROXY": ""}),
    ],
)
def test_a_mailbox_that_is_here_is_served_here(proxy, accounts, hosts, env):
    john = accounts.add("john", options=",".join(f"mailhost={host}" for host in hosts))
    server = proxy(**env)
    with server.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"
    server.logged(f"INFO: LOGIN, user=john, {PEER}")
    assert not any("proxy" in line for line in server.lines())


def test_our_name_is_compared_letter_for_letter(proxy, elsewhere):
    john = elsewhere("MAIL.example.invalid")
    client, reply = answer_to_pass(proxy(PROXY_HOSTNAME="mail.example.invalid"), john)
    assert reply == TEMPORARY
    client.close()


def test_courierpop3d_refuses_what_another_module_should_have_passed_on(proxy, accounts, script):
    """It sets the environment as Courier's modules do; the next program is courierpop3d."""
    john = accounts.add("john", listed=False)
    switch = f"setpriv --reuid={john.uid} --regid={john.gid} --clear-groups" if ROOT else ""
    module = script(
        "authother",
        "#!/bin/sh\ncat <&3 >/dev/null\nexport AUTHENTICATED=john AUTHADDR=john "
        f'OPTIONS=mailhost=mail.example.com\ncd {john.home}\nexec {switch} "$@" 3<&-\n',
    )
    stages = ["courierpop3login", module, "courierpop3d", "./Maildir"]
    server = proxy(stages=stages)
    client, reply = answer_to_pass(server, john)
    with client:
        assert reply == TEMPORARY
        assert client.rest() == b""
    server.logged(
        r"ERR: the mailbox is on mail\.example\.com, "
        "and the module that accepted doesn't pass it on, user=john"
    )


def test_without_a_password_nobody_can_be_passed_on(public, script, elsewhere):
    """A CRAM login leaves no password behind: the login program is to say that it failed."""
    login = script("login", "#!/bin/sh\necho login again\n")
    module = script(
        "authcram",
        f"#!{BIN}/python3 -IB\n"
        "from courierchain.account import Account\n"
        "from courierchain.authmodule import auth_module\n"
        "@auth_module\n"
        "def authcram(request, settings):\n"
        "    return Account(user='john', uid=1, gid=1, home='/', options='mailhost=h.example')\n"
        "authcram.run()\n",
    )
    env = {"POP3_PROXY": "1", "AUTHUSER": login, "AUTHARGC": "1", "AUTHARGV0": login}
    done = run_with_record([module, "/bin/true"], env, b"pop3\ncram-md5\nabc\ndef\n\n")
    assert done.stdout == b"login again\n"
    assert done.stderr == b"WARN: proxy enabled, but no password for john\n"


def run_with_record(argv: list[str], env: dict[str, str], record: bytes):
    return subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh", *argv],
        env={"PATH": "/usr/bin:/bin", **env},
        input=record,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize("record", [b"", b"pop3\nauthenticated\njohn\n", b"pop3\nlogin\nj\np\nq\n"])
def test_started_outside_a_chain_it_says_so(record):
    done = run_with_record(
        [str(BIN / "courierpop3proxy")], {"AUTHENTICATED": "john", "OPTIONS": "mailhost=h"}, record
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"AUTHFAILURE\n")


def test_started_as_root_it_does_not_go_to_the_network(mail_host):
    needs_root()
    host = mail_host()
    done = run_with_record(
        [str(BIN / "courierpop3proxy")],
        {"AUTHENTICATED": "john", "OPTIONS": f"mailhost={host.name}"},
        b"pop3\nlogin\njohn\nsecret\n\n",
    )
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"as root" in done.stderr
    assert host.sessions == 0


@pytest.mark.parametrize(
    "option, env, text",
    [
        ("disablepop3", {}, "POP3 access disabled for this account."),
        ("disableinsecurepop3", {}, "POP3 access disabled via insecure connection."),
        ("disableinsecurepop3", {"POP3_TLS": "1"}, None),
    ],
)
def test_an_account_that_may_not_use_POP3(proxy, accounts, mail_host, option, env, text):
    """Here is where the client's connection is known to be encrypted or not."""
    host = mail_host()
    john = accounts.add("john", options=f"{option}=1,mailhost={host.name}", home="/nonexistent")
    client, reply = answer_to_pass(proxy(**env), john)
    with client:
        assert reply == (f"-ERR {text}" if text else CONNECTED)
        if text:
            assert client.rest() == b""
            assert host.sessions == 0


# Which host, and what if there is none


def test_hosts_are_asked_in_their_order(proxy, elsewhere, mail_host):
    nobody = f"127.0.0.1:{free_port()}"
    busy = mail_host(greeting=b"-ERR Not now\r\n")
    first, second = mail_host(), mail_host()
    john = elsewhere(nobody, busy, first, second)
    server = proxy()
    with log_in(server, john) as client:
        assert client.ask("QUIT") == "+OK Bye."
    server.logged(
        rf"WARN: courierpop3proxy: {nobody}: cannot connect: Connection refused, user=john"
    )
    server.logged(rf"WARN: courierpop3proxy: {busy.name}: greeting: -ERR\.Not\.now, user=john")
    assert (first.sessions, second.sessions) == (1, 0)
    assert set(busy.lines) <= {b""}


def test_when_no_host_can_be_asked_the_failure_is_temporary(proxy, elsewhere):
    john = elsewhere(f"127.0.0.1:{free_port()}", "no such host", "[::1", "127.0.0.1:70000")
    server = proxy()
    client, reply = answer_to_pass(server, john)
    with client:
        assert reply == TEMPORARY
        assert client.rest() == b""
    lines = [line for line in server.lines() if line.startswith("WARN: courierpop3proxy: ")]
    assert len(lines) == 4
    assert not any("LOGIN" in line for line in server.lines())


@pytest.mark.parametrize("code", [b"[SYS/TEMP]", b"[in-use]", b"[LOGIN-DELAY]"])
def test_3206_a_response_code_tells_a_temporary_failure(proxy, elsewhere, mail_host, code):
    host = mail_host(replies(b"+OK\r\n", b"-ERR %s Later.\r\n" % code))
    client, reply = answer_to_pass(proxy(), elsewhere(host))
    assert reply == TEMPORARY
    client.close()


@pytest.mark.parametrize(
    "answers",
    [
        [b"+OK\r\n", b"-ERR Wrong password for john.\r\n"],
        [b"+OK\r\n", b"-ERR [AUTH] Wrong password for john.\r\n"],
        [b"-ERR Nobody here has that name.\r\n"],
    ],
)
def test_a_login_that_the_mail_host_refuses_has_failed_and_another_may_be_tried(
    proxy, elsewhere, mail_host, accounts, answers
):
    """The mail host's words are not the client's business (CVE-42)."""
    host = mail_host(replies(*answers))
    nobody = f"127.0.0.1:{free_port()}"
    john, mary = elsewhere(host, nobody), accounts.add("mary")
    server = proxy()
    client, reply = answer_to_pass(server, john)
    with client:
        assert reply == "-ERR Login failed."
        assert client.ask(f"USER {mary.name}") == "+OK Password required."
        assert client.ask(f"PASS {mary.password}") == "+OK logged in."
        assert client.ask("STAT") == "+OK 0 0"
    server.logged(f"INFO: LOGIN FAILED, user=john, {PEER}")
    server.logged(f"INFO: LOGIN, user=mary, {PEER}")


def test_a_password_that_the_mail_host_repeats_is_not_logged(proxy, elsewhere, mail_host):
    host = mail_host(replies(b"+OK\r\n", b"-ERR I don't know PASS secret of john\r\n"))
    server = proxy()
    client, _ = answer_to_pass(server, elsewhere(host))
    client.close()
    server.logged(r".*PASS: -ERR\.I\.don't\.know\.PASS\.\.\.\., user=john")
    assert "secret" not in "".join(server.lines())


@pytest.mark.parametrize(
    "name, value",
    [
        ("POP3_PROXY_TLS", "perhaps"),
        ("POP3_PROXY_TIMEOUT", "long"),
        ("POP3_PROXY_IDLE_TIMEOUT", "-1"),
        ("POP3_PROXY_CAFILE", "/nonexistent"),
        ("POP3_PROXY_CAFILE", "/dev/null"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(mail_host, name, value):
    host = mail_host()
    env = {"AUTHENTICATED": "john", "OPTIONS": f"mailhost={host.name}", name: value}
    done = run_as_user(env, b"john", b"secret")
    assert (done.returncode, done.stdout) == (75, b"")
    assert re.fullmatch(
        rf"ERR: courierpop3proxy: {name}={value}: .+, user=john\n", done.stderr.decode()
    )
    assert host.sessions == 0


@pytest.mark.parametrize("name", ["POP3_PROXY_TLS", "POP3_PROXY_CAFILE", "POP3_PROXY_TIMEOUT"])
def test_the_listener_does_not_start_with_it(environment, name):
    env = {**environment, "POP3_PROXY": "1", name: "/nonexistent"}
    done = subprocess.run(
        [
            BIN / "couriertcpd",
            "-nodnslookup",
            "0",
            "courierpop3login",
            "authuserdb",
            "courierpop3d",
        ],
        env=env,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 1
    assert f"courierpop3proxy: {name}=/nonexistent: ".encode() in done.stderr


# The process


def proxying(server) -> int:
    """The process that has a connection to a mail host: the only one without a child, and with
    more than the client, the log and a listener's descriptors."""

    def search():
        found = list(server.children())
        for pid in found:
            found += children_of(pid)
        for pid in found:
            if ROOT and os.path.exists(f"/proc/{pid}") and os.stat(f"/proc/{pid}").st_uid == 0:
                continue
            sockets = {
                target
                for name in os.listdir(f"/proc/{pid}/fd")
                if (target := os.readlink(f"/proc/{pid}/fd/{name}")).startswith("socket:")
            }
            if len(sockets) == 2:
                return pid
        return None

    return wait_until(search, "a process between a client and a mail host")


def test_it_runs_as_the_user_and_keeps_nothing_of_the_listener(proxy, elsewhere, mail_host):
    needs_root()
    john = elsewhere(mail_host())
    server = proxy()
    with log_in(server, john) as client:
        assert client.ask("NOOP") == "+OK NOOP"
        pid = proxying(server)
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:(\t20001){4}$", status, re.MULTILINE), status
        assert re.search(r"^Gid:(\t20001){4}$", status, re.MULTILINE), status
        assert re.search(r"^Groups:\t20001 *$", status, re.MULTILINE), status
        assert len(os.listdir(f"/proc/{pid}/fd")) == 4  # 0, 1, 2 and the mail host
        assert john.password not in Path(f"/proc/{pid}/environ").read_text(errors="replace")
        assert john.password not in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")


def test_sessions_here_and_elsewhere_one_after_another(proxy, elsewhere, accounts, mail_host):
    john, mary = elsewhere(mail_host()), accounts.add("mary")
    server = proxy()
    for _ in range(4):
        with log_in(server, john) as client:
            assert client.ask("QUIT") == "+OK Bye."
            assert client.rest() == b""
        with server.client().login(mary) as client:
            assert client.ask("QUIT") == "+OK Bye-bye."
            assert client.rest() == b""


def test_where_all_mailboxes_have_one_uid(proxy, elsewhere, accounts, mail_host):
    needs_root()
    host = mail_host(replies(b"+OK\r\n", b"-ERR Wrong\r\n"))
    john, mary = elsewhere(mail_host()), elsewhere(host, name="mary", uid=20001, gid=20001)
    os.chown(accounts.userdb, john.uid, john.gid)
    server = proxy(f"-user={john.uid}", f"-group={john.gid}")
    client, reply = answer_to_pass(server, mary)
    with client:
        assert reply == "-ERR Login failed."
        assert client.ask(f"USER {john.name}") == "+OK Password required."
        assert client.ask(f"PASS {john.password}") == CONNECTED
        assert client.ask("QUIT") == "+OK Bye."


def test_the_listener_ends_a_proxied_session_too(proxy, elsewhere, mail_host):
    john = elsewhere(mail_host())
    server = proxy()
    with log_in(server, john) as client:
        assert client.ask("NOOP") == "+OK NOOP"
        server.stop()
        assert client.rest() == b""


# Bytes both ways

MUCH = bytes(range(256)) * 16384  # 4 MiB


def flood(host, client: socket.socket) -> None:
    """Lets everybody in and answers the first command with MUCH."""
    for _ in range(2):
        host.ask(client)
        client.sendall(b"+OK\r\n")
    host.ask(client)
    client.sendall(MUCH)


def test_every_octet_arrives_both_ways(proxy, elsewhere, mail_host):
    taken = []

    def echo(host, client: socket.socket) -> None:
        for _ in range(2):
            host.ask(client)
            client.sendall(b"+OK\r\n")
        while data := client.recv(65536):
            taken.append(data)
        client.sendall(MUCH[::-1])

    john = elsewhere(mail_host(echo))
    server = proxy()
    with log_in(server, john) as client:
        client.send(MUCH)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == MUCH[::-1]
    assert b"".join(taken) == MUCH
    pattern = rf"INFO: DISCONNECTED, user=john, {PEER}, rcvd=(\d+), sent=(\d+), time=\d+"
    rcvd, sent = server.logged(pattern).groups()
    assert (int(rcvd), int(sent)) == (len(MUCH), len(MUCH) + len(CONNECTED) + 2)


def test_replies_come_back_after_the_end_of_the_input(proxy, chain):
    _, john = chain
    with log_in(proxy(), john) as client:
        client.send(b"STAT\r\nQUIT\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b"+OK 1 28\r\n+OK Bye-bye.\r\n"


def test_a_client_that_goes_ends_the_session_at_the_mail_host(proxy, elsewhere, mail_host):
    host = mail_host()
    server = proxy()
    log_in(server, elsewhere(host)).close()
    server.logged(f"INFO: DISCONNECTED, user=john, {PEER}, rcvd=0, sent=.*")
    wait_until(lambda: host.lines[-1:] == [b""], "the mail host sees the end")


@pytest.mark.parametrize("ending", ["at once", "after the reply"])
def test_a_client_that_goes_after_QUIT_has_logged_out(proxy, elsewhere, mail_host, ending):
    server = proxy()
    with log_in(server, elsewhere(mail_host())) as client:
        client.send(b"quit\r\n" if ending == "at once" else b"NOOP\r\nQUIT\r\n")
        if ending != "at once":
            assert client.line() == b"+OK NOOP\r\n"
            assert client.line() == b"+OK Bye.\r\n"
    server.logged(f"INFO: LOGOUT, user=john, {PEER}, rcvd=.*")


def test_a_client_that_says_nothing_is_let_go(proxy, elsewhere, mail_host):
    server = proxy(POP3_PROXY_IDLE_TIMEOUT="1")
    with log_in(server, elsewhere(mail_host())) as client:
        assert client.rest() == b""
    server.logged(f"INFO: TIMEOUT, user=john, {PEER}, rcvd=0, sent=.*")


def test_a_client_that_takes_nothing_is_let_go(proxy, elsewhere, mail_host):
    server = proxy(POP3_SEND_TIMEOUT="1")
    with log_in(server, elsewhere(mail_host(flood))) as client:
        client.send(b"RETR 1\r\n")
        server.logged(f"INFO: TIMEOUT, user=john, {PEER}, rcvd=8, sent=.*")


# CVE-42: a mail host is not to be trusted

HOSTILE_GREETINGS = {
    "nothing": b"",
    "no line end": b"+OK " + b"x" * 100_000,
    "a long line": b"+OK " + b"x" * 100_000 + b"\r\n",
    "NULs": b"\0" * 600 + b"\r\n",
    "another protocol": b"* OK IMAP4rev1 ready\r\n",
    "no status": b"\r\n",
    "replies nobody asked for": GREETING + b"+OK\r\n" * 2,
    "half a reply nobody asked for": GREETING + b"+O",
    "a forged log line": b"-ERR x\rINFO: LOGIN, user=root, ip=[192.0.2.1]\x1b[2J\r\n",
}


@pytest.mark.parametrize("greeting", HOSTILE_GREETINGS.values(), ids=list(HOSTILE_GREETINGS))
def test_CVE_42_a_hostile_greeting_gets_no_password(proxy, elsewhere, mail_host, greeting):
    """It closes the connection after its greeting, or waits."""
    host = mail_host(replies(), greeting=greeting)
    server = proxy(POP3_PROXY_TIMEOUT="1")
    client, reply = answer_to_pass(server, elsewhere(host))
    with client:
        assert reply == TEMPORARY
        assert client.rest() == b""
    assert not any(b"secret" in line for line in host.lines)
    (line,) = [line for line in server.lines() if "courierpop3proxy" in line]
    assert re.fullmatch(
        rf"WARN: courierpop3proxy: {host.name}: [^\[\],\x00-\x1f]{{1,280}}, user=john", line
    )


@pytest.mark.parametrize(
    "answers",
    [
        [b"+OK\r\n+OK\r\n+OK\r\n"],
        [b"+OK\r\n", b"+OK\r\n-ERR forged\r\n"],
        [b"+OK\r\n", b"+ \r\n"],
        [b"+OK\r\n", b"OK\r\n"],
        [b"+OK\r\n", b"\0\r\n"],
        [b"+OK\r\n", b"x" * 100_000],
        [b"+OK\r\n"],
    ],
)
def test_CVE_42_what_is_no_reply_lets_nobody_in(proxy, elsewhere, mail_host, answers):
    host = mail_host(replies(*answers))
    server = proxy(POP3_PROXY_TIMEOUT="1")
    client, reply = answer_to_pass(server, elsewhere(host))
    with client:
        assert reply == TEMPORARY
        assert client.rest() == b""


def test_CVE_42_a_mail_host_that_closes_early(proxy, elsewhere, mail_host):
    hosts = [mail_host(lambda host, client: None), mail_host(lambda host, client: host.ask(client))]
    server = proxy()
    client, reply = answer_to_pass(server, elsewhere(*hosts))
    assert reply == TEMPORARY
    client.close()
    assert sum("has closed" in line or "reset" in line for line in server.lines()) == 2


@pytest.mark.parametrize("address", ["john\x7f", "john\rDELE 1"])
def test_CVE_42_a_name_with_control_characters_is_not_sent(mail_host, address):
    """Account.check lets no such account pass; another module's may come here all the same."""
    host = mail_host()
    env = {"AUTHENTICATED": "john", "AUTHADDR": address, "POP3_PROXY_TLS": "no"}
    done = run_as_user(env | {"OPTIONS": f"mailhost={host.name}"}, b"john", b"secret")
    assert (done.returncode, done.stdout) == (77, b"")
    assert host.lines in ([], [b""])


@pytest.mark.parametrize("password", [b"a\rb", b"a\x01b"])
def test_CVE_48_a_password_with_control_characters_is_not_sent(mail_host, password):
    host = mail_host()
    env = {"AUTHENTICATED": "john", "OPTIONS": f"mailhost={host.name}", "POP3_PROXY_TLS": "no"}
    done = run_as_user(env, b"john", password)
    assert (done.returncode, done.stdout) == (77, b"")
    assert host.lines in ([], [b""])


def run_as_user(env: dict[str, str], user: bytes, password: bytes):
    argv = [str(BIN / "courierpop3proxy")]
    if ROOT:
        argv = [needs("setpriv"), "--reuid=20001", "--regid=20001", "--clear-groups", *argv]
    return run_with_record(argv, env, b"pop3\nlogin\n%s\n%s\n\n" % (user, password))
