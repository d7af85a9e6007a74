"""lock - flock(2) on a directory of the Maildir

Leaves no file behind, and ends with its process, however that ends. What different programs of ours
agree on:

    .       held while the size list is changed (snapshot)
    cur     held during a session that wants the mailbox for itself (POP3_EXCLUSIVE)

A file system that has no such locks is used without, as Courier uses all.
"""

from __future__ import annotations

import os
from errno import ETIMEDOUT
from fcntl import LOCK_EX, LOCK_NB, flock
from time import monotonic, sleep

from courierpop3d.maildir import close

PAUSE = 0.01  # seconds


class DirectoryLock:
    """A lock to be taken in a `with` block, or by take() and release()."""

    __slots__ = ("_path", "_patience", "_descriptor")

    def __init__(self, path: bytes, patience: float):
        self._path = path
        self._patience = patience
        self._descriptor = -1

    def take(self) -> None:
        """Raises OSError, and after `patience` seconds TimeoutError."""
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        deadline = monotonic() + self._patience
        while not self._try():
            if monotonic() > deadline:
                self.release()
                raise TimeoutError(ETIMEDOUT, "another session holds the lock")
            sleep(PAUSE)

    @property
    def is_taken(self) -> bool:
        return self._descriptor >= 0

    def _try(self) -> bool:
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def release(self) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.release()
