"""Names, flags and files of a Maildir."""

from __future__ import annotations

import os
import socket
from errno import ESTALE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.atol import LARGEST, SMALLEST, atol
from courierpop3d import maildir
from courierpop3d.journal import Journal
from courierpop3d.maildir import base, order, with_flags, with_seen

JOE = Journal({"AUTHENTICATED": "joe"})
NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 0x2F} & set(name))


@pytest.mark.parametrize(
    "text, value",
    [
        *[(b"", 0), (b"x", 0), (b"17.a", 17), (b"17", 17), (b"007.a", 7), (b"17x.a", 17)],
        *[(b"-3.a", -3), (b"+3.a", 3), (b"+-3", 0), (b" \t5", 5), (b"0x10", 0), (b"- 3", 0)],
        *[(b"9223372036854775807", LARGEST), (b"9223372036854775808.a", LARGEST)],
        *[(b"-9223372036854775808", SMALLEST), (b"-9999999999999999999", SMALLEST)],
        *[(b"9" * 255, LARGEST), (b"0" * 200 + b"7", 7), (b"\xb2", 0)],
    ],
)
def test_atol_reads_numbers_as_c_does(text, value):
    assert atol(text) == value


def test_F_TIME_1_messages_sort_by_number_then_by_signed_bytes():
    names = [
        *(b"-5.future", b"msg\xe9:2,", b"msg1", b"subdir", b"999.z:2,S", b"1000.a.host:2,"),
        *(b"1000.b.host:2,", b"99999999999999999999.huge"),
    ]
    assert sorted(reversed(names), key=order) == names


@given(NAMES, NAMES)
def test_order_never_depends_on_the_flags_of_different_messages(one, other):
    one, other = base(one), base(other)
    if one != other:
        plain = order(one) < order(other)
        assert all(
            (order(one + flags) < order(other + others)) == plain
            for flags in (b":2,", b":2,S")
            for others in (b":2,", b":2,FS")
        )


@pytest.mark.parametrize(
    "name, moved",
    [
        *[(b"1.a", b"1.a:2,"), (b"1.a:2,", b"1.a:2,"), (b"1.a:2,FS", b"1.a:2,FS")],
        *[(b"1003.d.host:1,x", b"1003.d.host:2,"), (b"1.a:2", b"1.a:2,"), (b"1.a:", b"1.a:2,")],
        *[(b"1.a:b:2,S", b"1.a:2,"), (b"x" * 252, b"x" * 252 + b":2,"), (b"x" * 255, b"x" * 255)],
    ],
)
def test_names_get_their_flag_part_in_cur(name, moved):
    assert with_flags(name) == moved
    assert base(moved) == base(name)


@pytest.mark.parametrize(
    "name, seen",
    [
        *[(b"a", b"a:2,S"), (b"a:2,", b"a:2,S"), (b"a:2,F", b"a:2,FS"), (b"a:2,T", b"a:2,TS")],
        *[(b"a:2,S", b"a:2,S"), (b"a:2,ST", b"a:2,ST"), (b"a:1,x", b"a:1,x"), (b"a:", b"a:")],
    ],
)
def test_seen_is_appended_as_the_last_flag(name, seen):
    assert with_seen(name) == seen


def test_new_mail_is_moved_to_cur(box):
    for name in ("1.a", "2.b:2,F", "3.c:1,x", ".hidden"):
        box.put("new/" + name)
    maildir.move_new_to_cur(JOE)
    assert box.names() == ["1.a:2,", "2.b:2,F", "3.c:2,"]
    assert box.names("new") == [".hidden"]


def test_moving_never_replaces_a_message(box, capfd):
    box.put("new/1.a", b"new")
    box.put("cur/1.a:2,", b"old")
    box.put("new/2.b")
    maildir.move_new_to_cur(JOE)
    assert box.names() == ["1.a:2,", "2.b:2,"]
    assert box.contents()[1] == b"old"
    assert box.names("new") == ["1.a"]
    line = "ERR: rename(./new/1.a,./cur/1.a:2,) failed: File exists, user=joe\n"
    assert capfd.readouterr().err == line


def test_F_FILE_6_a_missing_new_or_tmp_is_nothing_wrong(box, capfd):
    for folder in ("new", "tmp"):
        (box.path / folder).rmdir()
    maildir.purge_tmp(0)
    maildir.move_new_to_cur(JOE)
    assert capfd.readouterr().err == ""


def test_F_DISK_2_on_a_read_only_disk_one_line_tells_it(box, capfd, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    for number in range(50):
        box.put(f"new/{number}")
    maildir.move_new_to_cur(JOE)
    assert capfd.readouterr().err.count("failed: Read-only file system") == 1


def test_F_KILL_3_tmp_is_purged_of_what_is_48_hours_old(box):
    now = 1_700_000_000
    for name, age in (("old", 172801), ("young", 172799), (".dot", 999999)):
        box.put("tmp/" + name)
        os.utime(box.path / "tmp" / name, (now, now - age))
    (box.path / "tmp/folder").mkdir()
    os.utime(box.path / "tmp/folder", (0, 0))
    maildir.purge_tmp(now)
    assert box.names("tmp") == [".dot", "folder", "young"]


def test_F_FILE_1_F_FILE_3_only_regular_files_are_messages(box):
    cur = box.path / "cur"
    box.put("cur/file")
    box.put("cur/.dot")
    (cur / "directory").mkdir()
    (cur / "link").symlink_to(cur / "file")
    (cur / "dangling").symlink_to("nowhere")
    (cur / "zero").symlink_to("/dev/zero")
    os.mkfifo(cur / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("cur/socket")
        assert maildir.scan(b"cur") == [b"file"]


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory"])
def test_F_FILE_3_opening_neither_waits_nor_follows(box, kind):
    path = box.path / "cur" / "1"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        box.put("cur/2")
        path.symlink_to("2")
    else:
        path.mkdir()
    with pytest.raises(OSError):
        maildir.open_regular(b"cur/1")


@pytest.mark.parametrize("failures, opened", [(3, True), (4, False)])
def test_F_FILE_12_a_stale_handle_is_tried_three_times_more(box, monkeypatch, failures, opened):
    box.put("cur/1")
    real, left = os.open, [ESTALE] * failures

    def stale(*arguments):
        if left:
            raise OSError(left.pop(), "Stale file handle")
        return real(*arguments)

    monkeypatch.setattr(os, "open", stale)
    if opened:
        os.close(maildir.open_regular(b"cur/1"))
    else:
        with pytest.raises(OSError, match="Stale"):
            maildir.open_regular(b"cur/1")
    assert left == []
