"""syslogger - what the whole chain writes on descriptor 2, sent to syslog

Runs in a process of its own, that reads a pipe to its end (`couriertcpd -stderr=syslog`). A
prefix gives the priority and is taken off: ERR: WARN: ALERT: CRIT: DEBUG: INFO:; no prefix is info.
Facility mail, no pid, the identity is the name of the program that couriertcpd starts (reference
couriertcpd.md 13.2).
"""

from __future__ import annotations

import os
import syslog

PRIORITIES = {
    b"ERR": syslog.LOG_ERR,
    b"WARN": syslog.LOG_WARNING,
    b"ALERT": syslog.LOG_ALERT,
    b"CRIT": syslog.LOG_CRIT,
    b"DEBUG": syslog.LOG_DEBUG,
    b"INFO": syslog.LOG_INFO,
}
LONGEST = 511  # octets of one message


def relay(identity: str) -> None:
    """Read descriptor 0 to its end."""
    syslog.openlog(identity, syslog.LOG_NDELAY, syslog.LOG_MAIL)
    pending = b""
    while data := os.read(0, 65536):
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            send(line)
        while len(pending) > LONGEST:
            send(pending[:LONGEST])
            pending = pending[LONGEST:]
    if pending:
        send(pending)


def send(line: bytes) -> None:
    prefix, colon, text = line.partition(b":")
    if not colon or prefix not in PRIORITIES:
        prefix, text = b"INFO", line
    message = text.lstrip(b" ")[:LONGEST].replace(b"\0", b".")
    syslog.syslog(PRIORITIES[prefix], message.decode("utf-8", "replace"))
