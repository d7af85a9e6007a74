"""tls - what TLS costs: our server beside Courier and Dovecot, on this machine

    python3 bench/tls.py [--bin BIN] [--rounds 5] [--seconds 2] [--quick] [--only NAME,...]
                         [--json FILE]

BIN is the directory with our programs; without it only the others are measured. All serve the same
mailboxes, each with its own uid, on a port that begins with TLS, with one certificate (RSA, 2048
bits). In each interleaved round each set-up of servers.set_ups_for_tls has, 8 at once:

    handshake  connections that are closed after it
    new        whole sessions, each with a handshake of its own
    resumed    the same, resuming the TLS session before
    RETR       one message of 200 MB, by curl

and then, started anew, the memory of idle sessions. Needs root. Exits 1 if it cannot run or if any
session failed, else 0, however slow the servers are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from statistics import median

import originals
import report
from accounts import MESSAGES, Accounts, accounts
from comparison import Comparison, Unable, chosen, end_on_signals, private_folder
from load import Load, check_mailbox
from servers import Failed, Server, set_ups_for_tls

AT_ONCE = 8
KINDS = ("handshake", "new", "resumed")
IDLE_SESSIONS = 20
LARGE_MB = 200
CURL = {"/usr/bin/curl": "curl", "/usr/bin/openssl": "openssl"}
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


class Encrypted(Comparison):
    def __init__(self, load: Load, mailboxes: Accounts, servers: list[Server], options):
        super().__init__(servers, options)
        self.load = load
        self.mailboxes = mailboxes
        self.runs: list[dict] = []
        self.retr: dict[str, list[float]] = {}
        self.pss: dict[str, float] = {}

    def start(self, server: Server) -> None:
        server.start()
        check_mailbox(server, MESSAGES)

    def measure(self, number: int, server: Server) -> None:
        for kind in KINDS:
            run = self.load.measure(server, AT_ONCE, 0, self.options.seconds, tls=kind)
            run.update(server=server.name, kind=kind, round=number)
            self.runs.append(run)
            if report.failed(run):
                print(f"*** {server.name}, {kind}: {run['first_bad_reply']}", flush=True)
        self.retr.setdefault(server.name, []).append(self.fetch_large(server))

    def fetch_large(self, server: Server) -> float:
        """MB a second."""
        user = f"{list(self.mailboxes.owners)[-1]}:{self.mailboxes.password}"
        url = f"pop3s://127.0.0.1:{server.port}/{MESSAGES + 1}"
        argv = ["curl", "-sSk", "-m", "60", "-o", os.devnull, "-w", "%{speed_download}"]
        run = subprocess.run([*argv, "--user", user, url], capture_output=True, text=True)
        if run.returncode:
            raise Failed(f"{server.name}: curl: {run.stderr.strip()}")
        return float(run.stdout) / 1e6

    def measure_memory(self, server: Server) -> None:
        server.stop()
        self.start(server)
        self.pss[server.name] = self.load.idle_pss_mb(server, IDLE_SESSIONS)

    def failed(self) -> bool:
        return bool(self.failures) or any(report.failed(run) for run in self.runs)

    def values(self, server: str, kind: str, key: str) -> list[float]:
        return [run[key] for run in self.runs if (run["server"], run["kind"]) == (server, kind)]

    def text(self) -> str:
        names = [server.name for server in self.servers]
        heads = "".join(f"{head:>12}{'CPU ms':>9}" for head in KINDS)
        lines = [f"{'a second':16}{heads}{'RETR MB/s':>11}{'idle MB':>9}"]
        for name in names:
            line = f"{name:16}"
            for kind in KINDS:
                line += f"{median(self.values(name, kind, report.RATE)):12.0f}"
                line += f"{median(self.values(name, kind, report.CPU)):9.2f}"
            lines.append(f"{line}{median(self.retr[name]):11.0f}{self.pss[name]:9.2f}")
        lines.append("")
        for kind, ours, other, aim in TARGETS:
            if ours in names and other in names:
                pairs = zip(
                    self.values(ours, kind, report.RATE),
                    self.values(other, kind, report.RATE),
                    strict=True,
                )
                ratio = median(one / two for one, two in pairs)
                verdict = report.judged(ratio, aim, at_least=True, unit=" x")
                lines.append(f"{kind:12}{ours:12}{other:16}{ratio:8.2f} x   {verdict}".rstrip())
        if "ours" in names and len(names) > 2:
            others = [name for name in names if not name.startswith("ours")]
            fastest = max(others, key=lambda name: median(self.retr[name]))
            pairs = zip(self.retr["ours"], self.retr[fastest], strict=True)
            ratio = median(one / two for one, two in pairs)
            verdict = report.judged(ratio, 1.0, at_least=True, unit=" x")
            lines.append(f"{'RETR':12}{'ours':12}{fastest:16}{ratio:8.2f} x   {verdict}")
        if {"ours", "courier"} <= set(names):
            verdict = report.judged(
                self.pss["ours"], round(self.pss["courier"], 2), at_least=False, unit=" MB"
            )
            lines.append(
                f"{'PSS':12}{'ours':12}{'courier':16}{self.pss['ours']:8.2f} MB  {verdict}"
            )
        return "\n".join(lines)


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
        deliver_large(mailboxes)
        servers = set_ups_for_tls(folder, mailboxes, options.bin, certificate(folder))
        comparison = Encrypted(load, mailboxes, chosen(servers, options.only), options)
        comparison.run()
    return comparison


def main() -> int:
    options = arguments()
    end_on_signals()
    needed = originals.NEEDED | originals.DOVECOT | CURL
    try:
        with open(options.json, "w") as file:
            folder = private_folder(needed, "courier-pop", "dovecot-pop3d")
            comparison = compare(folder, options)
            found = {"runs": comparison.runs, "retr": comparison.retr, "pss_mb": comparison.pss}
            json.dump(found, file, indent=1)
    except (Unable, OSError) as why:
        sys.exit(f"tls: {why}")
    print("\n" + comparison.text())
    if problems := report.errors(comparison.runs):
        print("\n" + problems)
    for failure in comparison.failures:
        print(f"*** NOT MEASURED: {failure}")
    return 1 if comparison.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
