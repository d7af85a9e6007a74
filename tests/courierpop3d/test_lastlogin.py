"""Logins that have to be some time apart, if the administrator says so (POP3_LOGIN_DELAY)."""

from __future__ import annotations

import os
import time

import pytest

from courierpop3d.lastlogin import is_too_early, last_login, store_login
from pop3proto import state

LOGGED_IN = b"+OK logged in.\r\n"
TOO_EARLY = b"-ERR [LOGIN-DELAY] Logins must be at least 3600 seconds apart.\r\n"
HOUR = {"POP3_LOGIN_DELAY": "3600"}


def put(box, text: bytes) -> None:
    (box.path / "courierpop3dlastlogin").write_bytes(text)
    os.chown(box.path / "courierpop3dlastlogin", *owner(box))


def owner(box) -> tuple[int, int]:
    status = box.path.stat()
    return status.st_uid, status.st_gid


def test_2449_14_who_comes_too_early_is_refused_and_nobody_else(box, program):
    first = program(**HOUR)
    assert first.line() == LOGGED_IN
    assert b"LOGIN-DELAY 3600\r\n" in first.many("CAPA")
    assert b"RESP-CODES\r\n" in first.many("CAPA")
    assert first.ask("QUIT") == b"+OK Bye-bye.\r\n"
    second = program(**HOUR)
    assert second.line() == TOO_EARLY
    assert second.end() == (0, ["INFO: LOGIN-DELAY, user=joe, ip=[127.0.0.1], port=[0]"])
    assert program(POP3_LOGIN_DELAY="0").line() == LOGGED_IN
    assert program().line() == LOGGED_IN
    put(box, b"1700000000\n")
    assert program(**HOUR).line() == LOGGED_IN


def test_2449_14_a_refused_login_does_not_count(box, program):
    put(box, b"%d\n" % (last := int(time.time()) - 1800))
    assert program(**HOUR).line() == TOO_EARLY
    assert (box.path / "courierpop3dlastlogin").read_bytes() == b"%d\n" % last


@pytest.mark.parametrize("text", [b"", b"junk", b"-1", b"9" * 5000, b"4000000000", b"\0"])
def test_CVE_33_what_the_file_cannot_tell_refuses_nobody(box, program, text):
    put(box, text)
    assert program(**HOUR).line() == LOGGED_IN


def test_CVE_33_a_link_in_the_place_of_the_file_is_not_followed(box, program, public):
    content = b"%d\n" % time.time()
    (public / "elsewhere").write_bytes(content)
    (box.path / "courierpop3dlastlogin").symlink_to(public / "elsewhere")
    assert program(**HOUR).line() == LOGGED_IN
    assert (public / "elsewhere").read_bytes() == content
    assert not (box.path / "courierpop3dlastlogin").is_symlink()


def test_without_the_setting_there_is_couriers_line_and_no_file(box, program):
    session = program()
    assert session.line() == LOGGED_IN
    assert b"LOGIN-DELAY 10\r\n" in session.many("CAPA")
    assert b"RESP-CODES\r\n" not in session.many("CAPA")
    assert not (box.path / "courierpop3dlastlogin").exists()


def test_a_padding_lets_logins_come_early_for_time_that_was_not_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    store_login(1000)
    assert last_login() == 1000
    assert is_too_early(1059, 60) and not is_too_early(1060, 60)
    assert not is_too_early(1000, 0)
    store_login(2000, wait=60, padding=3)
    assert last_login() == 2000 - 180 + 60
    store_login(2001, wait=60, padding=3)
    assert last_login() == 2000 - 180 + 120


def test_capa_has_one_line_of_it():
    tags = state.capabilities(login_delay=30)
    assert [tag for tag in tags if tag.startswith(b"LOGIN-DELAY")] == [b"LOGIN-DELAY 30"]
    assert b"RESP-CODES" in tags
