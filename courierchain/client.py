"""client - the mail client on descriptors 0 and 1, with time limits

Descriptors 0 and 1 are the two directions of one connection: a socket, or pipes when a program runs
from a shell or behind a wrapper. All limits are in seconds on the monotonic clock. Bytes that have
not been read stay in the kernel, where the next program of the chain finds them.

The socket object is that of `_socket`: the `socket` module around it brings enum and selectors,
which cost a program that is started for one session a third of its start.
"""

from __future__ import annotations

import os
from _socket import AF_INET, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, SOCK_STREAM, socket
from select import POLLIN, POLLOUT, poll
from stat import S_ISSOCK
from time import monotonic

PEEKED = 4096  # octets looked at in search of a line end
PIPE_PIECE = 4096  # PIPE_BUF: what a pipe that polls writable takes without blocking


class TimedOut(Exception):
    """The client did not send, or did not take, anything for too long."""


class Gone(Exception):
    """The client has closed the connection, or it broke."""


class Client:
    """`send_limit`: seconds that the client may leave sent octets untaken."""

    __slots__ = ("_input", "_output", "_readable", "_writable", "send_limit", "received", "sent")

    def __init__(self, send_limit: float):
        self._input = _socket_on(0)
        self._output = _socket_on(1)
        self._readable = poll()
        self._readable.register(0, POLLIN)
        self._writable = poll()
        self._writable.register(1, POLLOUT)
        self.send_limit = send_limit
        self.received = 0
        self.sent = 0

    def receive(self, size: int, limit: float) -> bytes:
        """What has come, at most `size` octets; waits up to `limit` seconds for the first.

        Raises TimedOut, and Gone at the end of the input.
        """
        self._wait(self._readable, limit)
        try:
            data = self._input.recv(size) if self._input else os.read(0, size)
        except OSError as why:
            raise Gone from why
        if not data:
            raise Gone
        self.received += len(data)
        return data

    def receive_line(self, limit: float) -> bytes:
        """Octets up to and with the next LF, or a piece of a long line; none behind the LF.

        Raises TimedOut and Gone.
        """
        if not self._input:
            return self.receive(1, limit)
        self._wait(self._readable, limit)
        try:
            seen = self._input.recv(PEEKED, MSG_PEEK)
        except OSError as why:
            raise Gone from why
        return self.receive(seen.find(b"\n") + 1 or len(seen) or 1, limit)

    def send(self, data: bytes) -> None:
        """Send all of it. Raises TimedOut and Gone."""
        view = memoryview(data)
        while view:
            try:
                if self._output:
                    done = self._output.send(view, MSG_DONTWAIT | MSG_NOSIGNAL)
                else:
                    self._wait(self._writable, self.send_limit)
                    done = os.write(1, view[:PIPE_PIECE])
            except BlockingIOError:
                self._wait(self._writable, self.send_limit)
                continue
            except OSError as why:
                raise Gone from why
            self.sent += done
            view = view[done:]

    def _wait(self, poller: poll, limit: float) -> None:
        deadline = monotonic() + limit
        while not poller.poll(max(0, (deadline - monotonic()) * 1000)):
            if monotonic() >= deadline:
                raise TimedOut

    def detach(self) -> None:
        """Let go of the descriptors without closing them, for the next program."""
        for end in (self._input, self._output):
            if end:
                end.detach()
        self._input = self._output = None


def _socket_on(descriptor: int) -> socket | None:
    try:
        if not S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
    except OSError as why:
        raise Gone from why
    return socket(AF_INET, SOCK_STREAM, 0, fileno=descriptor)
