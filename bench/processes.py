"""processes - what /proc says about a process and everything that descends from it

    descendants(pid)         the pids below it, at whatever depth
    cpu_ms(pids)             processor time of all descendants of these, dead or alive
    pss_kb(pids)             memory, shared pages divided among those who share them
    private_kb(pid)          memory that it shares with nobody
    peak_rss_kb(pid, uid)    the most memory that it has had, if it runs as this user, else 0

CPU is utime + stime of every living descendant, plus what each process keeps of the children it
has waited for (cutime + cstime). So a session counts whether its process has exited, is still a
zombie, or is a worker that goes on to the next session. /proc/PID/stat rounds each of these down to
ticks of 10 ms, too coarse for many workers that do little each; of the living, schedstat knows
nanoseconds.
"""

from __future__ import annotations

import math
import os
import time

MS_PER_TICK = 1000 / os.sysconf("SC_CLK_TCK")
PPID, UTIME, STIME, CUTIME, CSTIME = 1, 11, 12, 13, 14  # proc(5), counted from the state field


def read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def all_stats() -> dict[int, list[str]]:
    stats = {int(name): read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: stat for pid, stat in stats.items() if stat}


def family(pid: int, stats: dict[int, list[str]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, stat in stats.items():
        children.setdefault(int(stat[PPID]), []).append(child)
    found = list(children.get(pid, []))
    for member in found:
        found += children.get(member, [])
    return found


def descendants(pid: int) -> list[int]:
    return family(pid, all_stats())


def children(pid: int) -> list[int]:
    return [child for child, stat in all_stats().items() if int(stat[PPID]) == pid]


def cpu_ms(pids: list[int], quiet_for: float = 0.04, at_most: float = 2.0) -> float:
    """CPU of all descendants of `pids`, their own left out, taken once they have come to rest.

    Exits are not instant, and a child may move from the living to the waited-for between two reads:
    two readings in a row with less than a tick between them exclude both.
    """
    until = time.monotonic() + at_most
    before, used = -math.inf, cpu_now(pids)
    while abs(used - before) >= MS_PER_TICK and time.monotonic() < until:
        time.sleep(quiet_for)
        before, used = used, cpu_now(pids)
    return used


def cpu_now(pids: list[int]) -> float:
    stats = all_stats()
    of_exited = sum(waited_for_ms(stats[pid]) for pid in pids if pid in stats)
    living = [member for pid in pids for member in family(pid, stats)]
    return of_exited + sum(own_ms(pid, stats[pid]) + waited_for_ms(stats[pid]) for pid in living)


def waited_for_ms(stat: list[str]) -> float:
    return (int(stat[CUTIME]) + int(stat[CSTIME])) * MS_PER_TICK


def own_ms(pid: int, stat: list[str]) -> float:
    """Of all threads; those that have ended are known to stat only."""
    in_ticks = (int(stat[UTIME]) + int(stat[STIME])) * MS_PER_TICK
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return max(in_ticks, sum(thread_ms(pid, thread) for thread in threads))
    except (FileNotFoundError, ProcessLookupError):  # gone, or a kernel without schedstat
        return in_ticks


def thread_ms(pid: int, thread: str) -> float:
    with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
        return int(file.read().split()[0]) / 1e6


def pss_kb(pids: list[int]) -> int:
    return sum(pss_of(pid) for pid in pids)


def pss_of(pid: int) -> int:
    return rollup(pid, "Pss:")


def private_kb(pid: int) -> int:
    return rollup(pid, "Private_Clean:", "Private_Dirty:")


def rollup(pid: int, *fields: str) -> int:
    """The sum of some fields of smaps_rollup, in KiB."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith(fields))
    except (FileNotFoundError, ProcessLookupError):  # gone, or a zombie
        return 0


def peak_rss_kb(pid: int, uid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    if int(fields["Uid"].split()[1]) != uid:
        return 0
    return int(fields.get("VmHWM", "0").split()[0])  # a zombie has none
