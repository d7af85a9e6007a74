"""Commands as Cyrus's pop3d reads them (cyrus-pop3d.md 5.2, 5.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3proto import cyrus
from pop3proto.cyrus import Mistake

ANY = st.one_of(
    st.none(), st.binary(max_size=60), st.text("TOP 0129x\t", max_size=20).map(str.encode)
)


def mistake(function, *arguments) -> bytes:
    with pytest.raises(Mistake) as caught:
        function(*arguments)
    return caught.value.reply


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"noop\r", (b"NOOP", None)),
        (b"retr 1", (b"RETR", b"1")),
        (b"LIST \t 2 ", (b"LIST", b"2 ")),
        (b"PASS  a b ", (b"PASS", b" a b ")),
        (b"AUTH ", (b"AUTH", None)),
    ],
)
def test_a_command_is_a_keyword_and_what_follows_it(line, command):
    assert cyrus.parse(line) == command


@pytest.mark.parametrize("line", [b"", b"\r", b" NOOP", b"NO\0OP", None])
def test_what_is_no_command(line):
    assert mistake(cyrus.parse, line) == b"-ERR Unrecognized command\r\n"


@pytest.mark.parametrize("line", [b"USER ", b"PASS ", b"LIST \t\r"])
def test_a_keyword_and_blanks_only(line):
    assert mistake(cyrus.parse, line) == b"-ERR Syntax error\r\n"


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        (b"x", cyrus.NOT_A_NUMBER),
        (b"-1", cyrus.NOT_A_NUMBER),
        (b"4294967296", cyrus.NOT_A_NUMBER),
        (b"9" * 8000, cyrus.NOT_A_NUMBER),
        (b"1 ", cyrus.EXTRA_ARGUMENT),
        (b"1x", cyrus.EXTRA_ARGUMENT),
    ],
)
def test_what_is_no_message_number(argument, reply):
    assert mistake(cyrus.message_number, argument) == reply


def test_the_largest_number_and_leading_zeros():
    assert cyrus.message_number(b"4294967295") == 4294967295
    assert cyrus.message_number(b"0" * 50 + b"7") == 7
    assert cyrus.message_number(b"0") == 0


@given(ANY)
def test_any_line_is_a_command_or_a_mistake(line):
    try:
        verb, argument = cyrus.parse(line)
    except Mistake as why:
        assert why.reply.startswith(b"-ERR ") and why.reply.endswith(b"\r\n")
    else:
        assert verb and verb == verb.upper() and argument != b""


@given(ANY.filter(bool))
def test_any_argument_is_numbers_or_a_mistake(argument):
    for reader in (cyrus.message_number, cyrus.top_numbers):
        try:
            found = reader(argument)
        except Mistake:
            continue
        numbers = found if isinstance(found, tuple) else (found,)
        assert all(0 <= number <= cyrus.LARGEST for number in numbers)
        assert b" ".join(b"%d" % number for number in numbers)[:1].isdigit()


@given(st.integers(0, cyrus.LARGEST), st.integers(0, cyrus.LARGEST))
def test_numbers_come_back(message, lines):
    assert cyrus.top_numbers(b"%d %d" % (message, lines)) == (message, lines)


def test_capabilities():
    assert cyrus.capabilities(-1, 0)[:2] == [b"EXPIRE NEVER", b"LOGIN-DELAY 0"]
    assert cyrus.capabilities(0, 60)[:2] == [b"EXPIRE 0", b"LOGIN-DELAY 60"]
