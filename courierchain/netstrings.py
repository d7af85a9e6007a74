"""netstrings - octets of any kind, one after the other, each with its length in front

    5:hello,0:,3:a:b,

(https://cr.yp.to/proto/netstrings.txt). What is cut off, or isn't this, is refused and never taken
for something else.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_DIGITS = 10


def encode(fields: Iterable[bytes]) -> bytes:
    return b"".join([b"%d:%s," % (len(field), field) for field in fields])


def decode(data: bytes) -> list[bytes]:
    """What `encode` was given. Raises ValueError."""
    fields = []
    position = 0
    while position < len(data):
        colon = data.find(b":", position, position + MAX_DIGITS + 1)
        digits = data[position : max(colon, 0)]
        if not digits.isdigit() or (digits[:1] == b"0" and digits != b"0"):
            raise ValueError("no length of a netstring")
        end = colon + 1 + int(digits)
        if data[end : end + 1] != b",":
            raise ValueError("a netstring of another length")
        fields.append(data[colon + 1 : end])
        position = end + 1
    return fields


def numbers(values: Iterable[int]) -> bytes:
    """Decimal, with blanks between them: a field that `int` reads."""
    return b" ".join([b"%d" % value for value in values])
