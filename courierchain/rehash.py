"""rehash - after a login, another hash of the same password, as PASSWORD_SCHEME asks for

    begin(name, write, request, stored, settings)    returns at once, whatever comes of it

With PASSWORD_REHASH=1 a hash that a password was compared with, and that isn't of the policy (see
`hashpolicy`), is replaced by the module that knows it: write(request, stored, settings) puts
another one in the place of `stored`, and of nothing else. It raises Rejected if that isn't there
any more, or somebody else is at it: nothing is to be done then, or the next login will do it.

A process of its own does it. Making such a hash is slow on purpose, and passlib, once imported,
would stay with whoever goes on; so the client is served meanwhile, and writing may take what it
takes. It is nobody's child, for programs in the chain wait for the children that they have; it has
the log, and no other descriptor; it makes way for logins (NICE), and has LIMIT seconds.

What can't be done is one line in the log. Then the module leaves it for PAUSE seconds, in all
processes that have been forked by the one which loaded this, a listener for instance.
"""

from __future__ import annotations

import os
from _signal import SIG_DFL, SIGALRM, SIGTERM, alarm, signal
from binascii import crc32
from contextlib import suppress
from mmap import mmap
from struct import Struct
from time import monotonic

from courierchain import connections, handover, hashpolicy, log
from courierchain.authmodule import Rehash, Rejected, TemporaryFailure
from courierchain.newhash import CannotMake
from courierchain.request import Request
from courierchain.settings import Settings

PAUSE = 600.0  # seconds
LIMIT = 30  # seconds
NICE = 10
TIME = Struct("=d")
MODULES = 64

_pauses = mmap(-1, MODULES * TIME.size)  # until when; shared with the processes forked later


def begin(name: str, write: Rehash, request: Request, stored: bytes, settings: Settings) -> None:
    """Raises nothing: a login never fails by it. name: the module's."""
    user, secret = request.login or (b"", b"")
    try:
        policy = settings.text("PASSWORD_SCHEME")
        if not settings.is_on("PASSWORD_REHASH") or is_paused(name):
            return
        if hashpolicy.is_due(stored, secret, policy):
            leave_behind(lambda: replace(name, write, request, stored, settings))
    except (OSError, ValueError, CannotMake) as why:
        give_up(name, user, str(why))


def leave_behind(work):  # type: ignore[no-untyped-def]
    """Let a process that is nobody's child do the work. Raises OSError."""
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                detach()
                work()
        finally:
            os._exit(0)
    with suppress(ChildProcessError):  # who ignores SIGCHLD has none to wait for
        os.waitpid(child, 0)


def detach() -> None:
    """Have a bounded time, the log, and nothing else of the session."""
    signal(SIGALRM, SIG_DFL)
    signal(SIGTERM, SIG_DFL)
    alarm(LIMIT)
    connections.drop()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    os.closerange(3, handover.HIGHEST)
    os.nice(NICE)


def replace(name: str, write: Rehash, request: Request, stored: bytes, settings: Settings) -> None:
    user = request.login[0] if request.login else b""
    try:
        write(request, stored, settings)
    except Rejected:
        return
    except TemporaryFailure as why:
        give_up(name, user, str(why))
    except Exception as why:
        give_up(name, user, f"internal error: {handover.where(why)}")
    else:
        log.info(f"{name}: password rehashed, user={log.safe(user)}")


def give_up(name: str, user: bytes, why: str) -> None:
    """Say why, and leave it for a while."""
    TIME.pack_into(_pauses, place(name), monotonic() + PAUSE)
    log.warn(f"{name}: no new hash, user={log.safe(user)}: {why}")


def is_paused(name: str) -> bool:
    until: float = TIME.unpack_from(_pauses, place(name))[0]
    return monotonic() < until


def place(name: str) -> int:
    return crc32(name.encode()) % MODULES * TIME.size
