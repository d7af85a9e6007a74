"""cyrus - our pop3d beside Cyrus's, each under Cyrus's master and under ours, on this machine

    python3 bench/cyrus.py --bin BIN [--rounds 5] [--seconds 2] [--sessions N] [--quick]
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
from accounts import homes, write
from comparison import Unable, chosen, end_on_signals, private_folder
from cyrusmail import Store
from load import Load
from servers import Canned, Command, Failed, Server

KEYS = "prefork=8 maxchild=100"
WARM_UP, WARM_UP_SECONDS = 2000, 5.0  # sessions, at most so long: then there are enough workers
TARGETS = [
    ("ours", "cyrus", report.RATE, 5.0),
    ("ours", "cyrus", report.CPU, None),
    ("ours-own", "cyrus-ours", report.RATE, 5.0),
    ("ours-own", "cyrus-ours", report.CPU, None),
    ("ours-own", "cyrus", report.RATE, 5.0),
    ("ours-own", "cyrus", report.CPU, None),
]


class Mastered(Server):
    """A pop3d under a master. service: its name in cyrus.conf, by which its lock is called."""

    def __init__(
        self, name: str, folder: str, store: Store, master: list[str], pop3d: str, conf: str
    ):
        super().__init__(name, folder, store.users)
        self.store = store
        self.master = master
        self.pop3d = pop3d
        self.conf = conf
        self.service = "pop3" + name.replace("-", "")

    def commands(self) -> list[Command]:
        services = f"{self.folder}/cyrus.conf"
        command = f"{self.pop3d} -C {self.conf}"
        place = f'listen="127.0.0.1:{self.port}" proto=tcp4'
        line = f'{self.service} cmd="{command}" {place} {KEYS}'
        write(services, f"START {{\n}}\nSERVICES {{\n  {line}\n}}\nEVENTS {{\n}}\n", 0o644)
        argv = [*self.master, "-D", "-C", self.conf, "-M", services]
        return [([*argv, "-p", f"{self.folder}/pid"], self.store.environment())]


class Sessions(compare.Sessions):
    """Of masters that have started their workers."""

    def start(self, server: Server) -> None:
        super().start(server)
        self.load.run(server, max(compare.AT_ONCE), WARM_UP, WARM_UP_SECONDS, "new")


class Users:
    """What Canned wants to know of accounts."""

    def __init__(self, store: Store):
        self.system_users = store.users


def set_ups(folder: str, store: Store, canned: str, bin: str | None) -> list[Server]:
    """Names say whose pop3d, and by -own and -ours that the master is ours."""
    theirs = f"{store.programs}/usr/lib/cyrus/bin"
    cyrus = [f"{theirs}/master"], f"{theirs}/pop3d", store.cyrus_conf
    servers: list[Server] = [
        Canned("generator", folder, Users(store), canned),  # type: ignore[arg-type]
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


def measured(folder: str, options: argparse.Namespace) -> Sessions:
    with homes() as place:
        store = Store(place, originals.cyrus())
        store.make()
        load = Load(folder)
        servers = set_ups(folder, store, load.canned, options.bin)
        comparison = Sessions(load, chosen(servers, options.only), options)
        comparison.run()
        return comparison


def main() -> int:
    options = compare.arguments()
    end_on_signals()
    began = time.monotonic()
    report.TARGETS[:] = TARGETS
    try:
        with open(options.json, "w") as file:
            folder = private_folder(originals.NEEDED)
            comparison = measured(folder, options)
            compare.write_json(file, comparison)
    except (Unable, Failed, OSError) as why:
        sys.exit(f"cyrus: {why}")
    print("\n" + report.text(comparison.runs, comparison.pss, options.rounds))
    print(f"\n{time.monotonic() - began:.0f} s in all")
    for failure in comparison.failures:
        print(f"*** NOT MEASURED: {failure}")
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
