"""anatomy - where the time of a session of ours goes

    python3 bench/anatomy.py --bin BIN [--sessions 500] [--only PART,...] [--add OPTION]

Parts, each a table in Markdown:

    counters    per session, with a process for each connection, with processes used again, and with
                one uid: CPU in user mode and in the kernel, page faults, context switches, system
                calls of which kind (strace -c -f, in sessions of its own)
    functions   of a warm process for one connection: what takes the time in Python (cProfile)
    imports     of each stage, started alone: CPU of the whole process beside that of a bare
                interpreter, and what it imports that costs most (-X importtime)

Needs root, and strace (Debian: strace). Exits 1 if it cannot run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median

import originals
import processes
import profiled
import report
from accounts import MESSAGES, Mailboxes, accounts
from comparison import Unable, end_on_signals, private_folder
from load import Load, check_mailbox
from ours import Ours, OursVirtual
from servers import Failed

STRACE = {"/usr/bin/strace": "strace"}
STAGES = ("courierpop3login", "authuserdb", "authpam", "courierpop3d")
MOST_CALLS, MOST_FUNCTIONS, MOST_IMPORTS = 14, 18, 6
STARTS = 15
MINFLT, CMINFLT, UTIME, STIME, CUTIME, CSTIME = 7, 8, 11, 12, 13, 14  # proc(5), from the state


def set_ups(folder: str, mailboxes: Mailboxes, bin: str, more: list[str]) -> list[Ours]:
    kept = ["-uses=1000", *more]
    return [
        Ours("fork", folder, mailboxes.system, bin, "authuserdb"),
        Ours("uses", folder, mailboxes.system, bin, "authuserdb", *kept),
        OursVirtual("one uid", folder, mailboxes.virtual, bin, *kept[1:]),
    ]


def counters(load: Load, servers: list[Ours], sessions: int) -> Iterable[str]:
    usage: dict[str, dict[str, float]] = {}
    calls: dict[str, dict[str, float]] = {}
    for server in servers:
        server.start()
        try:
            check_mailbox(server, MESSAGES)
            run(load, server, 50)
            usage[server.name] = used(load, server, sessions)
            calls[server.name] = system_calls(load, server, sessions)
        finally:
            server.stop()
    names = list(usage)
    keys = list(usage[names[0]])
    rows = [[key, *(f"{usage[name][key]:.2f}" for name in names)] for key in keys]
    yield report.table(["a session", *names], rows)
    yield report.table(["system calls a session", *names], call_rows(calls))


def run(load: Load, server: Ours, sessions: int) -> None:
    done = load.run(server, 1, sessions, 60, "new")
    if done["errors"]:
        raise Failed(f"{server.name}: {done['first_bad_reply']}")


def used(load: Load, server: Ours, sessions: int) -> dict[str, float]:
    """Of all processes of the server, those that have ended included."""
    before = totals(server)
    run(load, server, sessions)
    time.sleep(0.2)
    after = totals(server)
    return {key: (after[key] - before[key]) / sessions for key in before}


def totals(server: Ours) -> dict[str, float]:
    stats = processes.all_stats()
    (keeper,) = server.keepers
    living = [stats[pid] for pid in processes.family(keeper, stats)]

    def sum_of(own: int, of_children: int) -> float:
        return sum(int(stat[own]) + int(stat[of_children]) for stat in living) + int(
            stats[keeper][of_children]
        )

    return {
        "CPU ms": processes.cpu_now(server.keepers),
        "of it in the kernel, ms": sum_of(STIME, CSTIME) * processes.MS_PER_TICK,
        "page faults": sum_of(MINFLT, CMINFLT),
    }


def system_calls(load: Load, server: Ours, sessions: int) -> dict[str, float]:
    """By name, per session."""
    table = f"{server.folder}/calls"
    pids = [word for pid in server.pids() for word in ("-p", str(pid))]
    argv = ["strace", "-c", "-f", "-U", "name,calls", "-o", table, *pids]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr
        tracer.stderr.readline()  # attached to the first; soon to all
        time.sleep(0.5)
        run(load, server, sessions)
        time.sleep(0.5)
        tracer.send_signal(signal.SIGINT)
        tracer.stderr.read()
    with open(table) as file:
        return {name: count / sessions for name, count in parsed_calls(file.read()).items()}


def parsed_calls(text: str) -> dict[str, int]:
    """Names and counts of what `strace -c -U name,calls` prints, the total left out."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit() and words[0] != "total":
            found[words[0]] = int(words[1])
    return found


