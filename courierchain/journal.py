"""journal - the lines of a program that Cyrus's master starts, or that takes its place

They go to syslog; without one, to descriptor 2. The identity is [PREFIX/]NAME[PID].
"""

from __future__ import annotations

import os

from courierchain import log, syslog

NOTICE = 5  # syslog's severity


class Journal:
    """facility: one of syslog.FACILITIES; another one is mail. notices: how lines begin that are
    notices of syslog's, whatever stands in front of them. descriptor: of syslog's socket."""

    __slots__ = ("_syslog", "_notices")

    def __init__(
        self,
        name: str,
        prefix: str = "",
        facility: str = "mail",
        notices: tuple[bytes, ...] = (),
        descriptor: int | None = None,
    ):
        self._notices = notices
        name = f"{prefix}/{name}" if prefix else name
        self._syslog: syslog.Syslog | None = None
        if os.path.exists(syslog.SOCKET):
            known = facility if facility in syslog.FACILITIES else "mail"
            identity = f"{name}[{os.getpid()}]"
            self._syslog = syslog.Syslog(identity, known, descriptor=descriptor)

    @property
    def is_syslog(self) -> bool:
        return self._syslog is not None

    def lines(self, messages: list[bytes]) -> None:
        """Lines as `log` writes them."""
        if self._syslog:
            syslog.forward(messages, self._write)
        else:
            for message in messages:
                log.plain(os.fsdecode(message))

    def _write(self, severity: int, text: bytes) -> None:
        assert self._syslog
        self._syslog.write(NOTICE if text.startswith(self._notices) else severity, text)

    def line(self, text: str) -> None:
        """One line, `PRIORITY: text`."""
        self.lines([os.fsencode(text.replace("\n", " "))])

    def err(self, text: str) -> None:
        self.line(f"ERR: {text}")

    def warn(self, text: str) -> None:
        self.line(f"WARN: {text}")

    def info(self, text: str) -> None:
        self.line(f"INFO: {text}")
