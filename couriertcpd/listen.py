"""listen - from PORTLIST to listening sockets

    PORTLIST = element{,element}    element = [ADDRESS.]PORT

The last dot divides an element. PORT is the name of a TCP service or a number; ADDRESS is IPv4 as
inet_aton(3) knows it, without hexadecimals (127.1, 0177.0.0.1), or IPv6; 0 or none is the one of
-address, and 0 there is every address (reference couriertcpd.md 3). Whatever is wrong raises
Refused; no host name is ever looked up.

Everywhere else an address is 16 bytes, or the text of these: an IPv4 client is ::ffff:a.b.c.d on
every kind of socket, and log filters count on it (reference 10.1).
"""

from __future__ import annotations

import errno
import socket

from courierchain import log
from courierchain.daemon import park
from courierchain.refusal import Refused, refusal
from couriertcpd.options import leading_number

EVERY_ADDRESS = "0"
IP_FREEBIND = 15  # Linux's; Python has no name for it
MAPPED = bytes(10) + b"\xff\xff"


class Endpoint:
    """Where to listen. address: text of an IPv4 or IPv6 address, or EVERY_ADDRESS."""

    __slots__ = ("address", "port")

    def __init__(self, address: str, port: int):
        self.address = address
        self.port = port


def endpoints(portlist: str, default_address: str = EVERY_ADDRESS) -> list[Endpoint]:
    """What PORTLIST says; a list of commas alone says nothing. Raises Refused."""
    return [_endpoint(element, default_address) for element in portlist.split(",") if element]


def _endpoint(element: str, default_address: str) -> Endpoint:
    address, dot, port = element.rpartition(".")
    if not dot or address == EVERY_ADDRESS:
        address = default_address
    number = port_number(port)
    return Endpoint(address if address == EVERY_ADDRESS else inet_address(address), number)


def port_number(text: str) -> int:
    """Of a TCP service, by its name or number. Raises Refused."""
    try:
        return socket.getservbyname(text, "tcp")
    except (OSError, ValueError):  # ValueError: not a text that could be a name
        number = leading_number(text)
    if not 1 <= number <= 65535:
        raise Refused(f"Invalid port: {text}")
    return number


def inet_address(text: str) -> str:
    """The usual form of an address. Raises Refused."""
    try:
        if text and set(text) <= set("0123456789."):  # inet_aton would take 0x7f.1 and "1 x"
            return socket.inet_ntoa(socket.inet_aton(text))
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text))
    except (OSError, ValueError) as why:
        raise Refused(f"Invalid IP address: {text}") from why


def open_sockets(
    places: list[Endpoint], inherited: list[socket.socket] | None = None
) -> list[socket.socket]:
    """Listen at all of them, the last one first; the sockets don't block, and close on exec.

    inherited: sockets that listen already. They serve their places; those that have none are closed
    before any other is made. Raises Refused, with none left open, if there is a place without.
    """
    sockets = []
    for sock in inherited or []:
        if any(serves(sock, place) for place in places):
            sockets.append(sock)
        else:
            sock.close()
    try:
        for place in reversed(without_socket(places, sockets)):
            sockets += _open(place)
    except Refused:
        for opened in sockets:
            opened.close()
        raise
    for sock in sockets:  # which their connections inherit
        _set(sock, "SO_KEEPALIVE", socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sockets


def try_sockets(places: list[Endpoint], inherited: list[socket.socket]) -> None:
    """Find out whether open_sockets would do. Raises Refused.

    While somebody listens with `inherited`, a port of these is taken; it is free once they close.
    """
    ports = [sock.getsockname()[1] for sock in inherited]
    opened: list[socket.socket] = []
    try:
        for place in reversed(without_socket(places, inherited)):
            try:
                opened += _open(place)
            except Refused as why:
                taken = isinstance(why.__cause__, OSError) and why.__cause__.errno
                if taken != errno.EADDRINUSE or place.port not in ports:
                    shown = f"{'' if place.address == EVERY_ADDRESS else place.address + '.'}"
                    raise Refused(f"{why} (port {shown}{place.port})") from why
    finally:
        for each in opened:
            each.close()


def without_socket(places: list[Endpoint], sockets: list[socket.socket]) -> list[Endpoint]:
    return [place for place in places if not any(serves(sock, place) for sock in sockets)]


def serves(listening: socket.socket, place: Endpoint) -> bool:
    """Whether the socket is at that place: its address and port; any wildcard will do."""
    sockaddr = listening.getsockname()
    address = address_bytes(sockaddr)
    if place.address == EVERY_ADDRESS:
        same = address.removeprefix(MAPPED) in (bytes(16), bytes(4))
    else:
        same = address == address_bytes((place.address,))
    return bool(same) and sockaddr[1] == place.port


def _open(place: Endpoint) -> list[socket.socket]:
    if place.address != EVERY_ADDRESS:
        family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
        return [_listening(_new(family), place.address, place.port)]
    try:
        both = _new(socket.AF_INET6)
    except Refused:  # a system without IPv6
        return [_listening(_new(socket.AF_INET), "0.0.0.0", place.port)]
    sockets = [_listening(both, "::", place.port)]
    try:
        sockets.append(_listening(_new(socket.AF_INET), "0.0.0.0", place.port))
    except Refused:
        pass  # as usual: the first one has the IPv4 clients too
    return sockets


def _new(family: int) -> socket.socket:
    try:
        fresh = socket.socket(family, socket.SOCK_STREAM)
    except OSError as why:
        raise refusal("socket", why) from why
    return socket.socket(fileno=park(fresh.detach()))


def _listening(fresh: socket.socket, address: str, port: int) -> socket.socket:
    """The socket, bound and listening; closed if that fails."""
    _set_options(fresh)
    doing = "bind"
    try:
        fresh.bind((address, port))
        doing = "listen"
        fresh.listen(socket.SOMAXCONN)
    except OSError as why:
        fresh.close()
        raise refusal(doing, why) from why
    fresh.setblocking(False)
    return fresh


def _set_options(fresh: socket.socket) -> None:
    """None of them is worth a refusal to start."""
    wanted = [
        ("SO_REUSEADDR", socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        ("IP_FREEBIND", socket.IPPROTO_IP, IP_FREEBIND, 1),
    ]
    if fresh.family == socket.AF_INET6:
        wanted.append(("IPV6_V6ONLY", socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0))
    for each in wanted:
        _set(fresh, *each)


def _set(sock: socket.socket, name: str, level: int, option: int, value: int) -> None:
    try:
        sock.setsockopt(level, option, value)
    except OSError as why:
        log.plain(f"setsockopt({name}): {why.strerror}")


def address_bytes(sockaddr: tuple) -> bytes:
    """The 16 bytes of the address in what accept() or getsockname() gives."""
    address = sockaddr[0]
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    return MAPPED + socket.inet_pton(socket.AF_INET, address)


def peer_name(sockaddr: tuple) -> str:
    """The text of the address, as in TCPREMOTEIP and TCPLOCALIP."""
    return socket.inet_ntop(socket.AF_INET6, address_bytes(sockaddr))
