"""failures - how often something has failed lately

Counts per key: N failures within a window of seconds that begins with the first of them, and the
key is over its limit until the window has passed. What is refused meanwhile doesn't count, so the
refusal ends, whoever keeps trying. In memory, at most MOST keys; one more, and the one whose window
began first is forgotten. Each step takes the same time, however many there are. No IO here, and
time is a parameter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic

MOST = 10_000  # keys, some 2 MB
QUIET = 60.0  # seconds between two log lines about the same key


class Window:
    __slots__ = ("began", "count", "said")

    def __init__(self, began: float):
        self.began = began
        self.count = 0
        self.said: float | None = None


class Failures:
    """seconds: of a window. clock: seconds, from anywhere, never going back."""

    __slots__ = ("_seconds", "_most", "_clock", "_windows")

    def __init__(self, seconds: float, most: int = MOST, clock: Callable[[], float] = monotonic):
        self._seconds = seconds
        self._most = most
        self._clock = clock
        # In the order of their beginning; a dict would look for its first longer and longer.
        self._windows: OrderedDict[Hashable, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, key: Hashable) -> None:
        window = self._window(key)
        if window is None:
            if len(self._windows) >= self._most:
                self._windows.popitem(last=False)
            window = self._windows[key] = Window(self._clock())
        window.count += 1

    def over(self, key: Hashable, limit: int) -> bool:
        """Whether it has failed `limit` times; 0 is no limit."""
        window = self._window(key)
        return 0 < limit and window is not None and window.count >= limit

    def worth_a_line(self, key: Hashable) -> bool:
        """Whether the log hasn't heard of this key for a while; it does now."""
        window = self._window(key)
        now = self._clock()
        if window is None or (window.said is not None and now - window.said <= QUIET):
            return False
        window.said = now
        return True

    def _window(self, key: Hashable) -> Window | None:
        """The key's; one that has passed is forgotten."""
        window = self._windows.get(key)
        if window is not None and self._clock() - window.began >= self._seconds:
            del self._windows[key]
            return None
        return window
