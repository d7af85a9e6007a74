"""handover - become the next program

`become(argv, env)` does not return. It does one of two things, and the caller can't tell which:

    the next program is resident   its `main(argv, env)` is called in this process, by `run`, after
                                   the present program has been unwound from the stack
    it is anything else            execve

A program is resident if `preload` was told to load it (couriertcpd does, for the stages that it
finds in its command line) and the file at its path is still the same device and inode. With
COURIER_COLDEXEC=1 in the environment nothing is resident.

Either way the next program finds: its argv and environment; descriptors 0, 1, 2, and, if there is
one, the record, on 3 (a resident program has it by `request.take` without a descriptor); no other;
signals at their defaults. The exit status is that of the last program. (Resident, it has those of
`connections` beside it, where there are any.)
"""

from __future__ import annotations

import os
from _signal import SIG_DFL, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ, signal
from collections.abc import Callable

from courierchain import connections, failure, log, programs, request

Main = Callable[[list[str], dict[str, str]], int]

LATE = (  # what few passwords need; userdb.dat; SCRAM; PASSWORD_REHASH
    *("hashlib", "_gdbm", "courierchain.hashblocks"),
    *("hmac", "courierchain.proof", "courierchain.rehash"),
)
HIGHEST = 65536  # descriptors are closed up to here where the system has no close_range


class CannotBecome(Exception):
    """The next program cannot be started; the text says which and why."""


class AuthFailure(CannotBecome):
    """The program was started outside a chain: no request, or no login program to go back to."""


class Become(BaseException):
    """Carries the next program up to `run`. Not an Exception: no program may catch it."""

    def __init__(self, main: Main, argv: list[str], env: dict[str, str]):
        super().__init__()
        self.main = main
        self.argv = argv
        self.env = env


_resident: dict[str, tuple[int, int, Main]] = {}
_kept = request.RECORD  # the highest descriptor that stays open between resident programs

_rehearsing = False
_spent = False


def keep(descriptor: int) -> None:
    """Leave `descriptor`, the one above the record's, open between resident programs."""
    global _kept
    _kept = descriptor


def rehearse(on: bool) -> None:
    """While on, `become` executes nothing, and no descriptor above 3 is closed."""
    global _rehearsing
    _rehearsing = on
    keep(HIGHEST if on else request.RECORD)


def is_rehearsing() -> bool:
    """Whether this is a listener that only warms up: a module asks nobody outside then."""
    return _rehearsing


def preload(path: str) -> bool:
    """Load the program at `path`, so that `become` need not execute it; False if it isn't ours."""
    entry = programs.entry_of(path)
    if entry is None:
        return False
    there = os.stat(path)
    _resident[path] = (there.st_dev, there.st_ino, load(entry))
    programs.resident.add(path)
    return True


def load(entry: str) -> Main:
    """What "module:name" stands for. (importlib would cost more than all the rest.)"""
    module, _, name = entry.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)


def load_rehash(env: dict[str, str]) -> None:
    """For a process that forks those of the sessions: what they share has to be there before."""
    if env.get("PASSWORD_REHASH"):
        load("courierchain.rehash:begin")


def load_late_modules() -> None:
    """Load what programs otherwise import when they meet it: perhaps where they can't any more."""
    for name in LATE:
        try:
            __import__(name)
        except ImportError:
            pass  # Python is built without it, and does without it


def become(argv: list[str], env: dict[str, str], *, record: bool = False) -> None:
    """Become the program `argv[0]`; with `record`, hand it descriptor 3, or what `request.pass_on`
    was given. Never returns.

    Raises CannotBecome.
    """
    path = programs.locate(argv[0], env)
    if path is None:
        raise CannotBecome(f"{argv[0]}: No such file or directory")
    argv = [path, *argv[1:]]
    resident = _resident_main(path, env)
    if not record:
        request.close()
    if resident:
        raise Become(resident, argv, env)
    if _rehearsing:
        raise CannotBecome(f"{path}: not resident")
    connections.drop()
    for caught in (SIGPIPE, SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGXFSZ):
        signal(caught, SIG_DFL)
    try:
        request.put_down()
        os.closerange(request.RECORD + 1, HIGHEST)
        os.execve(path, argv, env)
    except (OSError, ValueError) as why:
        reason = why.strerror if isinstance(why, OSError) else str(why)
        raise CannotBecome(f"{path}: {reason}") from why


def _resident_main(path: str, env: dict[str, str]) -> Main | None:
    if path not in _resident or env.get("COURIER_COLDEXEC") == "1":
        return None
    device, inode, main = _resident[path]
    try:
        there = os.stat(path)
    except PermissionError:
        return main  # in a directory closed to this user, who could not execute anything else there
    except OSError:
        return None
    return main if (there.st_dev, there.st_ino) == (device, inode) else None


def is_resident(path: str, env: dict[str, str]) -> bool:
    return _resident_main(path, env) is not None


def loaded(path: str) -> Main:
    """The program that `preload` has loaded, whatever is at its path now. Raises KeyError."""
    return _resident[path][2]


def spend() -> None:
    """Say that this process must not serve another session after this one."""
    global _spent
    _spent = True


def is_spent() -> bool:
    return _spent


def run(main: Main, argv: list[str], env: dict[str, str]) -> int:
    """Run a program and all that it becomes in this process; the exit status of the last."""
    while True:
        try:
            return main(argv, env)
        except Become as following:
            main, argv, env = following.main, following.argv, following.env
        except AuthFailure:
            log.plain("AUTHFAILURE")
            return 1
        except CannotBecome as why:
            log.err(str(why))
            return 1
        except Exception as why:
            log.err(f"{os.path.basename(argv[0])}: internal error: {where(why)}")
            return 1
        close_others()


def close_others() -> None:
    """Close what the last program left open, as exec would; but not what a worker's modules keep
    for the next session."""
    lowest = _kept + 1
    for descriptor in connections.descriptors():
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, HIGHEST)


def where(why: Exception) -> str:
    """An exception's kind and place, for one log line: never its text, which may hold a secret."""
    trace = why.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    return f"{type(why).__name__}{place}"


def start_over(env: dict[str, str], why: str = "") -> None:
    """Nobody accepted, or nobody could say: become the login program again, as it was called.

    `why` is one of `failure`. Reads AUTHUSER, AUTHARGC and AUTHARGV0... (chain-protocol.md 8).
    Raises AuthFailure.
    """
    count = env.get("AUTHARGC", "")
    login = env.get("AUTHUSER", "")
    if not (count.isdigit() and 0 < int(count[:6]) < 1000 and login.startswith("/")):
        raise AuthFailure
    argv = [env.get(f"AUTHARGV{index}") for index in range(int(count))]
    if None in argv:
        raise AuthFailure
    env = {**env, failure.VARIABLE: why}
    become([login, *(word for word in argv[1:] if word is not None)], env)
