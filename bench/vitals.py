"""vitals - what the long-lived processes of a server need: memory, descriptors, zombies

    vitals = Vitals(server)
    vitals.take()               one sample of each role
    verdict(vitals.samples)     rows for a table, and whether all is flat

Roles: `listener`; `sessions`, the processes it has forked, which come and go and are not judged;
and programs that it runs beside, by their name and first option. Of a role, a sample has the
number of processes, and the sum over them of

    anonymous   KiB of memory that is no file's, resident (RssAnon): what a leak adds to
    private     KiB shared with nobody
    pss         KiB, shared pages divided
    files       open descriptors

It is flat if the median of the last quarter of the samples is not above that of the second quarter:
GROWTH of it and SLACK_KB more are allowed for chance, and SLACK_FILES for clients that wait. Of
`private` and `pss` more: they depend on how many sessions share the memory at the moment.
"""

from __future__ import annotations

import os
from statistics import median

import processes
from servers import Server

GROWTH = 1.03
SLACK_KB = {"anonymous": 300, "private": 2000, "pss": 2000}
SLACK_FILES = 16
SESSIONS, LISTENER = "sessions", "listener"
MEASURES = ("processes", "anonymous", "private", "pss", "files")

Sample = dict[str, dict[str, int]]


class Vitals:
    def __init__(self, server: Server):
        self.server = server
        (self.listener,) = processes.children(server.keepers[-1])
        self.command = command_of(self.listener)
        self.samples: list[Sample] = []

    def take(self) -> Sample:
        sample: Sample = {}
        for pid in self.server.pids():
            role = self.role_of(pid)
            if role:
                found = sample.setdefault(role, dict.fromkeys(MEASURES, 0))
                for key, value in measured(pid).items():
                    found[key] += value
        self.samples.append(sample)
        return sample

    def role_of(self, pid: int) -> str:
        """'' of one that has gone."""
        command = command_of(pid)
        if pid == self.listener:
            return LISTENER
        if command == self.command:
            return SESSIONS
        return role_name(command)

    def zombies(self) -> int:
        stats = processes.all_stats()
        members = processes.family(self.server.keepers[-1], stats)
        return sum(stats[pid][0] == "Z" for pid in members)


def role_name(command: list[str]) -> str:
    """`python -I -B -c ... /usr/bin/couriertls -server -relay`: couriertls -server."""
    words = [word for word in command if " " not in word]
    if words and os.path.basename(words[0]).startswith("python"):
        del words[0]
        while words and words[0].startswith("-"):
            del words[0]
    if not words:
        return ""
    options = [word for word in words[1:] if word.startswith("-")]
    return " ".join([os.path.basename(words[0]), *options[:1]])


def command_of(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().rstrip("\0").split("\0")
    except OSError:
        return []


def measured(pid: int) -> dict[str, int]:
    return {
        "processes": 1,
        "anonymous": anonymous_kb(pid),
        "private": processes.private_kb(pid),
        "pss": processes.pss_of(pid),
        "files": files(pid),
    }


def anonymous_kb(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            found = [line for line in file if line.startswith("RssAnon:")]
    except OSError:
        return 0
    return int(found[0].split()[1]) if found else 0


def files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def verdict(samples: list[Sample]) -> tuple[list[list[str]], bool]:
    """Rows: role, then each measure in the second and in the last quarter, then a word."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    rows, all_flat = [], True
    for role in sorted({role for sample in second + last for role in sample}):
        before, after = medians(second, role), medians(last, role)
        pairs = [f"{before[key]:.0f} → {after[key]:.0f}" for key in MEASURES]
        flat = role == SESSIONS or is_flat(before, after)
        all_flat = all_flat and flat
        word = "not judged" if role == SESSIONS else "flat" if flat else "GROWS"
        rows.append([role, *pairs, word])
    return rows, all_flat


def medians(samples: list[Sample], role: str) -> dict[str, float]:
    found = [sample.get(role, dict.fromkeys(MEASURES, 0)) for sample in samples]
    return {key: median(one[key] for one in found) for key in MEASURES}


def is_flat(before: dict[str, float], after: dict[str, float]) -> bool:
    memory = all(after[key] <= before[key] * GROWTH + slack for key, slack in SLACK_KB.items())
    return (
        memory
        and after["files"] <= before["files"] + SLACK_FILES
        and after["processes"] <= before["processes"]
    )
