"""ports - where an instance will listen, and who is there already

    PORTLIST = element{,element}    element = [ADDRESS.]PORT      (reference couriertcpd.md 3.1)

Who is there is read from /proc: root sees every process, others their own.
"""

from __future__ import annotations

import errno
import os
import socket

EVERY_ADDRESS = "0"
LISTEN = "0A"  # the state, in /proc/net/tcp
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
IP_FREEBIND = 15  # Linux's; Python has no name for it


def endpoints(portlist: str, address: str) -> list[tuple[str, int]]:
    """Address and number of each port. Raises ValueError, with what is wrong."""
    elements = [element for element in portlist.split(",") if element]
    return [_endpoint(element, address) for element in elements]


def _endpoint(element: str, default: str) -> tuple[str, int]:
    address, _, port = element.rpartition(".")
    try:
        number = socket.getservbyname(port, "tcp")
    except OSError:
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    if not 1 <= number <= 65535:
        raise ValueError(f"{element} is no port from 1 to 65535")
    address = default if address in ("", EVERY_ADDRESS) else address
    if address != EVERY_ADDRESS and not is_address(address):
        raise ValueError(f"{address} is no address")
    return address, number


def is_address(text: str) -> bool:
    """Whether it is one, and no name: nothing is looked up."""
    try:
        if text and set(text) <= set("0123456789."):
            socket.inet_aton(text)
        else:
            socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return False
    return True


def obstacle(address: str, port: int) -> OSError | None:
    """Why couriertcpd could not bind to the port; None if it can."""
    try:
        with _unbound(address) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            wildcard = "::" if probe.family == socket.AF_INET6 else "0.0.0.0"
            probe.bind((wildcard if address == EVERY_ADDRESS else address, port))
    except OSError as why:
        return why
    return None


def _unbound(address: str) -> socket.socket:
    if address != EVERY_ADDRESS:
        return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        return socket.socket(socket.AF_INET6)
    except OSError as why:
        if why.errno != errno.EAFNOSUPPORT:
            raise
        return socket.socket(socket.AF_INET)


def listening(port: int) -> set[str]:
    """The sockets that listen at a port of this number, by inode."""
    found = set()
    for table in TABLES:
        for fields in _rows(table):
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _rows(table: str) -> list[list[str]]:
    try:
        with open(table) as file:
            return [line.split() for line in file][1:]
    except OSError:
        return []  # a system without IPv6


def sockets_of(pid: int) -> set[str]:
    """The sockets that a process has open, by inode; none if we may not look."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{name}").partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    except OSError:
        pass  # gone meanwhile, or not ours
    return found


def occupants(port: int) -> list[int]:
    """The processes that listen at the port."""
    sockets = listening(port)
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if sockets else []
    return sorted(pid for pid in pids if sockets & sockets_of(pid))
