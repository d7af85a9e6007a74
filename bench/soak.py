"""soak - whether our server stays as it is under hundreds of thousands of mixed sessions

    python3 bench/soak.py --bin BIN [--sessions 300000] [--seconds 7200] [--at-once 100]
                          [--seed 1] [--only NAME,...] [--option OPTION]... [--json FILE]

Serves 20 accounts, each with its own uid, by the full command line: processes used again, parking,
an access file, STLS, counted failures, a front. Clients do everything that clients
do (behaviours.py), `--at-once` of them, until --sessions are over or --seconds have passed. SIGHUP
comes all the time, SIGUSR2 (the listener executes itself) in the first quarter and at the end: what
is looked at in between are the same processes. 60 samples of them are taken on the way (vitals.py).

When all clients have gone: as many descriptors as at first, no zombie, no file in the mailboxes
that is not a message or an index. Prints a table in Markdown, what clients were surprised by, and a
verdict. --only takes names of behaviours, to find out which of them it is. Needs root. Exits 0 if
all is flat and nothing was left or went wrong, else 1.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import sys
import time

import originals
import report
from accounts import Accounts, accounts
from behaviours import IDLE_TIMEOUT, LOGIN_TIMEOUT, Users, choose, keep_only
from clients import Clients
from comparison import Unable, end_on_signals, private_folder
from load import check_mailbox
from ours import Ours
from servers import Command, Failed, unverified
from tls import certificate
from vitals import MEASURES, SESSIONS, Sample, Vitals, verdict

SAMPLES = 60
HANGUPS = 200
REST_SECONDS = 60.0
OPTIONS = ("-uses=100", "-park=1", "-maxfailsperip=1000000", "-maxfailsperuser=1000000")
FAILS_WINDOW = "-failswindow=20"
KNOWN = ("courierpop3dsizelist", "courierpop3dindex", "maildirfolder")
MOST_SURPRISES = 20


class Soaked(Ours):
    """Our server with all its processes."""

    def __init__(self, folder: str, accounts: Accounts, bin: str, more: list[str]):
        super().__init__("soaked", folder, accounts, bin, "authuserdb", *OPTIONS, FAILS_WINDOW)
        self.access = f"{self.folder}/access"
        self.certificate = certificate(folder)
        with open(self.access, "w") as file:
            file.write("*\tallow\n")
        self.options = (*self.options, f"-access={self.access}", "-front", *more)

    def commands(self) -> list[Command]:
        ((argv, env),) = super().commands()
        env |= {
            "POP3_STARTTLS": "YES",
            "TLS_CERTFILE": self.certificate,
            "POP3AUTH": "PLAIN",
            "POP3_FAILURE_DELAY": "0",
            "POP3_LOGIN_TIMEOUT": str(LOGIN_TIMEOUT),
            "POP3_IDLE_TIMEOUT": str(IDLE_TIMEOUT),
        }
        return [(argv, env)]


class Soak:
    """The server, its clients, and what is seen of both."""

    def __init__(self, server: Soaked, options: argparse.Namespace):
        self.server = server
        self.options = options
        self.chance = random.Random(options.seed)
        self.users = Users(server.accounts, self.chance)
        self.vitals = Vitals(server)
        self.clients = Clients(server.port, self.surprise, unverified())
        self.surprises: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.begun = 0
        self.took = 0.0

    def surprise(self, name: str, why: str) -> None:
        self.surprises.append(f"{name}: {why}")

    def run(self) -> None:
        """Until they are over, or the time is."""
        began = time.monotonic()
        wanted, until = self.options.sessions, began + self.options.seconds
        reloads = {wanted * part // 100 for part in (5, 12, 20)}
        while self.begun < wanted and time.monotonic() < until:
            while len(self.clients.open) < self.options.at_once and self.begun < wanted:
                self.begin_one()
                if self.begun in reloads:
                    self.signal(signal.SIGUSR2)
                elif self.begun % max(1, wanted // HANGUPS) == 0:
                    self.signal(signal.SIGHUP)
                if self.begun % max(1, wanted // SAMPLES) == 0:
                    self.sample()
            self.clients.turn(0.5)
        self.signal(signal.SIGUSR2)
        self.let_end()
        self.took = time.monotonic() - began

    def begin_one(self) -> None:
        name, play = choose(self.chance, self.users)
        self.counts[name.partition(",")[0]] += 1
        self.begun += 1
        self.clients.begin(name, play)

    def signal(self, number: int) -> None:
        os.kill(self.vitals.listener, number)

    def sample(self) -> None:
        sample = self.vitals.take()
        parts = (f"{role} {found['anonymous']} KB" for role, found in sample.items())
        print(f"{self.begun} sessions: {', '.join(parts)}", flush=True)

    def let_end(self) -> None:
        while self.clients.open:
            self.clients.turn(0.5)

    def at_rest(self, first: Sample | None = None) -> Sample:
        """A sample when the processes of sessions have ended, and descriptors are as at first; or
        after a while."""
        until = time.monotonic() + REST_SECONDS
        while time.monotonic() < until:
            sample = self.vitals.take()
            if SESSIONS not in sample and not (first and more_files(first, sample)):
                break
            time.sleep(1)
        self.vitals.samples.clear()
        return sample


def more_files(first: Sample, last: Sample) -> list[str]:
    """A line for each role that has more descriptors than at first."""
    lines = []
    for role in sorted((first.keys() | last.keys()) - {SESSIONS}):
        before, after = (sample.get(role, {}).get("files", 0) for sample in (first, last))
        if after > before:
            lines.append(f"{role}: {before} descriptors before, {after} after")
    return lines


def leftovers(accounts: Accounts) -> list[str]:
    """Files in the homes that are neither a message nor one of KNOWN."""
    found = []
    for name in accounts.owners:
        for folder, _, files in os.walk(accounts.home_of(name)):
            if os.path.basename(folder) not in ("cur", "new"):
                found += [f"{folder}/{file}" for file in files if file not in KNOWN]
    return found


def complaints(soak: Soak, first: Sample, last: Sample, flat: bool) -> list[str]:
    """What is wrong, a line each."""
    found = [] if flat else ["memory, descriptors or processes grow"]
    if soak.surprises:
        found.append(f"{len(soak.surprises)} clients were surprised")
    found += more_files(first, last)
    if zombies := soak.vitals.zombies():
        found.append(f"{zombies} zombies")
    if left := leftovers(soak.users.accounts):
        found.append(f"{len(left)} files left: {' '.join(left[:5])}")
    return found


def judge(soak: Soak, first: Sample) -> list[str]:
    """Prints what was seen; returns what is wrong."""
    rows, flat = verdict(soak.vitals.samples)
    last = soak.at_rest(first)
    print("", report.table(["second quarter → last", *MEASURES, ""], rows), "", sep="\n")
    print(", ".join(f"{count} {name}" for name, count in soak.counts.most_common()))
    for surprise, count in collections.Counter(soak.surprises).most_common(MOST_SURPRISES):
        print(f"  {count} times: {surprise}")
    rest = (f"{role} {found['anonymous']} KB" for role, found in last.items())
    print(f"at rest: {', '.join(rest)}")
    print(f"{soak.begun} sessions in {soak.took:.0f} s")
    return complaints(soak, first, last, flat)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=os.path.abspath, required=True)
    parser.add_argument("--sessions", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=7200.0, help="at most")
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of what clients do, and when")
    parser.add_argument("--only", help="behaviours, separated by commas; unbroken")
    parser.add_argument("--option", action="append", default=[], help="of couriertcpd, one more")
    parser.add_argument("--json", default=os.devnull, metavar="FILE")
    options = parser.parse_args()
    if options.sessions < 4 * SAMPLES or not 0 < options.seconds <= 7200:
        parser.error(f"--sessions from {4 * SAMPLES}, --seconds up to 7200")
    if options.only:
        try:
            keep_only(options.only.split(","))
        except KeyError as unknown:
            parser.error(f"--only: no behaviour {unknown}")
    return options


def soak(folder: str, options: argparse.Namespace) -> list[str]:
    with accounts(folder) as mailboxes:
        server = Soaked(folder, mailboxes.system, options.bin, options.option)
        try:
            server.start()
            check_mailbox(server, 3)
            running = Soak(server, options)
            first = running.at_rest()
            running.run()
            with open(options.json, "w") as file:
                json.dump(running.vitals.samples, file, indent=1)
            return judge(running, first)
        finally:
            server.stop()


def main() -> int:
    options = arguments()
    end_on_signals()
    try:
        wrong = soak(private_folder(originals.NEEDED), options)
    except (Unable, Failed, OSError) as why:
        sys.exit(f"soak: {why}")
    print("\n".join(f"*** {line}" for line in wrong) or "flat; nothing is left")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