def call_rows(calls: dict[str, dict[str, float]]) -> list[list[str]]:
    most: dict[str, float] = {}
    for found in calls.values():
        for name, count in found.items():
            most[name] = max(count, most.get(name, 0.0))
    shown = sorted(most, key=lambda name: -most[name])[:MOST_CALLS]
    rows = [[name, *(f"{found.get(name, 0):.1f}" for found in calls.values())] for name in shown]
    rows.append(["all", *(f"{sum(found.values()):.1f}" for found in calls.values())])
    return rows


def functions(mailboxes: Mailboxes, bin: str, folder: str, sessions: int) -> Iterable[str]:
    argv = [f"{bin}/python", profiled.__file__, bin, mailboxes.virtual.users, folder, str(sessions)]
    env = {"AUTHUSERDB_FILE": mailboxes.virtual.userdb, "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"functions: {done.stderr.strip()}")
    rows = [line.split("\t") for line in done.stdout.splitlines()][:MOST_FUNCTIONS]
    yield report.table(["function", "calls", "own ms", "with what it calls"], rows)


def imports(bin: str) -> Iterable[str]:
    bare = median(start_ms([f"{bin}/python", "-I", "-c", "pass"]) for _ in range(STARTS))
    rows = [["python -I -c pass", f"{bare:.1f}", "", ""]]
    for stage in STAGES:
        argv = [f"{bin}/{stage}"]
        took = median(start_ms(argv) for _ in range(STARTS))
        total, most = import_times(bin, stage)
        rows.append([stage, f"{took:.1f}", f"{total:.1f}", most])
    yield report.table(["started alone", "CPU ms", "imports ms", "most of them, ms"], rows)


def start_ms(argv: list[str]) -> float:
    """CPU of a program that finds nothing on its descriptors and ends."""
    null = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)
    quiet = [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
    pid = os.posix_spawn(argv[0], argv, {"PATH": os.environ["PATH"]}, file_actions=[null, *quiet])
    usage = os.wait4(pid, 0)[2]
    return (usage.ru_utime + usage.ru_stime) * 1000


def import_times(bin: str, stage: str) -> tuple[float, str]:
    """Of all that is imported for its main: the sum, and those that cost most by themselves."""
    code = (
        f"from courierchain import handover, programs; handover.load(programs.ENTRIES['{stage}'])"
    )
    argv = [f"{bin}/python", "-I", "-X", "importtime", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = parsed_imports(done.stderr)
    most = sorted(found, key=lambda name: -found[name])[:MOST_IMPORTS]
    names = ", ".join(f"{name} {found[name] / 1000:.1f}" for name in most)
    return sum(found.values()) / 1000, names


def parsed_imports(text: str) -> dict[str, int]:
    """Microseconds of each module by itself, of what -X importtime prints behind `site`."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        name = rest.partition("|")[2].strip()
        if own.strip().isdigit():
            found[name] = int(own)
            if name == "site":
                found.clear()  # the interpreter's own, which a bare one has too
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=os.path.abspath, required=True)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--only", default="counters,functions,imports", help="names of parts")
    parser.add_argument("--add", action="append", default=[], metavar="OPTION")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    end_on_signals()
    try:
        folder = private_folder(originals.NEEDED | STRACE)
        with accounts(folder) as mailboxes:
            servers = set_ups(folder, mailboxes, options.bin, options.add)
            parts: dict[str, Callable[[], Iterable[str]]] = {
                "counters": lambda: counters(Load(folder), servers, options.sessions),
                "functions": lambda: functions(mailboxes, options.bin, folder, options.sessions),
                "imports": lambda: imports(options.bin),
            }
            for name in options.only.split(","):
                for table in parts[name]():
                    print(table, end="\n\n", flush=True)
    except (Unable, Failed, OSError) as why:
        sys.exit(f"anatomy: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
