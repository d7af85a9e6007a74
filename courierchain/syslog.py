"""syslog - lines that a program writes on descriptor 2, as messages of syslog

    write = Syslog("pop3d").write
    relay(write)                        reads descriptor 0 to its end

A prefix gives the severity, and is taken off with the blanks behind it: ERR: WARN: ALERT: CRIT:
DEBUG: INFO:; what has none is info. A message is at most 511 octets of a line, prefix and all; what
is left of the line is the next message, as if it were a line of its own (Courier's courierlogger
counts so, down to the empty message behind a line of exactly 511). NUL becomes a dot, any other
octet is sent as it is. On the socket:

    <22>Nov 22 03:41:21 pop3d: TEXT     22 is 8 * facility + severity, here mail and info; no pid

Whoever writes lines must not suffer from a log that is full or gone: a message that can't be sent
within a second is lost, and those behind it are not waited for until one gets through. A syslog
that has been started anew is found again. Reference: couriertcpd.md 13.2.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_DGRAM, socket  # a third of the start of a program less
from collections.abc import Callable
from time import strftime

Write = Callable[[int, bytes], None]  # severity, text

SOCKET = "/dev/log"
LONGEST = 511  # octets of a line that make one message
PATIENCE = 1.0  # seconds

ERR, INFO = 3, 6
SEVERITIES = {b"ALERT": 1, b"CRIT": 2, b"ERR": ERR, b"WARN": 4, b"INFO": INFO, b"DEBUG": 7}

FACILITIES = {
    **{"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "lpr": 6, "news": 7, "uucp": 8},
    **{"cron": 9, "authpriv": 10, "ftp": 11},
    **{f"local{number}": 16 + number for number in range(8)},
}


class Syslog:
    """The system's logger. `write` sends it a message, under the identity given.

    descriptor: which number its socket has, now and when syslog has been started anew; any, if None
    """

    __slots__ = ("_identity", "_facility", "_path", "_socket", "_patience", "_descriptor")

    def __init__(
        self,
        identity: str,
        facility: str = "mail",
        path: str = SOCKET,
        descriptor: int | None = None,
    ):
        self._descriptor = descriptor
        self._identity = os.fsencode(identity)
        self._facility = FACILITIES[facility]
        self._path = path
        self._socket: socket | None = None
        self._patience = PATIENCE
        if descriptor is not None:
            self._placed(socket(AF_UNIX, SOCK_DGRAM)).detach()

    def write(self, severity: int, text: bytes) -> None:
        number = 8 * self._facility + severity
        message = b"<%d>%s" % (number, stamped(self._identity, text))
        # Twice: the second time to a syslog that has taken the place of the one we knew.
        if not self._send(message):
            self._send(message)

    def _send(self, message: bytes) -> bool:
        """False if there is nobody to send to."""
        try:
            if self._socket is None:
                self._socket = self._connect()
            self._socket.settimeout(self._patience)
            self._socket.send(message)
            self._patience = PATIENCE
        except (BlockingIOError, TimeoutError):
            self._patience = 0
        except OSError:
            self._hang_up()
            return False
        return True

    def _connect(self) -> socket:
        connection = socket(AF_UNIX, SOCK_DGRAM)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection if self._descriptor is None else self._placed(connection)

    def _placed(self, fresh: socket) -> socket:
        assert self._descriptor is not None
        descriptor = fresh.detach()
        if descriptor != self._descriptor:
            os.dup2(descriptor, self._descriptor, inheritable=False)
            os.close(descriptor)
        return socket(fileno=self._descriptor)

    def _hang_up(self) -> None:
        if self._socket and self._descriptor is not None:
            self._socket.detach()  # so that nobody else gets that number
        elif self._socket:
            self._socket.close()
        self._socket = None


def stamped(identity: bytes, text: bytes) -> bytes:
    return b"%s %s: %s" % (strftime("%b %e %H:%M:%S").encode(), identity, text)


class Lines:
    """Cuts a stream of octets into messages, wherever the reads of it end.

    first_only: what is left of a line after the first message is dropped.
    """

    __slots__ = ("_pending", "_first_only")

    def __init__(self, *, first_only: bool = False):
        self._pending = b""
        self._first_only = first_only

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        *lines, rest = (self._pending + data).split(b"\n")
        messages = [piece for line in lines for piece in self._pieces(line)]
        *pieces, self._pending = self._pieces(rest)
        return messages + pieces

    def last(self) -> list[bytes]:
        """What the end of the stream completes."""
        return [self._pending] if self._pending else []

    def _pieces(self, line: bytes) -> list[bytes]:
        """All but the last are LONGEST; that one is shorter, and may be empty."""
        if self._first_only:
            return [line[:LONGEST]]
        return [line[start : start + LONGEST] for start in range(0, len(line) + 1, LONGEST)]


def graded(message: bytes) -> tuple[int, bytes]:
    """Severity and text of a message."""
    prefix, colon, text = message.partition(b":")
    if not colon or prefix not in SEVERITIES:
        prefix, text = b"INFO", message
    return SEVERITIES[prefix], text.lstrip(b" ").replace(b"\0", b".")


def forward(messages: list[bytes], write: Write) -> None:
    for message in messages:
        write(*graded(message))


def relay(write: Write, *, first_only: bool = False) -> None:
    """Write what comes on descriptor 0, to its end."""
    lines = Lines(first_only=first_only)
    while data := os.read(0, 65536):
        forward(lines.feed(data), write)
    forward(lines.last(), write)
