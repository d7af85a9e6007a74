"""limits - who may have one more connection, and what the log says about it

    -maxprocs   places. With none left the listener accepts nobody: clients wait in the kernel
    -maxperip   connections from one address; the next one is closed, with an ALERT
    -maxperc    connections from one network: the address without its last byte; closed silently
    -warn       connections from which a WARN is due; default N - (N/10 + 1) of N places

Addresses are 16 bytes, IPv4 in its mapped form (reference couriertcpd.md 6). Whoever has been
admitted is to be released once. No IO here, and time is a parameter.

    ALERT: 40 maximum active connections.                               these two at most
    WARN: 35 active connections.                                        once a minute each
    ALERT: Maximum connection limit reached for ::ffff:192.0.2.1        one a refused client
"""

from __future__ import annotations

from collections.abc import Callable
from socket import AF_INET6, inet_ntop
from time import monotonic

# Refusals: the option that caused it.
MAXPROCS = "maxprocs"
MAXPERIP = "maxperip"
MAXPERC = "maxperc"

QUIET = 60.0  # seconds that have to be over before a WARN or ALERT on the total is repeated


def default_warn(maxprocs: int) -> int:
    return maxprocs - (maxprocs // 10 + 1)


class Limits:
    """maxprocs, maxperip, maxperc: 1 or more. warn: 0 to maxprocs, or None for the default.

    clock: seconds, from anywhere, never going back.
    """

    __slots__ = (
        "_maxprocs",
        "_maxperip",
        "_maxperc",
        "_warn",
        "_clock",
        "_total",
        "_addresses",
        "_networks",
        "_admitted",
        "_due",
        "_said",
    )

    def __init__(
        self,
        maxprocs: int,
        maxperip: int,
        maxperc: int,
        warn: int | None = None,
        clock: Callable[[], float] = monotonic,
    ):
        self._maxprocs = maxprocs
        self._maxperip = maxperip
        self._maxperc = maxperc
        self._warn = default_warn(maxprocs) if warn is None else warn
        self._clock = clock
        self._total = 0
        self._addresses: dict[bytes, int] = {}
        self._networks: dict[bytes, int] = {}
        self._admitted = False  # somebody, since the last notices()
        self._due: list[str] = []
        self._said: dict[str, float] = {}  # when WARN and ALERT came last

    @property
    def full(self) -> bool:
        """Whether nobody can be admitted."""
        return self._total >= self._maxprocs

    @property
    def total(self) -> int:
        """Places that are taken."""
        return self._total

    @property
    def maxprocs(self) -> int:
        return self._maxprocs

    def admit(self, address: bytes, maxperip: int | None = None) -> str | None:
        """Take a place for a connection from `address`: None, or the limit that is against it.

        maxperip: instead of the usual one, this time.
        """
        network = address[:-1]
        if self.full:
            return MAXPROCS
        if self._addresses.get(address, 0) >= (maxperip or self._maxperip):
            name = inet_ntop(AF_INET6, address)
            self._due.append(f"ALERT: Maximum connection limit reached for {name}")
            return MAXPERIP
        if self._networks.get(network, 0) >= self._maxperc:
            return MAXPERC
        self.take(address)
        self._admitted = True
        return None

    def take(self, address: bytes) -> None:
        """Take a place, whatever the limits are: the connection is there already."""
        network = address[:-1]
        self._total += 1
        self._addresses[address] = self._addresses.get(address, 0) + 1
        self._networks[network] = self._networks.get(network, 0) + 1

    def release(self, address: bytes) -> None:
        """Give back a place. Raises KeyError, with nothing changed, if `address` has none."""
        _take_one(self._addresses, address)
        _take_one(self._networks, address[:-1])
        self._total -= 1

    def notices(self) -> list[str]:
        """The lines due since the last call. To be called after each admit()."""
        lines, self._due = self._due, []
        if self._admitted:
            self._admitted = False
            if self.full:
                self._now_and_then(lines, f"ALERT: {self._maxprocs} maximum active connections.")
            elif self._total >= self._warn:
                self._now_and_then(lines, f"WARN: {self._total} active connections.")
        return lines

    def _now_and_then(self, lines: list[str], line: str) -> None:
        kind, now = line.partition(":")[0], self._clock()
        if kind not in self._said or now - self._said[kind] > QUIET:
            self._said[kind] = now
            lines.append(line)


def _take_one(counts: dict[bytes, int], key: bytes) -> None:
    """Count one less; what has come to zero leaves no entry."""
    if counts[key] > 1:
        counts[key] -= 1
    else:
        del counts[key]
