"""Lines to messages, however they arrive; and a syslog that is absent, full, or started anew."""

from __future__ import annotations

import os
import re
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.syslog import LONGEST, Lines, Syslog, graded
from tests.conftest import DEADLINE

STREAM = st.lists(st.sampled_from([b"a", b"\n", b"b" * 510, b"c" * 511, b"d" * 512])).map(b"".join)


@pytest.mark.parametrize("first_only", [False, True])
@given(stream=STREAM, cuts=st.lists(st.integers(0, 4000)))
def test_messages_do_not_depend_on_how_the_stream_is_read(first_only, stream, cuts):
    whole = Lines(first_only=first_only)
    expected = [*whole.feed(stream), *whole.last()]
    pieces = Lines(first_only=first_only)
    edges = [0, *sorted(cuts), len(stream)]
    found = []
    for start, end in zip(edges, edges[1:], strict=False):
        found += pieces.feed(stream[start:end])
    assert found + pieces.last() == expected
    assert all(len(message) <= LONGEST for message in expected)


@pytest.mark.parametrize(
    ("length", "all_pieces", "first"),
    [
        (0, [0], 0),
        (510, [510], 510),
        (511, [511, 0], 511),
        (512, [511, 1], 511),
        (1022, [511, 511, 0], 511),
        (1200, [511, 511, 178], 511),
    ],
)
def test_a_long_line_is_cut_at_511_octets(length, all_pieces, first):
    line = b"x" * length + b"\n"
    assert [len(message) for message in Lines().feed(line)] == all_pieces
    assert [len(message) for message in Lines(first_only=True).feed(line)] == [first]


@pytest.mark.parametrize(
    ("message", "severity", "text"),
    [
        (b"ALERT: a", 1, b"a"),
        (b"CRIT: a", 2, b"a"),
        (b"ERR: a", 3, b"a"),
        (b"WARN:   a b", 4, b"a b"),
        (b"INFO:a", 6, b"a"),
        (b"DEBUG: a", 7, b"a"),
        (b"ERR: ERR: a", 3, b"ERR: a"),
        (b"err: a", 6, b"err: a"),
        (b" ERR: a", 6, b"ERR: a"),
        (b"ERRS: a", 6, b"ERRS: a"),
        (b"ERR", 6, b"ERR"),
        (b"ERR:", 3, b""),
        (b"ERR: \t a", 3, b"\t a"),
        (b"", 6, b""),
        (b"100%s %n", 6, b"100%s %n"),
        (b"a\0b", 6, b"a.b"),
        (b"\377\303\244", 6, b"\377\303\244"),
    ],
)
def test_row_52_a_prefix_gives_the_severity(message, severity, text):
    assert graded(message) == (severity, text)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "log")


def listening(path: str) -> socket.socket:
    sink = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink.settimeout(DEADLINE)
    sink.bind(path)
    return sink


def received(sink: socket.socket) -> bytes:
    return re.sub(rb" \w{3} [ \d]\d \d\d:\d\d:\d\d ", b" ", sink.recv(4096).replace(b">", b"> ", 1))


def test_a_message_has_priority_time_and_name(path):
    with listening(path) as sink:
        Syslog("pop3d", "local3", path).write(4, b"text")
        assert received(sink) == b"<156> pop3d: text"


def test_a_syslog_that_is_absent_loses_lines_and_is_found_when_it_comes(path):
    log = Syslog("pop3d", path=path)
    log.write(6, b"lost")
    with listening(path) as sink:
        log.write(6, b"found")
        assert received(sink) == b"<22> pop3d: found"


def test_a_syslog_that_is_started_anew_loses_no_line(path, tmp_path):
    log = Syslog("pop3d", path=path)
    with listening(path) as sink:
        log.write(6, b"one")
        assert received(sink) == b"<22> pop3d: one"
    (tmp_path / "log").unlink()
    with listening(path) as sink:
        log.write(6, b"two")
        assert received(sink) == b"<22> pop3d: two"


def test_a_socket_with_a_number_keeps_it_while_syslog_is_away(path, tmp_path):
    syslog = Syslog("pop3d", path=path, descriptor=200)
    first = os.fstat(200)
    syslog.write(6, b"nobody listens")
    assert os.fstat(200).st_mode == first.st_mode
    for name in ("one", "two"):
        with listening(path) as sink:
            syslog.write(6, name.encode())
            assert received(sink).endswith(f"pop3d: {name}".encode())
        os.rename(path, tmp_path / name)
        syslog.write(6, b"nobody listens")
        assert os.fstat(200).st_mode == first.st_mode
        assert not os.get_inheritable(200)
    os.close(200)


def test_a_syslog_that_is_full_is_waited_for_once_and_used_again_when_it_reads(path, monkeypatch):
    monkeypatch.setattr("courierchain.syslog.PATIENCE", 0.2)
    with listening(path) as sink:
        log = Syslog("pop3d", path=path)
        began = time.monotonic()
        for _ in range(2000):  # over net.unix.max_dgram_qlen
            log.write(6, b"flood")
        assert time.monotonic() - began < 2
        sink.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                sink.recv(4096)
        log.write(6, b"later")
        assert received(sink) == b"<22> pop3d: later"
