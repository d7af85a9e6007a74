"""telemetry - the protocol of a session, in a file, where an administrator has made a directory

    ---------- USER Sun Nov 22 03:39:35 2026 LF LF
    >1795318775>+OK Mailbox locked...           what the server has sent, and when
    <1795318775<STAT                            what it has received

as Cyrus writes it (reference cyrus-pop3d.md 7): octets as they are on the line, inside TLS, with a
mark in front of what came or went at once. It begins with the reply to the login, so no password is
in it; all mail is.

Reads      POP3_TELEMETRY: a directory; empty: nothing is ever written
           POP3_TELEMETRY_NAME, else the process id: the file's name
           AUTHENTICATED: USER
Writes     POP3_TELEMETRY/USER/NAME, mode 0600, appended, if the directory USER is there and this
           user may write in it. No symbolic link is followed, and trouble disturbs nobody.
"""

from __future__ import annotations

import os
from stat import S_ISREG
from time import ctime, time

from courierchain.client import Tap
from courierchain.settings import Settings

APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Telemetry(Tap):
    """An open log, or one that takes nothing (any more)."""

    __slots__ = ("_file",)

    def __init__(self, file: int | None):
        self._file = file

    def received(self, octets: bytes) -> None:
        self._write(b"<%d<%s" % (time(), octets))

    def sent(self, octets: bytes) -> None:
        self._write(b">%d>%s" % (time(), octets))

    def begin(self, user: str) -> None:
        self._write(os.fsencode(f"---------- {user} {ctime()}\n\n"))

    def _write(self, octets: bytes) -> None:
        try:
            if self._file is not None:
                os.write(self._file, octets)
        except OSError:
            self._file = None  # and the log ends here


def begin(env: dict[str, str]) -> Telemetry | None:
    """The log of this session; None if none is wanted, or can be."""
    settings = Settings(env)
    place = settings.text("POP3_TELEMETRY")
    user = env.get("AUTHENTICATED", "")
    name = settings.text("POP3_TELEMETRY_NAME") or str(os.getpid())
    if not place or not (is_plain(user) and is_plain(name)):
        return None
    try:
        log = Telemetry(open_log(f"{place}/{user}", name))
    except OSError:
        return None
    log.begin(user)
    return log


def is_plain(name: str) -> bool:
    """Whether it names something in a directory, and not elsewhere."""
    return name not in ("", ".", "..") and not set("/\0\n") & set(name)


def open_log(directory: str, name: str) -> int:
    """Raises OSError."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        file = os.open(name, APPENDING, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    status = os.fstat(file)
    if not S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(file)
        raise PermissionError(name)
    return file
