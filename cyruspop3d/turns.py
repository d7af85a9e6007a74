"""turns - which worker of a service takes the next connection

Whoever holds the lock file is inside accept, and no other worker of the service (reference
cyrus-pop3d.md 2.3). Cyrus's wait there for a connection, and each comes to its turn. Ours all wait,
without the lock, and the kernel wakes one for each connection, always the same if it is free: its
caches are warm. So is somebody who has just served: he takes what is there already, at once.

While the processors are busy (courierchain.processors), a worker more would only make the others
slower. So who was woken then naps, with the lock, and leaves connections to those who are done with
theirs, as long as they take them so quickly that none has to wait for longer than PATIENCE. The
lock file says how many were taken, and the kernel how many wait, and may wait (tcp(7)).
"""

from __future__ import annotations

import fcntl
import os
from _socket import IPPROTO_TCP, TCP_INFO, socket
from functools import partial
from select import EPOLLERR, EPOLLEXCLUSIVE, EPOLLIN, epoll
from struct import unpack_from
from time import sleep

from courierchain.processors import Processors
from cyruspop3d.waiting import interruptible

PATIENCE = 0.25  # seconds
NAP = 0.005  # seconds
COUNT = 8  # octets of the lock file
BEFORE_QUEUE = 24  # octets of struct tcp_info: tcpi_unacked and tcpi_sacked follow


class Turns:
    """ready, lock: descriptors that are this object's from now on."""

    __slots__ = ("_listening", "_ready", "_lock", "_has_lock", "_processors", "_is_warm")

    def __init__(self, listening: socket, ready: int, lock: int):
        with epoll() as made:
            again = os.dup(made.fileno())
        move(again, ready)
        self._ready = epoll.fromfd(ready)
        self._ready.register(listening, EPOLLIN | EPOLLEXCLUSIVE)
        self._listening = listening
        self._lock = lock
        self._has_lock = False
        self._processors = Processors()
        self._is_warm = False

    def open_lock(self, path: str) -> None:
        """Raises OSError; then there are no turns."""
        move(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), self._lock)
        self._has_lock = True

    def watch(self, descriptor: int) -> None:
        """`wait` says EPOLLERR when nobody reads there any more. Raises OSError."""
        self._ready.register(descriptor, EPOLLERR)

    def served(self) -> None:
        """This process has just served somebody."""
        self._is_warm = True

    def wait(self) -> dict[int, int]:
        """Until there is a connection, perhaps: events by descriptor. Raises Interrupted."""
        at_once = interruptible(partial(self._ready.poll, 0)) if self._is_warm else []
        self._is_warm = bool(at_once)
        return dict(at_once or interruptible(self._ready.poll))

    def accept(self) -> int:
        """A client's descriptor. Raises OSError, as accept(2) without waiting, and Interrupted."""
        if self._is_warm or not self._has_lock:
            return self._accept()
        interruptible(partial(fcntl.lockf, self._lock, fcntl.LOCK_EX))
        try:
            self._leave_to_others()
            return self._accept()
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _accept(self) -> int:
        client, _ = self._listening._accept()  # type: ignore[attr-defined]
        self._count()
        return client

    def _leave_to_others(self) -> None:
        """As long as they are quick. Raises Interrupted."""
        taken = self._taken()
        while self._processors.are_busy():
            interruptible(partial(sleep, NAP))
            before, taken = taken, self._taken()
            if not self._are_quick(taken - before):
                return

    def _are_quick(self, taken: int) -> bool:
        """taken: connections in the last nap."""
        try:
            info = self._listening.getsockopt(IPPROTO_TCP, TCP_INFO, BEFORE_QUEUE + 8)
        except OSError:  # not TCP
            return False
        waiting, room = unpack_from("=II", info, BEFORE_QUEUE)
        return 0 < waiting < room // 2 and waiting * NAP < taken * PATIENCE

    def _taken(self) -> int:
        try:
            return int.from_bytes(os.pread(self._lock, COUNT, 0), "little")
        except OSError:
            return 0

    def _count(self) -> None:
        """Two at once may count as one, and a full disk counts none: it is for a rate."""
        if not self._has_lock:
            return
        taken = (self._taken() + 1) % 256**COUNT
        try:
            os.pwrite(self._lock, taken.to_bytes(COUNT, "little"), 0)
        except OSError:
            pass


def move(descriptor: int, wanted: int) -> None:
    """Raises OSError if it is not open."""
    if descriptor != wanted:
        os.dup2(descriptor, wanted, inheritable=False)
        os.close(descriptor)
