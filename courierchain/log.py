"""log - one form of line on descriptor 2

    PRIORITY: text LF

PRIORITY is DEBUG, INFO, WARN, ERR or ALERT: what a courierlogger, or `couriertcpd -stderr=syslog`,
takes off again and turns into a syslog priority (reference couriertcpd.md 13.2). One event is one
write of one line, so lines of concurrent sessions never mix. A log that is full or gone disturbs
nobody (F-DISK-4).
"""

from __future__ import annotations

import os
from select import POLLOUT, poll

# Users' text goes into lines that ban scripts read: what could forge a field becomes a dot, as
# Courier does with unprintable bytes.
_SAFE = bytes(
    octet if 0x21 <= octet <= 0x7E and octet not in b",[]" else ord(".") for octet in range(256)
)
PATIENCE = 100  # milliseconds that a line waits for a log that nobody reads; the next ones don't
MAX_SHOWN = 256  # octets of a user's text in one line

_is_stuck = False
_writable = poll()
_writable.register(2, POLLOUT)


def safe(text: str | bytes) -> str:
    """Text from a client, fit for a log line: no control, blank, comma, bracket or 8-bit byte."""
    octets = text if isinstance(text, bytes) else os.fsencode(text)
    return octets[:MAX_SHOWN].translate(_SAFE).decode("ascii")


def session(env: dict[str, str]) -> str:
    """Whose session it is, as it stands in the lines about it: user, ip and port (auth.md 1.8)."""
    ip, port = env.get("TCPREMOTEIP", "127.0.0.1"), env.get("TCPREMOTEPORT", "0")
    return f"{user(env)}, ip=[{safe(ip)}], port=[{safe(port)}]"


def user(env: dict[str, str]) -> str:
    return f"user={safe(env.get('AUTHADDR') or env.get('AUTHENTICATED') or 'nobody')}"


def line(priority: str, text: str) -> None:
    """Write one line; `text` has passed through `safe` where it is a user's."""
    plain(f"{priority}: {text}")


def plain(text: str) -> None:
    """Write one line that has no priority, as Courier writes a few."""
    deliver(text.replace("\n", " ").replace("\r", " "))


def _to_descriptor_2(text: str) -> None:
    global _is_stuck
    try:
        ready = _writable.poll(0 if _is_stuck else PATIENCE)
        _is_stuck = not ready
        if ready:
            os.write(2, os.fsencode(text + "\n"))
    except OSError:
        pass


deliver = _to_descriptor_2  # takes a line; another one in a process that is its own logger


def debug(text: str) -> None:
    line("DEBUG", text)


def info(text: str) -> None:
    line("INFO", text)


def warn(text: str) -> None:
    line("WARN", text)


def err(text: str) -> None:
    line("ERR", text)
