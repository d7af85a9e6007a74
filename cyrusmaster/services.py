"""services - what the entries of cyrus.conf mean (reference cyrus-pop3d.md 4)

    SERVICES   cmd, listen, proto, prefork, maxchild, maxfds, maxforkrate, babysit
    DAEMON     cmd, maxfds, maxforkrate: one process without a socket, always babysat
    START      cmd

A `cmd` is split at blanks, nothing is quoted in it. Its first word is an absolute path, or the name
of one of our own programs, or of one that is found in PATH. Keys that aren't known say nothing.
"""

from __future__ import annotations

import os

from courierchain import programs
from cyrusmaster.conf import BadConf, Entry, Environment, Sections

UNLIMITED = 2**31 - 1
BABYSAT_FORKS = 10  # a second, where nothing else is said
KEYS = ("place", "name", "argv", "path", "listen", "proto", "maxfds")
TERMS = ("prefork", "maxchild", "maxforkrate", "babysit")


class Service:
    """listen is empty for a daemon, which has no socket.

    place: file and line. argv, path: of the program. prefork: workers kept ready, at each socket.
    maxchild: the most there may be, at each socket. maxfds: 0 leaves the limit as it is.
    maxforkrate: a second, 0 for no limit.
    """

    __slots__ = (*KEYS, *TERMS)

    place: str
    name: str
    argv: list[str]
    path: str
    listen: str
    proto: str
    maxfds: int
    prefork: int
    maxchild: int
    maxforkrate: int
    babysit: bool

    def __init__(self, entry: Entry, env: Environment):
        """Raises BadConf."""
        self.place = entry.place
        self.name = entry.name
        self.argv, self.path = command(entry, env)
        self.listen = self.proto = ""
        self.maxfds = max(0, entry.number("maxfds", 0))
        self.prefork = self.maxchild = 1
        self.maxforkrate = max(0, entry.number("maxforkrate", 0))
        self.babysit = True


def service(entry: Entry, env: Environment) -> Service:
    """One of SERVICES. Raises BadConf."""
    found = Service(entry, env)
    found.listen = entry.text("listen")
    if not found.listen:
        raise BadConf(f'{entry.place}: {entry.name}: no listen; write `listen="host:port"`')
    found.proto = entry.text("proto", "tcp")
    maxchild = entry.number("maxchild", -1)
    found.maxchild = UNLIMITED if maxchild < 0 else maxchild
    found.babysit = entry.is_on("babysit")
    found.prefork = max(0, entry.number("prefork", 0))
    if found.babysit:
        found.prefork = max(1, found.prefork)
        found.maxforkrate = found.maxforkrate or BABYSAT_FORKS
    return found


def daemon(entry: Entry, env: Environment) -> Service:
    """One of DAEMON. Raises BadConf."""
    found = Service(entry, env)
    found.maxforkrate = found.maxforkrate or BABYSAT_FORKS
    return found


def running(sections: Sections, env: Environment) -> list[Service]:
    """The services and daemons of a file; no name is there twice. Raises BadConf."""
    found = [service(entry, env) for entry in sections["SERVICES"]]
    found += [daemon(entry, env) for entry in sections["DAEMON"]]
    places: dict[str, str] = {}
    for each in found:
        if each.name in places:
            remedy = "give each a name of its own"
            text = f"{each.place}: {each.name} is also in {places[each.name]}; {remedy}"
            raise BadConf(text)
        places[each.name] = each.place
    return found


def command(entry: Entry, env: Environment) -> tuple[list[str], str]:
    """Words of the command, and the path of its program. Raises BadConf."""
    argv = entry.text("cmd").split()
    if not argv:
        raise BadConf(f'{entry.place}: {entry.name}: no cmd; write `cmd="program ..."`')
    name = argv[0]
    path = None if "/" in name and not name.startswith("/") else programs.locate(name, env)
    if path is None or not os.path.isfile(path):
        remedy = "write the absolute path of a program that may be executed"
        raise BadConf(f"{entry.place}: {entry.name}: cannot find executable {name}; {remedy}")
    return argv, path
