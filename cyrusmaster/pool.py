"""pool - the workers at one socket: how many there are, what they do, and when to start one

    started(pid, now)      a worker has been forked; it counts as ready
    told(pid, message)     what one has said on its descriptor 3
    ended(pid, code, now)  and how it ended
    wanted(now)            how many to start at once, so that `prefork` of them are ready
    watches(now)           whether a client at the door needs a new one: nobody is ready, and there
                           may be one more. Then one is started; it accepts the client by itself
    wake_at(now)           when to ask again although nothing has happened

    message              a worker that is ready     one that is busy
    1 AVAILABLE          -                          is ready
    2 UNAVAILABLE        is busy                    -
    3 CONNECTION         is busy                    -
    4 CONNECTION_MULTI   -                          is ready

A worker that ends in its session is no failure, however it does. One that fails while it is ready
is, and five of them, each within ten seconds of the one before, close the service until the next
SIGHUP; or, if it is babysat, stop it for ten seconds. No IO here; times are seconds, from anywhere.
(reference cyrus-pop3d.md 3.2, 3.3)
"""

from __future__ import annotations

from _signal import SIGHUP, SIGTERM
from collections.abc import Callable

from cyrusmaster.forkrate import ForkRate
from cyrusmaster.services import Service

AVAILABLE, UNAVAILABLE, CONNECTION, CONNECTION_MULTI = 1, 2, 3, 4
MESSAGES = (AVAILABLE, UNAVAILABLE, CONNECTION, CONNECTION_MULTI)
MOST_FAILURES = 5
QUICK = 10.0  # seconds between failures that belong together
PAUSE = 10.0  # seconds
QUIET = (0, 75, -SIGHUP, -SIGTERM)  # ends that are no failures; 75 is that after SIGTERM


class Pool:
    """shown: service and address family, for the log. say: takes a log line.

    is_closed: it starts nobody any more, and its socket is to be closed.
    """

    __slots__ = (
        *("shown", "is_closed", "workers", "connections", "_terms", "_say", "_ready"),
        *("_rate", "_failures", "_failed_at", "_not_before"),
    )

    def __init__(self, shown: str, terms: Service, say: Callable[[str], None]):
        self.shown = shown
        self.is_closed = False
        self.workers: dict[int, bool] = {}  # pid: is it ready?
        self.connections = 0
        self._terms = terms
        self._say = say
        self._ready = 0
        self._rate = ForkRate(terms.maxforkrate)
        self._failures = 0
        self._failed_at = 0.0
        self._not_before = 0.0

    def change(self, terms: Service) -> None:
        """SIGHUP: take other numbers, and forgive failures."""
        self._terms = terms
        self._rate.limit = terms.maxforkrate
        self._failures = 0
        self._not_before = 0.0

    @property
    def ready(self) -> int:
        return self._ready

    def started(self, pid: int, now: float) -> None:
        self.workers[pid] = True
        self._ready += 1
        self._rate.forked(now)

    def told(self, pid: int, message: int) -> None:
        if pid not in self.workers:
            self._say(f"WARN: {self.shown}: message {message} from process {pid}, not ours")
        elif message not in MESSAGES:
            self._say(f"ERR: {self.shown}: process {pid}: unrecognized message {message}")
        else:
            if message in (CONNECTION, CONNECTION_MULTI):
                self.connections += 1
            self._is_now(pid, message in (AVAILABLE, CONNECTION_MULTI))

    def _is_now(self, pid: int, is_ready: bool) -> None:
        self._ready += is_ready - self.workers[pid]
        self.workers[pid] = is_ready

    def ended(self, pid: int, code: int, now: float) -> None:
        """code: the exit status, or the negative number of a signal."""
        was_ready = self.workers.pop(pid)
        self._ready -= was_ready
        if was_ready and code not in QUIET:
            self._failed(pid, code, now)
        if self._terms.babysit and not self.workers and not self.is_closed:
            self._say(f"WARN: lost all children for service: {self.shown}. Applying babysitter.")

    def _failed(self, pid: int, code: int, now: float) -> None:
        how = f"signal {-code}" if code < 0 else f"status {code}"
        text = f"process {pid} in READY state: terminated abnormally, {how}"
        self._say(f"WARN: service {self.shown}: {text}")
        if now - self._failed_at > QUICK:
            self._failures = 0
        self._failures += 1
        self._failed_at = now
        if self._failures < MOST_FAILURES or self.is_closed:
            return
        self._failures = 0
        if self._terms.babysit:
            self._say(f"ERR: too many failures for service {self.shown}, disabling for 10 seconds")
            self._not_before = now + PAUSE
        else:
            text = f"too many failures for service {self.shown}, disabling until next SIGHUP"
            self._say(f"ERR: {text}")
            self.is_closed = True

    def close(self) -> None:
        self.is_closed = True

    def hold(self, until: float) -> None:
        """Start nobody before: the system can't fork."""
        self._not_before = max(self._not_before, until)

    def wanted(self, now: float) -> int:
        if not self._may_start(now):
            return 0
        room = self._terms.maxchild - len(self.workers)
        return max(0, min(self._terms.prefork - self._ready, room))

    def watches(self, now: float) -> bool:
        has_room = len(self.workers) < self._terms.maxchild
        return self._ready == 0 and has_room and self._may_start(now)

    def _may_start(self, now: float) -> bool:
        return not self.is_closed and self._due(now) <= now

    def _due(self, now: float) -> float:
        return max(self._rate.due(now), self._not_before)

    def wake_at(self, now: float) -> float | None:
        """None if there is nobody to be started but for what happens."""
        is_short = self._ready < max(1, self._terms.prefork)
        if self.is_closed or not is_short or len(self.workers) >= self._terms.maxchild:
            return None
        due = self._due(now)
        return due if due > now else None
