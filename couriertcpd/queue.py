"""queue - connections that are to have a process, in the order of their coming

Usually that is at once. But while more processes want a processor than there are, another one only
takes turns with them: each is slower for it, and finds its caches cold. So then, and if MOST of
ours for each processor serve somebody, the next connection waits: until one of them has done, and
is warm, or until a processor is free, but not longer than PATIENCE, whatever the machine does.

Clients whose answers take their time over a network leave the processors free: of them none waits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from time import monotonic

from couriertcpd.arrival import Arrival

LOADAVG = "/proc/loadavg"  # proc(5): three averages, RUNNABLE/ALL, a pid; of the whole machine
MOST = 4  # processes that serve somebody, for each processor, before anybody has to wait
PATIENCE = 0.25  # seconds
GLANCE = 0.001  # seconds from one look at the processors to the next


class Queue:
    """loadavg: the file that says how many processes want a processor; if it can't be read nobody
    waits. processors: how many there are. clock: seconds, from anywhere, never going back."""

    __slots__ = ("_waiting", "_loadavg", "_processors", "_clock")

    def __init__(
        self,
        loadavg: str = LOADAVG,
        processors: int = os.cpu_count() or 1,
        clock: Callable[[], float] = monotonic,
    ):
        self._waiting: deque[tuple[float, Arrival]] = deque()
        self._processors = processors
        self._clock = clock
        try:
            self._loadavg = os.open(loadavg, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._loadavg = -1

    def add(self, arrival: Arrival) -> None:
        self._waiting.append((self._clock(), arrival))

    def next(self, serving: int) -> Arrival | None:
        """Who is to have a process now, while so many serve somebody; None if nobody is."""
        if not self._waiting or self._has_to_wait(self._waiting[0][0], serving):
            return None
        return self._waiting.popleft()[1]

    def _has_to_wait(self, since: float, serving: int) -> bool:
        return (
            serving >= MOST * self._processors
            and self._clock() < since + PATIENCE
            and self._runnable() > self._processors
        )

    def _runnable(self) -> int:
        """Processes that have a processor or wait for one, without this."""
        try:
            counts = os.pread(self._loadavg, 128, 0).split()[3]
            return int(counts.partition(b"/")[0]) - 1
        except (OSError, IndexError, ValueError):
            return 0

    def patience(self) -> float:
        """Seconds until there may be somebody for `next`; infinite if nobody waits."""
        return GLANCE if self._waiting else float("inf")

    def __len__(self) -> int:
        return len(self._waiting)
