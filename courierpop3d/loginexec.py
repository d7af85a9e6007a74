"""loginexec - the hook that a mailbox runs once, at its next login

An executable file `loginexec` in the Maildir is run there as the mailbox's user, before anything of
the mailbox is read: to move or convert its mail, say. It has the client's connection on descriptors
0 and 1, and all that it prints reaches the client before the reply to PASS (reference
courierpop3d.md 1.7). When it exits with 0 it has done its work and is removed; else it is run again
at the next login. This login goes on in either case, also when the hook and what it started have
been killed because its time was over.
"""

from __future__ import annotations

import os
from _signal import SIGKILL, SIGPIPE, SIGXFSZ
from select import POLLIN, poll
from stat import S_ISREG, S_IXUSR

from courierpop3d.journal import Journal

FILE = "./loginexec"


def run(env: dict[str, str], limit: float, journal: Journal) -> None:
    """Run the hook if there is one, for `limit` seconds at the most."""
    if not _is_executable():
        return
    try:
        # Python ignores these two; a program expects their defaults.
        defaults = (SIGPIPE, SIGXFSZ)
        process = os.posix_spawn(FILE, [FILE], env, setpgroup=0, setsigdef=defaults)
    except OSError as why:
        journal.err(f"Failed to exec loginexec: {why.strerror}")
        return
    status = _wait(process, limit)
    if status == 0:
        _remove(journal)
    elif status is None:
        journal.err(f"loginexec was killed: it took longer than {limit:g} seconds")
    else:
        journal.warn(f"loginexec failed with {_told(status)} and will be run again")


def _is_executable() -> bool:
    try:
        mode = os.stat(FILE).st_mode
    except OSError:
        return False
    return S_ISREG(mode) and mode & S_IXUSR != 0


def _wait(process: int, limit: float) -> int | None:
    """The exit status as of wait(2); None if the time was over."""
    ended = os.pidfd_open(process)
    try:
        waiting = poll()
        waiting.register(ended, POLLIN)
        in_time = waiting.poll(limit * 1000)
    finally:
        os.close(ended)
    if not in_time:
        os.killpg(process, SIGKILL)
    status = os.waitpid(process, 0)[1]
    return status if in_time else None


def _told(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code > 0 else f"signal {-code}"


def _remove(journal: Journal) -> None:
    try:
        os.unlink(FILE)
    except OSError as why:
        journal.err(f"cannot remove loginexec: {why.strerror}")
