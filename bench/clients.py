"""clients - many clients of one server in one process, each a generator that says what it waits for

    def quits(client):                  a behaviour
        yield LINE                      resumes with a line, without its CRLF
        client.send(b"QUIT\\r\\n")
        yield END                       resumes when the server has closed; what came before is lost

    LINE, LINES (up to the lone dot), END, SECURE (make a TLS handshake), or a number: seconds of
    silence. Whoever gets something else raises Unexpected.

    crowd = Clients(port, failed)       failed(name, why) is told of each that went wrong
    crowd.begin(name, behaviour)        one more
    crowd.turn(seconds)                 let time pass; crowd.open are left

What a server hasn't said after PATIENCE seconds is Unexpected. Bytes are small here: a line always
fits in the socket's buffer.
"""

from __future__ import annotations

import heapq
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Generator
from itertools import count

LINE, LINES, END, SECURE = "line", "lines", "end", "secure"
PATIENCE = 40.0
AT_ONCE_CLOSED = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset

Wanted = str | float
Behaviour = Generator[Wanted, "bytes | list[bytes]", None]


class Unexpected(Exception):
    """The server does what it should not."""


class Client:
    """One connection. `wanted` is what its behaviour waits for, `until` how long it does."""

    def __init__(self, port: int, context: ssl.SSLContext | None):
        self.context = context
        self.socket: socket.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.has_ended = False
        self.wanted: Wanted = LINE
        self.until = 0.0
        if error := self.socket.connect_ex(("127.0.0.1", port)):
            if error != 115:  # EINPROGRESS
                raise Unexpected(f"connect: {error}")

    def send(self, text: bytes) -> None:
        try:
            self.socket.send(text)
        except ConnectionError:
            self.has_ended = True

    def stop_sending(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE_CLOSED)
        self.socket.close()

    def take(self) -> None:
        """Reads what has come."""
        try:
            while data := self.socket.recv(65536):
                self.buffer += data
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except (ConnectionError, ssl.SSLError):
            pass
        self.has_ended = True

    def answer(self) -> bytes | list[bytes] | None:
        """What was waited for, if it is there. Raises Unexpected if it can't come any more."""
        if self.wanted == LINE:
            line, found, rest = self.buffer.partition(b"\r\n")
            if found:
                self.buffer = rest
                return line
        elif self.wanted == LINES:
            text, found, rest = self.buffer.partition(b"\r\n.\r\n")
            if found:
                self.buffer = rest
                return text.split(b"\r\n")
        elif self.wanted == END:
            return b"" if self.has_ended else None
        if self.has_ended and isinstance(self.wanted, str):
            raise Unexpected(f"{self.wanted}: the end, behind {self.buffer[:100]!r}")
        return None

    def shake_hands(self) -> bytes | None:
        assert self.context
        try:
            if not isinstance(self.socket, ssl.SSLSocket):
                self.socket = self.context.wrap_socket(self.socket, do_handshake_on_connect=False)
            self.socket.do_handshake()
            return b""
        except ssl.SSLWantReadError:
            return None
        except (OSError, ssl.SSLError) as why:
            raise Unexpected(f"handshake: {why}") from why


class Clients:
    def __init__(
        self,
        port: int,
        failed: Callable[[str, str], None],
        context: ssl.SSLContext | None = None,
    ):
        self.port = port
        self.failed = failed
        self.context = context
        self.epoll = select.epoll()
        self.open: dict[int, tuple[str, Client, Behaviour]] = {}
        self.timers: list[tuple[float, int, int, Client]] = []
        self.serial = count()

    def begin(self, name: str, behaviour: Callable[[Client], Behaviour]) -> None:
        try:
            client = Client(self.port, self.context)
        except Unexpected as why:
            self.failed(name, str(why))
            return
        fd = client.socket.fileno()
        self.open[fd] = name, client, behaviour(client)
        self.epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        self._resume(fd, None)

    def turn(self, seconds: float) -> None:
        if self.timers:
            seconds = min(seconds, max(0.0, self.timers[0][0] - time.monotonic()))
        for fd, _ in self.epoll.poll(seconds):
            self._readable(fd)
        while self.timers and self.timers[0][0] <= time.monotonic():
            _, _, fd, client = heapq.heappop(self.timers)
            if fd in self.open and self.open[fd][1] is client and client.until <= time.monotonic():
                self._time_over(fd)

    def _readable(self, fd: int) -> None:
        if fd not in self.open:
            return
        client = self.open[fd][1]
        if client.wanted == SECURE:
            self._advance(fd, client.shake_hands)
            return
        client.take()
        if client.has_ended:
            self.epoll.unregister(fd)  # else it would say so for ever
        self._advance(fd, client.answer)

    def _advance(self, fd: int, look: Callable[[], bytes | list[bytes] | None]) -> None:
        try:
            answer = look()
        except Unexpected as why:
            self._end(fd, str(why))
            return
        if answer is not None:
            self._resume(fd, answer)

    def _time_over(self, fd: int) -> None:
        client = self.open[fd][1]
        if isinstance(client.wanted, str):
            self._end(fd, f"{client.wanted}: nothing for {PATIENCE} s")
        else:
            self._resume(fd, b"")

    def _resume(self, fd: int, answer: bytes | list[bytes] | None) -> None:
        """Lets a behaviour go on until it has to wait."""
        _, client, behaviour = self.open[fd]
        try:
            while True:
                client.wanted = next(behaviour) if answer is None else behaviour.send(answer)
                answer = None
                if client.wanted == SECURE:
                    answer = client.shake_hands()
                elif isinstance(client.wanted, str):
                    answer = client.answer()
                if answer is None:
                    self._set_timer(fd, client)
                    return
        except StopIteration:
            self._end(fd, "")
        except Unexpected as why:
            self._end(fd, str(why))

    def _set_timer(self, fd: int, client: Client) -> None:
        seconds = PATIENCE if isinstance(client.wanted, str) else client.wanted
        client.until = time.monotonic() + seconds
        heapq.heappush(self.timers, (client.until, next(self.serial), fd, client))

    def _end(self, fd: int, why: str) -> None:
        name, client, behaviour = self.open.pop(fd)
        behaviour.close()
        client.socket.close()
        if why:
            self.failed(name, why)
