"""Measuring many messages, in two processes, and believing what a delivery agent wrote."""

from __future__ import annotations

import os

import pytest

from courierpop3d import measure
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN

MAIL = b"Subject: x\n\nLine 1\nLine 2\n"  # 26 octets, 4 lines
RAW = b"Subject: \xe9\n\nLine 1\nLine 2\n"


@pytest.fixture(autouse=True)
def _ten_are_many(monkeypatch):
    monkeypatch.setattr(measure, "MANY", 10)


def fill(box, count: int) -> list[bytes]:
    names = [b"%d.a:2," % number for number in range(count)]
    for number, name in enumerate(names):
        box.put(b"cur/" + name, b"x" * number + b"\n" + (b"\n\xe9" if number % 3 else b""))
    return names


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 50])
def test_two_processes_find_what_one_finds(box, count):
    names = fill(box, count)
    sizes, kinds = measure.measure_all(names)
    assert list(zip(sizes, kinds, strict=True)) == [measure.measure(name) for name in names]


def test_F_FILE_2_what_can_not_be_read_is_told_for_itself_alone(box):
    names = fill(box, 20)
    os.unlink(b"cur/" + names[3])
    os.unlink(b"cur/" + names[15])
    os.mkfifo(b"cur/" + names[15])
    sizes, _ = measure.measure_all(names)
    assert [row for row, size in enumerate(sizes) if size == measure.FAILED] == [3, 15]


def no_fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")


def dying_fork():
    process = real_fork()
    if not process:
        os._exit(1)
    return process


real_fork = os.fork


@pytest.mark.parametrize("fork", [no_fork, dying_fork])
def test_F_NET_6_without_a_second_process_one_does_it_all(box, monkeypatch, fork):
    names = fill(box, 20)
    right = measure.measure_all(names)
    monkeypatch.setattr(os, "fork", fork)
    descriptors = os.listdir("/proc/self/fd")
    assert measure.measure_all(names) == right
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("1.a,S=26,W=30:2,", MAIL, (30, UNKNOWN)),
        ("1.a,W=30,S=26:2,S", MAIL, (30, UNKNOWN)),
        ("1.a,S=26,W=30", RAW, (30, UNKNOWN)),
        # W isn't what RETR sends, or S isn't the file's size
        ("1.a,S=25,W=28:2,", MAIL[:-1], (30, PLAIN)),
        ("1.a,S=27,W=31:2,", MAIL, (30, PLAIN)),
        ("1.a,S=19,W=22:2,", MAIL, (30, PLAIN)),
        ("1.a,S=26,W=25:2,", MAIL, (30, PLAIN)),
        ("1.a,S=26,W=53:2,", MAIL, (30, PLAIN)),
        # there is no W, or no S, in front of the colon
        ("1.a,W=30:2,", MAIL, (30, PLAIN)),
        ("1.a,S=26,W=:2,", MAIL, (30, PLAIN)),
        ("1.a,S=26,W=3x:2,", MAIL, (30, PLAIN)),
        ("1.a,S=26:2,W=30", MAIL, (30, PLAIN)),
        ("1.a,S=" + "9" * 60 + ",W=" + "9" * 60, MAIL, (30, PLAIN)),
        ("1.a,S=0,W=0:2,", b"", (0, PLAIN)),
        ("1.a,S=26,W=30:2,", b"", (0, PLAIN)),
        ("1.a,S=30,W=31:2,", RAW, (30, UNICODE)),
    ],
)
def test_1939_24_what_a_name_tells_is_believed_if_the_file_bears_it_out(
    box, name, content, expected
):
    box.put("cur/" + name, content)
    assert measure.measure(name.encode()) == expected


def test_6856_05_headers_nobody_has_looked_into_are_looked_into_when_they_are_sent(box, talk):
    box.put("cur/1.a,S=26,W=30:2,", RAW)
    box.put("cur/2.b,S=26,W=30:2,", MAIL)
    for _ in range(2):
        session = talk(utf8=False)
        assert session.lines("LIST") == [b"1 30", b"2 30"]
        assert b"Cannot display Unicode content" in session.body("RETR 1")
        assert session.body("RETR 2") == MAIL.replace(b"\n", b"\r\n")
        assert talk(utf8=True).body("RETR 1") == RAW.replace(b"\n", b"\r\n")
    entries = b"1.a,S=26,W=30:2, 30 1:200\n2.b,S=26,W=30:2, 30 2:200\n"
    assert box.list.read_bytes() == b"/3 3 200\n" + entries
