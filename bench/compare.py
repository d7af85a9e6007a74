"""compare - how fast our POP3 server is beside Courier, Dovecot, Cyrus and popa3d, on this machine

    python3 bench/compare.py [--bin BIN] [--rounds 5] [--seconds 2] [--quick] [--only NAME,...]
                             [--add OPTION] [--json FILE]

BIN is the directory with our couriertcpd and the programs of its chain; without it only the others
are measured. Runs every set-up of setups.for_sessions at 1, 8 and 64 sessions at once, in
interleaved rounds. A measurement takes --seconds. --add gives our listener a further option.
Prints tables in Markdown; writes the raw numbers to FILE as JSON.

Needs root. Exits 1 if it cannot run or if any session failed, else 0, however slow the servers are.
"""

from __future__ import annotations

import argparse
import sys
import time

import originals
import report
import setups
from accounts import accounts
from comparison import Unable, chosen, end_on_signals, private_folder
from load import Load
from servers import Server
from shortsessions import ShortSessions, arguments

AT_ONCE = (1, 8, 64)


class Sessions(ShortSessions):
    """Many sessions, one after the other."""

    def measure(self, number: int, server: Server) -> None:
        for at_once in AT_ONCE:
            run = self.load.measure(server, at_once, self.options.seconds)
            self.record(server, number, run, at_once=at_once)

    def measure_memory(self, server: Server) -> None:
        """crowd.py does, of a thousand sessions."""


def compare(folder: str, options: argparse.Namespace) -> Sessions:
    load = Load(folder)
    with accounts(folder) as mailboxes:
        servers = setups.for_sessions(folder, mailboxes, load.canned, options.bin, options.add)
        comparison = Sessions(load, chosen(servers, options.only), options)
        comparison.run()
    return comparison


def main() -> int:
    options = arguments(__doc__)
    end_on_signals()
    began = time.monotonic()
    try:
        # Opened now: a name that cannot be written is better known before than after.
        with open(options.json, "w") as file:
            comparison = compare(folder_for_all(), options)
            comparison.write_json(file)
    except (Unable, OSError) as why:
        sys.exit(f"compare: {why}")
    print("", report.text(comparison.runs, options.rounds), "", sep="\n")
    print(f"{time.monotonic() - began:.0f} s in all")
    print(comparison.problems())
    return 1 if comparison.failed() else 0


def folder_for_all() -> str:
    needed = originals.NEEDED | originals.DOVECOT | originals.cyrus_needed()
    return private_folder(needed, "courier-pop", "dovecot-pop3d", originals.POPA3D)


if __name__ == "__main__":
    sys.exit(main())
