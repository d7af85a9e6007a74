"""forkrate - how many processes a second, smoothed, so that a service doesn't exceed maxforkrate

Each fork counts half as much with every second that passes, and at first so much that N a second
keep the sum at N, where N is the limit. A fork is due while the sum is below it: some at once, and
then N a second. No clock here: times are seconds, from anywhere. (reference cyrus-pop3d.md 3.3)
"""

from __future__ import annotations

from math import log2

ROUNDING = 0.001  # seconds, by which a time that has been reckoned back is surely over


class ForkRate:
    """limit: forks a second; 0 for none."""

    __slots__ = ("limit", "_rate", "_at")

    def __init__(self, limit: int):
        self.limit = limit
        self._rate = 0.0
        self._at = 0.0

    def forked(self, now: float) -> None:
        one = self.limit * (2 ** (1 / self.limit) - 1) if self.limit else 0.0
        self._rate = self.rate(now) + one
        self._at = now

    def rate(self, now: float) -> float:
        return self._rate * 0.5 ** (now - self._at)

    def due(self, now: float) -> float:
        """When the next fork may be: now, or later."""
        if not self.limit or self.rate(now) < self.limit:
            return now
        return float(now + log2(self.rate(now) / self.limit) + ROUNDING)
