"""Sessions that want the mailbox for themselves, if the administrator says so (POP3_EXCLUSIVE)."""

from __future__ import annotations

import pytest

LOGGED_IN = b"+OK logged in.\r\n"
IN_USE = b"-ERR [IN-USE] Another session has the mailbox open.\r\n"


def test_1939_54_2449_14_the_second_session_is_refused_and_the_next_served(box, program):
    box.put("cur/1.a:2,")
    first = program(POP3_EXCLUSIVE="1")
    assert first.line() == LOGGED_IN
    second = program(POP3_EXCLUSIVE="1")
    assert second.line() == IN_USE
    status, log = second.end()
    assert (status, log) == (0, ["INFO: IN-USE, user=joe, ip=[127.0.0.1], port=[0]"])
    assert first.ask("DELE 1") == b"+OK Deleted.\r\n"
    assert first.ask("QUIT") == b"+OK Bye-bye.\r\n"
    third = program(POP3_EXCLUSIVE="1")
    assert third.line() == LOGGED_IN
    assert third.ask("STAT") == b"+OK 0 0\r\n"


def test_F_KILL_2_a_killed_session_keeps_nobody_out(box, program):
    first = program(POP3_EXCLUSIVE="1")
    assert first.line() == LOGGED_IN
    first.process.kill()
    first.process.wait()
    assert program(POP3_EXCLUSIVE="1").line() == LOGGED_IN


def test_without_the_setting_all_are_served(box, program):
    first = program(POP3_EXCLUSIVE="1")
    assert first.line() == LOGGED_IN
    for setting in (None, "", "0"):
        assert program(POP3_EXCLUSIVE=setting).line() == LOGGED_IN


@pytest.mark.parametrize("setting, announced", [("1", True), ("0", False)])
def test_2449_11_response_codes_are_announced_where_they_are_used(box, program, setting, announced):
    server = program(POP3_EXCLUSIVE=setting)
    assert server.line() == LOGGED_IN
    assert (b"RESP-CODES\r\n" in server.many("CAPA")) is announced


def test_F_FILE_7_without_cur_the_client_is_told_that(box, program):
    (box.path / "cur").rmdir()
    server = program(POP3_EXCLUSIVE="1")
    assert server.line() == b"-ERR Maildir invalid (no 'cur' directory)\r\n"


@pytest.mark.parametrize("setting", ["yes", "2", "-1"])
def test_a_setting_that_makes_no_sense_is_said(box, program, setting):
    server = program(POP3_EXCLUSIVE=setting)
    assert server.line() == b"-ERR Temporary problem, please try again later\r\n"
    assert server.end()[1] == [f"ERR: POP3_EXCLUSIVE={setting}: not one of 0, 1, user=joe"]
