"""skeleton - the home of an account that has none yet (AUTH_MKHOMEDIR_SKEL)

If the home isn't there and the directory that AUTH_MKHOMEDIR_SKEL names is, a copy of it becomes
the home: directories, files and symbolic links, with their modes, owned by the account (reference
auth.md 1.7). To be called as root, before the account's user takes over. It is made aside, and
renamed when it is whole, so that nobody gets into half a home. What goes wrong is a WARN.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK, S_ISREG

from courierchain import log
from courierchain.account import Account

PIECE = 65536


def make_home(account: Account, skeleton: str) -> None:
    """Nothing happens without `skeleton`, or if the home is there."""
    if not skeleton or os.path.lexists(account.home) or not os.path.isdir(skeleton):
        return
    home = account.home.rstrip("/")
    aside = f"{os.path.dirname(home)}/.{os.path.basename(home)}.{os.getpid()}"
    try:
        copy(skeleton, aside, account)
        os.rename(aside, home)
    except OSError as why:
        log.warn(f"cannot make the home {log.safe(home)} from {skeleton}: {why.strerror}")


def copy(source: str, target: str, account: Account) -> None:
    """One file, link or directory with all that is in it. Raises OSError."""
    there = os.lstat(source)
    if S_ISLNK(there.st_mode):
        os.symlink(os.readlink(source), target)
        os.lchown(target, account.uid, account.gid)
        return
    if S_ISDIR(there.st_mode):
        os.mkdir(target, 0o700)
        for name in os.listdir(source):
            copy(f"{source}/{name}", f"{target}/{name}", account)
    elif S_ISREG(there.st_mode):
        copy_octets(source, target)
    else:
        return
    os.chown(target, account.uid, account.gid, follow_symlinks=False)
    os.chmod(target, there.st_mode & 0o777)


def copy_octets(source: str, target: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(source, "rb") as old, open(os.open(target, flags, 0o600), "wb") as new:
        while piece := old.read(PIECE):
            new.write(piece)
