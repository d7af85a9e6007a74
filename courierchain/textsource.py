"""textsource - the lines that Courier's makedat compiles to a database

    KEY TAB VALUE      VALUE is 1 where there is none
    # ...              a comment; empty lines are none either
    .                  ends the text

Everything is octets; a NUL ends its line, as it does in C (reference couriertcpd.md 7.4). KEY may
be an address, or the begin of one: `key` is how that is written.
"""

from __future__ import annotations

from collections.abc import Iterator

END = b"."
UNITS = {32: 8, 128: 16}  # bits of what keys of addresses consist of, by those of an address


def key(size: int, bits: int, network: int) -> bytes:
    """How the network of the first `bits` bits of an address of `size` bits is written; a whole
    number of units, and not none. 192.0.2, :2001:0db8 (reference couriertcpd.md 7.2)."""
    if size == 32:
        return b".".join([b"%d" % (network >> low & 0xFF) for low in range(bits - 8, -1, -8)])
    return b"".join([b":%04x" % (network >> low & 0xFFFF) for low in range(bits - 16, -1, -16)])


def records(text: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number of the line, key and value of each record."""
    for number, line in enumerate(text.split(b"\n"), 1):
        if line == END:
            return
        if line and not line.startswith(b"#"):
            key, _, value = line.partition(b"\0")[0].partition(b"\t")
            yield number, key, value or b"1"


def is_ended(text: bytes) -> bool:
    """Whether there is the line that ends it, with its LF: what comes through a pipe is whole."""
    return b"\n" + END + b"\n" in b"\n" + text
