"""cidr - networks as the keys that couriertcpd looks for

    192.168.0.0/22                 192.168.0 192.168.1 192.168.2 192.168.3
    192.0.2.254-192.0.3.255        192.0.2.254 192.0.2.255 192.0.3
    2001:db8::/31                  :2001:0db8 :2001:0db9

What Courier's makedat has the Perl module Net::CIDR for (reference couriertcpd.md 7.4).
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from ipaddress import (
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)

from courierchain import textsource

Network = IPv4Network | IPv6Network

MAPPED_BITS = 96  # of ::ffff:192.0.2.1, before the IPv4 address
ADDRESSES = set((string.hexdigits + ":.").encode())


def expand(text: bytes) -> bytes:
    """The text with each line that begins with a network replaced by lines for its keys.

    Raises ValueError for one that isn't a network.
    """
    return b"\n".join(line for source in text.split(b"\n") for line in lines(source))


def lines(line: bytes) -> list[bytes]:
    word, *value = line.split(maxsplit=1) or [b""]
    if not line.startswith(word) or not is_network(word):
        return [line]
    return [b"\t".join((key, *value)) for key in keys(word.decode())]


def is_network(word: bytes) -> bool:
    low, _, high = word.replace(b"-", b"/", 1).partition(b"/")
    return bool(low and high) and set(low + high) <= ADDRESSES


def keys(word: str) -> Iterator[bytes]:
    """The keys of `address/bits` or `address-address`. Raises ValueError."""
    low, dash, high = word.partition("-")
    networks = spanned(low, high) if dash else [ip_network(word, strict=False)]
    for network in networks:
        yield from courier_keys(as_ipv4(network))


def spanned(low: str, high: str) -> Iterator[Network]:
    first, last = ip_address(low), ip_address(high)
    if first.version != last.version:
        raise ValueError(f"{low} and {high} are of two kinds")
    return summarize_address_range(first, last)


def as_ipv4(network: Network) -> Network:
    """couriertcpd looks for the IPv4 address of a client in either form."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped and network.prefixlen >= MAPPED_BITS:
        return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))
    return network


def courier_keys(network: Network) -> Iterator[bytes]:
    """A key for each network of the next length that Courier can write."""
    size = network.max_prefixlen
    unit = textsource.UNITS[size]
    bits = max(1, -(-network.prefixlen // unit)) * unit
    for each in network.subnets(new_prefix=bits):
        yield textsource.key(size, bits, int(each.network_address) >> (size - bits))
