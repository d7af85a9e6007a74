"""saslprep - names and passwords as SCRAM compares them (SASLprep, RFC 4013)

    prepared(text)    the text as it is to be used, in UTF-8; raises NotPrepared

ASCII without control characters stays as it is, and costs nothing. Anything else is mapped,
normalized (NFKC) and checked with the tables of RFC 3454, which Python has in `stringprep`. Code
points that Unicode 3.2 didn't know are taken: what a client types is a query (RFC 5802, 5.1).
"""

from __future__ import annotations


class NotPrepared(ValueError):
    """Not UTF-8, or with characters that no name and no password may have."""


def prepared(text: bytes) -> bytes:
    """Raises NotPrepared. A text may come out empty."""
    if text.isascii() and not any(octet < 0x20 or octet == 0x7F for octet in text):
        return text
    import stringprep
    import unicodedata

    try:
        mapped = "".join(
            " " if stringprep.in_table_c12(character) else character
            for character in text.decode()
            if not stringprep.in_table_b1(character)
        )
    except UnicodeDecodeError as why:
        raise NotPrepared("not UTF-8") from why
    normal = unicodedata.normalize("NFKC", mapped)
    if any(prohibits(character) for character in normal for prohibits in prohibited()):
        raise NotPrepared("a character that is not to be used")
    right_to_left = [stringprep.in_table_d1(character) for character in normal]
    if any(right_to_left):  # RFC 3454 section 6
        left_to_right = any(stringprep.in_table_d2(character) for character in normal)
        if left_to_right or not (right_to_left[0] and right_to_left[-1]):
            raise NotPrepared("both directions of writing in it")
    return normal.encode()


def prohibited():  # type: ignore[no-untyped-def]
    """The tables of RFC 4013 section 2.3."""
    import stringprep as tables

    return (
        *(tables.in_table_c12, tables.in_table_c21_c22, tables.in_table_c3, tables.in_table_c4),
        *(tables.in_table_c5, tables.in_table_c6, tables.in_table_c7, tables.in_table_c8),
        tables.in_table_c9,
    )
