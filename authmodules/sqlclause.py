"""sqlclause - a clause of an rc file, with its variables made into bound values

    SELECT ... WHERE id = '$(local_part)' AND domain = '$(domain)'

Courier pastes what the client has typed, escaped, into the text (reference auth.md 2.7). Here the
text and what a client types never meet (CVE-05): the result is a list in which each `str` is SQL,
as the administrator wrote it, and each `bytes` is a value for the driver to bind in its place. A
value is a whole quoted string: `'$(local_part)@$(domain)'` is one.

    $(local_part)   the userid before its `@`
    $(domain)       behind it, or else DEFAULT_DOMAIN
    $(service)      pop3, or what the login program calls it; others to change a password: sqlchange
    $(anything)     nothing, as with Courier

Refused, as there is no value that could be bound: one of them outside of quotes, in a quoted
name, or in a string that has backslashes or a prefix such as E''.
"""

from __future__ import annotations

import os

Statement = list[str | bytes]
Values = dict[str, bytes]

WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
PREFIXES = ("E", "N", "B", "X", "U&")


class BadClause(Exception):
    """The clause can't be used; the text says why, and what to write instead."""


class Grammar:
    """How a database's SQL differs: what quotes a string, whether a backslash is special in one,
    and whether `#` begins a comment."""

    __slots__ = ("string_quotes", "has_backslash", "has_hash_comments")

    def __init__(self, string_quotes: str, *, has_backslash: bool, has_hash_comments: bool):
        self.string_quotes = string_quotes
        self.has_backslash = has_backslash
        self.has_hash_comments = has_hash_comments


STANDARD = Grammar("'", has_backslash=False, has_hash_comments=False)
MYSQL = Grammar("'\"", has_backslash=True, has_hash_comments=True)


def translate(clause: str, values: Values, grammar: Grammar) -> Statement:
    """Raises BadClause."""
    statement: Statement = []
    text, at = "", 0
    while at < len(clause):
        begin, end = at, end_of_piece(clause, at, grammar)
        piece, at = clause[begin:end], end
        if piece.startswith("$("):
            if piece[2:-1] in values:
                raise BadClause(f"{piece} stands outside of quotes (write '{piece}')")
        elif piece[0] in "'\"`" and "$(" in piece:
            check_string(piece, text, grammar)
            quote = piece[0]
            statement += [text, expand(piece[1:-1].replace(quote + quote, quote), values)]
            text = ""
        else:
            text += piece
    return [*statement, text]


def end_of_piece(clause: str, at: int, grammar: Grammar) -> int:
    """Where the quoted text, comment, variable or single character ends that begins there."""
    if clause[at] in "'\"`":
        return end_of_quotes(clause, at, grammar)
    if clause.startswith("--", at) or (grammar.has_hash_comments and clause[at] == "#"):
        return len(clause)  # a clause is one line
    for opening, closing in ("/*", "*/"), ("$(", ")"):
        if clause.startswith(opening, at):
            end = clause.find(closing, at + 2)
            if end < 0:
                raise BadClause(f"{opening} is not closed (add {closing})")
            return end + len(closing)
    return at + 1


def end_of_quotes(clause: str, at: int, grammar: Grammar) -> int:
    quote = clause[at]
    escapes = grammar.has_backslash and quote != "`"
    end = at + 1
    while end < len(clause):
        if clause[end] == "\\" and escapes:
            end += 2
        elif clause[end] != quote:
            end += 1
        elif clause.startswith(quote, end + 1):  # twice: it stands for itself
            end += 2
        else:
            return end + 1
    raise BadClause(f"a quote is not closed (add {quote})")


def check_string(piece: str, before: str, grammar: Grammar) -> None:
    """Whether a quoted text may be a value. Raises BadClause."""
    if piece[0] not in grammar.string_quotes:
        raise BadClause(f"a variable in the quoted name {piece} (only strings may have one)")
    if "\\" in piece:
        raise BadClause(f"a backslash in {piece} (take a string without it)")
    prefix = before[len(before.rstrip("".join(WORD) + "&")) :].upper()
    if prefix in PREFIXES or prefix.startswith("_"):
        raise BadClause(f"{prefix} in front of {piece} (take a plain string)")


def expand(text: str, values: Values) -> bytes:
    """The text with its variables; unknown ones are nothing."""
    result = b""
    while (begin := text.find("$(")) >= 0 and (end := text.find(")", begin)) >= 0:
        result += os.fsencode(text[:begin]) + values.get(text[begin + 2 : end], b"")
        text = text[end + 1 :]
    return result + os.fsencode(text)
