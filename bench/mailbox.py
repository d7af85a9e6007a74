"""mailbox - how our POP3 server does with a large mailbox, beside Courier and Dovecot

    python3 bench/mailbox.py [--bin BIN] [--messages 100000] [--rounds 3] [--quick]
                             [--only NAME,...] [--json FILE]
    python3 bench/mailbox.py --bin BIN --million [--json FILE]

BIN is the directory with our couriertcpd and the programs of its chain; without it only the others
are measured. In interleaved rounds each server serves one client at a time: first and second login,
lists, messages, removal (maildirs.py, popmail.c). Then the peak of its memory is taken. Prints
tables; writes the raw numbers to FILE as JSON.

--million does the same, less thoroughly, with 250,000, 500,000 and 1,000,000 tiny messages for ours
alone: does the time grow in proportion, and what of the memory?

Needs root, and room in /var/tmp. Exits 1 if it cannot run or if any session failed, else 0, however
slow the servers are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from statistics import median

import mailreport
import originals
import setups
from accounts import homes
from comparison import Comparison, Unable, chosen, end_on_signals, private_folder
from mailclient import MailClient
from maildirs import Amounts, LongMailboxes, MillionMailbox, owner
from ours import Ours
from servers import Failed, Server

NAMES = ["courier", "dovecot", "ours"]
WARM_LOGINS = 3
MEGA = 1_000_000
MILLION_STEPS = (250_000, 500_000, 1_000_000)
MILLION_DISK = 2_000_000_000


class LongSessions(Comparison):
    """Sessions with large mailboxes, one at a time."""

    def __init__(
        self,
        client: MailClient,
        mailboxes: LongMailboxes,
        amounts: Amounts,
        servers: list[Server],
        options: argparse.Namespace,
    ):
        super().__init__(servers, options)
        self.client = client
        self.mailboxes = mailboxes
        self.amounts = amounts
        self.runs: list[dict] = []
        self.memory: dict[str, dict[str, float]] = {}

    def measure(self, number: int, server: Server) -> None:
        self.mailboxes.restore(server.name)
        self.session(server, "empty", "stat", "quit")  # a server's first session is not like others
        run = {"server": server.name, "order": self.order[server.name], "round": number}
        run |= self.first_login(server) | self.next_logins(server)
        run |= self.retrieve(server, "fifty") | self.retrieve(server, "huge")
        run |= self.delete(server)
        self.runs.append(run)

    def first_login(self, server: Server) -> dict:
        self.mailboxes.warm("many")
        return {
            "cold": self.session(server, "many", "stat", "quit")["stat"],
            "named": self.session(server, "named", "stat", "quit")["stat"],
        }

    def next_logins(self, server: Server) -> dict:
        steps = ("stat", "list", "uidl", "quit")
        found = [self.session(server, "many", *steps) for _ in range(WARM_LOGINS)]
        warm = {step: median(one[step] for one in found) for step in ("stat", "list", "uidl")}
        return {"warm": warm["stat"], "list": warm["list"], "uidl": warm["uidl"]}

    def retrieve(self, server: Server, kind: str) -> dict:
        self.mailboxes.warm(kind)
        fast = self.session(server, kind, "stat", "list", "retr", "quit")
        some = f"retr={min(self.amounts.slow, fast['messages'])}"
        slow = self.session(server, kind, "stat", "list", some, "quit", slow=True)
        return {kind: megabytes_a_second(fast), f"{kind}_slow": megabytes_a_second(slow)}

    def delete(self, server: Server) -> dict:
        found = self.session(server, "many", "stat", f"dele={self.amounts.deleted}", "quit")
        left = self.mailboxes.left(server.name, "many")
        if left != self.amounts.many - self.amounts.deleted:
            raise Failed(f"{server.name}: {left} messages are left after DELE and QUIT")
        return {"deleted": found["dele"] + found["quit"]}

    def session(self, server: Server, kind: str, *steps: str, slow: bool = False) -> dict:
        """One session with a mailbox; STAT, which is one of the steps, must say what is in it."""
        found = self.client.session(server, self.user(server, kind), *steps, slow=slow)
        letters = self.mailboxes.kinds[kind]
        right = (len(letters.letters), letters.octets)
        if (found["messages"], found["octets"]) != right:
            said = f"{found['messages']} {found['octets']}"
            raise Failed(f"{server.name}: {kind}: STAT says {said} instead of {right}")
        return found

    def measure_memory(self, server: Server) -> None:
        self.mailboxes.restore(server.name)
        steps = {
            "idle": ("empty", "stat"),
            "many": ("many", "stat", "list", "uidl"),
            "huge": ("huge", "stat", "list", "retr"),
        }
        found = {}
        for name, (kind, *wanted) in steps.items():
            user = self.user(server, kind)
            peak = self.client.peak_rss_mb(server, owner().pw_uid, user, *wanted)
            found[name], found[f"{name}_largest"] = peak.together, peak.largest
        self.memory[server.name] = found

    def user(self, server: Server, kind: str) -> str:
        return self.mailboxes.user(server.name, kind)


def megabytes_a_second(found: dict) -> float:
    return found["retr_octets"] / found["retr"] / MEGA


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=os.path.abspath, help="directory of our installed programs")
    parser.add_argument("--messages", type=int, default=100_000, help="in the large mailbox")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round with a fiftieth of it")
    parser.add_argument("--million", action="store_true", help="ours with 1,000,000 messages")
    parser.add_argument("--only", help="names of servers, separated by commas")
    parser.add_argument("--json", default=os.devnull, metavar="FILE")
    options = parser.parse_args()
    if options.messages < 10:
        parser.error("--messages must be at least 10")
    if options.quick:
        options.rounds, options.messages = 1, min(options.messages, 2000)
    if options.million and not options.bin:
        parser.error("--million needs --bin")
    return options


def compare(options: argparse.Namespace) -> LongSessions:
    amounts = Amounts(options.messages, options.quick)
    needed = originals.NEEDED | originals.DOVECOT
    folder = private_folder(needed, "courier-pop", "dovecot-pop3d")
    with homes() as path:
        check_room(path, amounts.disk())
        client = MailClient(folder)
        mailboxes = LongMailboxes(folder, path, NAMES)
        print(f"making the mailboxes in {path}", flush=True)
        mailboxes.make(amounts)
        servers = chosen(setups.for_long(folder, mailboxes, options.bin), options.only)
        comparison = LongSessions(client, mailboxes, amounts, servers, options)
        comparison.run()
        runs, memory = comparison.runs, comparison.memory
        show(mailreport.text(runs, memory, amounts, options.rounds), comparison.failures)
    return comparison


class Growth(Comparison):
    """One server and a mailbox that grows; a round is a size."""

    def __init__(
        self,
        client: MailClient,
        mailbox: MillionMailbox,
        servers: list[Server],
        options: argparse.Namespace,
    ):
        options.rounds = len(MILLION_STEPS)
        super().__init__(servers, options)
        self.client = client
        self.mailbox = mailbox
        self.runs: list[dict] = []
        self.idle = 0.0

    def measure(self, number: int, server: Server) -> None:
        count = MILLION_STEPS[number - 1]
        user = self.mailbox.user(server.name, "million")
        self.mailbox.grow(count)
        self.mailbox.restore(server.name)
        cold = self.client.session(server, user, "stat", "quit")
        warm = self.client.session(server, user, "stat", "list", "uidl", "quit")
        if warm["messages"] != count:
            raise Failed(f"{server.name}: STAT says {warm['messages']} instead of {count}")
        self.mailbox.restore(server.name)
        peak = self.client.peak_rss_mb(server, owner().pw_uid, user, "stat", "list", "uidl")
        times = {"cold": cold["stat"], "warm": warm["stat"]}
        times |= {"list": warm["list"], "uidl": warm["uidl"]}
        self.runs.append({"messages": count, "peak_mb": peak.together, **times})

    def measure_memory(self, server: Server) -> None:
        user = self.mailbox.user(server.name, "empty")
        self.idle = self.client.peak_rss_mb(server, owner().pw_uid, user, "stat").together


def grow(options: argparse.Namespace) -> Growth:
    folder = private_folder(originals.NEEDED)
    with homes() as path:
        check_room(path, MILLION_DISK)
        mailbox = MillionMailbox(folder, path, "ours")
        ours = Ours("ours", folder, mailbox, options.bin, "authuserdb")
        growth = Growth(MailClient(folder), mailbox, [ours], options)
        growth.run()
        show(mailreport.growth(growth.runs, growth.idle), growth.failures)
    return growth


def show(text: str, failures: list[str]) -> None:
    print("", text, "", *(f"*** NOT MEASURED: {failure}" for failure in failures), sep="\n")
    print("removing the mailboxes", flush=True)


def check_room(path: str, octets: int) -> None:
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    if free < octets * 1.2:
        raise Unable(f"{path} has room for {free / MEGA:.0f} MB, needed are {octets / MEGA:.0f}")


def results(done: LongSessions | Growth) -> dict:
    memory = done.memory if isinstance(done, LongSessions) else {"idle": done.idle}
    return {
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count()},
        "runs": done.runs,
        "memory_mb": memory,
        "failures": done.failures,
    }


def main() -> int:
    options = arguments()
    end_on_signals()
    began = time.monotonic()
    done: LongSessions | Growth
    try:
        # Opened now: a name that cannot be written is better known before than after.
        with open(options.json, "w") as file:
            done = grow(options) if options.million else compare(options)
            json.dump(results(done), file, indent=1)
            file.write("\n")
    except (Unable, OSError) as why:
        sys.exit(f"mailbox: {why}")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 1 if done.failures else 0


if __name__ == "__main__":
    sys.exit(main())
