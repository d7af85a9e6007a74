"""Rows of Cyrus's checklist that have no better place: see tests/test_conformance_index.py."""

from __future__ import annotations

import os
import shutil
import socket
import time

import pytest

from tests.conftest import BIN, sha
from tests.cyruspop3d.test_worker import worker as worker  # a fixture

COMMON = ["TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE"]
BEGIN = ["EXPIRE NEVER", "LOGIN-DELAY 0", *COMMON]
PRODUCT = "IMPLEMENTATION courierpop3"


def log_in(cyrus, client, user="john", password="") -> str:
    client.line()
    assert client.ask(f"USER {user}") == "+OK Name is a valid mailbox"
    return client.ask(f"PASS {password or cyrus.john.password}")


@pytest.mark.parametrize("order", [1, -1])
def test_c10_04_c10_05_the_services_own_option_counts_and_unknown_ones_do_not(cyrus, order):
    lines = ["serverinfo: on", "pop3_serverinfo: off", "nobody_knows: x"][::order]
    cyrus.configure("\n".join(lines) + "\n")
    with cyrus.start() as client:
        assert client.line().startswith(b"+OK server ready <")


def test_c10_15_a_worker_whose_program_was_replaced_leaves(worker, cyrus, monkeypatch):
    """It has accepted nobody then: the next worker does."""
    place = cyrus.public / "bin"
    place.mkdir()
    for program in BIN.iterdir():
        (place / program.name).symlink_to(program)
    for name in ("pop3d", "courier-python"):
        (place / name).unlink()
        shutil.copy(BIN / name, place)
    monkeypatch.setattr("tests.cyruspop3d.test_worker.POP3D", str(place / "pop3d"))
    one = worker()
    one.session()
    os.utime(place / "pop3d", (1, 1))
    with socket.create_connection(("127.0.0.1", one.port)):
        assert one.status() == 0
    assert "process file has changed" in one.log.read_text()


def test_c10_19_x_serves_the_client_on_standard_input(cyrus):
    with cyrus.start("-X") as client:
        assert log_in(cyrus, client).startswith("+OK Mailbox locked")
        assert client.ask("QUIT") == "+OK"
        assert client.end()[0] == 0


def test_c10_34_capabilities_in_five_states(cyrus, tls):
    sasl, tail = "SASL CRAM-MD5 PLAIN LOGIN", ["USER", PRODUCT]
    with cyrus.start() as client:  # tls has configured allowplaintext: no
        client.line()
        assert client.listing("CAPA") == ["SASL CRAM-MD5", "STLS", *BEGIN, PRODUCT]
    with cyrus.start("-s", tls=tls) as client:
        client.line()
        assert client.listing("CAPA") == [sasl, *BEGIN, *tail]
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK")
        assert client.listing("CAPA") == [sasl, *BEGIN, PRODUCT]
    with cyrus.conf.open("a") as conf:
        conf.write("pop3_allowplaintext: yes\n")
    with cyrus.start() as client:
        client.line()
        assert client.listing("CAPA") == [sasl, "STLS", *BEGIN, *tail]
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK")
        assert client.listing("CAPA") == [*BEGIN, PRODUCT]


def test_c10_37_a_password_may_begin_with_a_blank(cyrus):
    cyrus.accounts.add("lead", systempw=sha(" secret"))
    with cyrus.start() as client:
        assert log_in(cyrus, client, "lead", "secret") == "-ERR [AUTH] Invalid login"
        client.ask("USER lead")
        assert client.ask("PASS ") == "-ERR Syntax error"
        assert client.ask("PASS  secret").startswith("+OK Mailbox locked")


def test_c10_40_a_failed_login_is_answered_after_its_pause(cyrus):
    cyrus.configure("failedloginpause: 1\n")
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        begun = time.monotonic()
        assert client.ask("PASS wrong") == "-ERR [AUTH] Invalid login"
        assert time.monotonic() - begun >= 1


def test_a_good_password_in_clear_has_its_pause_too(cyrus):
    cyrus.configure("plaintextloginpause: 1\n")
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        begun = time.monotonic()
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")
        assert time.monotonic() - begun >= 1


def test_c10_41_a_client_may_fail_again_and_again(cyrus):
    with cyrus.start() as client:
        client.line()
        for _ in range(10):
            client.ask("USER john")
            assert client.ask("PASS wrong") == "-ERR [AUTH] Invalid login"
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")


def visit(cyrus) -> str:
    """The reply to a login; QUIT if it was let in."""
    with cyrus.start() as client:
        reply = log_in(cyrus, client)
        if reply.startswith("+OK"):
            assert client.ask("QUIT") == "+OK"
        client.close()
        client.end()
        return reply


def test_c10_42_only_a_session_that_was_quit_delays_the_next_login(cyrus):
    cyrus.configure("popminpoll: 1\n")
    with cyrus.start() as client:
        assert log_in(cyrus, client).startswith("+OK")
    assert visit(cyrus).startswith("+OK Mailbox locked")
    assert visit(cyrus) == "-ERR [LOGIN-DELAY] Logins must be at least 1 minute apart"


def test_c10_43_a_padding_of_3_lets_three_logins_pass(cyrus):
    cyrus.configure("popminpoll: 60\npoppollpadding: 3\n")
    told = [visit(cyrus).split()[1] for _ in range(4)]
    assert told == ["Mailbox", "Mailbox", "Mailbox", "[LOGIN-DELAY]"]


def test_c10_49_two_sessions_at_once_have_a_snapshot_each(cyrus):
    cyrus.john.deliver(b"Subject: x\n\n")
    with cyrus.start() as first, cyrus.start() as second:
        assert log_in(cyrus, first).startswith("+OK")
        assert log_in(cyrus, second).startswith("+OK")
        assert first.ask("DELE 1") == "+OK message deleted"
        assert second.ask("STAT") == "+OK 1 14"
        assert first.ask("QUIT") == "+OK"
        assert second.ask("STAT") == "+OK 1 14"
        assert second.ask("RETR 1") == "-ERR [SYS/PERM] Could not read message file"


def test_c10_51_a_silent_client_is_left_without_a_word(cyrus):
    cyrus.configure("courier_pop3_idle_timeout: 1\n")
    with cyrus.start() as client:
        assert log_in(cyrus, client).startswith("+OK")
        assert client.rest() == b""
        assert client.end()[0] != 0  # so that a worker ends too
