"""loop - wait for many descriptors at once

    loop.watch(descriptor, EPOLLIN, ready)     ready(events) is called when there is something
    loop.watch(descriptor, 0, ready)           no more
    loop.limit(connection, seconds)            connection.expire() is called then, unless that is
    loop.limit(connection, None)               taken back
    loop.run(is_over)                          until that is true

A descriptor for which nobody waits is not in the kernel's list at all: epoll reports a hang-up
there whether it is asked for or not, and would never sleep. Limits are looked at once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from select import epoll
from time import monotonic
from typing import Protocol

PIECE = 65536  # octets that are read at a time
TICK = 1.0  # seconds

Ready = Callable[[int], None]


class Limited(Protocol):
    def expire(self) -> None: ...

    def give_up(self) -> None: ...


class Loop:
    """buffer: for whoever is ready, until it returns. connections: that aren't closed yet."""

    __slots__ = (
        "buffer",
        "view",
        "connections",
        "_epoll",
        "_masks",
        "_ready",
        "_limits",
        "_next_look",
    )

    def __init__(self) -> None:
        self.buffer = bytearray(PIECE)
        self.view = memoryview(self.buffer)
        self.connections: set[Limited] = set()
        self._epoll = epoll()
        self._masks: dict[int, int] = {}
        self._ready: dict[int, Ready] = {}
        self._limits: dict[Limited, float] = {}
        self._next_look = 0.0

    def watch(self, descriptor: int, mask: int, ready: Ready) -> None:
        """mask: of select.EPOLL...; 0, before the descriptor is closed."""
        before = self._masks.get(descriptor, 0)
        if mask == before:
            return
        if not before:
            self._epoll.register(descriptor, mask)
        elif mask:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.unregister(descriptor)
            del self._masks[descriptor], self._ready[descriptor]
            return
        self._masks[descriptor] = mask
        self._ready[descriptor] = ready

    def limit(self, connection: Limited, seconds: float | None) -> None:
        if seconds is None:
            self._limits.pop(connection, None)
        else:
            self._limits[connection] = monotonic() + seconds

    def run(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            for descriptor, events in self._epoll.poll(TICK if self._limits else None):
                ready = self._ready.get(descriptor)
                if ready:  # nobody before it in this list has closed it
                    ready(events)
            if self._limits:
                self._look_at_limits()

    def _look_at_limits(self) -> None:
        now = monotonic()
        if now < self._next_look:
            return
        self._next_look = now + TICK
        for connection in [each for each, end in self._limits.items() if end <= now]:
            del self._limits[connection]
            connection.expire()
