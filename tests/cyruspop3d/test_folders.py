"""USER user+folder: no name leads out of the user's own Maildir, or tells what others have."""

from __future__ import annotations

import pytest

FOLDERS = {
    "up": b"../mary/Maildir",
    "up and down": b"Lists/../../mary",
    "absolute": b"/etc",
    "empty level": b"a//b",
    "dots": b"..",
    "hidden": b".Lists",
    "cur": b"cur",
    "not there": b"nothing",
    "another's name": b"mary",
    "NUL": b"Lists\0/x",
    "8 bit": b"\xff\xc3",
    "64 KiB": b"x" * 65536,
}


@pytest.fixture
def box(cyrus):
    mary = cyrus.accounts.add("mary")
    mary.deliver(b"Subject: mary's\n\n")
    cyrus.john.deliver(b"Subject: john's\n\n")
    lists = cyrus.john.maildir / ".Lists"
    for name in ("new", "cur", "tmp"):
        (lists / name).mkdir(parents=True)
    cyrus.john.own()
    cyrus.configure("popsubfolders: yes\n")
    return cyrus


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_cve_35_a_folder_that_is_none_of_the_user_s_opens_no_mailbox(box, folder):
    with box.start() as client:
        assert client.line().startswith(b"+OK")
        client.send(b"USER john+" + folder + b"\r\n")
        said = client.line()
        if said.startswith(b"+OK"):
            client.send(b"PASS " + box.john.password.encode() + b"\r\n")
            said = client.line()
        assert said.startswith(b"-ERR") or said == b""
        assert b"mary" not in said and b"/" not in said.replace(b"[SYS/TEMP]", b"")
    with box.start() as client:
        assert client.line().startswith(b"+OK")
        assert client.ask("USER john+Lists") == "+OK Name is a valid mailbox"
        assert client.ask(f"PASS {box.john.password}").startswith("+OK Mailbox locked and ready")
        assert client.ask("STAT") == "+OK 0 0"
