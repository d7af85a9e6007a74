"""The PROXY header, versions 1 and 2, whole, in pieces and broken."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couriertcpd.haproxy import LONGEST_LINE, SIGNATURE, BadHeader, Header, parse

LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 51000 110\r\n"
ENDS = (("192.0.2.7", 51000), ("192.0.2.1", 110))


def binary(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def packed(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    family = AF_INET6 if ":" in source else AF_INET
    ends = inet_pton(family, source) + inet_pton(family, destination)
    return ends + b"".join(port.to_bytes(2, "big") for port in ports)


V4 = binary(0x21, 0x11, packed("192.0.2.7", "192.0.2.1", (51000, 110)))
V6 = binary(0x21, 0x21, packed("2001:db8::7", "2001:db8::1", (51000, 110)) + b"\x03\0\4tlvs")


@pytest.mark.parametrize(
    "data, ends",
    [
        (LINE, ENDS),
        (LINE.replace(b"\r", b""), ENDS),
        (b"PROXY  TCP4\t192.0.2.7 192.0.2.1  51000 110 \r\n", ENDS),
        (
            b"PROXY TCP6 2001:DB8::7 2001:db8::1 1 65535\r\n",
            (("2001:db8::7", 1), ("2001:db8::1", 65535)),
        ),
        (V4, ENDS),
        (V6, (("2001:db8::7", 51000), ("2001:db8::1", 110))),
        (binary(0x20, 0, b""), (None, None)),
        (binary(0x20, 0x11, b"anything"), (None, None)),
    ],
)
def test_a_header_says_who_connects_to_whom_and_no_octet_behind_it_is_taken(data, ends):
    for behind in (b"", b"USER joe\r\n", b"PROXY "):
        header = parse(data + behind)
        assert (header.source, header.destination) == ends
        assert header.length == len(data)
    assert all(parse(data[:length]) is None for length in range(len(data)))


@pytest.mark.parametrize(
    "data, why",
    [
        (b"USER joe\r\n", "missing PROXY statement"),
        (b"\n", "missing PROXY statement"),
        (b"PROXYTCP4 ", "missing PROXY statement"),
        (b"proxy TCP4 ", "missing PROXY statement"),
        (b"PROXY \r\n", "malformed PROXY statement"),
        (b"PROXY UNKNOWN\r\n", "unknown protocol: UNKNOWN"),
        (b"PROXY \x1b[31m\r\n", "unknown protocol: ?"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 51000\r\n", "malformed PROXY statement"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 51000 110 1\r\n", "malformed PROXY statement"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 51000 65536\r\n", "malformed PROXY statement"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 110\r\n", "malformed PROXY statement"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 " + b"9" * 99 + b" 1\r\n", "malformed PROXY statement"),
        (b"PROXY TCP4 192.0.2 192.0.2.1 1 110\r\n", "cannot parse TCP4 address"),
        (b"PROXY TCP4 ::1 ::1 1 110\r\n", "cannot parse TCP4 address"),
        (b"PROXY TCP6 192.0.2.7 ::1 1 110\r\n", "cannot parse TCP6 address"),
        (b"PROXY TCP6 \xff ::1 1 110\r\n", "cannot parse TCP6 address"),
        (b"PROXY " + b"x" * LONGEST_LINE, "response too long"),
        (binary(0x11, 0x11, b""), "malformed PROXY statement"),
        (binary(0x22, 0x11, b""), "malformed PROXY statement"),
        (binary(0x21, 0x00, b""), "unknown protocol: 0x00"),
        (binary(0x21, 0x12, b"x" * 12), "unknown protocol: 0x12"),
        (binary(0x21, 0x11, b"x" * 11), "malformed PROXY statement"),
        (binary(0x21, 0x21, b"x" * 35), "malformed PROXY statement"),
    ],
)
def test_what_is_no_header_is_told_as_courier_does(data, why):
    with pytest.raises(BadHeader, match=f"^{why.replace('?', '[?]')}$"):
        parse(data)


@given(st.binary() | st.binary().map(SIGNATURE.__add__) | st.binary().map(b"PROXY ".__add__))
def test_no_octets_whatsoever_do_harm(data):
    try:
        header = parse(data)
    except BadHeader as why:
        assert str(why).isprintable()
    else:
        assert header is None or isinstance(header, Header) and header.length <= len(data)


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_addresses_are_written_as_the_system_writes_them(address, port):
    data = f"PROXY TCP6 {address.exploded} ::1 {port} 110\r\n".encode()
    assert parse(data).source == (inet_ntop(AF_INET6, address.packed), port)
