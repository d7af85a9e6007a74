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
    "name, size",
    [
        ("1.a,S=26,W=30:2,", 30),
        ("1.a,W=30,S=26:2,S", 30),
        ("1.a,S=26,W=30", 30),
        ("1.a,S=26,W=26", 26),
        ("1.a,S=26,W=25:2,", 0),
        ("1.a,S=26,W=53:2,", 0),
        ("1.a,W=30:2,", 0),
        ("1.a,S=26,W=:2,", 0),
        ("1.a,S=26,W=3x:2,", 0),
        ("1.a,S=26:2,W=30", 0),
        ("1.a,S=" + "9" * 60 + ",W=" + "9" * 60, 0),
        ("1.a,S=0,W=0:2,", 0),
    ],
)
def test_names_tell_sizes_in_front_of_the_colon(name, size):
    assert measure.size_in(name.encode()) == size


@pytest.fixture
def named(box, monkeypatch):
    """Forty messages with their sizes in the names, of which every fourth is in the sample."""
    monkeypatch.setattr(measure, "SAMPLE", 10)
    names = [b"%02d.a,S=26,W=30:2," % number for number in range(40)]
    for name in names:
        box.put(b"cur/" + name, RAW)
    return names


def test_1939_24_sizes_in_many_names_are_believed_if_a_sample_bears_them_out(box, named):
    box.put(b"cur/" + named[1], b"another size")
    box.put("cur/40.b:2,", MAIL[:-1])
    sizes, kinds = measure.measure_all([*named, b"40.b:2,"])
    assert list(zip(sizes, kinds, strict=True)) == [(30, UNKNOWN)] * 40 + [(30, PLAIN)]


@pytest.mark.parametrize("content", [RAW[:-2], RAW + b"x\n", b"", RAW.replace(b"\n", b"")])
def test_1939_24_no_name_is_believed_when_one_of_the_sample_is_wrong(box, named, content):
    box.put(b"cur/" + named[8], content)
    right = measure.measure(named[8])
    sizes, kinds = measure.measure_all(named)
    expected = [(30, UNICODE)] * 40
    expected[8] = right
    assert list(zip(sizes, kinds, strict=True)) == expected


def test_1939_24_few_messages_are_measured_whatever_their_names_tell(box, named):
    sizes, kinds = measure.measure_all(named[:10])
    assert list(zip(sizes, kinds, strict=True)) == [(30, UNICODE)] * 10


def test_6856_05_headers_nobody_has_looked_into_are_looked_into_when_they_are_sent(
    box, named, talk
):
    box.put(b"cur/" + named[1], MAIL)
    for _ in range(2):
        session = talk(utf8=False)
        assert session.lines("LIST") == [b"%d 30" % number for number in range(1, 41)]
        assert b"Cannot display Unicode content" in session.body("RETR 1")
        assert session.body("RETR 2") == MAIL.replace(b"\n", b"\r\n")
        assert talk(utf8=True).body("RETR 1") == RAW.replace(b"\n", b"\r\n")
    first = b"/3 41 200\n00.a,S=26,W=30:2, 30 1:200\n01.a,S=26,W=30:2, 30 2:200\n"
    assert box.list.read_bytes().startswith(first)
