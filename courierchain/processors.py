"""processors - whether more processes want a processor than there are

One process more would only take turns with them then: each is slower for it, and finds its caches
cold. Who may choose leaves work to processes that have them warm.
"""

from __future__ import annotations

import os

LOADAVG = "/proc/loadavg"  # proc(5): three averages, RUNNABLE/ALL, a pid; of the whole machine


class Processors:
    """loadavg: the file that says how many processes want a processor; if it can't be read they are
    never busy. count: how many there are."""

    __slots__ = ("count", "_loadavg")

    def __init__(self, loadavg: str = LOADAVG, count: int = os.cpu_count() or 1):
        self.count = count
        self._loadavg = loadavg

    def are_busy(self) -> bool:
        """Not counting this process."""
        try:
            file = os.open(self._loadavg, os.O_RDONLY | os.O_CLOEXEC)
            try:
                counts = os.read(file, 128).split()[3]
            finally:
                os.close(file)
            return int(counts.partition(b"/")[0]) - 1 > self.count
        except (OSError, IndexError, ValueError):
            return False
