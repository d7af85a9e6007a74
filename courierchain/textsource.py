"""textsource - the lines that Courier's makedat compiles to a database

    KEY TAB VALUE      VALUE is 1 where there is none
    # ...              a comment; empty lines are none either
    .                  ends the text

Everything is octets; a NUL ends its line, as it does in C (reference couriertcpd.md 7.4).
"""

from __future__ import annotations

from collections.abc import Iterator

END = b"."


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
