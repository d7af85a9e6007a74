"""destinations - where the messages go that don't go to syslog

    -stderr=journal    descriptor 2, for systemd's journal: `<6>TEXT`
    -file=FILE         appended: `Nov 22 03:41:21 pop3d: TEXT`; made with mode 0660 less the umask

Syslog escapes what a terminal would obey; nobody else does, so here control characters become dots
(CVE-38). A disk that is full loses lines, and disturbs nobody.
"""

from __future__ import annotations

import os

from courierchain.daemon import park
from courierchain.refusal import refusal
from courierchain.syslog import ERR, stamped

_PRINTABLE = bytes(
    ord(".") if (octet < 0x20 and octet != ord("\t")) or octet == 0x7F else octet
    for octet in range(256)
)


class LogFile:
    """Raises Refused if the file can't be opened."""

    __slots__ = ("_path", "_identity", "_file")

    def __init__(self, path: str, identity: str):
        self._path = os.path.abspath(path)
        self._identity = os.fsencode(identity)
        try:
            self._file = park(self._open())
        except OSError as why:
            raise refusal(path, why) from why

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o660)

    def write(self, severity: int, text: bytes) -> None:
        _append(self._file, stamped(self._identity, text))

    def reopen(self) -> None:
        """Go on in the file that has the name now; in the old one if there can't be such a file.

        The descriptor keeps its number, so that a signal handler may do this during a write.
        """
        try:
            file = self._open()
        except OSError as why:
            self.write(ERR, os.fsencode(f"{self._path}: {why.strerror}"))
            return
        os.dup2(file, self._file, inheritable=False)
        os.close(file)


def to_journal(severity: int, text: bytes) -> None:
    _append(2, b"<%d>%s" % (severity, text))


def _append(descriptor: int, line: bytes) -> None:
    try:
        os.write(descriptor, line.translate(_PRINTABLE) + b"\n")
    except OSError:
        pass
