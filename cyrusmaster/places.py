"""places - `listen` and `proto` of a service, as listening sockets (reference cyrus-pop3d.md 4)

    /PATH                    a unix socket, mode 0777; a socket that is left there is replaced
    [HOST:]PORT              HOST is a name, an IPv4 address or, in brackets, an IPv6 address;
                             without it every address. PORT is a number or the name of a service

    tcp    IPv4 and IPv6, a socket for each address; those for IPv6 take no IPv4 clients
    tcp4, tcp6               one of both
    udp, udp4, udp6          refused: no server of POP3 has them

What is wrong raises Unusable, and concerns this service alone.
"""

from __future__ import annotations

import os
import socket
from stat import S_ISSOCK

from courierchain.daemon import park
from cyrusmaster.services import Service

FAMILIES = {"tcp": socket.AF_UNSPEC, "tcp4": socket.AF_INET, "tcp6": socket.AF_INET6}
NAMES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6", socket.AF_UNIX: "unix"}
EVERYBODY = 0o777  # of a unix socket

Address = str | tuple


class Unusable(Exception):
    """The text says which service, and why."""


class Place:
    """A family and an address of it. shown: service and family, for the log."""

    __slots__ = ("family", "address", "shown")

    def __init__(self, family: int, address: Address, name: str):
        self.family = family
        self.address = address
        self.shown = f"{name}/{NAMES[socket.AddressFamily(family)]}"

    @property
    def key(self) -> tuple[int, Address]:
        """What a socket has in common with that which takes its place after SIGHUP."""
        return self.family, self.address


def places(service: Service) -> list[Place]:
    """In the order of their CYRUS_ID. Raises Unusable."""
    if service.proto.startswith("udp"):
        raise Unusable(f"{_of(service)}: proto={service.proto}: only tcp is served here")
    if service.proto not in FAMILIES:
        remedy = "write tcp, tcp4 or tcp6"
        raise Unusable(f"{_of(service)}: unknown proto {service.proto}; {remedy}")
    if service.listen.startswith("/"):
        return [Place(socket.AF_UNIX, service.listen, service.name)]
    host, _, port = service.listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    found = []
    for family, _, _, _, address in _resolve(service, host, port):
        place = Place(family, address, service.name)
        if place.key not in [known.key for known in found]:
            found.append(place)
    return found


def _resolve(service: Service, host: str, port: str) -> list[tuple]:
    if not port:
        raise Unusable(f"{_of(service)}: listen={service.listen}: no port; write `host:port`")
    family = FAMILIES[service.proto]
    try:
        found = socket.getaddrinfo(
            host or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, ValueError) as why:  # ValueError: not a text that could be a name
        reason = why.strerror if isinstance(why, OSError) else str(why)
        raise Unusable(f"{_of(service)}: listen={service.listen}: {reason}") from why
    return [each for each in found if each[0] in NAMES and each[4][1] != 0]


def _of(service: Service) -> str:
    return f"{service.place}: {service.name}"


def listening(place: Place, backlog: int) -> socket.socket:
    """Closed on exec, and not on a number that workers need. Raises Unusable."""
    doing = "bind to"
    try:
        fresh = socket.socket(fileno=park(socket.socket(place.family).detach()))
        try:
            if place.family == socket.AF_UNIX:
                _bind_path(fresh, str(place.address))
            else:
                fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if place.family == socket.AF_INET6:
                    fresh.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                fresh.bind(place.address)
            doing = "listen on"
            fresh.listen(backlog)
        except OSError:
            fresh.close()
            raise
    except OSError as why:
        at = (
            place.address if isinstance(place.address, str) else "{} port {}".format(*place.address)
        )
        text = f"unable to {doing} {place.shown} socket: {at}: {why.strerror or why}"
        raise Unusable(text) from why
    return fresh


def _bind_path(fresh: socket.socket, path: str) -> None:
    try:
        if S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    fresh.bind(path)
    os.chmod(path, EVERYBODY)
