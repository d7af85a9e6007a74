"""client - the mail client on descriptors 0 and 1, with time limits

Descriptors 0 and 1 are the two directions of one connection: a socket, or pipes when a program runs
from a shell or behind a wrapper. All limits are in seconds on the monotonic clock. Bytes that have
not been read stay in the kernel, where the next program of the chain finds them.

The socket object is that of `_socket`: the `socket` module around it brings enum and selectors,
which cost a program that is started for one session a third of its start.
"""

from __future__ import annotations

import os
from _socket import (
    AF_INET,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    SOCK_STREAM,
    TCP_NODELAY,
    socket,
)
from select import POLLIN, POLLOUT, poll
from stat import S_ISSOCK
from time import monotonic

PEEKED = 4096  # octets looked at in search of a line end
MOST_DISCARDED = 256  # reads of so many octets
PIPE_PIECE = 4096  # PIPE_BUF: what a pipe that polls writable takes without blocking


# Of whatever is on these descriptors: a process has many clients, one after the other.
_readable = poll()
_readable.register(0, POLLIN)
_on_0: socket | None = None


class TimedOut(Exception):
    """The client did not send, or did not take, anything for too long."""


class Gone(Exception):
    """The client has closed the connection, or it broke."""


class Tap:
    """Hears what is said, as it goes over the connection."""

    __slots__ = ()

    def received(self, octets: bytes) -> None:
        raise NotImplementedError

    def sent(self, octets: bytes) -> None:
        raise NotImplementedError


class Client:
    """`send_limit`: seconds that the client may leave sent octets untaken.

    `sent` counts octets. `tap`, if there is one, is told what is sent and received. Raises Gone if
    there is nobody on descriptors 0 and 1.
    """

    __slots__ = ("_socket", "send_limit", "sent", "tap")

    def __init__(self, send_limit: float):
        self._socket = _connection()
        self.send_limit = send_limit
        self.sent = 0
        self.tap: Tap | None = None

    def receive(self, size: int, limit: float) -> bytes:
        """What has come, at most `size` octets; waits up to `limit` seconds for the first.

        Raises TimedOut, and Gone at the end of the input.
        """
        _wait(_readable, limit)
        return self.read_some(size)

    def sends_within(self, limit: float) -> bool:
        """Whether there is something to receive, or comes in that time. Raises Gone."""
        try:
            return bool(_readable.poll(limit * 1000))
        except OSError as why:
            raise Gone from why

    def receive_line(self, limit: float) -> bytes:
        """Octets up to and with the next LF, or a piece of a long line; none behind the LF.

        Raises TimedOut and Gone.
        """
        _wait(_readable, limit)
        if not self._socket:
            return self.read_some(1)
        try:
            seen = self._socket.recv(PEEKED, MSG_PEEK)
        except OSError as why:
            raise Gone from why
        return self.read_some(seen.find(b"\n") + 1 or len(seen) or 1)

    def read_some(self, size: int) -> bytes:
        """What is there, at most `size` octets, or what comes next. Raises Gone."""
        try:
            data = self._socket.recv(size) if self._socket else os.read(0, size)
        except OSError as why:
            raise Gone from why
        if not data:
            raise Gone
        if self.tap:
            self.tap.received(data)
        return data

    def send(self, data: bytes) -> None:
        """Send all of it. Raises TimedOut and Gone."""
        if self.tap and data:
            self.tap.sent(data)
        left = memoryview(data)
        while left:
            done = self.write_some(left)
            self.sent += done
            left = left[done:]

    def write_some(self, data: memoryview) -> int:
        """Octets sent, perhaps none, once the client takes some. Raises TimedOut and Gone."""
        try:
            if self._socket:
                try:
                    return self._socket.send(data, MSG_DONTWAIT | MSG_NOSIGNAL)
                except BlockingIOError:
                    pass
            writable = poll()
            writable.register(1, POLLOUT)
            _wait(writable, self.send_limit)
            return 0 if self._socket else os.write(1, data[:PIPE_PIECE])
        except OSError as why:
            raise Gone from why

    def hurry(self) -> None:
        """Let the end of a long reply leave at once (TCP_NODELAY): a client that delays its ACKs
        would have to acknowledge first what went before."""
        try:
            if self._socket:
                self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError:
            pass  # not TCP: a wrapper's socketpair

    def discard_input(self) -> None:
        """Read away what has come behind the last command: closed with octets unread, the
        connection is reset, and the client may lose the last reply."""
        try:
            for _ in range(MOST_DISCARDED):
                if not (self._socket and self._socket.recv(PEEKED, MSG_DONTWAIT)):
                    break
        except OSError:
            pass

    def detach(self) -> None:
        """Let go of the descriptors without closing them, for the next program."""
        self._socket = None


def _wait(ready: poll, limit: float) -> None:
    # A limit that is over is over, also when something has come: else dribbling prolongs it.
    deadline = monotonic() + limit
    try:
        while limit <= 0 or not ready.poll(limit * 1000):
            limit = deadline - monotonic()
            if limit <= 0:
                raise TimedOut
    except OSError as why:  # no memory
        raise Gone from why


def _connection() -> socket | None:
    """The socket that descriptors 0 and 1 both are; None if they are anything else."""
    global _on_0
    try:
        reading, writing = os.fstat(0), os.fstat(1)
    except OSError as why:
        raise Gone from why
    if not S_ISSOCK(reading.st_mode) or not os.path.samestat(reading, writing):
        return None
    if _on_0 is None:
        _on_0 = socket(AF_INET, SOCK_STREAM, 0, fileno=0)
    return _on_0
