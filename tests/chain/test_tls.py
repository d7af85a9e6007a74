"""TLS over the whole chain: from the begin of a connection (POP3S), and by STLS.

In each mode: couriertls as the listener's relay, and as a program started for each connection.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import trustme

from tests.conftest import BIN, ROOT, Account, Client, children_of, needs, wait_until

AUTHUSERDB = ("courierpop3login", "authuserdb", "courierpop3d", "./Maildir")
COURIERTLS = ("couriertls", "-server", "-tcpd")
PLAINTEXT = {
    "one packet": (b"STLS\r\nCAPA\r\n",),
    "half a command": (b"STLS\r\nCA",),
    "2000 commands": (b"STLS\r\n" + 2000 * b"NOOP\r\n",),
    "50 ms later": (b"STLS\r\n", b"USER john\r\nPASS x\r\n"),
    "LF ends": (b"STLS\nCAPA\nQUIT\n",),
}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def settings(authority, public):
    """What pop3d-ssl has: the certificate and its key in one file, for those who run TLS alone."""
    pem = public / "pop3d.pem"
    issue(authority, pem)
    return {"TLS_CERTFILE": str(pem), "COURIERTLS": str(BIN / "couriertls"), "POP3_STARTTLS": "YES"}


def issue(authority: trustme.CA, pem: Path) -> None:
    certificate = authority.issue_cert("localhost", common_name="localhost")
    aside = pem.with_suffix(".new")
    aside.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    aside.chmod(0o600)
    if ROOT:
        import pwd

        os.chown(aside, pwd.getpwnam("courier").pw_uid, -1)
    aside.rename(pem)


@pytest.fixture
def tls(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def pop3s(serve, settings, any_mode):
    def start(*options, stages=AUTHUSERDB, env=None):
        become = ["-user=courier"] if ROOT else []
        stages = (*COURIERTLS, *become, *stages)
        return serve(*any_mode, *options, stages=stages, env={**settings, **(env or {})})

    return start


@pytest.fixture
def stls(serve, settings, any_mode):
    def start(*options, stages=AUTHUSERDB, env=None):
        return serve(*any_mode, *options, stages=stages, env={**settings, **(env or {})})

    return start


def test_8314_01_a_session_inside_tls_greets_after_the_handshake(pop3s, john, tls):
    john.deliver(b"Subject: one\n\nbody\n")
    server = pop3s()
    client = Client(server.port, tls).login(john)
    assert "STLS" not in client.listing("CAPA")
    assert client.listing("RETR 1") == ["Subject: one", "", "body"]
    assert client.ask("QUIT") == "+OK Bye-bye."
    assert client.rest() == b""
    server.logged(r"INFO: LOGIN, user=john, ip=\[::ffff:127.0.0.1\], port=\[\d+\], stls=1")
    server.logged(r"INFO: LOGOUT, user=john, .*, stls=1")


def test_2595_03_stls_is_neither_announced_nor_taken_inside_tls(pop3s, stls, john, tls):
    for client in (Client(pop3s().port, tls), Client(stls().port)):
        assert client.line() == b"+OK Hello there.\r\n"
        if not isinstance(client.socket, ssl.SSLSocket):
            client.start_tls(tls)
        assert "STLS" not in client.listing("CAPA")
        assert client.ask("STLS") == "-ERR TLS support not available."


def test_2595_04_2595_01_2595_02_stls_is_announced_and_a_login_follows_it(stls, john, tls):
    john.deliver(b"Subject: one\n\nbody\n")
    server = stls()
    client = server.client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert client.listing("CAPA")[0] == "STLS"
    client.start_tls(tls)
    client.listing("CAPA")
    assert client.ask("USER john") == "+OK Password required."
    assert client.ask(f"PASS {john.password}") == "+OK logged in."
    assert "STLS" not in client.listing("CAPA")
    assert client.ask("STLS") == "-ERR Invalid command."  # 2595-04
    assert client.listing("LIST") == ["1 22"]
    assert client.ask("QUIT") == "+OK Bye-bye."
    server.logged(r"INFO: LOGIN, user=john, .*, stls=1")


@pytest.mark.parametrize(
    "setting", [{"POP3_STARTTLS": "NO"}, {"TLS_CERTFILE": ""}, {"COURIERTLS": "/nowhere"}]
)
def test_2595_01_stls_is_not_announced_where_there_is_no_tls(stls, setting):
    client = stls(env=setting).client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert "STLS" not in client.listing("CAPA")
    assert client.ask("STLS") == "-ERR TLS support not available."


def test_2595_05_cve_21_what_was_said_before_tls_is_forgotten(stls, john, tls):
    client = stls().client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert client.ask(f"USER {john.name}") == "+OK Password required."
    assert client.ask("UTF8") == "+OK UTF8 enabled"
    client.start_tls(tls)
    assert client.ask(f"PASS {john.password}") == "-ERR USER/PASS required."
    john.deliver("Subject: ü\n\nbody\n".encode())
    assert client.ask(f"USER {john.name}") == "+OK Password required."
    assert client.ask(f"PASS {john.password}") == "+OK logged in."
    wrapped = client.listing("RETR 1")
    assert wrapped[0] == "From: Mail Delivery Subsystem <postmaster>"


@pytest.mark.parametrize("sent", PLAINTEXT.values(), ids=PLAINTEXT)
def test_row_51_cve_20_2595_06_plaintext_behind_stls_is_never_obeyed(stls, sent):
    client = stls(env={"TLS_HANDSHAKE_TIMEOUT": "1"}).client()
    assert client.line() == b"+OK Hello there.\r\n"
    for octets in sent:
        client.send(octets)
        time.sleep(0.05)
    assert client.line() == b"+OK Begin SSL/TLS negotiation now.\r\n"
    rest = client.rest()
    assert b"+OK" not in rest and b"-ERR" not in rest


def test_cve_20_a_handshake_behind_injected_plaintext_fails(stls, tls):
    """Somebody in the middle has sent a command ahead of the client's handshake."""
    client = stls().client()
    assert client.line() == b"+OK Hello there.\r\n"
    client.send(b"STLS\r\nUSER mallory\r\n")
    assert client.line() == b"+OK Begin SSL/TLS negotiation now.\r\n"
    with pytest.raises(OSError):
        tls.wrap_socket(client.socket, server_hostname="localhost")


