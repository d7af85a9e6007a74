"""courierpop3dsizelist: every version, and every kind of damage."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierpop3d import sizelist
from courierpop3d.journal import Journal
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN, Entry, Messages
from courierpop3d.sizelist import SizeList, Unreadable, parse

JOE = Journal({"AUTHENTICATED": "joe"})
NOW = 200


def table(*entries: Entry) -> Messages:
    messages = Messages([entry[0] for entry in entries])
    for row, entry in enumerate(entries):
        messages.put(row, entry)
    return messages


def entries(text: bytes) -> list[tuple]:
    messages = table(*parse(text, NOW).entries())
    return [(message.name, message.size, message.uidl, message.unicode) for message in messages]


def header(text: bytes) -> tuple[int, int, bool]:
    listed = parse(text, NOW)
    list(listed.entries())
    return listed.next_number, listed.validity, listed.outdated


@pytest.mark.parametrize(
    "text, expected",
    [
        (b"/3 4 99\nmsg2:2,S 69 2:99:0\n", (b"msg2:2,S", 69, b"UID2-99", PLAIN)),
        (b"/3 4 99\na b 69 2:98:1\n", (b"a b", 69, b"UID2-98", UNICODE)),
        (b"/3 4 99\na 69 2:98\n", (b"a", 69, b"UID2-98", UNKNOWN)),
        (b"/3 4 99\na 69 2:98:0:=x.y:z\n", (b"a", 69, b"x.y:z", PLAIN)),
        (b"/3 4 99\na 69 2:98:1:=x\n", (b"a", 69, b"x", UNICODE)),
        (b"/3 4 99\na 69 2:98:0:?x\n", (b"a", 69, b"x", UNKNOWN)),
        (b"/3 4 99\na 69 2:98:0:x\n", (b"a", 69, b"UID2-98", PLAIN)),
        (b"/3 4 99\na 69 2:98:0:=\n", (b"a", 69, b"UID2-98", PLAIN)),
        (b"/3 4 99\na 69 2:98:0:=" + b"x" * 71 + b"\n", (b"a", 69, b"UID2-98", PLAIN)),
        (b"/3 4 99\na 69 2:98:0:=\xe9\n", (b"a", 69, b"UID2-98", PLAIN)),
        (b"/2 60 99\na:2, 5 57:99\n", (b"a:2,", 5, b"UID57-99", PLAIN)),
        (b"/2 60 99\na:2, 5 7:0\n", (b"a:2,", 5, b"UID7", PLAIN)),
        (
            b"/2 60 99\na+'\"b\xe9 :2,S 5 0:555\n",
            (b"a+'\"b\xe9 :2,S", 5, b"a+2B+27+22b+E9+20", PLAIN),
        ),
        (b"/1 50\na:2, 5 49\n", (b"a:2,", 5, b"UID49", PLAIN)),
        (b"a:2, 5\n", (b"a:2,", 5, b"a", PLAIN)),
        (b"a b 6 5\n", (b"a b 6", 5, b"a+20b+206", PLAIN)),
    ],
)
def test_every_version_is_read_with_its_meaning(text, expected):
    assert entries(text) == [expected]


@pytest.mark.parametrize(
    "text, expected",
    [
        (b"/3 4 99\n", (4, 99, False)),
        (b"/2 4 99\n", (4, 99, True)),
        (b"/3 4\n", (4, NOW, False)),
        (b"/1 50\n", (50, NOW, True)),
        (b"a 5\n", (1, NOW, True)),
        (b"", (1, NOW, True)),
        (b"/3 0 0\n", (1, NOW, False)),
        (b"/4 50 777\na 5 1:777:0\n", (50, 777, True)),
        (b"/3 4 99", (1, NOW, True)),
    ],
)
def test_the_first_line_tells_what_comes_next(text, expected):
    assert header(text) == expected


def test_F_FILE_8_an_unknown_version_keeps_its_numbers_and_loses_its_entries():
    assert entries(b"/4 50 777\na 5 1:777:0\n") == []


@pytest.mark.parametrize(
    "first", [b"/3 x 5", b"/", b"/3", b"garbage", b"\0\0\0", b"/3 " + b"9" * 30 + b" 5", b"/3 -1 5"]
)
def test_F_FILE_8_behind_a_first_line_without_sense_entries_keep_their_ids(first):
    text = first + b"\na 5 1:99:0\n"
    assert entries(text) == [(b"a", 5, b"UID1-99", PLAIN)]
    assert header(text) == (1, NOW, True)


@pytest.mark.parametrize(
    "line",
    [
        *[b"", b" ", b"  ", b"a", b"a 5", b"a 5 ", b"a  1:2:0", b" 5 1:2:0", b"a 5 1", b"a 5 1:"],
        *[b"a 5 :1:0", b"a -5 1:2:0", b"a 5 1:2:x", b"a 5 +1:2:0", b"a 5 1_0:2:0", b"a x 1:2:0"],
        *[
            b"a 5 1:2:x:0",
            b"a 5 1:2:",
            b"a 5 1:2::=x",
            b"a " + b"9" * 20 + b" 1:2:0",
            b"a 5 " + b"9" * 10**6 + b":2:0",
        ],
        *[b"\0" * 50, b":2, 5 0:99:0", b"a 5 1: 2:0"],
    ],
)
def test_F_FILE_8_CVE_46_what_is_no_entry_is_passed_over(line):
    text = b"/3 9 99\nb 5 7:99:0\n" + line + b"\nc 5 8:99:0\n"
    assert [name for name, *_ in entries(text)] == [b"b", b"c"]


def test_F_FILE_8_a_last_line_that_was_cut_off_is_no_entry():
    assert entries(b"/3 9 99\na 5 1:99:0\nb 5 12:9") == [(b"a", 5, b"UID1-99", PLAIN)]


def test_1939_38_an_edited_list_gives_no_id_twice():
    text = (
        b"/3 9 99\na 5 1:99:0\nb 5 1:99:1\nc 5 01:99:0\nd:2, 5 0:1:0\nd:2,S 5 0:2:0\na 5 3:99:0\n"
    )
    assert [(name, uidl) for name, _, uidl, _ in entries(text)] == [
        (b"a", b"UID1-99"),
        (b"d:2,", b"d"),
        (b"a", b"UID3-99"),
    ]


def test_1939_40_the_next_number_is_beyond_all_that_were_given():
    assert header(b"/3 2 99\na 5 7:99:0\nb 5 900:98:0\n") == (8, 99, False)


names = st.binary(min_size=1, max_size=30).filter(lambda name: not {0, 0x2F} & set(name))
numbers = st.integers(0, 10**19 - 1)


kinds = st.sampled_from([PLAIN, UNICODE])
uidls = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=70).map(str.encode)


@given(
    st.dictionaries(names, st.tuples(numbers, numbers, numbers, kinds, st.just(b"")))
    | st.dictionaries(names, st.tuples(numbers, numbers, numbers, kinds | st.just(UNKNOWN), uidls))
)
def test_F_FILE_4_what_is_written_is_read_again(tmp_path_factory, columns):
    os.chdir(tmp_path_factory.mktemp("list"))
    os.mkdir("tmp")
    written = [(name, *values) for name, values in columns.items()]
    sizelist.save(table(*written), SizeList(NOW))
    read = list(sizelist.read(NOW, JOE).entries())
    ids = {given or (number, validity) for _, _, number, validity, _, given in written}
    if len(ids) == len(written) and all(number for _, _, number, *_ in written):
        assert read == written


@given(st.binary())
def test_F_FILE_8_no_list_whatsoever_disturbs(text):
    listed = parse(text, NOW)
    ids = [message.uidl for message in table(*listed.entries())]
    assert listed.next_number >= 1 and listed.validity >= 1
    assert len(set(ids)) == len(ids)


def test_the_list_is_written_in_courier_s_form(box):
    listed = SizeList(200)
    listed.next_number = 4
    umask = os.umask(0o077)
    try:
        sizelist.save(table((b"msg2:2,S", 69, 2, 200, PLAIN, b"")), listed)
    finally:
        os.umask(umask)
    assert box.list.read_bytes() == b"/3 4 200\nmsg2:2,S 69 2:200:0\n"
    assert box.list.stat().st_mode & 0o777 == 0o600
    assert box.names("tmp") == []


def test_a_line_end_in_a_name_stays_in_its_line(box):
    entry = (b"1.a\nb:2,", 69, 2, 200, PLAIN, b"")
    sizelist.save(table(entry), SizeList(200))
    assert box.list.read_bytes() == b"/3 1 200\n1.a\0b:2, 69 2:200:0\n"
    assert list(sizelist.read(NOW, JOE).entries()) == [entry]


def test_F_KILL_7_the_list_is_written_aside_synced_and_renamed(box, monkeypatch):
    calls: list[str] = []

    def watched(name):
        real = getattr(os, name)

        def call(*arguments, **keywords):
            calls.append(name)
            return real(*arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "write", "fsync", "rename"):
        watched(name)
    sizelist.save(table(), SizeList(200))
    assert calls == ["open", "write", "fsync", "rename", "open", "fsync"]


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename"])
def test_F_DISK_3_a_failure_leaves_the_old_list_and_nothing_in_tmp(box, monkeypatch, name):
    box.list.write_bytes(b"/3 4 200\n")

    def fail(*_, **__):
        raise OSError(27, "File too large")

    with monkeypatch.context() as patched:
        patched.setattr(os, name, fail)
        with pytest.raises(OSError, match="File too large"):
            sizelist.save(table((b"a", 1, 1, 1, PLAIN, b"")), SizeList(200))
    assert box.list.read_bytes() == b"/3 4 200\n"
    assert box.names("tmp") == []


def test_F_FILE_9_a_list_that_is_a_symlink_is_replaced_and_its_target_untouched(box, capfd):
    target = box.home / "secret"
    target.write_bytes(b"/3 7 7\n")
    box.list.symlink_to(target)
    listed = sizelist.read(NOW, JOE)
    assert (listed.next_number, listed.validity) == (1, NOW)
    assert "failed to open courierpop3dsizelist file: " in capfd.readouterr().err
    sizelist.save(table(), listed)
    assert not box.list.is_symlink()
    assert target.read_bytes() == b"/3 7 7\n"


def test_F_FILE_8_a_directory_in_the_list_s_place_is_put_aside(box):
    box.list.mkdir()
    (box.list / "kept").touch()
    sizelist.save(table(), sizelist.read(NOW, JOE))
    assert box.list.read_bytes() == b"/3 1 200\n"
    (aside,) = box.names("tmp")
    assert os.listdir(box.path / "tmp" / aside) == ["kept"]


def test_a_fifo_in_the_list_s_place_does_not_hang(box):
    os.mkfifo(box.list)
    assert list(sizelist.read(NOW, JOE).entries()) == []


def test_F_FILE_12_a_list_that_may_come_back_is_not_given_up(box, monkeypatch):
    box.list.write_bytes(b"/3 4 200\n")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(Unreadable, match="Input/output error"):
        sizelist.read(NOW, JOE)


def test_F_BIG_1_a_long_list_takes_linear_time():
    lines = [b"%d.M1P2.host,S=1:2,S %d %d:200:0\n" % (n, n, n) for n in range(1, 20001)]
    started = time.process_time()
    assert len(list(parse(b"/3 1 200\n" + b"".join(lines), NOW).entries())) == 20000
    assert time.process_time() - started < 2
