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
import json
import os
import pwd
import shutil
import sys
import time
from statistics import median

import backends
import originals
import report
from accounts import MESSAGES, Accounts, accounts, write
from backends import Backend
from comparison import Comparison, Unable, chosen, end_on_signals, private_folder
from load import Load, check_mailbox
from servers import PATH, START_SECONDS, Command, Courier, Failed, Ours, Server

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
        settings["AUTHUSERDB_FILE"] = self.userdb
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


class Logins(Comparison):
    def __init__(self, load: Load, servers: list[Server], options: argparse.Namespace):
        super().__init__(servers, options)
        self.load = load
        self.runs: list[dict] = []

    def start(self, server: Server) -> None:
        server.start()
        check_mailbox(server, MESSAGES)

    def measure(self, number: int, server: Server) -> None:
        before = server.backend.cpu_ms()  # type: ignore[attr-defined]
        run = self.load.measure(server, AT_ONCE, 0, self.options.seconds)
        used = server.backend.cpu_ms() - before  # type: ignore[attr-defined]
        # The warm-up's is in it too: it is a fifth.
        run[BACK_END_CPU] = used * 0.8 / max(1, run["sessions"])
        run.update(server=server.name, order=self.order[server.name], at_once=AT_ONCE, round=number)
        self.runs.append(run)
        if report.failed(run):
            print(f"*** {server.name}: {run['first_bad_reply']}", flush=True)

    def measure_memory(self, server: Server) -> None:
        """Not this one's question."""

    def failed(self) -> bool:
        return bool(self.failures) or any(report.failed(run) for run in self.runs)

    def text(self) -> str:
        lines = [f"{'':16}{'logins/s':>10}{'CPU ms':>9}{'back end':>10}{'p50 ms':>9}{'p99 ms':>9}"]
        for name in report.names(self.runs):
            runs = [run for run in self.runs if run["server"] == name]
            keys = (report.RATE, report.CPU, BACK_END_CPU, "p50_ms", "p99_ms")
            rate, cpu, there, half, most = (median(run[key] for run in runs) for key in keys)
            lines.append(f"{name:16}{rate:10.0f}{cpu:9.2f}{there:10.2f}{half:9.1f}{most:9.1f}")
        return "\n".join([*lines, "", *self.ratios()])

    def ratios(self) -> list[str]:
        lines = [f"{'original':16}" + "".join(f"{side:>24}" for side in SIDES)]
        names = report.names(self.runs)
        for name in names:
            kind, _, backend = name.partition("-")
            if kind != "courier":
                continue
            line = f"{name:16}"
            for side in SIDES:
                ours = f"{side}-{backend}"
                if ours in names:
                    rate = report.ratio_of(self.runs, ours, name, AT_ONCE, report.RATE)
                    cpu = report.ratio_of(self.runs, ours, name, AT_ONCE, report.CPU)
                    line += f"{rate:10.2f} x, CPU {cpu:5.2f} x"
            ratios = [
                report.ratio_of(self.runs, f"{side}-{backend}", name, AT_ONCE, report.RATE) or 0
                for side in SIDES
            ]
            aim = TARGET if any(ratios) else None
            verdict = report.judged(max(ratios), aim, at_least=True, unit=" x")
            lines.append(f"{line}   {verdict}".rstrip())
        return ["Ratios, ours / original, of logins/s and of CPU for each", *lines]


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
        found = backends.backends(folder, mailboxes)
        servers = chosen(set_ups(folder, mailboxes, found, options.bin), options.only)
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=os.path.abspath, help="directory of our installed programs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--quick", action="store_true", help="one round of half a second each")
    parser.add_argument("--only", help="names of set-ups, separated by commas")
    parser.add_argument("--json", default=os.devnull, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    return options


def main() -> int:
    options = arguments()
    end_on_signals()
    originals.POP3_PACKAGES.update(MODULES)
    try:
        with open(options.json, "w") as file:
            needed = originals.NEEDED | backends.NEEDED
            folder = private_folder(needed, "courier-pop", *MODULES)
            comparison = compare(folder, options)
            json.dump({"runs": comparison.runs}, file, indent=1)
    except (Unable, OSError) as why:
        sys.exit(f"logins: {why}")
    print("\n" + comparison.text())
    if problems := report.errors(comparison.runs):
        print("\n" + problems)
    for failure in comparison.failures:
        print(f"*** NOT MEASURED: {failure}")
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
