"""Telemetry: protocol logs of the users who have a directory (cyrus-pop3d.md 7)."""

from __future__ import annotations

import os
import re

import pytest

from tests.conftest import ROOT, needs_root

MARK = re.compile(rb"([<>])\d{10}\1")
HEADER = re.compile(rb"-{10} john \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n\n")


def directory(cyrus, name: str = "john"):
    path = cyrus.directory / "log" / name
    path.mkdir(mode=0o700)
    if ROOT:
        os.chown(path, cyrus.john.uid, cyrus.john.gid)
    return path


def session(cyrus, *, user: str = "john") -> int:
    """The process id of a whole session of john's."""
    with cyrus.start() as client:
        client.line()
        client.ask(f"USER {user}")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")
        client.ask("STAT")
        assert client.ask("QUIT") == "+OK"
        client.end()
        return client.process.pid


def test_a_log_is_called_by_the_process_id_and_says_all_but_the_password(cyrus):
    place = directory(cyrus)
    pid = session(cyrus)
    (log,) = place.iterdir()
    assert log.name == str(pid)
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_bytes()
    header = HEADER.match(text)
    assert header
    said = MARK.sub(rb"\1", text[header.end() :])
    expected = rb">\+OK Mailbox locked and ready SESSIONID=<[^>]+>\r\n<STAT\r\n>\+OK 0 0\r\n"
    assert re.fullmatch(expected + rb"<QUIT\r\n>\+OK\r\n", said)
    assert cyrus.john.password.encode() not in text


def test_the_name_of_newer_releases(cyrus):
    cyrus.configure("telemetry_name: service\n")
    place = directory(cyrus)
    pid = session(cyrus)
    assert [log.name for log in place.iterdir()] == [f"pop3-{pid}"]


def test_without_the_directory_there_is_no_log(cyrus):
    directory(cyrus, "mary")
    session(cyrus)
    assert not list((cyrus.directory / "log").glob("*/*"))


def test_what_can_not_be_written_disturbs_nobody(cyrus):
    needs_root()
    place = directory(cyrus)
    os.chown(place, 0, 0)
    session(cyrus)
    assert not list(place.iterdir())


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_symbolic_links_are_not_followed(cyrus, kind):
    elsewhere = cyrus.public / "elsewhere"
    if kind == "directory":
        elsewhere.mkdir(mode=0o777)
        elsewhere.chmod(0o777)
        (cyrus.directory / "log/john").symlink_to(elsewhere)
        session(cyrus)
        assert not list(elsewhere.iterdir())
    else:
        elsewhere.write_text("")
        elsewhere.chmod(0o666)
        cyrus.configure("courier_pop3_telemetry_name: log\n")
        (directory(cyrus) / "log").symlink_to(elsewhere)
        session(cyrus)
        assert elsewhere.read_text() == ""


def test_sessions_of_one_process_go_into_one_file_each_with_its_header(cyrus):
    cyrus.configure("courier_pop3_telemetry_name: 4711\n")
    place = directory(cyrus)
    session(cyrus)
    session(cyrus)
    assert len(HEADER.findall((place / "4711").read_bytes())) == 2


def test_courierpop3d_writes_one_too_where_it_is_told_to(cyrus, accounts, serve):
    place = directory(cyrus)
    env = {"POP3_TELEMETRY": str(place.parent)}
    server = serve(env={**env, "AUTHUSERDB_FILE": str(cyrus.accounts.userdb)})
    with server.client().login(cyrus.john) as client:
        client.ask("QUIT")
        client.rest()
    (log,) = place.iterdir()
    assert b">+OK logged in.\r\n" in MARK.sub(rb"\1", log.read_bytes())
