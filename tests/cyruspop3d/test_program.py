"""pop3d as a program: exit codes, what it logs, and what its options do (cyrus-pop3d.md 1)."""

from __future__ import annotations

import subprocess
from base64 import b64encode

import pytest

from tests.conftest import DEADLINE
from tests.cyruspop3d.conftest import POP3D
from tests.packaging.test_fail2ban import Fail2ban

READY = b"+OK mail.example courierpop3 server ready <"


def run(cyrus, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [POP3D, *words],
        env=cyrus.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-U2"], 64, "options and arguments MUST be separated by whitespace"),
        (["-H"], 64, "usage: pop3d"),
        (["-C", "/nowhere"], 78, "can't open configuration file /nowhere"),
        (["-C", "CONF", "-s"], 78, "required OpenSSL options not present"),
        (["-C", "CONF", "-k"], 64, "-k: there is no Kerberos here"),
    ],
)
def test_c10_02_c10_03_c10_20_what_it_cannot_do_has_an_exit_code(cyrus, words, status, said):
    done = run(cyrus, *[str(cyrus.conf) if word == "CONF" else word for word in words])
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("ERR: pop3d: ") and said in line
    reply = "-ERR usage: pop3d [-C <alt_config>] [-k] [-s]\n" if words[-1] == "-k" else ""
    assert done.stdout == reply


def test_c10_03_a_mistake_in_imapd_conf_is_named_with_its_line(cyrus):
    cyrus.configure("servername: x\nservername: y\n")
    done = run(cyrus, "-C", str(cyrus.conf))
    assert done.returncode == 78 and "servername: was set in" in done.stderr


def test_quit_is_0_and_hanging_up_is_not(cyrus):
    with cyrus.start() as client:
        assert client.line().startswith(READY)
        assert client.ask("QUIT") == "+OK"
        assert client.end()[0] == 0
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")
        client.close()
        status, log = client.end()
        assert status == 1 and "counts: retr=<0> top=<0> dele=<0>" in log


def test_options_without_effect_are_one_line_of_log(cyrus):
    cyrus.configure("statuscache: yes\npopuseacl: yes\nimap_only: x\n")
    with cyrus.start() as client:
        client.line()
        client.close()
        first = client.end()[1].splitlines()[0]
    assert first.startswith(f"WARN: pop3d: {cyrus.conf}: no effect over Maildirs: ")
    assert first.endswith("popuseacl, statuscache")


def test_c10_18_d_runs_the_command_with_name_pid_and_service(cyrus):
    cyrus.configure(f"debug_command: echo %s %d %s 100%% > {cyrus.public}/told\n")
    with cyrus.start("-D") as client:
        assert client.line().startswith(READY)
        assert (cyrus.public / "told").read_text().split() == [
            *(POP3D, str(client.process.pid), "pop3", "100%"),
        ]


@pytest.mark.parametrize(("ssf", "has_user"), [("1", False), ("2", True)])
def test_c10_22_p_over_1_allows_passwords(cyrus, ssf, has_user):
    cyrus.configure("allowplaintext: no\n")
    with cyrus.start("-p", ssf) as client:
        client.line()
        tags = client.listing("CAPA")
        assert ("USER" in tags) == has_user
        assert tags[0] == ("SASL CRAM-MD5 PLAIN LOGIN" if has_user else "SASL CRAM-MD5")


def test_c10_23_p_does_not_stand_for_tls_where_tls_is_required(cyrus):
    cyrus.configure("tls_required: yes\n")
    with cyrus.start("-p", "256") as client:
        client.line()
        assert client.ask("USER john") == "-ERR [AUTH] USER command only available under a layer"


def test_stls_makes_passwords_welcome(cyrus, tls):
    with cyrus.start() as client:
        client.line()
        assert "STLS" in client.listing("CAPA")
        assert client.ask("STLS") == "+OK Begin TLS negotiation now"
        client.socket = tls.wrap_socket(client.socket, server_hostname="localhost")
        client.file = client.socket.makefile("rb")
        check_inside(cyrus, client)


def test_c10_20_s_begins_with_tls(cyrus, tls):
    with cyrus.start("-s", tls=tls) as client:
        assert client.line().startswith(READY)
        check_inside(cyrus, client)


def check_inside(cyrus, client) -> None:
    assert client.ask("STLS") == "-ERR Already successfully executed STLS"
    tags = client.listing("CAPA")
    assert tags[0] == "SASL CRAM-MD5 PLAIN LOGIN" and "USER" in tags and "STLS" not in tags
    client.ask("USER john")
    assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")
    assert client.listing("CAPA")[0] == "SASL CRAM-MD5 PLAIN LOGIN"
    assert client.ask("QUIT") == "+OK"


def test_plain_and_cram_md5_by_auth(cyrus):
    with cyrus.start() as client:
        client.line()
        response = b64encode(f"\0john\0{cyrus.john.password}".encode()).decode()
        assert client.ask(f"AUTH PLAIN {response}").startswith("+OK Mailbox locked")


def test_it_is_a_stage_for_couriertcpd_too(cyrus, serve):
    server = serve(stages=[POP3D, "-C", cyrus.conf])
    with server.client() as client:
        assert client.line().startswith(READY)
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")
    server.logged(
        r"INFO: login: \[::ffff:127\.0\.0\.1\] john plaintext User logged in SESSIONID=<.*>"
    )


def test_fail2bans_filter_for_cyrus_finds_who_was_refused(cyrus):
    """By USER and PASS, and by AUTH, of which Cyrus's own line escapes it."""
    fail2ban = Fail2ban()
    wrong = b64encode(b"\0john\0wrong").decode()
    cyrus.environment |= {"TCPREMOTEIP": "192.0.2.7", "TCPREMOTEHOST": "host.example"}
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        client.ask("PASS wrong")
        client.ask(f"AUTH PLAIN {wrong}")
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK")
        client.ask("QUIT")
        log = client.end()[1]
    lines = [line.removeprefix("INFO: ") for line in log.splitlines()]
    maillog = cyrus.public / "maillog"
    maillog.write_text("".join(f"Nov 22 03:39:35 mail pop3[47]: {line}\n" for line in lines))
    assert fail2ban.found(maillog, "cyrus-imap") == ["192.0.2.7", "192.0.2.7"]
