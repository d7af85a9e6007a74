"""running - what there is of an instance that runs: courierlogger, its listener, the sessions

Whether it runs is decided by the lock on the pid file's FILE.lock, and by nothing else; the process
that has it is courierlogger (courierchain.daemon). The rest is read from /proc.
"""

from __future__ import annotations

import os

from courierchain.daemon import children, lock_holder
from courierchain.refusal import refusal


def holder(pidfile: str) -> int | None:
    """The pid of the logger, None if none runs; 0 or less if it can't be seen from here.

    Raises Refused if the lock may not be read.
    """
    try:
        lock = os.open(f"{pidfile}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as why:
        raise refusal(f"{pidfile}.lock", why) from why
    try:
        return lock_holder(lock)
    finally:
        os.close(lock)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for member in found:
        found += children(member)
    return found


def sessions(logger: int) -> int:
    """How many connections the listener's children have on descriptor 0; those that wait for one
    have none. A child that we may not look at is counted."""
    return sum(_has_client(child) for listener in children(logger) for child in children(listener))


def _has_client(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/0").startswith("socket:")
    except PermissionError:
        return True
    except OSError:
        return False


def command(pid: int) -> str:
    """The name of a process, as ps has it."""
    try:
        return _text(f"/proc/{pid}/comm").strip()
    except OSError:
        return "?"


def parent(pid: int) -> int:
    try:
        return int(_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _text(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()
