"""rehearsal - go through the chain once before the first client comes

A program that runs for the first time is slow: the interpreter specializes its bytecode and fills
its method caches. In forked children every time is the first. So the parent goes through the
resident programs a few times beforehand, with a client of its own who asks for a user that nobody
is, and is refused; the children inherit what was learned (a third of a session's CPU time here).

Nothing comes of it: no program is executed, no log line written, no delay kept, and the descriptors
are what they were. Without a wholly resident chain there is nothing to rehearse.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from socket import socketpair

from courierchain import handover
from courierchain.daemon import park
from courierchain.request import RECORD

ROUNDS = 12  # CPython 3.11 specializes a function at its ninth call
NOBODY = b"\x7frehearsal\x7f"


def rehearse(serve: Callable[[], object], nobody: bytes = NOBODY) -> None:
    """Let `serve` serve a client on descriptors 0 and 1, ROUNDS times."""
    saved = [duplicate(descriptor) for descriptor in range(RECORD + 1)]
    handover.rehearse(True)
    try:
        discard_log()
        for _ in range(ROUNDS):
            converse(serve, b"CAPA\r\nUSER %s\r\nPASS \x7f\r\nNOOP\r\nQUIT\r\n" % nobody)
    finally:
        handover.rehearse(False)
        for descriptor, copy in enumerate(saved):
            put_back(copy, descriptor)


def converse(serve: Callable[[], object], dialogue: bytes) -> None:
    ours, theirs = (park(end.detach()) for end in socketpair())
    os.write(ours, dialogue)
    for descriptor in (0, 1):
        os.dup2(theirs, descriptor)
    serve()
    os.close(ours)
    os.close(theirs)


def discard_log() -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    if null != 2:
        os.dup2(null, 2)
        os.close(null)


def duplicate(descriptor: int) -> int | None:
    """A copy out of the way; None if the descriptor is closed."""
    try:
        return park(os.dup(descriptor))
    except OSError:
        return None


def put_back(copy: int | None, descriptor: int) -> None:
    os.closerange(descriptor, descriptor + 1)
    if copy is not None:
        os.dup2(copy, descriptor)
        os.close(copy)
