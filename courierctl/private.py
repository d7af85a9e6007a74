"""private - files that nobody but their owner may read, from the first moment on (CVE-31)

A file is made under a name of its own, empty, mode 0600, never through a link; it belongs to the
mail user, `courier`, where there is one and we are root. Only then something is written to it. It
gets its real name when all of it is on the disk.
"""

from __future__ import annotations

import os
import pwd

from courierchain.refusal import Refused, refusal
from courierctl.instance import MAIL_USER

MODE = 0o600


def make(file: str, content: bytes) -> None:
    """A new file. Raises FileExistsError, and Refused if it can't be made."""
    aside = _written(file, content)
    try:
        os.link(aside, file)
    except FileExistsError:
        raise
    except OSError as why:
        raise refusal(file, why) from why
    finally:
        os.unlink(aside)
    _synchronize(os.path.dirname(file) or ".")


def replace(file: str, content: bytes) -> None:
    """The file, whether it was there or not. Raises Refused."""
    aside = _written(file, content)
    try:
        os.rename(aside, file)
    except OSError as why:
        os.unlink(aside)
        raise refusal(file, why) from why
    _synchronize(os.path.dirname(file) or ".")


def _written(file: str, content: bytes) -> str:
    """The name of a finished file beside the one that it is to become. Raises Refused."""
    aside = f"{file}.{os.getpid()}.tmp"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)
    except OSError as why:
        raise refusal(aside, why) from why
    try:
        _give_to_mail_user(descriptor)
        with open(descriptor, "wb", closefd=False) as opened:
            opened.write(content)
        os.fsync(descriptor)
    except OSError as why:
        os.unlink(aside)
        raise refusal(aside, why) from why
    finally:
        os.close(descriptor)
    return aside


def _give_to_mail_user(descriptor: int) -> None:
    if os.geteuid() != 0:
        return
    try:
        owner = pwd.getpwnam(MAIL_USER)
    except KeyError:
        return
    os.fchown(descriptor, owner.pw_uid, owner.pw_gid)


def _synchronize(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as why:
        raise Refused(f"{folder}: {why.strerror}") from why
    finally:
        os.close(descriptor)
