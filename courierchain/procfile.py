"""procfile - what a worker of `pop3d` is doing, as Cyrus's tools look for it (cyr_info proc)

CYRUS_PROCFILE names the file, `proc/<process id>` under configdirectory; nothing is written without
it. One line:

    SERVICE TAB HOST TAB USER TAB MAILBOX TAB COMMAND LF

(reference cyrus-pop3d.md 2.4). Between two sessions it is hidden, as `proc/.<process id>`: to make
and to remove it costs as much as all that a session has to read. The worker, to which it belongs,
has the uid of all mailboxes under Cyrus's master; a session with another uid can't tell
who it is, and the file says only from where. Trouble with it disturbs nobody.
"""

from __future__ import annotations

import os

from courierchain import cyruslines, log
from courierchain.cyrus import Options

LARGEST = 1024  # octets of another's

Environment = dict[str, str]


class ProcFile:
    """The file of this session, its user and mailbox in it."""

    __slots__ = ("_descriptor", "_begin", "_length")

    def __init__(self, env: Environment):
        user = log.safe(env.get("AUTHENTICATED", ""))
        self._begin = line(env, user, cyruslines.mailbox(env))
        self._descriptor: int | None = None
        self._length = LARGEST
        if path := env.get("CYRUS_PROCFILE"):
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                pass
        self.show(b"")

    def show(self, command: bytes) -> None:
        """What the client wants now; empty for nothing."""
        if self._descriptor is None:
            return
        text = b"%s\t%s\n" % (self._begin, command)
        try:
            os.pwrite(self._descriptor, text, 0)
            if len(text) < self._length:
                os.ftruncate(self._descriptor, len(text))
        except OSError:
            self._descriptor = None
        self._length = len(text)


def line(env: Environment, user: str, mailbox: str) -> bytes:
    """All but the command."""
    service = env.get("CYRUS_SERVICE", "pop3")
    return os.fsencode("\t".join((service, cyruslines.client(env), user, mailbox)))


def begin(env: Environment) -> None:
    """Write the file of a session that nobody has logged in to yet."""
    path = env.get("CYRUS_PROCFILE")
    if not path:
        return
    try:
        text = line(env, "", "") + b"\t\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(aside(path), flags, 0o600)
        try:
            os.write(descriptor, text)
            os.ftruncate(descriptor, len(text))
        finally:
            os.close(descriptor)
        os.rename(aside(path), path)
    except OSError:
        pass


def aside(path: str) -> str:
    directory, _, name = path.rpartition("/")
    return f"{directory}/.{name}"


def end(path: str) -> None:
    """The session is over; there may be another one."""
    try:
        os.rename(path, aside(path))
    except OSError:
        pass


def remove(path: str) -> None:
    """There won't be."""
    for name in (path, aside(path)):
        try:
            os.unlink(name)
        except OSError:
            pass


def excess(env: Environment) -> str:
    """Which of maxlogins_per_host and _per_user this session is over, as Cyrus tells the client;
    empty if none. Raises OSError if the others can't be counted."""
    limits = [Options(env).number(f"MAXLOGINS_PER_{kind}") for kind in ("HOST", "USER")]
    path = env.get("CYRUS_PROCFILE", "")
    if not path or not any(limit > 0 for limit in limits):
        return ""
    host, user = cyruslines.client(env), env.get("AUTHENTICATED", "")
    others = list(sessions(path))
    address = host[host.index("[") :]
    found = [
        1 + sum(other[1].endswith(address) for other in others),
        1 + sum(other[2] == log.safe(user) for other in others),
    ]
    if not any(0 < limit < count for limit, count in zip(limits, found, strict=True)):
        return ""
    told = ("from " + host, "for " + log.safe(user))
    parts = zip(limits, found, told, strict=True)
    return ", ".join(f"{count} of {limit} {who}" for limit, count, who in parts if limit > 0)


def sessions(path: str) -> list[list[str]]:
    """The fields of all others' files, of processes that are there. Raises OSError."""
    directory, _, own = path.rpartition("/")
    found = []
    for name in os.listdir(directory):
        if not name.isdigit() or name == own or not os.path.exists(f"/proc/{name}"):
            continue
        try:
            descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        try:
            fields = os.fsdecode(os.read(descriptor, LARGEST)).split("\t")
        finally:
            os.close(descriptor)
        if len(fields) >= 5:
            found.append(fields)
    return found