def test_2595_07_a_failed_handshake_ends_the_connection(stls):
    server = stls()
    client = server.client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert client.ask("STLS").startswith("+OK")
    client.send(b"\x16\x03\x01\0\x05hello")
    client.send(b"QUIT\r\n")
    assert b"+OK" not in client.rest()
    server.logged(r"DEBUG: Disconnected, ip=.*")
    assert any("couriertls" in line or "STLS failed" in line for line in server.lines())


@pytest.mark.parametrize("argument", ["now", "1", " x"])
def test_2595_08_stls_with_an_argument_is_refused(stls, argument):
    client = stls().client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert client.ask(f"STLS {argument}") == "-ERR Invalid command."
    assert client.ask("NOOP") == "-ERR Invalid command."


def test_2595_09_cve_23_an_unfinished_handshake_is_cut_and_gives_its_place_back(pop3s, john, tls):
    server = pop3s("-maxprocs=3", "-maxperip=3", env={"TLS_HANDSHAKE_TIMEOUT": "1"})
    silent = [server.client() for _ in range(3)]
    silent[0].send(b"\x16\x03\x01")
    assert Client(server.port, tls).login(john).ask("QUIT") == "+OK Bye-bye."
    for client in silent:
        client.rest()


def test_8314_04_plaintext_on_the_tls_port_gets_no_reply_of_pop3(pop3s, john, tls):
    server = pop3s()
    client = server.client()
    client.send(b"CAPA\r\n")
    assert b"+OK" not in client.rest()
    assert Client(server.port, tls).login(john).ask("QUIT") == "+OK Bye-bye."


