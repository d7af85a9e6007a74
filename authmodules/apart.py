"""apart - do something in a process of its own, which is killed when it takes too long

For libraries that have no time limit for all they do: a TLS handshake, the DNS.
"""

from __future__ import annotations

import os
from _signal import SIGKILL
from collections.abc import Callable
from select import POLLIN, poll
from time import monotonic

PIECE = 65536


class Unfinished(Exception):
    """There is no result; the text says why."""


def apart(limit: float, work: Callable[..., bytes], *arguments: object) -> bytes:
    """What `work` returns, not empty, within `limit` seconds. Raises Unfinished."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            rest = work(*arguments)
            while rest:
                rest = rest[os.write(writer, rest) :]
        finally:
            os._exit(0)
    os.close(writer)
    deadline = monotonic() + limit
    readable = poll()
    readable.register(reader, POLLIN)
    result = b""
    try:
        while readable.poll(max(0, (deadline - monotonic()) * 1000)):
            part = os.read(reader, PIECE)
            if not part and not result:
                raise Unfinished("the process that asks it has died")
            if not part:
                return result
            result += part
        raise Unfinished(f"not within {limit} seconds")
    finally:
        os.close(reader)
        os.kill(process, SIGKILL)
        os.waitpid(process, 0)
