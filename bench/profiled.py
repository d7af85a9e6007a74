"""profiled - profile sessions of our chain, each in a process forked for it, as couriertcpd does

    BIN/python profiled.py BIN USERS FOLDER COUNT

BIN has our programs, USERS lines "user password" of mailboxes that all belong to popbenchv; the
profiles, and what is logged, are kept in FOLDER meanwhile. A session is that of popload: USER,
PASS, STAT, QUIT. Prints a line for each function: name, calls, own milliseconds and those with what
it calls, per session, with tabs between them. A profiler makes Python slower, and calls of C
functions less so: compare lines, not these times with others.
"""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import pwd
import socket
import sys
from itertools import cycle, islice

from accounts import VIRTUAL_OWNER

CHAIN = ("courierpop3login", "authuserdb", "courierpop3d", "./Maildir")
SKIPPED = "<method 'disable'"


def main(bin: str, users: str, folder: str, count: int) -> None:
    from courierchain import handover, programs  # of the programs' own interpreter

    programs.directory = bin
    argv = [*(f"{bin}/{name}" for name in CHAIN[:3]), CHAIN[3]]
    for path in argv[:3]:
        handover.preload(path)
    handover.load_late_modules()
    gc.freeze()
    gc.disable()
    with open(users) as file:
        logins = [line.split() for line in file]
    os.chmod(folder, 0o777)
    log = os.open(f"{folder}/profile-log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    owner = pwd.getpwnam(VIRTUAL_OWNER)
    os.setgroups([])
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    paths = [f"{folder}/profile-{number}" for number in range(count)]
    for path, login in zip(paths, islice(cycle(logins), count), strict=True):
        serve(path, argv, login, log)
    show(pstats.Stats(*paths), count)


def serve(path: str, argv: list[str], login: list[str], log: int) -> None:
    """One session, whose client has said all before it begins."""
    client, server = socket.socketpair()
    client.send("USER {}\r\nPASS {}\r\nSTAT\r\nQUIT\r\n".format(*login).encode())
    pid = os.fork()
    if pid == 0:
        for number, descriptor in enumerate((server.fileno(), server.fileno(), log)):
            os.dup2(descriptor, number)
        profile(path, argv)
    server.close()
    os.waitpid(pid, 0)
    replies = client.makefile("rb").read()
    client.close()
    if replies.count(b"+OK") != 5:
        sys.exit(f"profiled: the session was {replies!r}")


def profile(path: str, argv: list[str]) -> None:
    from courierchain import handover

    def enter(argv: list[str], env: dict[str, str]) -> int:
        handover.become(argv, env)
        return 1

    env = {**os.environ, "TCPREMOTEIP": "::ffff:127.0.0.1", "TCPLOCALIP": "::ffff:127.0.0.1"}
    found = cProfile.Profile()
    found.runcall(handover.run, enter, argv, env)
    found.dump_stats(path)
    os._exit(0)


def show(stats: pstats.Stats, count: int) -> None:
    rows = stats.stats.items()  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, own, whole, _) in sorted(rows, key=lambda row: -row[1][2]):
        if not name.startswith(SKIPPED):
            place = f"{'/'.join(file.split('/')[-2:])}:{line} " if line else ""
            times = (f"{seconds * 1000 / count:.3f}" for seconds in (own, whole))
            print(f"{place}{name}", f"{calls / count:.1f}", *times, sep="\t")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
