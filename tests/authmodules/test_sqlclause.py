"""Variables in a clause become values; text that is typed never becomes SQL (CVE-05)."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmodules.sqlclause import MYSQL, STANDARD, BadClause, translate

VALUES = {"local_part": b"john", "domain": b"example.com", "service": b"pop3"}


@pytest.mark.parametrize(
    "clause, statement",
    [
        ("SELECT 1", ["SELECT 1"]),
        ("a='$(local_part)'", ["a=", b"john", ""]),
        ("a='$(local_part)@$(domain)' AND x", ["a=", b"john@example.com", " AND x"]),
        ("a='it''s $(service)'", ["a=", b"it's pop3", ""]),
        ("a='$(nothing)' b$(nothing)c", ["a=", b"", " bc"]),
        ("a='$5' b $x $$", ["a='$5' b $x $$"]),
        ("a='-- ' || '$(domain)'", ["a='-- ' || ", b"example.com", ""]),
        ("a /* '$(domain)' */ b", ["a /* '$(domain)' */ b"]),
        ("a -- $(domain)", ["a -- $(domain)"]),
        ("\"it's\" '$(domain)'", ['"it\'s" ', b"example.com", ""]),
        ("a LIKE'$(domain)'", ["a LIKE", b"example.com", ""]),
    ],
)
@pytest.mark.parametrize("grammar", [STANDARD, MYSQL])
def test_a_quoted_string_with_a_variable_is_a_value(clause, statement, grammar):
    assert translate(clause, VALUES, grammar) == statement


def test_mysql_quotes_strings_in_two_ways_and_has_backslashes():
    assert translate("a=\"$(domain)\" b='\\'' # '", VALUES, MYSQL) == [
        "a=",
        b"example.com",
        " b='\\'' # '",
    ]


@pytest.mark.parametrize(
    "clause, why",
    [
        ("a=$(local_part)", "$(local_part) stands outside of quotes (write '$(local_part)')"),
        ("`$(domain)`", "quoted name"),
        ("E'$(domain)'", "E in front of"),
        ("a=_latin1'$(domain)'", "_LATIN1 in front of"),
        ("U&'$(domain)'", "U& in front of"),
        (r"'\%$(domain)'", "a backslash"),
        ("a='$(domain)", "a quote is not closed"),
        ("a /* b", "/* is not closed"),
        ("a=$(domain", "$( is not closed"),
    ],
)
@pytest.mark.parametrize("grammar", [STANDARD, MYSQL])
def test_what_cannot_be_bound_is_refused_with_a_reason(clause, why, grammar):
    with pytest.raises(BadClause) as refusal:
        translate(clause, VALUES, grammar)
    assert why in str(refusal.value)


def test_a_variable_in_a_quoted_name_is_refused():
    with pytest.raises(BadClause, match="quoted name"):
        translate('"$(domain)"', VALUES, STANDARD)


PIECES = st.lists(
    st.sampled_from(
        [*"'\"`\\$()#-/*% ax\n", "$(local_part)", "--", "/*", "*/", "''", "'$(domain)'"]
    )
)


@given(pieces=PIECES, typed=st.binary())
def test_CVE_05_what_is_typed_is_never_in_the_text(pieces, typed):
    marked = b"\x01" + typed + b"\x02"
    values = {"local_part": marked, "domain": marked, "service": b"pop3"}
    for grammar in (STANDARD, MYSQL):
        try:
            statement = translate("".join(pieces), values, grammar)
        except BadClause:
            continue
        assert not any("\x01" in text for text in statement if isinstance(text, str))


@given(typed=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_CVE_05_a_value_arrives_as_it_was_typed(typed):
    values = {"local_part": typed.encode()}
    statement = translate("SELECT '$(local_part)', 'it''s <$(local_part)>'", values, STANDARD)
    sql = "".join("?" if isinstance(piece, bytes) else piece for piece in statement)
    bound = [piece.decode() for piece in statement if isinstance(piece, bytes)]
    row = sqlite3.connect(":memory:").execute(sql, bound).fetchone()
    assert row == (typed, f"it's <{typed}>")
