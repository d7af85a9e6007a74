"""journal - what one session writes into the log

    INFO: LOGIN, user=U, ip=[I], port=[P]
    INFO: LOGOUT, user=U, ip=[I], port=[P], top=T, retr=R, rcvd=A, sent=B, time=S
    INFO: DISCONNECTED, ...    INFO: TIMEOUT, ...    INFO: I/O error disconnect, ...
    INFO: LOCKED, user=U, ip=[I], port=[P]
    INFO: IN-USE, user=U, ip=[I], port=[P]          another session has the mailbox for itself
    INFO: DELETED, user=U, ip=[I], port=[P], filename=cur/NAME
    WARN: and ERR: what failed, to what, and why, user=U

`, stls=1` ends a LOGIN line and the line at the session's end when the connection is encrypted
(reference courierpop3d.md 6).

Reads      AUTHADDR, AUTHENTICATED, TCPREMOTEIP, TCPREMOTEPORT, POP3_TLS,
           POP3_LOG_DELETIONS: set, even to nothing, and not to 0...: DELETED lines are written
"""

from __future__ import annotations

from courierchain import log
from courierchain.options import is_encrypted


class Journal:
    """`logs_deletions`: whether there are DELETED lines."""

    __slots__ = ("_user", "_peer", "_stls", "logs_deletions")

    def __init__(self, env: dict[str, str]):
        self._user = log.user(env)
        self._peer = log.session(env)
        self._stls = ", stls=1" if is_encrypted(env) else ""
        self.logs_deletions = env.get("POP3_LOG_DELETIONS", "0")[:1] != "0"

    def begin(self) -> None:
        """The user is known; the mailbox isn't open yet."""

    def refused(self, text: bytes) -> None:
        """And will not be: what the client is told."""

    def login(self) -> None:
        log.info(f"LOGIN, {self._peer}{self._stls}")

    def locked(self) -> None:
        log.info(f"LOCKED, {self._peer}")

    def in_use(self) -> None:
        log.info(f"IN-USE, {self._peer}")

    def too_early(self) -> None:
        log.info(f"LOGIN-DELAY, {self._peer}")

    def deleted(self, name: bytes) -> None:
        if self.logs_deletions:
            log.info(f"DELETED, {self._peer}, filename=cur/{shown(name)}")

    def end(self, event: str, *, sent: int, time: int, **counts: int) -> None:
        """counts: a session's."""
        shown = ", ".join(f"{name}={counts[name]}" for name in ("top", "retr", "rcvd"))
        log.info(f"{event}, {self._peer}, {shown}, sent={sent}, time={time}{self._stls}")

    def save_failed(self, why: OSError) -> None:
        text = f"Error while saving courierpop3dsizelist, {self._user}"
        log.err(f"{text}, error={why.strerror}")

    def warn(self, text: str) -> None:
        log.warn(f"{text}, {self._user}")

    def err(self, text: str) -> None:
        log.err(f"{text}, {self._user}")


def shown(name: bytes) -> str:
    """A file's name, fit for a log line, with the comma that belongs in it."""
    return ",".join(log.safe(part) for part in name.split(b","))
