"""privateview - give this process a copy of /etc of its own, which dies with it

    folder = enter()    from here on, accounts and configuration may be changed freely

Uses a mount namespace: /etc becomes a private copy in memory, /run an empty tmpfs that also holds
the benchmark's own files. Nothing of it is seen by, or outlives, the processes of the benchmark,
however they end. With /run empty, nscd and logind, who know the real /etc only, cannot be asked,
and there is no syslog: all servers meet the same conditions on every machine.

Needs root with CAP_SYS_ADMIN (in a container: `--cap-add SYS_ADMIN`); PermissionError without.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

CLONE_NEWNS = 0x00020000
FOLDER = "/run/popbench"


def enter() -> str:
    """Enters the private view; returns the folder for the benchmark's files."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", "mode=0755", "popbench", "/run")
    os.makedirs(f"{FOLDER}/etc")
    subprocess.run(["cp", "-a", "/etc/.", f"{FOLDER}/etc"], check=True)
    mount("--bind", f"{FOLDER}/etc", "/etc")
    return FOLDER


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())


def behind(binds: dict[str, str], argv: list[str]) -> list[str]:
    """The command `argv`, seeing each key of `binds` (a directory) in the place of its value."""
    script = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done; shift; '
    pairs = [path for pair in binds.items() for path in pair]
    return ["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh", *pairs, "--", *argv]
