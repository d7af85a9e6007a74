"""crowd - what many clients that wait need, and what they cost those who log in meanwhile

    python3 bench/crowd.py [--bin BIN] [--held 10000] [--rounds 5] [--seconds 2] [--quick]
                           [--only NAME,...] [--add OPTION] [--json FILE]

BIN is the directory with our programs; without it only the others are measured. Each server of
setups.for_crowds in turn, started anew:

    memory     PSS that each of 1,000 clients adds that are connected and have said nothing; and of
               1,000 that are logged in, as 20 users with a uid each, and silent
    sessions   one after the other, for --rounds times --seconds, while 0 and 1,000 clients are
               logged in and silent; with ours --held of them too

All clients are here, on loopback; where they are more than a few thousand, from several addresses.
They must all be there still at the end. Prints tables in Markdown. Needs root, and a limit of open
files above --held. Exits 1 if it cannot run or if any session failed, else 0.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from statistics import median

import processes
import report
import setups
from accounts import accounts
from compare import folder_for_all
from comparison import Unable, chosen, end_on_signals
from load import Load
from report import CPU, GREETING, P50, P99, judged
from servers import Server
from shortsessions import ShortSessions, parser, shortened

MANY, FEW = 1000, 50
CONNECTED_MB, IDLE_MB = 0.03, 0.5
CPU_GROWTH = 1.2
FILES_BESIDE = 1000  # of a listener that holds clients, one file each
OURS = "ours"


class Crowd(ShortSessions):
    """One round, for a crowd takes its time to come; what is timed is timed more than once."""

    def __init__(self, load: Load, servers: list[Server], options: argparse.Namespace):
        self.times = options.rounds
        options.rounds = 1
        super().__init__(load, servers, options)
        self.many = FEW if options.quick else MANY
        self.connected: dict[str, float] = {}
        self.whole_mb: dict[tuple[str, int], float] = {}

    def start(self, server: Server) -> None:
        """Each has the machine for itself, when its turn comes."""

    def restart(self, server: Server) -> None:
        server.stop()
        super().start(server)

    def measure(self, number: int, server: Server) -> None:
        steps = [0, self.many]
        if server.name == OURS:
            steps.append(self.options.held)
        for held in steps:
            self.restart(server)
            if held:
                with self.load.held(server, held):
                    time.sleep(server.idle_seconds)
                    self.serve(server, held)
            else:
                self.serve(server, held)
        server.stop()

    def serve(self, server: Server, held: int) -> None:
        self.whole_mb[server.name, held] = processes.pss_kb(server.pids()) / 1024
        for number in range(1, self.times + 1):
            run = self.load.measure(server, 1, self.options.seconds)
            self.record(server, number, run, held=held)

    def measure_memory(self, server: Server) -> None:
        self.restart(server)
        self.connected[server.name] = self.load.idle_pss_mb(server, self.many, greeted=True)
        self.restart(server)
        self.pss[server.name] = self.load.idle_pss_mb(server, self.many)
        server.stop()

    def text(self) -> str:
        return f"{self.memory()}\n\n{self.sessions()}"

    def memory(self) -> str:
        rows = []
        for name, idle in self.pss.items():
            connected = self.connected[name]
            verdicts = ["", ""]
            if name == OURS:
                verdicts = [
                    judged(connected, CONNECTED_MB, at_least=False, unit=" MB"),
                    judged(idle, IDLE_MB, at_least=False, unit=" MB"),
                ]
            rows.append([name, f"{connected:.3f}", verdicts[0], f"{idle:.3f}", verdicts[1]])
        return report.table([f"MB for each of {self.many}", "connected", "", "logged in", ""], rows)

    def sessions(self) -> str:
        heads = ["server", "held", "p50 ms", "p99 ms", "greeting ms", "CPU ms", "to none held"]
        rows = []
        for name, held in sorted(self.whole_mb, key=lambda key: (self.order[key[0]], key[1])):
            cells = [f"{median(self.values(name, held, key)):.2f}" for key in (P50, P99, GREETING)]
            cpu, alone = (median(self.values(name, count, CPU)) for count in (held, 0))
            aim = CPU_GROWTH if held and name == OURS else None
            growth = f"{cpu / alone:.2f} x {judged(cpu / alone, aim, at_least=False, unit=' x')}"
            memory = f"{self.whole_mb[name, held]:.0f}"
            rows.append([name, str(held), *cells, f"{cpu:.2f}", growth.rstrip(), memory])
        return report.table([*heads, "all processes MB"], rows)

    def values(self, server: str, held: int, key: str) -> list[float]:
        return [run[key] for run in self.runs if (run["server"], run["held"]) == (server, held)]


def arguments() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument("--held", type=int, default=10_000, help="clients, with ours")
    options = found.parse_args()
    if not 1 <= options.held <= 20_000:
        found.error("--held must be 1 to 20000")
    if options.quick:
        options.held = min(options.held, 10 * FEW)
    return shortened(options)


def allow_files(count: int) -> None:
    """For the servers, whose soft limit stays; they know how to raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, count)))
    except (ValueError, OSError) as why:
        raise Unable(f"no limit of {count} open files: {why} (it is {hard}; --held)") from why


def compare(folder: str, options: argparse.Namespace) -> Crowd:
    load = Load(folder)
    with accounts(folder) as mailboxes:
        servers = setups.for_crowds(folder, mailboxes, options.bin, options.held, options.add)
        crowd = Crowd(load, chosen(servers, options.only), options)
        crowd.run()
    return crowd


def main() -> int:
    options = arguments()
    end_on_signals()
    try:
        allow_files(options.held + FILES_BESIDE)
        with open(options.json, "w") as file:
            crowd = compare(folder_for_all(), options)
            whole = {f"{name} {held}": found for (name, held), found in crowd.whole_mb.items()}
            crowd.write_json(file, connected_mb=crowd.connected, whole_mb=whole)
    except (Unable, OSError) as why:
        sys.exit(f"crowd: {why}")
    print("", crowd.text(), "", crowd.problems(), sep="\n")
    return 1 if crowd.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
