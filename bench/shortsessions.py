"""shortsessions - what comparisons by short sessions have in common

class Kind(ShortSessions):
    def measure(self, number, server):       of one round
        self.record(server, number, self.load.measure(...), more="columns")

options = arguments(__doc__)                 the options that all of them know
parser(__doc__), shortened(options)          the same, for who has more of them
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from typing import TextIO

import report
from accounts import MESSAGES
from comparison import Comparison
from load import Load, check_mailbox
from servers import Server

IDLE_SESSIONS = 20


class ShortSessions(Comparison):
    """Servers that are loaded with popload; `runs` has a dictionary for each measurement."""

    def __init__(self, load: Load, servers: list[Server], options: argparse.Namespace):
        super().__init__(servers, options)
        self.load = load
        self.runs: list[dict] = []
        self.pss: dict[str, float] = {}

    def start(self, server: Server) -> None:
        server.start()
        check_mailbox(server, MESSAGES)

    def record(self, server: Server, number: int, run: dict, **more: object) -> None:
        run.update(server=server.name, order=self.order[server.name], round=number, **more)
        self.runs.append(run)
        if report.failed(run):
            print(f"*** {server.name}, {more}: {run['first_bad_reply']}", flush=True)

    def restart(self, server: Server) -> None:
        """Workers left from earlier sessions would hide what a session needs."""
        server.stop()
        self.start(server)

    def measure_memory(self, server: Server) -> None:
        self.restart(server)
        self.pss[server.name] = self.load.idle_pss_mb(server, IDLE_SESSIONS)

    def failed(self) -> bool:
        return bool(self.failures) or any(report.failed(run) for run in self.runs)

    def problems(self) -> str:
        lines = [f"*** NOT MEASURED: {failure}" for failure in self.failures]
        return "\n".join([*filter(None, [report.errors(self.runs)]), *lines])

    def write_json(self, file: TextIO, **more: object) -> None:
        machine = {"kernel": platform.release(), "cpus": os.cpu_count()}
        found = {"machine": machine, "runs": self.runs, "pss_mb": self.pss, **more}
        json.dump({**found, "failures": self.failures}, file, indent=1)
        file.write("\n")


def parser(description: str, rounds: int = 5, seconds: float = 2.0) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--bin", type=os.path.abspath, help="directory of our installed programs")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="of one measurement")
    parser.add_argument("--quick", action="store_true", help="one round of half a second each")
    parser.add_argument("--only", help="names of set-ups, separated by commas")
    parser.add_argument(
        "--add", action="append", default=[], metavar="OPTION", help="to our couriertcpd's options"
    )
    parser.add_argument("--json", default=os.devnull, metavar="FILE")
    return parser


def arguments(description: str) -> argparse.Namespace:
    return shortened(parser(description).parse_args())


def shortened(options: argparse.Namespace) -> argparse.Namespace:
    """--quick is the short form of other options."""
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    return options