def test_8314_05_a_connection_that_ends_without_close_notify_deletes_nothing(pop3s, john, tls):
    john.deliver(b"Subject: one\n\nbody\n")
    server = pop3s()
    client = Client(server.port, tls).login(john)
    assert client.ask("DELE 1") == "+OK Deleted."
    os.close(client.socket.detach())
    server.logged(r"INFO: DISCONNECTED, user=john, .*")
    assert Client(server.port, tls).login(john).ask("STAT") == "+OK 1 22"


def test_8314_03_mailbox_and_ids_are_the_same_over_both_ports(pop3s, stls, john, tls):
    for number in range(5):
        john.deliver(b"Subject: %d\n\nbody\n" % number)
    inside = Client(pop3s().port, tls).login(john)
    plain = stls().client().login(john)
    for command in ("LIST", "UIDL"):
        assert inside.listing(command) == plain.listing(command)


def test_8314_06_a_site_can_demand_tls(stls, john, tls):
    client = stls(env={"POP3_TLS_REQUIRED": "1"}).client()
    assert client.line() == b"+OK Hello there.\r\n"
    assert client.ask("USER john") == "-ERR TLS required to log in."
    assert "USER" not in client.listing("CAPA")
    client.start_tls(tls)
    assert "USER" in client.listing("CAPA")
    assert client.ask("USER john") == "+OK Password required."
    assert client.ask(f"PASS {john.password}") == "+OK logged in."


def test_a_wrong_password_inside_tls_is_followed_by_a_right_one(stls, john, tls):
    server = stls()
    client = server.client()
    client.line()
    client.start_tls(tls)
    assert client.ask("USER john") == "+OK Password required."
    assert client.ask("PASS wrong") == "-ERR Login failed."
    assert "STLS" not in client.listing("CAPA")
    assert client.ask("USER john") == "+OK Password required."
    assert client.ask(f"PASS {john.password}") == "+OK logged in."


def test_stls_after_a_wrong_password(stls, john, tls):
    client = stls().client()
    client.line()
    assert client.ask("USER john") == "+OK Password required."
    assert client.ask("PASS wrong") == "-ERR Login failed."
    client.start_tls(tls)
    assert client.ask("USER john") == "+OK Password required."
    assert client.ask(f"PASS {john.password}") == "+OK logged in."


def test_2449_08_what_is_sent_ahead_inside_tls_reaches_every_stage(pop3s, john, tls):
    john.deliver(b"Subject: one\n\nbody\n")
    client = Client(pop3s().port, tls)
    client.send(f"USER john\r\nPASS {john.password}\r\nSTAT\r\nQUIT\r\n".encode())
    assert client.rest().splitlines() == [
        b"+OK Hello there.",
        b"+OK Password required.",
        b"+OK logged in.",
        b"+OK 1 22",
        b"+OK Bye-bye.",
    ]


def test_sessions_one_after_another_and_several_at_once(pop3s, stls, john, tls):
    server, other = pop3s("-maxperip=40"), stls("-maxperip=40")
    for _ in range(12):
        for client in (Client(server.port, tls), Client(other.port)):
            assert client.line() == b"+OK Hello there.\r\n"
            if client.socket.getpeername()[1] == other.port:
                client.start_tls(tls)
            assert client.ask("USER john") == "+OK Password required."
            assert client.ask(f"PASS {john.password}") == "+OK logged in."
            assert client.ask("QUIT") == "+OK Bye-bye."
    clients = [Client(server.port, tls).login(john) for _ in range(12)]
    for client in clients:
        assert client.ask("QUIT") == "+OK Bye-bye."


