"""worker - a process that relays many connections, as a user with no rights

    descriptor 0   requests, which all workers wait for (courierchain.relay), and answers
    the leash      a pipe from the keeper; RETIRE there says: take no more requests. Its end says
                   that the keeper has gone: then handshakes are given up too, so that whoever asks
                   sees soon that there is no relay any more

Ends when it is to take no more requests, by the leash or because nobody is left at the other end of
descriptor 0, and its connections have ended. It takes requests as long as it has descriptors for
them; others wait in the socket for the next worker.
"""

from __future__ import annotations

import os
import resource
import ssl
from array import array
from select import EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT
from socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, SCM_RIGHTS, socket

from courierchain import log, relay
from couriertls import peer
from couriertls.certificates import Certificates
from couriertls.connection import Connection, Limits, prepare
from couriertls.failure import Failure, failure
from couriertls.loop import Loop

CHANNEL = 0
RETIRE = b"."
UNLIMITED = 1 << 20
SPARE = 40  # descriptors that aren't for connections
PER_CONNECTION = 3  # network, plain, reply
INTEGER = array("i").itemsize


class Asker:
    """Who has sent a request; it gets the answer by way of the worker."""

    __slots__ = ("_worker", "_request", "_debug")

    def __init__(self, worker: Worker, request: relay.Request, debug: bool):
        self._worker = worker
        self._request = request
        self._debug = debug

    def shaken(self, tls: ssl.SSLSocket, variables: dict[str, str]) -> None:
        """Raises OSError, if a client's certificate says more than an answer holds."""
        message = relay.answer(self._request.ident, True, variables=variables)
        if self._debug:
            resumed = ", resumed" if tls.session_reused else ""
            address = log.safe(self._request.env.get("TCPREMOTEIP", ""))
            log.debug(f"ip=[{address}], couriertls: {variables[peer.PROTOCOL]}{resumed}")
        self._worker.answer(self._request, message)

    def failed(self, why: Failure) -> None:
        log.plain(why.line(self._request.env.get("TCPREMOTEIP", "")))
        self._worker.answer(self._request, relay.answer(self._request.ident, False, why.text))


class Worker:
    """leash: the descriptor to watch."""

    __slots__ = (
        *("_channel", "_leash", "_certificates", "_limits", "_debug", "_loop", "_asked"),
        *("_answers", "_answering", "_takes_requests", "_waits", "_most"),
    )

    def __init__(
        self, certificates: Certificates, limits: Limits, leash: int, *, debug: bool = False
    ):
        self._channel = socket(fileno=CHANNEL)
        self._leash = leash
        self._certificates = certificates
        self._limits = limits
        self._debug = debug
        self._loop = Loop()
        self._asked = 0  # requests that are not answered yet
        self._answers: list[bytes] = []  # for a channel that is full
        self._answering = os.dup(CHANNEL)  # watched for that; CHANNEL is for requests
        self._takes_requests = True
        self._waits = False  # for requests
        self._most = (descriptors() - SPARE - certificates.log_keys()) // PER_CONNECTION

    def run(self) -> int:
        self._loop.watch(self._leash, EPOLLIN, self._leash_ready)
        self._wait_for_requests()
        self._loop.run(self._is_over)
        return 0

    def _is_over(self) -> bool:
        """Also sees to what has changed in this turn."""
        self._wait_for_requests()
        if self._takes_requests:
            return False
        if self._asked or self._answers:
            return False
        self._hang_up()
        return not self._loop.connections

    def _hang_up(self) -> None:
        """Let askers see that nobody is here any more, with the last copy of the channel."""
        if self._channel.fileno() == CHANNEL:
            self._channel.close()
            os.close(self._answering)

    def _wait_for_requests(self) -> None:
        waits = self._takes_requests and len(self._loop.connections) < self._most
        if waits != self._waits:
            self._waits = waits
            self._loop.watch(CHANNEL, EPOLLIN | EPOLLEXCLUSIVE if waits else 0, self._channel_ready)

    def _leash_ready(self, _: int) -> None:
        self._takes_requests = False
        self._loop.watch(self._leash, 0, self._leash_ready)
        if not os.read(self._leash, 1):
            for connection in list(self._loop.connections):
                connection.give_up()

    def _channel_ready(self, _: int) -> None:
        """Take one request; the next one may be another worker's."""
        try:
            message, descriptors = receive(self._channel)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not (message or descriptors):
            self._takes_requests = False
            return
        try:
            request = relay.asked(message, descriptors)
        except relay.BadMessage as why:
            log.err(f"couriertls: request: {why}")
            close(descriptors)
            return
        self._begin(request)

    def _begin(self, request: relay.Request) -> None:
        self._asked += 1
        address = request.env.get("TCPREMOTEIP", "")
        asker = Asker(self, request, self._debug)
        network = plain = None
        try:
            network = socket(fileno=request.network)
            plain = socket(fileno=request.plain)
            prepare(network)
            context = self._certificates.context(request.env.get("TCPLOCALIP", ""))
            tls = context.wrap_socket(network, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError) as why:
            asker.failed(failure("accept", why))
            for side, number in ((network, request.network), (plain, request.plain)):
                side.close() if side else close([number])
            return
        Connection(self._loop, self._limits, address, tls, plain, asker)

    def answer(self, request: relay.Request, message: bytes) -> None:
        self._asked -= 1
        if request.reply is None:
            self._answers.append(message)
            self._send_answers(0)
            return
        reply, request.reply = socket(fileno=request.reply), None
        with reply:
            send(reply, message)

    def _send_answers(self, _: int) -> None:
        """Say on the channel what is to be said; nobody waits for whoever doesn't read it."""
        while self._answers and send(self._channel, self._answers[0]):
            del self._answers[0]
        self._loop.watch(self._answering, EPOLLOUT if self._answers else 0, self._send_answers)


def descriptors() -> int:
    """How many there may be, with the limit as high as it may be set."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if most == resource.RLIM_INFINITY else most


def receive(channel: socket) -> tuple[bytes, list[int]]:
    """A request and its descriptors; nothing at the end of the channel. Raises OSError."""
    space = CMSG_SPACE(relay.MOST_DESCRIPTORS * INTEGER)
    message, control, _, _ = channel.recvmsg(relay.LARGEST, space, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
    numbers = array("i")
    for _, kind, data in control:
        if kind == SCM_RIGHTS:
            numbers.frombytes(data[: len(data) // INTEGER * INTEGER])
    return message, list(numbers)


def send(channel: socket, message: bytes) -> bool:
    """False if there is no room now; who has gone is not waited for."""
    try:
        channel.send(message, MSG_DONTWAIT | MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
