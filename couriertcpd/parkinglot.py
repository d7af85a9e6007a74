"""parkinglot - sessions whose clients are silent, without a process (-park)

Of each there is the connection, its place in the limits, and what its program knows, as octets that
nobody reads here. It leaves when the client sends something or goes, or when its time is up: then
a process that serves the same user goes on with it.

A session costs this process the client's descriptor, one for a large content, one for an open PAM
session, and a few hundred octets beside its content. All of it is gone with this process.

Terms       what -park demands, for the workers too
Parked      a session
ParkingLot  all of them; readable (fileno) when one has to leave
"""

from __future__ import annotations

import os
import select
from heapq import heapify, heappop, heappush
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from time import monotonic

from courierchain import handover, netstrings
from courierchain.daemon import park
from couriertcpd import parcel

BATCH = 16  # sessions that leave in a row
LARGEST_INSIDE = 4000  # octets of a content that goes into the message to a process
RESERVE = 64  # descriptors for what is not parked
SLACK = 64  # deadlines of sessions that have left, beyond as many as have not
EVENTS = select.EPOLLIN | select.EPOLLRDHUP


class Terms:
    """after: seconds of silence. base: the environment that all sessions have in common.
    is_logged_to: whether the client is the log too (-stderr=socket).

    Here the soft limit of descriptors is the hard one; `leave` gives a child the old one back:
    there are programs that can't do with many. most: the highest descriptor that is parked.
    """

    __slots__ = ("after", "base", "is_logged_to", "most", "soft")

    def __init__(
        self, after: float, base: dict[str, str], is_logged_to: bool, soft: int | None = None
    ):
        """soft: what the limit was, if this process has raised it before a reload."""
        self.is_logged_to = is_logged_to
        self.after = after
        self.base = base
        now, hard = getrlimit(RLIMIT_NOFILE)
        self.soft = now if soft is None else soft
        limit = max(now, min(hard, handover.HIGHEST))  # more would not be closed in a child
        setrlimit(RLIMIT_NOFILE, (limit, hard))
        self.most = limit - RESERVE

    def leave(self) -> None:
        setrlimit(RLIMIT_NOFILE, (self.soft, getrlimit(RLIMIT_NOFILE)[1]))


class Parked:
    """descriptors: the client's, and what its process will need besides: a file with the content,
    if that is large and `content` empty, and what closes when its PAM session is to end.

    key: the user; address: whose place it has, both as the listener's `Child` had them.
    deadline: milliseconds on the monotonic clock.
    """

    __slots__ = ("descriptors", "content", "key", "address", "deadline")

    def __init__(
        self,
        descriptors: tuple[int, ...],
        content: bytes,
        key: bytes,
        address: bytes,
        deadline: int,
    ):
        self.descriptors = descriptors
        self.content = content
        self.key = key
        self.address = address
        self.deadline = deadline

    def __lt__(self, other: Parked) -> bool:
        return self.deadline < other.deadline

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def pack(self, base: dict[str, str]) -> tuple[list[int], bytes]:
        """What `unpacked` makes a session of again, perhaps where sessions have another environment
        in common: the descriptors that have to be there, and the rest. Raises OSError, ValueError.
        """
        client, *others = self.descriptors
        content = self.content
        if not content:
            content = os.pread(others.pop(0), parcel.LARGEST + 1, 0)
        content = parcel.fold(*parcel.unfold(content, base), {})
        return [client, *others], netstrings.encode(
            (self.key, self.address, b"%d" % self.deadline, content)
        )


def unpacked(descriptors: list[int], rest: bytes, base: dict[str, str]) -> Parked:
    """Raises OSError, ValueError."""
    client, *others = descriptors
    key, address, deadline, content = netstrings.decode(rest)
    content = parcel.fold(*parcel.unfold(content, {}), base)
    if len(content) > LARGEST_INSIDE:
        others.insert(0, park(parcel.written(content)))
        content = b""
    return Parked((client, *others), content, key, address, int(deadline))


class ParkingLot:
    __slots__ = ("_epoll", "_parked", "_deadlines")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._parked: dict[int, Parked] = {}  # by the client's descriptor
        self._deadlines: list[Parked] = []  # a heap; those that have left are in it for a while

    def fileno(self) -> int:
        return self._epoll.fileno()

    def __len__(self) -> int:
        return len(self._parked)

    def all(self) -> list[Parked]:
        return list(self._parked.values())

    def add(self, parked: Parked) -> None:
        """Raises OSError for a client that can't be waited for."""
        client = parked.descriptors[0]
        self._epoll.register(client, EVENTS)
        self._parked[client] = parked
        if len(self._deadlines) > 2 * len(self._parked) + SLACK:
            self._deadlines = list(self._parked.values())
            heapify(self._deadlines)
        else:
            heappush(self._deadlines, parked)

    def patience(self, longest: float) -> float:
        """Seconds until somebody's time is up, at most `longest`."""
        if not self._deadlines:
            return longest
        return min(longest, max(0.0, self._deadlines[0].deadline / 1000 - monotonic()))

    def leaving(self) -> list[Parked]:
        """Some of those that have to leave. They are the caller's now, with their descriptors."""
        if not self._parked:
            self._deadlines.clear()
            return []
        found = [self._take(client) for client, _ in self._epoll.poll(0, BATCH)]
        now = monotonic() * 1000
        while self._deadlines and len(found) < BATCH:
            first = self._deadlines[0]
            if self._parked.get(first.descriptors[0]) is first:
                if first.deadline > now:
                    break
                found.append(self._take(first.descriptors[0]))
            heappop(self._deadlines)
        return found

    def _take(self, client: int) -> Parked:
        self._epoll.unregister(client)  # others have the connection too: closing is not enough
        return self._parked.pop(client)
