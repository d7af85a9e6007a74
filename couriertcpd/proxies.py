"""proxies - connections that a proxy makes for its clients

    -haproxy[=SPEC,...]     SPEC = [SECONDS][/port=[IP.]PORT]
    -haproxyfrom=A[,A...]   who may be a proxy: ADDRESS, ADDRESS/BITS or ADDRESS-ADDRESS; without
                            it this host alone

Connections to such a port (to that address of ours, if IP is there) begin with a PROXY header, and
everybody but the proxies is turned away: a client could write a header itself. Who is slow to send
one keeps nobody waiting; who has sent none in time (SECONDS, 15 if it is 0 or not there) is closed.
The last SPEC that fits counts, no port is every port, and other words after a slash are ignored
(reference couriertcpd.md 9; Courier believes everybody, and waits for one at a time).

The header says who the client is and where it wanted to go: limits, access records and the session
know no other, but -accesslocal goes by the address that the proxy has reached.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from select import EPOLLET, EPOLLIN, EPOLLRDHUP
from socket import AF_INET6, MSG_DONTWAIT, MSG_PEEK, inet_pton, socket
from time import monotonic

from courierchain import log
from courierchain.refusal import Refused
from couriertcpd import haproxy
from couriertcpd.access import Span, measure, span
from couriertcpd.arrival import Arrival
from couriertcpd.listen import address_bytes, inet_address, peer_name, port_number
from couriertcpd.options import leading_number

PATIENCE = 15.0  # seconds for a header
LONGEST = 4096  # octets of a header
THIS_HOST = "127.0.0.0/8,::1"


class Spec:
    """seconds: for a header. port, ip: of ours; 0 and empty are all of them. Raises Refused."""

    __slots__ = ("seconds", "port", "ip")

    def __init__(self, text: str):
        seconds, *parameters = text.split("/")
        self.seconds = float(leading_number(seconds))
        if self.seconds <= 0:
            self.seconds = PATIENCE
        self.port = 0
        self.ip = b""
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "port":
                ip, _, port = value.rpartition(".")
                self.port = port_number(port)
                self.ip = address_bytes((inet_address(ip),)) if ip else b""

    def fits(self, arrival: Arrival) -> bool:
        ip, port = arrival.local
        return self.port in (0, port) and self.ip in (b"", inet_pton(AF_INET6, ip))


class Proxies:
    """The options' values, None where they aren't given. Raises Refused."""

    __slots__ = ("_specs", "_trusted", "_waiting", "_watch", "_unwatch", "_known")

    def __init__(self, specs: str | None, trusted: str | None):
        self._specs = [] if specs is None else [Spec(text) for text in specs.split(",")][::-1]
        self._trusted = [_network(text) for text in (trusted or THIS_HOST).split(",")]
        self._waiting: dict[Arrival, float] = {}  # and when it is over

    def serve(
        self,
        watch: Callable[[socket, Callable[[], None], int], None],
        unwatch: Callable[[socket], None],
        known: Callable[[Arrival], None],
    ) -> None:
        """watch: has a socket looked at, and calls back when an event of those given comes.
        known: is called with a connection when it is known whose it is."""
        self._watch, self._unwatch, self._known = watch, unwatch, known

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, arrival: Arrival) -> bool:
        """Whether the connection is one that has to say first whose it is, and we see to it."""
        spec = next((spec for spec in self._specs if spec.fits(arrival)), None)
        if spec is None:
            return False
        size, number = measure(arrival.address)
        if not any(size == bits and low <= number <= high for bits, low, high in self._trusted):
            log.warn(f"haproxy: {arrival.remote[0]} is none of the proxies of -haproxyfrom")
            arrival.client.close()
            return True
        self._waiting[arrival] = monotonic() + spec.seconds
        # Edge-triggered: a half header is looked at again when more of it has come.
        self._watch(arrival.client, lambda: self._look(arrival), EPOLLIN | EPOLLRDHUP | EPOLLET)
        return True

    def expire(self) -> None:
        """Close what has waited too long."""
        if not self._waiting:
            return
        now = monotonic()
        for arrival in [waiting for waiting, end in self._waiting.items() if end <= now]:
            self._refuse(arrival, "timeout")

    def _look(self, arrival: Arrival) -> None:
        """Something has come, or the proxy has gone. Not an octet behind the header is taken."""
        try:
            data = arrival.client.recv(LONGEST, MSG_PEEK | MSG_DONTWAIT)
            header = haproxy.parse(data)
            if header:
                arrival.client.recv(header.length, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except (OSError, haproxy.BadHeader) as why:
            self._refuse(arrival, "connection closed" if isinstance(why, OSError) else str(why))
            return
        if header:
            self._forget(arrival)
            introduce(arrival, header)
            self._known(arrival)
        elif not data:
            self._forget(arrival)
            arrival.client.close()
        elif len(data) == LONGEST:
            self._refuse(arrival, "response too long")

    def _refuse(self, arrival: Arrival, why: str) -> None:
        self._forget(arrival)
        log.plain(f"haproxy: {why}")
        arrival.client.close()

    def _forget(self, arrival: Arrival) -> None:
        del self._waiting[arrival]
        self._unwatch(arrival.client)


def introduce(arrival: Arrival, header: haproxy.Header) -> None:
    """Put the header's ends in the place of the proxy's."""
    if header.source and header.destination:
        arrival.remote = (peer_name(header.source), header.source[1])
        arrival.local = (peer_name(header.destination), header.destination[1])
        arrival.address = address_bytes(header.source)
        ip, port = header.destination
        arrival.variables["TCPREMOTEINFO"] = f"proxy via {ip}, port {port}"


def _network(text: str) -> Span:
    try:
        return span(os.fsencode(text.strip()))
    except (OSError, ValueError) as why:
        remedy = "ADDRESS, ADDRESS/BITS or ADDRESS-ADDRESS, with commas between several"
        raise Refused(f"-haproxyfrom={text}: not an address ({remedy})") from why
