"""logins - how many logins a second each module gives, beside Courier with the same back end

    python3 bench/logins.py [--bin BIN] [--rounds 5] [--seconds 2] [--quick] [--only NAME,...]
                            [--json FILE]

BIN is the directory with our programs; without it only the original is measured. For each back end
of backends.py there are

    courier-X   couriertcpd, authdaemond with its module for it, 5 daemons as shipped
    ours-X      couriertcpd -uses=1000 ... courierpop3login authX courierpop3d
    daemon-X    the same with authdaemon, which asks our authdaemond with authX, 5 daemons
    fork-X      ours-X without -uses: a process and a connection of its own for each login

A login is a short session: connect, USER, PASS, STAT, QUIT; 8 at once, in interleaved rounds. CPU
is that of the mail server's processes, and beside it that of the database's. Needs root. Exits 1 if
it cannot run or if any session failed, else 0, however slow the servers are.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import sys
import time
from statistics import median

import backends
import originals
import report
from accounts import Accounts, accounts, write
from backends import Backend
from comparison import Unable, chosen, end_on_signals, private_folder
from courier import Courier
from load import Load
from ours import Ours
from report import CPU, P50, P99, RATE
from servers import PATH, START_SECONDS, Command, Failed, Server
from shortsessions import ShortSessions, arguments

AT_ONCE = 8
TARGET = 3.0
USES = "-uses=1000"
SIDES = ("ours", "daemon", "fork")
BACK_END_CPU = "back_end_cpu_ms"
MODULES = {
    f"courier-authlib-{name}": ("courier-authlib", "/usr/lib/courier-authlib", f"libauth{short}.so")
    for name, short in {
        **{name: name for name in ("mysql", "sqlite", "ldap", "pipe")},
        "postgresql": "pgsql",
    }.items()
}


class CourierAsking(Courier):
    """The original, with one of its modules, and what belongs to it in /etc/courier."""

    def __init__(self, folder: str, mailboxes: Accounts, backend: Backend):
        super().__init__(f"courier-{backend.name}", folder, mailboxes, backend.module)
        self.backend = backend
        if backend.package:
            self.programs |= originals.in_place(backend.package, self.folder)
        for name, text in backend.files.items():
            write(f"{self.etc}/{name}", text, 0o750)
            os.chown(f"{self.etc}/{name}", 0, pwd.getpwnam("courier").pw_gid)


class OursAsking(Ours):
    """Ours, with the same files in a place of its own."""

    def __init__(
        self, side: str, folder: str, mailboxes: Accounts, bin: str, backend: Backend, *options: str
    ):
        name = f"{side}-{backend.name}"
        super().__init__(name, folder, mailboxes, bin, backend.module, *options)
        self.backend = backend
        self.env: dict[str, str] = {}
        for name, text in backend.files.items():
            write(f"{self.folder}/{name}", text, 0o750)
            self.env[backend.variable] = f"{self.folder}/{name}"

    def commands(self) -> list[Command]:
        ((argv, env),) = super().commands()
        return [(argv, {**env, **self.env})]


class OursByDaemon(OursAsking):
    """Our listener asks our authdaemond, and that the back end."""

    def commands(self) -> list[Command]:
        ((argv, env),) = super().commands()
        place = self.place
        shutil.rmtree(place, ignore_errors=True)
        settings = {"authmodulelist": self.backend.module, "authdaemonvar": place, **self.env}
        settings["AUTHUSERDB_FILE"] = self.accounts.userdb
        text = "".join(f'{name}="{value}"\n' for name, value in settings.items())
        write(f"{self.folder}/authdaemonrc", text, 0o600)
        daemon = [f"{self.bin}/authdaemond", f"-rc={self.folder}/authdaemonrc"]
        argv[argv.index(self.backend.module)] = "authdaemon"
        env["AUTHDAEMON_SOCKET"] = f"{place}/socket"
        return [(daemon, {"PATH": PATH}), (argv, env)]

    @property
    def place(self) -> str:
        return f"{self.folder}/authdaemon"

    def start(self) -> None:
        super().start()
        until = time.monotonic() + START_SECONDS
        while not os.path.exists(f"{self.place}/socket"):
            if time.monotonic() > until:
                raise Failed(f"{self.name}: no authdaemond: {self.last_words()}")
            time.sleep(0.05)


class Logins(ShortSessions):
    def measure(self, number: int, server: Server) -> None:
        before = server.backend.cpu_ms()  # type: ignore[attr-defined]
        run = self.load.measure(server, AT_ONCE, self.options.seconds)
        used = server.backend.cpu_ms() - before  # type: ignore[attr-defined]
        # The warm-up's is in it too: it is a fifth.
        run[BACK_END_CPU] = used * 0.8 / max(1, run["sessions"])
        self.record(server, number, run, at_once=AT_ONCE)

    def measure_memory(self, server: Server) -> None:
        """Not this one's question."""

    def text(self) -> str:
        rows = []
        for name in report.names(self.runs):
            runs = [run for run in self.runs if run["server"] == name]
            keys = (RATE, CPU, BACK_END_CPU, P50, P99)
            rate, cpu, there, half, most = (median(run[key] for run in runs) for key in keys)
            numbers = (f"{rate:.0f}", f"{cpu:.2f}", f"{there:.2f}", f"{half:.1f}", f"{most:.1f}")
            rows.append([name, *numbers])
        heads = ["", "logins/s", "CPU ms", "back end", "p50 ms", "p99 ms"]
        return f"{report.table(heads, rows)}\n\n{self.ratios()}"

    def ratios(self) -> str:
        """Ours to the original, of logins a second and of CPU for each; the best is judged."""
        names = report.names(self.runs)
        rows = []
        for name in names:
            kind, _, backend = name.partition("-")
            if kind == "courier":
                sides = [f"{side}-{backend}" for side in SIDES]
                pairs = [self.pair(side, name) if side in names else "" for side in sides]
                rates = [report.ratio_of(self.runs, side, name, AT_ONCE, RATE) for side in sides]
                best = max(rate or 0.0 for rate in rates)
                aim = TARGET if best else None
                rows.append([name, *pairs, report.judged(best, aim, at_least=True, unit=" x")])
        return report.table(["to the original", *SIDES, "aim of the best"], rows)

    def pair(self, ours: str, theirs: str) -> str:
        rate, cpu = (report.ratio_of(self.runs, ours, theirs, AT_ONCE, key) for key in (RATE, CPU))
        return f"{rate or 0:.2f} x, CPU {cpu or 0:.2f} x"


