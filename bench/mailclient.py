"""mailclient - drive one long session with popmail, and watch its memory

    client = MailClient(folder)                         compiles popmail.c
    client.session(server, user, *steps)                seconds and counts of the steps
    client.session(server, user, *steps, slow=True)     for a client that delays its ACKs
    client.peak_rss_mb(server, uid, user, *steps)       memory of the processes that serve it

Memory: what counts are processes of the server that run as the mailbox's owner, which is what all
servers do to open a mailbox. VmHWM is the most that a process has ever had in memory, code and
libraries included. A second process is counted with what it has for itself alone: the rest it
shares with the one that forked it, and is in memory once.
"""

from __future__ import annotations

import json
import select
import subprocess
import time

import processes
from load import compiled
from servers import Failed, Server

LIMIT_SECONDS = 300
LOOK_SECONDS = 0.01


class MailClient:
    def __init__(self, folder: str):
        self.popmail = compiled("popmail", folder)

    def command(self, server: Server, user: str, steps: tuple[str, ...], slow: bool) -> list[str]:
        options = ["-t", str(LIMIT_SECONDS), *(["-d"] if slow else [])]
        return [self.popmail, *options, str(server.port), server.accounts.users, user, *steps]

    def session(self, server: Server, user: str, *steps: str, slow: bool = False) -> dict:
        command = self.command(server, user, steps, slow)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise failure(server, user, done.stderr)
        return json.loads(done.stdout)

    def peak_rss_mb(self, server: Server, uid: int, user: str, *steps: str) -> Peak:
        command = self.command(server, user, (*steps, "hold", "quit"), slow=False)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as client:
            assert client.stdin and client.stdout and client.stderr
            peak = Peak()
            while not select.select([client.stderr], [], [], LOOK_SECONDS)[0]:
                peak.look(server, uid)
            said = client.stderr.readline()
            peak.look(server, uid)
            client.stdin.close()
            said += client.stderr.read()
            if client.wait() or said != "holding\n":
                raise failure(server, user, said)
        if not peak.together:
            raise Failed(f"{server.name}: no process of {user}'s uid was seen")
        return peak


class Peak:
    """The most memory seen, in MB: of all processes together, what they share once; and of one."""

    def __init__(self) -> None:
        self.together = 0.0
        self.largest = 0.0

    def look(self, server: Server, uid: int) -> None:
        found = {pid: processes.peak_rss_kb(pid, uid) / 1024 for pid in server.pids()}
        first, *others = sorted(filter(found.get, found), key=found.__getitem__)[::-1] or [0]
        largest = found.get(first, 0.0)
        together = largest + sum(processes.private_kb(pid) / 1024 for pid in others)
        self.together = max(self.together, together)
        self.largest = max(self.largest, largest)


def failure(server: Server, user: str, said: str) -> Failed:
    time.sleep(0.1)  # the server's own words may still be on their way
    return Failed(f"{server.name}: {user}: {said.strip()}: {server.last_words()}")