def descriptors(server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_cve_22_f_net_3_broken_handshakes_leave_nothing_behind(pop3s, any_mode, john, tls):
    server = pop3s("-maxprocs=20", "-maxperip=20", env={"TLS_HANDSHAKE_TIMEOUT": "2"})
    assert Client(server.port, tls).login(john).ask("QUIT") == "+OK Bye-bye."
    before = (wait_until(lambda: settled(server)), descriptors(server))
    for number in range(30 if "-coldexec" in any_mode else 300):
        client = server.client()
        client.send((b"\x16\x03\x01\x02\0\x01\0", b"CAPA\r\n", b"", b"\x80\x80\1\3\1")[number % 4])
        client.close()
    assert Client(server.port, tls).login(john).ask("QUIT") == "+OK Bye-bye."
    wait_until(lambda: (settled(server), descriptors(server)) <= before)


def settled(server) -> int:
    """How many processes there are, the listener among them."""
    count, todo = 0, [server.process.pid]
    while todo:
        count += 1
        todo += children_of(todo.pop())
    return count


def test_8314_07_a_renewed_certificate_is_served_to_the_next_connection(
    pop3s, settings, authority, public, tls
):
    server = pop3s()
    first = Client(server.port, tls).socket.getpeercert()
    issue(authority, Path(settings["TLS_CERTFILE"]))

    def renewed():
        return (
            Client(server.port, tls).socket.getpeercert()["serialNumber"] != first["serialNumber"]
        )

    wait_until(renewed, "the new certificate is served")


def test_8314_08_a_client_certificate_reaches_the_stages(pop3s, stls, authority, public, script):
    ca = public / "ca.pem"
    ca.write_bytes(authority.cert_pem.bytes())
    trust = {"TLS_VERIFYPEER": "REQUIREPEER", "TLS_TRUSTCERTS": str(ca)}
    context = ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("joe@example.com", common_name="joe").configure_cert(context)
    stage = script("stage", "#!/bin/sh\nenv | grep ^TLS_SUBJECT | sort; echo end\n")
    client = Client(pop3s(stages=[stage], env=trust).port, context)
    assert b"TLS_SUBJECT_CN=joe\n" in client.rest()
    login = ("courierpop3login", stage)
    client = stls(stages=login, env=trust).client()
    client.line()
    client.start_tls(context)
    client.ask("USER john")
    client.send(b"PASS x\r\n")
    assert b"TLS_SUBJECT_CN=joe\n" in client.rest()


def test_variables_that_a_certificate_sets_are_not_taken_from_outside(pop3s, script, tls):
    stage = script("stage", "#!/bin/sh\nenv; echo end\n")
    outside = {"TLS_SUBJECT_CN": "mallory", "TLS_CONNECTED_PROTOCOL": "none"}
    said = Client(pop3s(stages=[stage], env=outside).port, tls).rest()
    assert b"mallory" not in said
    assert b"TLS_CONNECTED_PROTOCOL=TLS1.3," in said or b"TLS_CONNECTED_PROTOCOL=TLSv1.3," in said
    assert b"TCPREMOTEIP=::ffff:127.0.0.1\n" in said


def test_row_18_a_stage_behind_tls_has_three_descriptors(pop3s, script, tls):
    stage = script("stage", "#!/bin/sh\nls /proc/self/fd; echo end\n")
    said = Client(pop3s(stages=[stage]).port, tls).rest().split()
    assert said[:3] == [b"0", b"1", b"2"]
    assert len(said) == 5  # and that of ls, and end


def test_8314_07_a_certificate_that_is_none_keeps_the_listener_from_starting(public):
    pem = public / "pop3d.pem"
    pem.write_text("no certificate\n")
    argv = [BIN / "couriertcpd", "995", "couriertls", "-server", "-tcpd", "/bin/cat"]
    env = {"PATH": "/usr/bin:/bin", "TLS_CERTFILE": str(pem)}
    run = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert str(pem) in run.stderr and "TLS_CERTFILE" in run.stderr


@pytest.fixture
def trusted(authority, public):
    file = public / "authority.pem"
    file.write_bytes(authority.cert_pem.bytes())
    return file


def test_curl_over_both(pop3s, stls, john, trusted):
    john.deliver(b"Subject: one\n\nbody\n")
    curl = [needs("curl"), "-sS", "--cacert", trusted, "--user", f"john:{john.password}"]
    for url, options in (
        (f"pop3s://localhost:{pop3s().port}/1", []),
        (f"pop3://localhost:{stls().port}/1", ["--ssl-reqd"]),
    ):
        run = subprocess.run([*curl, "-4", *options, url], capture_output=True, timeout=60)
        assert run.stdout.splitlines() == [b"Subject: one", b"", b"body"], run.stderr


def test_openssl_s_client_over_both(pop3s, stls, trusted):
    for port, options in ((pop3s().port, []), (stls().port, ["-starttls", "pop3"])):
        argv = [needs("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-CAfile"]
        argv += [trusted, "-verify_return_error", "-verify_hostname", "localhost", *options]
        run = subprocess.run(argv, input=b"CAPA\nQUIT\n", capture_output=True, timeout=60)
        assert b"IMPLEMENTATION" in run.stdout, run.stderr


def test_mpop_over_both(pop3s, stls, john, trusted, public):
    mpop = needs("mpop")
    for port, starttls in ((pop3s().port, "off"), (stls().port, "on")):
        john.deliver(b"From: a@example.com\nSubject: one\n\nbody\n")
        mbox = public / f"mbox-{starttls}"
        config = public / "mpoprc"
        config.write_text(
            f"account default\nhost localhost\nport {port}\nuser john\npassword {john.password}\n"
            f"tls on\ntls_starttls {starttls}\ntls_trust_file {trusted}\nkeep off\nauth user\n"
            f"delivery mbox {mbox}\nuidls_file {public}/uidls-{starttls}\nreceived_header off\n"
        )
        config.chmod(0o600)
        argv = [mpop, "-C", config]
        run = subprocess.run(argv, capture_output=True, timeout=60)
        assert run.returncode == 0, run.stderr
        assert b"Subject: one" in mbox.read_bytes()


def test_fetchmail_over_both(pop3s, stls, john, trusted, public):
    fetchmail = needs("fetchmail")
    for port, how in ((pop3s().port, "ssl"), (stls().port, 'sslproto "TLS1.2+"')):
        john.deliver(b"From: a@example.com\nSubject: one\n\nbody\n")
        config = public / "fetchmailrc"
        config.write_text(
            f"poll localhost protocol pop3 port {port}\n"
            f'  user john password "{john.password}" {how} sslcertck sslcertfile {trusted}\n'
            f'  mda "cat >> {public}/fetched" no keep\n'
        )
        config.chmod(0o600)
        argv = [fetchmail, "-f", config, "--nosyslog", "--pidfile", public / "pid"]
        env = {"HOME": str(public), "PATH": "/usr/bin:/bin", "FETCHMAILHOME": str(public)}
        run = subprocess.run(argv, env=env, capture_output=True, timeout=60)
        assert run.returncode == 0, run
    assert (public / "fetched").read_bytes().count(b"Subject: one") == 2


def test_f_kill_5_sessions_outlive_a_killed_listener(serve, settings, process_mode, john, tls):
    stages = (*COURIERTLS, *(["-user=courier"] if ROOT else []), *AUTHUSERDB)
    server = serve(*process_mode, stages=stages, env=settings)
    client = Client(server.port, tls).login(john)
    server.process.kill()
    server.process.wait()
    assert client.ask("STAT") == "+OK 0 0"
    assert client.ask("QUIT") == "+OK Bye-bye."


def test_a_large_message_comes_whole(pop3s, john: Account, tls):
    body = b"".join(b"%064d\n" % number for number in range(100_000))
    john.deliver(b"Subject: large\n\n" + body)
    client = Client(pop3s().port, tls).login(john)
    assert client.listing("RETR 1")[2:] == body.decode().splitlines()


def test_a_client_that_stops_reading_is_not_waited_for_in_memory(pop3s, john, tls):
    """What it hasn't taken stays in the Maildir: the relay holds little of it."""
    john.deliver(b"Subject: large\n\n" + 400_000 * (b"x" * 99 + b"\n"))
    server = pop3s()
    client = Client(server.port, tls).login(john)
    before = memory(server)
    client.send(b"RETR 1\r\n")
    assert client.line().startswith(b"+OK")
    assert max(memory(server) for _ in range(100)) < before + 10_000
    client.socket.close()


def memory(server) -> int:
    """KiB of all the processes of a listener, shared pages counted once."""
    total, todo = 0, [server.process.pid]
    while todo:
        pid = todo.pop()
        todo += children_of(pid)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total
