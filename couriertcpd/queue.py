"""queue - connections that are to have a process, in the order of their coming

Usually that is at once. But while the processors are busy (courierchain.processors), and if MOST of
our processes for each of them serve somebody, the next connection waits: until one of them has
done, and is warm, or until a processor is free, but not longer than PATIENCE, whatever the machine
does.

Clients whose answers take their time over a network leave the processors free: of them none waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from courierchain.processors import Processors
from couriertcpd.arrival import Arrival

MOST = 4  # processes that serve somebody, for each processor, before anybody has to wait
PATIENCE = 0.25  # seconds
GLANCE = 0.001  # seconds from one look at the processors to the next


class Queue:
    """clock: seconds, from anywhere, never going back."""

    __slots__ = ("_waiting", "_processors", "_clock")

    def __init__(self, processors: Processors, clock: Callable[[], float] = monotonic):
        self._waiting: deque[tuple[float, Arrival]] = deque()
        self._processors = processors
        self._clock = clock

    def add(self, arrival: Arrival) -> None:
        self._waiting.append((self._clock(), arrival))

    def next(self, serving: int) -> Arrival | None:
        """Who is to have a process now, while so many serve somebody; None if nobody is."""
        if not self._waiting or self._has_to_wait(self._waiting[0][0], serving):
            return None
        return self._waiting.popleft()[1]

    def _has_to_wait(self, since: float, serving: int) -> bool:
        return (
            serving >= MOST * self._processors.count
            and self._clock() < since + PATIENCE
            and self._processors.are_busy()
        )

    def patience(self) -> float:
        """Seconds until there may be somebody for `next`; infinite if nobody waits."""
        return GLANCE if self._waiting else float("inf")

    def __len__(self) -> int:
        return len(self._waiting)
