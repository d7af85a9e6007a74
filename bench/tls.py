"""tls - what TLS costs: our server beside Courier and Dovecot, on this machine

    python3 bench/tls.py [--bin BIN] [--rounds 5] [--seconds 2] [--quick] [--only NAME,...]
                         [--add OPTION] [--json FILE]

BIN is the directory with our programs; without it only the others are measured. All serve the same
mailboxes, each with its own uid, on a port that begins with TLS, with one certificate (RSA, 2048
bits). In each interleaved round each set-up of setups.for_tls has, 8 at once:

    handshake  connections that are closed after it
    new        whole sessions, each with a handshake of its own
    resumed    the same, resuming the TLS session before
    RETR       one message of 200 MB, by curl

and then, started anew, the memory of idle sessions. Needs root. Exits 1 if it cannot run or if any
session failed, else 0, however slow the servers are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

import originals
import report
import setups
from accounts import MESSAGES, Accounts, accounts
from comparison import Unable, chosen, end_on_signals, private_folder
from load import Load
from report import CPU, RATE, judged
from servers import Failed, Server
from shortsessions import ShortSessions, arguments

AT_ONCE = 8
KINDS = ("handshake", "new", "resumed")
LARGE_MB = 200
CURL = {"/usr/bin/curl": "curl"}
# what, ours, the other, the aim
TARGETS = [
    ("new", "ours", "courier", 2.0),
    ("new", "ours", "dovecot", None),
    ("new", "ours", "dovecot-reused", 1.0),
    ("new", "ours-fork", "courier", None),
    ("resumed", "ours", "courier", None),
    ("resumed", "ours", "dovecot-reused", None),
    ("handshake", "ours", "courier", None),
    ("handshake", "ours", "dovecot-reused", None),
]


class Encrypted(ShortSessions):
    def __init__(
        self, load: Load, mailboxes: Accounts, servers: list[Server], options: argparse.Namespace
    ):
        super().__init__(load, servers, options)
        self.mailboxes = mailboxes
        self.retr: dict[str, dict[int, float]] = {}

    def measure(self, number: int, server: Server) -> None:
        for kind in KINDS:
            run = self.load.measure(server, AT_ONCE, self.options.seconds, tls=kind)
            self.record(server, number, run, kind=kind)
        self.retr.setdefault(server.name, {})[number] = self.fetch_large(server)

    def fetch_large(self, server: Server) -> float:
        """MB a second."""
        user = f"{list(self.mailboxes.owners)[-1]}:{self.mailboxes.password}"
        url = f"pop3s://127.0.0.1:{server.port}/{MESSAGES + 1}"
        argv = ["curl", "-sSk", "-m", "60", "-o", os.devnull, "-w", "%{speed_download}"]
        run = subprocess.run([*argv, "--user", user, url], capture_output=True, text=True)
        if run.returncode:
            raise Failed(f"{server.name}: curl: {run.stderr.strip()}")
        return float(run.stdout) / 1e6

    def values(self, server: str, kind: str, key: str) -> dict[int, float]:
        """By round."""
        return {
            run["round"]: run[key]
            for run in self.runs
            if (run["server"], run["kind"]) == (server, kind)
        }

    def text(self) -> str:
        names = [server.name for server in self.servers]
        return f"{self.medians(names)}\n\n{report.table(RATIO_HEADS, self.ratios(set(names)))}"

    def medians(self, names: list[str]) -> str:
        heads = ["a second", *(head for kind in KINDS for head in (kind, "CPU ms"))]
        rows = []
        for name in names:
            row = [name]
            for kind in KINDS:
                row.append(f"{median(self.values(name, kind, RATE).values()):.0f}")
                row.append(f"{median(self.values(name, kind, CPU).values()):.2f}")
            rows.append([*row, f"{self.retr_speed(name):.0f}", f"{self.pss[name]:.2f}"])
        return report.table([*heads, "RETR MB/s", "idle MB"], rows)

    def retr_speed(self, name: str) -> float:
        return median(self.retr[name].values())

    def ratios(self, names: set[str]) -> Iterator[list[str]]:
        for kind, ours, other, aim in TARGETS:
            if {ours, other} <= names:
                one, two = self.values(ours, kind, RATE), self.values(other, kind, RATE)
                yield ratio_row(f"{ours} / {other}", kind, report.ratio(one, two), aim)
        others = [name for name in self.retr if name in names and not name.startswith("ours")]
        if "ours" in names and others:
            fastest = max(others, key=self.retr_speed)
            speed = report.ratio(self.retr["ours"], self.retr[fastest])
            yield ratio_row(f"ours / {fastest}", "RETR", speed, 1.0)
        if {"ours", "courier"} <= names:
            ratio = self.pss["ours"] / self.pss["courier"]
            verdict = judged(ratio, 1.0, at_least=False, unit=" x")
            yield ["ours / courier", "idle MB", f"{ratio:.2f} x", verdict]


RATIO_HEADS = ("ratio", "of", "", "aim")


def ratio_row(names: str, kind: str, ratio: float | None, aim: float | None) -> list[str]:
    if ratio is None:
        return [names, kind, "", "not measured"]
    return [names, kind, f"{ratio:.2f} x", judged(ratio, aim, at_least=True, unit=" x")]


def certificate(folder: str) -> str:
    """Certificate and key in one file, that courier may read."""
    pem, key = f"{folder}/pop3d.pem", f"{folder}/key"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=localhost", "-keyout", key, "-out", pem]
    subprocess.run([*argv, *subject], check=True, capture_output=True)
    with open(key) as source, open(pem, "a") as file:
        file.write(source.read())
    os.chmod(pem, 0o644)  # in a folder of ours, for an hour
    return pem


def deliver_large(mailboxes: Accounts) -> None:
    name, owner = list(mailboxes.owners.items())[-1]
    line = b"A line of a large letter, seventy-five octets long without its line end.\n"
    message = b"Subject: large\n\n" + line * (LARGE_MB * 1_000_000 // len(line))
    maildir = f"{mailboxes.home_of(name)}/Maildir"
    there = os.stat(maildir)
    path = f"{maildir}/cur/1999999999.large.host:2,S"
    with open(path, "wb") as file:
        file.write(message)
    os.chown(path, there.st_uid, there.st_gid)


def compare(folder: str, options: argparse.Namespace) -> Encrypted:
    load = Load(folder)
    with accounts(folder) as mailboxes:
        system = mailboxes.system
        deliver_large(system)
        servers = setups.for_tls(folder, system, options.bin, certificate(folder), options.add)
        comparison = Encrypted(load, system, chosen(servers, options.only), options)
        comparison.run()
    return comparison


def main() -> int:
    options = arguments(__doc__)
    end_on_signals()
    needed = originals.NEEDED | originals.DOVECOT | CURL
    try:
        with open(options.json, "w") as file:
            folder = private_folder(needed, "courier-pop", "dovecot-pop3d")
            comparison = compare(folder, options)
            comparison.write_json(file, retr=comparison.retr)
    except (Unable, OSError) as why:
        sys.exit(f"tls: {why}")
    print("", comparison.text(), "", comparison.problems(), sep="\n")
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
