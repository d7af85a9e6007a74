"""typed - what somebody types, or a script writes, on descriptor 0

On a terminal a prompt is on descriptor 2, so that the output may go into another program; elsewhere
there is none, and a line is read as it is, without its end.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 65536  # octets


def new_password() -> bytes | None:
    """A password, typed twice on a terminal; None at the end of the input."""
    while True:
        first = line("Password: ", hidden=True)
        if first is None or not os.isatty(0):
            return first
        second = line("Reenter password: ", hidden=True)
        if second == first:
            return first
        if second is None:
            return None
        os.write(2, b"Passwords don't match.\n\n")


def line(prompt: str, *, hidden: bool = False) -> bytes | None:
    """One line; None at the end of the input, or for a line that is far too long."""
    if not os.isatty(0):
        return read()
    if not hidden:
        os.write(2, os.fsencode(prompt))
        return read()
    with without_echo():  # before the prompt: what is typed earlier than that is lost
        os.write(2, os.fsencode(prompt))
        answer = read()
    os.write(2, b"\n")
    return answer


def read() -> bytes | None:
    """One octet at a time: what is behind the line is for the next who reads."""
    text = b""
    while len(text) < LONGEST:
        octet = os.read(0, 1)
        if octet in (b"", b"\n"):
            return text if text or octet else None
        text += octet
    return None


@contextmanager
def without_echo() -> Iterator[None]:
    before = termios.tcgetattr(0)
    quiet = termios.tcgetattr(0)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
