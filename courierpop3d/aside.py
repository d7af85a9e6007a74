"""aside - a file of ours, written in tmp/ and put in the place of the old one when it is whole

Whatever happens, under the file's name there is the old one or the new one, never half of one
(F-KILL-7, F-DISK-3). What a killed program leaves in tmp/ is removed when it is old.
"""

from __future__ import annotations

import os
from errno import EISDIR
from time import time_ns

from courierpop3d.maildir import close


class Aside:
    """A new file at `path`, in a `with` block that removes it if it wasn't put in its place.

    status    of the file when it was made: the time in it is the file system's own
    """

    __slots__ = ("status", "_path", "_descriptor", "_placed")

    def __init__(self, path: bytes, mode: int = 0o644):
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, mode)
        self._placed = False
        try:
            self.status = os.fstat(self._descriptor)
        except OSError:
            self.__exit__()
            raise

    def __enter__(self) -> Aside:
        return self

    def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        """Wait until it is on the disk. Raises OSError."""
        os.fsync(self._descriptor)

    def rewrite(self, front: bytes) -> None:
        """Write over the first octets. Raises OSError."""
        os.pwrite(self._descriptor, front, 0)

    def replace(self, target: bytes, *, durable: bool = True) -> os.stat_result:
        """Put the file in the target's place; its status there. Raises OSError."""
        if durable:
            self.sync()
        try:
            os.rename(self._path, target)
        except OSError as why:
            if why.errno != EISDIR:
                raise
            # Somebody's directory in our file's place: out of the way, and nothing of it is lost.
            os.rename(target, self._path + b"_dir")
            os.rename(self._path, target)
        self._placed = True
        if durable:
            _sync_directory()
        return os.fstat(self._descriptor)

    def __exit__(self, *_: object) -> None:
        close(self._descriptor)
        if not self._placed:
            try:
                os.unlink(self._path)
            except OSError:
                pass


def new_path() -> bytes:
    """In tmp/, as Courier calls it when it writes the size list (reference 3.5)."""
    seconds, nanoseconds = divmod(time_ns(), 10**9)
    host = os.uname().nodename.replace("/", "_")
    return os.fsencode(f"tmp/{seconds}.M{nanoseconds // 1000}P{os.getpid()}_pop3.{host}")


def _sync_directory() -> None:
    try:
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # the file is in place; there are file systems that can't do this for a directory
    finally:
        close(descriptor)
