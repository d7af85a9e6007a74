"""lastlogin - when the mailbox was last opened, for those that may be opened only every so often

RFC 2449 sections 6.5 and 8.1.1. In the Maildir: courierpop3dlastlogin, seconds of the epoch. What
it can't tell, or what it tells of the future, is no reason to refuse anybody.
"""

from __future__ import annotations

import os

from courierpop3d.maildir import open_regular

FILE = b"courierpop3dlastlogin"


def is_too_early(login: int, wait: int) -> bool:
    """Whether a login at `login` comes less than `wait` seconds after the last one."""
    return wait > 0 and login - wait < last_login() <= login


def last_login() -> int:
    """Seconds of the epoch; 0 if nothing is known."""
    try:
        descriptor = open_regular(FILE)
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 20))
    except (OSError, ValueError):
        return 0
    finally:
        os.close(descriptor)


def store_login(login: int, wait: int = 0, padding: int = 0) -> None:
    """Let the next login count from this one. With a padding, as many logins may come early as make
    up for the time that was not used before."""
    last = login
    if padding > 1:
        before, floor = last_login(), login - wait * padding
        last = max(before, floor) + wait
    aside = b"tmp/%d.%d.lastlogin" % (login, os.getpid())
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, b"%d\n" % last)
        finally:
            os.close(descriptor)
        os.rename(aside, FILE)
    except OSError:
        pass  # a mailbox that can't be written is no reason to refuse the next login
