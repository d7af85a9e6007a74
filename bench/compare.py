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
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TextIO

import originals
import privateview
import report
from accounts import MESSAGES, accounts
from load import Load, check_mailbox
from servers import Failed, Server, set_ups

AT_ONCE = (1, 8, 64)
IDLE_SESSIONS = 20


class Unable(Exception):
    """The comparison cannot be made here."""


class Comparison:
    """The servers, and what was measured on them."""

    def __init__(self, load: Load, servers: list[Server], options: argparse.Namespace):
        self.load = load
        self.servers = servers
        self.order = {server.name: number for number, server in enumerate(servers)}
        self.options = options
        self.runs: list[dict] = []
        self.pss: dict[str, float] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        try:
            self.attempt_each(self.start)
            for number in range(1, self.options.rounds + 1):
                print(f"round {number} of {self.options.rounds}", flush=True)
                shift = number % max(1, len(self.servers))
                for server in self.servers[shift:] + self.servers[:shift]:
                    self.measure(server, number)
            self.attempt_each(self.measure_memory)
        finally:
            for server in self.servers:
                server.stop()

    def attempt_each(self, step: Callable[[Server], None]) -> None:
        """Takes the step with each server; one that fails is left out from then on."""
        for server in list(self.servers):
            try:
                step(server)
            except Failed as why:
                print(f"*** {why}", flush=True)
                self.failures.append(str(why))
                server.stop()
                self.servers.remove(server)

    def start(self, server: Server) -> None:
        server.start()
        check_mailbox(server, MESSAGES)

    def measure(self, server: Server, number: int) -> None:
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


def chosen(servers: list[Server], only: str | None) -> list[Server]:
    names = [server.name for server in servers]
    wanted = only.split(",") if only else names
    if not set(wanted) <= set(names):
        raise Unable(f"--only takes names of: {' '.join(names)} (those of ours need --bin)")
    return [server for server in servers if server.name in wanted]


def private_folder() -> str:
    """Installs what is missing, leaves the common /etc and /run, returns the folder to work in."""
    if os.geteuid() != 0:
        raise Unable("must run as root: it makes accounts and starts servers that log them in")
    try:
        originals.install()
        return privateview.enter()
    except PermissionError as why:
        raise Unable(f"no private mount namespace: {why} (CAP_SYS_ADMIN is needed)") from why
    except (OSError, subprocess.CalledProcessError) as why:
        raise Unable(f"cannot prepare: {why}") from why


def compare(folder: str, options: argparse.Namespace) -> Comparison:
    load = Load(folder)
    with accounts(folder) as mailboxes:
        servers = set_ups(folder, mailboxes, load.canned, options.bin)
        comparison = Comparison(load, chosen(servers, options.only), options)
        comparison.run()
    return comparison


def write_json(file: TextIO, comparison: Comparison) -> None:
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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    began = time.monotonic()
    try:
        # Opened now: a name that cannot be written is better known before than after.
        with open(options.json, "w") as file:
            comparison = compare(private_folder(), options)
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
