"""systemd - sockets that the service manager passes on, and what it is told

    LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES    sockets from descriptor 3 on, for this process
    NOTIFY_SOCKET                             where to send state: a path, or @ABSTRACT
    WATCHDOG_USEC, WATCHDOG_PID               how often to say that we are alive

(sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).) No session gets these variables. What is
told, one datagram each:

    READY=1               we listen. With MAINPID= if we are not the process that was started
    RELOADING=1, MONOTONIC_USEC=    before a reload, and before SIGHUP's; READY=1 follows
    STOPPING=1            SIGTERM has come
    STATUS=               `12 of 40 connections`, when it has changed, every 10 seconds at most
    WATCHDOG=1            twice in the time after which we would be taken for dead

Nobody waits for a manager that doesn't read.
"""

from __future__ import annotations

import os
import socket
from time import monotonic, monotonic_ns

from courierchain.daemon import park
from courierchain.refusal import Refused
from couriertcpd.listen import Endpoint, peer_name, serves

FIRST = 3
MOST = 1024  # sockets
STATUS_EVERY = 10.0  # seconds
SOCKETS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
PRIVATE = (*SOCKETS, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
LASTING = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "INVOCATION_ID")
ONLY = "only stream sockets that listen on IPv4 or IPv6 are taken (ListenStream=PORT, Accept=no)"


def passed_sockets(env: dict[str, str]) -> dict[str, socket.socket]:
    """The sockets meant for this process, by their names, out of the way of 3 and close-on-exec.

    `env` forgets them. Raises Refused if one is no listening socket of IPv4 or IPv6.
    """
    count, pid, names, _ = (env.pop(name, "") for name in SOCKETS)
    if pid != str(os.getpid()):
        return {}
    if not (count.isascii() and count.isdigit() and len(count) < 5 and int(count) <= MOST):
        raise Refused(f"LISTEN_FDS={count}: not a number of sockets")
    given = names.split(":")
    found = {}
    for index in range(int(count)):
        descriptor = FIRST + index
        name = given[index] if index < len(given) and given[index] else "unknown"
        found[f"{name}, descriptor {descriptor}"] = _listening(descriptor, name)
    return found


def _listening(descriptor: int, name: str) -> socket.socket:
    try:
        passed = socket.socket(fileno=park(descriptor))
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as why:
        raise Refused(f"LISTEN_FDS: descriptor {descriptor} ({name}): {why.strerror}") from why
    internet = passed.family in (socket.AF_INET, socket.AF_INET6)
    if not (internet and passed.type == socket.SOCK_STREAM and listens):
        raise Refused(f"LISTEN_FDS: descriptor {descriptor} ({name}): {ONLY}")
    passed.setblocking(False)
    return passed


def check_use(passed: dict[str, socket.socket], places: list[Endpoint], portlist: str) -> None:
    """Raises Refused if there is a socket that no element of PORTLIST is about."""
    for name, sock in passed.items():
        if not any(serves(sock, place) for place in places):
            sockaddr = sock.getsockname()
            shown = f"{peer_name(sockaddr)}.{sockaddr[1]}"
            raise Refused(
                f"LISTEN_FDS: the socket {shown} ({name}) is none of the ports {portlist} "
                "(add it there, or take it out of the .socket unit)"
            )


def carry_over(env: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """The environment `new`, with the manager that `env` has."""
    kept = {name: env[name] for name in LASTING if name in env}
    return {name: new[name] for name in new if name not in (*PRIVATE, *LASTING)} | kept


class Notifier:
    """Tells the manager, if there is one. `env` keeps what a program executed in our place needs.

    patience: seconds after which `turn` is to be called at the latest, or None.
    """

    __slots__ = ("_address", "_main_pid", "patience", "_alive_due", "_status", "_status_due")

    def __init__(self, env: dict[str, str]):
        path = env.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._main_pid = os.getpid()
        self.patience = _watchdog(env)
        self._alive_due = 0.0
        self._status = ""
        self._status_due = 0.0

    def ready(self) -> None:
        moved = os.getpid() != self._main_pid
        self._send("READY=1", *([f"MAINPID={os.getpid()}"] if moved else []))

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def turn(self, connections: int, places: int) -> None:
        """Say what is due by now."""
        if not self._address:
            return
        now = monotonic()
        if self.patience and now >= self._alive_due:
            self._alive_due = now + self.patience
            self._send("WATCHDOG=1")
        if now >= self._status_due:
            status = f"STATUS={connections} of {places} connections"
            if status != self._status:
                self._status, self._status_due = status, now + STATUS_EVERY
                self._send(status)

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            try:
                message = "\n".join(assignments).encode()
                ours.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
            except (OSError, ValueError):
                pass  # no manager, or one that doesn't read


def _watchdog(env: dict[str, str]) -> float | None:
    """Seconds between two signs of life; `env` forgets those that others are to give."""
    pid, microseconds = env.pop("WATCHDOG_PID", ""), env.get("WATCHDOG_USEC", "")
    if pid not in ("", str(os.getpid())):
        env.pop("WATCHDOG_USEC", None)
        return None
    plain = microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 16
    return int(microseconds) / 2e6 if plain and int(microseconds) else None
