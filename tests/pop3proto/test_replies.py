"""Messages on their way: what is sent, and what it is measured to be, at every chunk size."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pop3proto.replies import END, MAX_STATUS, Measure, err, listing, ok, stuff, top

SENT = {
    b"": b"",
    b"a": b"a\r\n",
    b"a\n": b"a\r\n",
    b"a\r\n": b"a\r\n",
    b"a\r": b"a\r\r\n",
    b"\n": b"\r\n",
    b".": b"..\r\n",
    b".\n": b"..\r\n",
    b"a\n.b\n..\n": b"a\r\n..b\r\n...\r\n",
    b"a\r\n.b\r\n": b"a\r\n..b\r\n",
    b"a\r.b\n": b"a\r.b\r\n",
    b"a\r\r\n": b"a\r\r\n",
    b"\0\xff\n": b"\0\xff\r\n",
}

message = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b".", b"a", b"\0", b"\xc3\xa4", b"line\n"])
).map(b"".join)


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def unstuffed(sent: bytes) -> bytes:
    """What a client has in the end (RFC 1939 section 3)."""
    lines = sent.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


@pytest.mark.parametrize("stored", SENT)
def test_1939_06_1939_23_ROB_11_ROB_12_ROB_13_stored_lines_are_sent(stored):
    for size in range(1, len(stored) + 2):
        assert b"".join(stuff(chunks(stored, size))) == SENT[stored]


@given(message, st.integers(1, 9))
@example(b"a\r\n.\r\n", 1)
def test_1939_24_the_size_is_what_a_client_has_in_the_end(stored, size):
    measure = Measure()
    for chunk in chunks(stored, size):
        measure.add(chunk)
    sent = b"".join(stuff(chunks(stored, size)))
    assert measure.total == len(unstuffed(sent))
    assert sent == b"".join(stuff([stored]))
    assert not sent or sent.endswith(b"\r\n")


@given(message, st.integers(1, 9))
def test_no_line_of_a_message_can_end_the_reply(stored, size):
    sent = b"".join(stuff(chunks(stored, size)))
    assert b"\r\n.\r\n" not in b"\r\n" + sent
    assert unstuffed(sent).replace(b"\r\n", b"\n").rstrip(b"\n") == stored.replace(
        b"\r\n", b"\n"
    ).rstrip(b"\n")


LETTER = b"A: 1\nB: 2\n\none\ntwo\nthree\n"


@pytest.mark.parametrize(
    "stored, count, expected",
    [
        (LETTER, 0, b"A: 1\nB: 2\n\n"),
        (LETTER, 2, b"A: 1\nB: 2\n\none\ntwo\n"),
        (LETTER, 3, LETTER),
        (LETTER, 9999999999, LETTER),
        (b"all: header\n", 0, b"all: header\n"),
        (b"\nbody\nmore\n", 1, b"\nbody\n"),
        (b"A: 1\r\n\r\none\r\ntwo\r\n", 1, b"A: 1\r\n\r\none\r\n"),
        (b"A: 1\n\nno end", 5, b"A: 1\n\nno end"),
        (b"A: 1\n\r\rx\n\nbody\n", 0, b"A: 1\n\r\rx\n\n"),
        (b"", 3, b""),
    ],
)
def test_1939_30_31_32_46_CVE_11_top(stored, count, expected):
    for size in range(1, len(stored) + 2):
        assert b"".join(top(chunks(stored, size), count)) == expected


@given(message, st.integers(0, 5), st.integers(1, 9))
def test_top_is_a_beginning_of_the_message_however_it_is_cut(stored, count, size):
    part = b"".join(top(chunks(stored, size), count))
    assert stored.startswith(part)
    assert part == b"".join(top([stored], count))


def test_1939_03_1939_04_status_lines():
    assert ok() == b"+OK\r\n"
    assert ok(b"2 320") == b"+OK 2 320\r\n"
    assert err(b"No.") == b"-ERR No.\r\n"
    assert len(err(b"x" * 10000)) == MAX_STATUS


def test_1939_05_a_listing_ends_with_one_dot():
    assert listing(ok(), [b"1 10", b"2 20"]) == b"+OK\r\n1 10\r\n2 20\r\n" + END
    assert listing(ok(), []) == b"+OK\r\n" + END
