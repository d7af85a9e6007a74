"""keeper - hold one server command so that nothing it starts escapes

    pid = start(argv, env, log)     run argv; its output goes to the file `log`
    alive(pid)                      whether it still has something to keep
    stop(pid)                       SIGTERM to the command, end when no descendant is left

A keeper is a small process between the benchmark and a server. Orphans below it become its own
children (PR_SET_CHILD_SUBREAPER), so their CPU time is accounted for and they are ended with the
server. It signals its children only, which nobody else reaps: no pid can be mistaken. It stops the
server if the benchmark dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

import processes

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 5.0
AWAITED = {signal.SIGTERM, signal.SIGCHLD}


def start(argv: list[str], env: dict[str, str], log: str) -> int:
    benchmark = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            keep(argv, env, log, benchmark)
        except OSError as why:
            with open(log, "a") as file:
                print(f"cannot run {argv[0]}: {why}", file=file)
        finally:
            os._exit(1)
    return pid


def alive(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


def keep(argv: list[str], env: dict[str, str], log: str, benchmark: int) -> None:
    os.setsid()  # a Control-C at the terminal is for the benchmark, which then stops us
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == benchmark:
        spawn(argv, env, log)
        wait_for_the_end()
    os._exit(0)


def spawn(argv: list[str], env: dict[str, str], log: str) -> None:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawnp(
        argv[0],
        argv,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM],
    )


def wait_for_the_end() -> None:
    """Reap until there are no children; end them on SIGTERM, new orphans too; later insist."""
    insist_at = None
    while reap():
        caught = signal.sigtimedwait(AWAITED, 0.5)
        if caught and caught.si_signo == signal.SIGTERM:
            insist_at = insist_at or time.monotonic() + PATIENCE
        if insist_at:
            patient = time.monotonic() < insist_at
            signal_children(signal.SIGTERM if patient else signal.SIGKILL)


def reap() -> bool:
    """Reaps the dead; tells whether children are left."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def signal_children(number: int) -> None:
    for child in processes.children(os.getpid()):
        os.kill(child, number)
