"""growth - whether a session costs more where there are more accounts

    python3 bench/growth.py [--bin BIN] [--rounds 5] [--seconds 2] [--quick] [--only NAME,...]
                            [--add OPTION] [--json FILE]

Short sessions, 8 at once, of 20, 200 and 2,000 accounts that take turns, each with its own uid; of
Courier and, if BIN is given, ours. Prints a table in Markdown. Needs root. Exits 1 if it cannot run
or if any session failed, else 0.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

import originals
import report
import setups
from accounts import homes, many_accounts
from comparison import Unable, chosen, end_on_signals, private_folder
from load import Load
from report import CPU, RATE
from servers import Server
from shortsessions import ShortSessions, arguments

AT_ONCE = 8
COUNTS = (20, 200, 2000)


class Growth(ShortSessions):
    def measure(self, number: int, server: Server) -> None:
        run = self.load.measure(server, AT_ONCE, self.options.seconds)
        self.record(server, number, run, at_once=AT_ONCE)

    def measure_memory(self, server: Server) -> None:
        """It is not the question here."""

    def text(self) -> str:
        rows = []
        for name in report.names(self.runs):
            kind, _, count = name.partition("-")
            rates = report.of(self.runs, name, AT_ONCE, RATE)
            fewest = report.of(self.runs, f"{kind}-{COUNTS[0]}", AT_ONCE, RATE)
            ratio = report.ratio(rates, fewest)
            cpu = median(report.of(self.runs, name, AT_ONCE, CPU).values())
            share = "" if ratio is None else f"{ratio:.2f} x"
            rows.append([kind, count, f"{median(rates.values()):.0f}", share, f"{cpu:.2f}"])
        return report.table(
            ["server", "accounts", "sessions/s", f"to {COUNTS[0]} accounts", "CPU ms"], rows
        )


def compare(folder: str, options: argparse.Namespace) -> Growth:
    load = Load(folder)
    with homes() as path:
        many = [many_accounts(folder, path, count) for count in COUNTS]
        servers = setups.for_growth(folder, many, options.bin, options.add)
        growth = Growth(load, chosen(servers, options.only), options)
        growth.run()
    return growth


def main() -> int:
    options = arguments(__doc__)
    end_on_signals()
    try:
        with open(options.json, "w") as file:
            growth = compare(private_folder(originals.NEEDED, "courier-pop"), options)
            growth.write_json(file)
    except (Unable, OSError) as why:
        sys.exit(f"growth: {why}")
    print("", growth.text(), "", growth.problems(), sep="\n")
    return 1 if growth.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