def set_ups(
    folder: str, mailboxes: Accounts, found: list[Backend], bin: str | None
) -> list[Server]:
    servers: list[Server] = []
    for backend in found:
        servers.append(CourierAsking(folder, mailboxes, backend))
        if bin:
            ours = (folder, mailboxes, bin, backend)
            servers.append(OursAsking("ours", *ours, USES))
            servers.append(OursByDaemon("daemon", *ours, USES))
            servers.append(OursAsking("fork", *ours))
    return servers


def compare(folder: str, options: argparse.Namespace) -> Logins:
    load = Load(folder)
    with accounts(folder) as mailboxes:
        system = mailboxes.system
        found = backends.backends(folder, system)
        servers = chosen(set_ups(folder, system, found, options.bin), options.only)
        wanted = {server.backend.name for server in servers}  # type: ignore[attr-defined]
        comparison = Logins(load, servers, options)
        try:
            for backend in found:
                if backend.name in wanted:
                    backend.start()
            comparison.run()
        except Failed as why:
            raise Unable(str(why)) from why
        finally:
            for backend in found:
                backend.stop()
    return comparison


def main() -> int:
    options = arguments(__doc__)
    end_on_signals()
    originals.POP3_PACKAGES.update(MODULES)
    try:
        with open(options.json, "w") as file:
            needed = originals.NEEDED | backends.NEEDED
            folder = private_folder(needed, "courier-pop", *MODULES)
            comparison = compare(folder, options)
            comparison.write_json(file)
    except (Unable, OSError) as why:
        sys.exit(f"logins: {why}")
    print("", comparison.text(), "", comparison.problems(), sep="\n")
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
