"""compare - how fast our POP3 server is beside the original Courier, on this machine

    python3 bench/compare.py [--bin BIN] [--rounds 5] [--seconds 2] [--sessions N] [--quick]
                             [--only NAME,...] [--json FILE]

BIN is the directory with our couriertcpd and the programs of its chain; without it only the
original is measured. Runs every set-up of servers.py at 1, 8 and 64 sessions at once, in
interleaved rounds, then measures the memory of idle sessions. A measurement ends after --seconds,
or after --sessions if given. Prints tables; writes the raw numbers to FILE as JSON.

Needs root. Exits 1 if it cannot run or if any session failed, else 0, however slow the servers are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from typing import TextIO

import originals
import report
from accounts import MESSAGES, accounts
from comparison import Comparison, Unable, chosen, end_on_signals, private_folder
from load import Load, check_mailbox
from servers import Server, set_ups

AT_ONCE = (1, 8, 64)
IDLE_SESSIONS = 20


class Sessions(Comparison):
    """Short sessions, many of them."""

    def __init__(self, load: Load, servers: list[Server], options: argparse.Namespace):
        super().__init__(servers, options)
        self.load = load
        self.runs: list[dict] = []
        self.pss: dict[str, float] = {}

    def start(self, server: Server) -> None:
        server.start()
        check_mailbox(server, MESSAGES)

    def measure(self, number: int, server: Server) -> None:
        for at_once in AT_ONCE:
            options = self.options
            run = self.load.measure(server, at_once, options.sessions, options.seconds)
            order = self.order[server.name]
            run.update(server=server.name, order=order, at_once=at_once, round=number)
            self.runs.append(run)
            if report.failed(run):
                print(f"*** {server.name} at {at_once}: {run['first_bad_reply']}", flush=True)

    def measure_memory(self, server: Server) -> None:
        """On a server just started: workers left from the rounds would hide a session's needs."""
        if server.name == report.GENERATOR:
            return
        server.stop()
        self.start(server)
        self.pss[server.name] = self.load.idle_pss_mb(server, IDLE_SESSIONS)

    def failed(self) -> bool:
        return bool(self.failures) or any(report.failed(run) for run in self.runs)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=os.path.abspath, help="directory of our installed programs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--sessions", type=int, default=0, help="of one measurement, at most")
    parser.add_argument("--quick", action="store_true", help="one round of half a second each")
    parser.add_argument("--only", help="names of set-ups, separated by commas")
    parser.add_argument("--json", default=os.devnull, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    return options


def compare(folder: str, options: argparse.Namespace) -> Sessions:
    load = Load(folder)
    with accounts(folder) as mailboxes:
        servers = set_ups(folder, mailboxes, load.canned, options.bin)
        comparison = Sessions(load, chosen(servers, options.only), options)
        comparison.run()
    return comparison


def write_json(file: TextIO, comparison: Sessions) -> None:
    results = {
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count()},
        "runs": comparison.runs,
        "pss_mb": comparison.pss,
        "failures": comparison.failures,
    }
    json.dump(results, file, indent=1)
    file.write("\n")


def main() -> int:
    options = arguments()
    end_on_signals()
    began = time.monotonic()
    try:
        # Opened now: a name that cannot be written is better known before than after.
        with open(options.json, "w") as file:
            comparison = compare(private_folder(originals.NEEDED, "courier-pop"), options)
            write_json(file, comparison)
    except (Unable, OSError) as why:
        sys.exit(f"compare: {why}")
    print("\n" + report.text(comparison.runs, comparison.pss, options.rounds))
    print(f"\n{time.monotonic() - began:.0f} s in all")
    for failure in comparison.failures:
        print(f"*** NOT MEASURED: {failure}")
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
