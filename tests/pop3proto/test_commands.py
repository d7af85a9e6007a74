"""The grammar of commands: table-driven, and every way the bytes can arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proto.commands import (
    MAX_LINE,
    BadLine,
    BadNumber,
    Command,
    LineReader,
    number,
    parse,
)

LINES = {
    b"STAT": Command(b"STAT", b""),
    b"stat\r": Command(b"STAT", b""),
    b"StAt ": Command(b"STAT", b""),
    b"  \tSTAT": Command(b"STAT", b""),
    b"RETR 1": Command(b"RETR", b"1"),
    b"RETR\t1\r": Command(b"RETR", b"1"),
    b"PASS  a b  \r": Command(b"PASS", b" a b  "),
    b"STAT\rX": Command(b"STAT", b"X"),
    b"\x0bSTAT": Command(b"\x0bSTAT", b""),
    b"": Command(b"", b""),
    b"\r": Command(b"", b""),
    b"USER \xff\xc3": Command(b"USER", b"\xff\xc3"),
}


@pytest.mark.parametrize("line", LINES)
def test_1939_02_the_verb_is_in_any_case_and_the_argument_is_as_it_came(line):
    assert parse(line) == LINES[line]


@pytest.mark.parametrize("line", [None, b"USER jo\0hn", b"\0"])
def test_CVE_06_ROB_09_a_nul_or_too_long_a_line_is_no_command(line):
    with pytest.raises(BadLine):
        parse(line)


@pytest.mark.parametrize("word", [b"1", b"01", b"4294967297", b"9" * 40])
def test_numbers_are_digits(word):
    assert number(word) == int(word)


@pytest.mark.parametrize(
    "word",
    [b"", b"x", b"-1", b"+1", b"1x", b"1.0", b" 1", b"0x1", b"\xb2", b"1" * 41, b"1" * 10**6],
)
def test_1939_42_CVE_10_CVE_46_anything_else_is_not_a_number(word):
    with pytest.raises(BadNumber):
        number(word)


def arrive(pieces) -> list[bytes | None]:
    reader = LineReader()
    return [line for piece in pieces for line in reader.feed(piece)]


@pytest.mark.parametrize("line", LINES)
def test_a_line_arrives_whole_in_bytes_and_with_the_next_behind_it(line):
    data = line + b"\n"
    assert arrive([data]) == [line]
    assert arrive(bytes([octet]) for octet in data) == [line]
    assert arrive([data + b"NOOP\r\nNO"]) == [line, b"NOOP\r"]


def test_2449_10_CVE_02_the_longest_line_is_taken_and_one_octet_more_is_not():
    longest = b"x" * MAX_LINE
    assert arrive([longest, b"\n"]) == [longest]
    assert arrive([longest, b"x\nNOOP\n"]) == [None, b"NOOP"]
    assert arrive([b"y\n" + longest + b"x\nNOOP\n"]) == [b"y", None, b"NOOP"]


@given(st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"\0", b"x" * 5000])), st.data())
def test_any_split_of_any_input_gives_the_same_lines(parts, data):
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = [line if len(line) <= MAX_LINE else None for line in whole.split(b"\n")[:-1]]
    assert arrive(pieces) == expected
