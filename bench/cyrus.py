"""cyrus - our pop3d beside Cyrus's, each under Cyrus's master and under ours, on this machine

    python3 bench/cyrus.py --bin BIN [--rounds 5] [--seconds 2] [--quick]
                           [--only NAME,...] [--json FILE]

BIN is the directory with our programs. Both serve the same mail (cyrusmail.py), all of one uid, by
processes that are used 250 times each, as is either's default. Runs every set-up at 1, 8 and 64
sessions at once, in interleaved rounds, then measures the memory of idle sessions.

Needs root. Exits 1 if it cannot run or if any session failed, else 0, however slow the servers are.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import compare
import originals
import report
from accounts import homes
from canned import Canned
from comparison import Unable, chosen, end_on_signals, private_folder
from cyrusmail import Store
from load import Load
from mastered import Mastered
from servers import Failed, Server
from shortsessions import ShortSessions, arguments

WARM_UP, WARM_UP_SECONDS = 2000, 5.0  # sessions, at most so long: then there are enough workers
TARGETS = [
    (key, ours, theirs, (1, 8, 64), 5.0 if key == report.RATE else None)
    for ours, theirs in (("ours", "cyrus"), ("ours-own", "cyrus-ours"), ("ours-own", "cyrus"))
    for key in (report.RATE, report.CPU)
]


class Beside(compare.Sessions):
    """Of masters that have started their workers."""

    def start(self, server: Server) -> None:
        super().start(server)
        self.load.run(server, 64, WARM_UP, WARM_UP_SECONDS, "new")

    def measure_memory(self, server: Server) -> None:
        if server.name != report.GENERATOR:
            ShortSessions.measure_memory(self, server)

    def memory(self) -> str:
        rows = [[name, f"{megabytes:.2f}"] for name, megabytes in self.pss.items()]
        return report.table(["PSS of an idle session", "MB"], rows)


def set_ups(folder: str, store: Store, canned: str, bin: str | None) -> list[Server]:
    """Names say whose pop3d, and by -own and -ours that the master is ours."""
    theirs = f"{store.programs}/usr/lib/cyrus/bin"
    cyrus = [f"{theirs}/master"], f"{theirs}/pop3d", store.cyrus_conf
    servers: list[Server] = [
        Canned("generator", folder, store, canned),
        Mastered("cyrus", folder, store, *cyrus),
    ]
    if bin:
        master = [f"{bin}/cyrusmaster"]
        servers += [
            Mastered("cyrus-ours", folder, store, master, *cyrus[1:]),
            Mastered("ours", folder, store, cyrus[0], f"{bin}/pop3d", store.our_conf),
            Mastered("ours-own", folder, store, master, f"{bin}/pop3d", store.our_conf),
        ]
    return servers


def measured(folder: str, options: argparse.Namespace) -> Beside:
    with homes() as place:
        store = Store(place, originals.cyrus())
        store.make()
        load = Load(folder)
        servers = set_ups(folder, store, load.canned, options.bin)
        comparison = Beside(load, chosen(servers, options.only), options)
        comparison.run()
        return comparison


def main() -> int:
    options = arguments(__doc__)
    end_on_signals()
    began = time.monotonic()
    report.TARGETS[:] = TARGETS
    try:
        with open(options.json, "w") as file:
            folder = private_folder(originals.NEEDED | originals.cyrus_needed())
            comparison = measured(folder, options)
            comparison.write_json(file)
    except (Unable, Failed, OSError) as why:
        sys.exit(f"cyrus: {why}")
    print("", report.text(comparison.runs, options.rounds), "", comparison.memory(), "", sep="\n")
    print(f"{time.monotonic() - began:.0f} s in all")
    print(comparison.problems())
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
