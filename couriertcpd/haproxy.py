"""haproxy - the PROXY header, by which a proxy says for whom it connects

    PROXY TCP4 192.0.2.7 192.0.2.1 51000 110 CR LF        version 1
    \\r\\n\\r\\n\\0\\r\\nQUIT\\n, 0x21, family, length, addresses   version 2

It stands in front of all else that the proxy sends. What follows it is the session's, so a header
is only looked at until it is whole, and then just its octets are taken. Version 2 may say LOCAL (a
health check of the proxy's own): then the connection's own addresses count.

The text of BadHeader is that of Courier's log lines (reference couriertcpd.md 9, 11).
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_LINE = 255  # octets of version 1
FIXED = 16  # octets of version 2 in front of the addresses
LONGEST = FIXED + 2**16
VERSION, LOCAL, PROXY = 0x20, 0x20, 0x21
FAMILIES = {0x11: (AF_INET, 4), 0x21: (AF_INET6, 16)}  # TCP over IPv4 and IPv6
FAMILY_NAMES = {b"TCP4": AF_INET, b"TCP6": AF_INET6}
PORT_DIGITS = 5

Ends = tuple[str, int]


class BadHeader(Exception):
    """What comes is no header, or one of no use; the text says why."""


class Header:
    """length: octets that it takes up. source, destination: None if the proxy speaks for itself."""

    __slots__ = ("length", "source", "destination")

    def __init__(self, length: int, source: Ends | None, destination: Ends | None):
        self.length = length
        self.source = source
        self.destination = destination


def parse(data: bytes) -> Header | None:
    """The header that the data begin with; None if more must come. Raises BadHeader."""
    if data.startswith(SIGNATURE[: len(data)]):
        return _binary(data)
    if not b"PROXY ".startswith(data[:6]):
        raise BadHeader("missing PROXY statement")
    line, end, _ = data[:LONGEST_LINE].partition(b"\n")
    if end:
        return _line(line, len(line) + 1)
    if len(line) == LONGEST_LINE:
        raise BadHeader("response too long")
    return None


def _line(line: bytes, length: int) -> Header:
    words = line.split()
    if len(words) < 2 or words[0] != b"PROXY":
        raise BadHeader("malformed PROXY statement")
    family = FAMILY_NAMES.get(words[1])
    if family is None:
        shown = words[1][:20].decode("ascii", "backslashreplace")
        raise BadHeader(f"unknown protocol: {shown if shown.isprintable() else '?'}")
    if len(words) != 6:
        raise BadHeader("malformed PROXY statement")
    name = words[1].decode()
    source = _address(words[2], words[4], family, name)
    return Header(length, source, _address(words[3], words[5], family, name))


def _address(address: bytes, port: bytes, family: int, name: str) -> Ends:
    try:
        text = inet_ntop(family, inet_pton(family, address.decode("ascii")))
    except (OSError, ValueError) as why:
        raise BadHeader(f"cannot parse {name} address") from why
    if not (port.isdigit() and len(port) <= PORT_DIGITS and int(port) < 2**16):
        raise BadHeader("malformed PROXY statement")
    return text, int(port)


def _binary(data: bytes) -> Header | None:
    if len(data) < FIXED:
        return None
    command, family = data[12], data[13]
    length = FIXED + int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXY):
        raise BadHeader("malformed PROXY statement")
    if command == PROXY and family not in FAMILIES:
        raise BadHeader(f"unknown protocol: {family:#04x}")
    if len(data) < length:
        return None
    if command == LOCAL:
        return Header(length, None, None)
    af, size = FAMILIES[family]
    body = data[FIXED:length]
    if len(body) < 2 * size + 4:
        raise BadHeader("malformed PROXY statement")
    ends = body[:size], body[size : 2 * size]
    ports = body[2 * size : 2 * size + 2], body[2 * size + 2 : 2 * size + 4]
    source, destination = (
        (inet_ntop(af, end), int.from_bytes(port, "big"))
        for end, port in zip(ends, ports, strict=True)
    )
    return Header(length, source, destination)
