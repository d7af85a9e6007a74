"""comparison - what every comparison of servers does: start them, measure in rounds, stop them

folder = private_folder(NEEDED)    root's rights, installed packages, a private /etc and /run
chosen(servers, "NAME,...")        those servers
Comparison(servers, options)       measures them; start, measure and measure_memory are for the
                                   subclass to say
end_on_signals()                   so that servers are stopped and mailboxes removed
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import originals
import privateview
from servers import Failed, Server


class Unable(Exception):
    """The comparison cannot be made here."""


class Comparison:
    """The servers, and what went wrong with them."""

    def __init__(self, servers: list[Server], options: argparse.Namespace):
        self.servers = servers
        self.order = {server.name: number for number, server in enumerate(servers)}
        self.options = options
        self.failures: list[str] = []

    def run(self) -> None:
        try:
            self.attempt_each(self.start)
            for number in range(1, self.options.rounds + 1):
                print(f"round {number} of {self.options.rounds}", flush=True)
                self.attempt_each(partial(self.measure, number), first=number)
            self.attempt_each(self.measure_memory)
        finally:
            for server in self.servers:
                server.stop()

    def attempt_each(self, step: Callable[[Server], None], first: int = 0) -> None:
        """Takes the step with each server; one that fails is left out from then on."""
        shift = first % max(1, len(self.servers))
        for server in self.servers[shift:] + self.servers[:shift]:
            try:
                step(server)
            except Failed as why:
                print(f"*** {why}", flush=True)
                self.failures.append(str(why))
                server.stop()
                self.servers.remove(server)

    def start(self, server: Server) -> None:
        server.start()

    def measure(self, number: int, server: Server) -> None:
        raise NotImplementedError

    def measure_memory(self, server: Server) -> None:
        raise NotImplementedError


def chosen(servers: list[Server], only: str | None) -> list[Server]:
    names = [server.name for server in servers]
    wanted = only.split(",") if only else names
    if not set(wanted) <= set(names):
        raise Unable(f"--only takes names of: {' '.join(names)} (those of ours need --bin)")
    return [server for server in servers if server.name in wanted]


def private_folder(needed: dict[str, str], *pop3_packages: str) -> str:
    """Installs what is missing, leaves the common /etc and /run, returns the folder to work in."""
    if os.geteuid() != 0:
        raise Unable("must run as root: it makes accounts and starts servers that log them in")
    try:
        originals.install(needed, *pop3_packages)
        return privateview.enter()
    except PermissionError as why:
        raise Unable(f"no private mount namespace: {why} (CAP_SYS_ADMIN is needed)") from why
    except (OSError, subprocess.CalledProcessError) as why:
        raise Unable(f"cannot prepare: {why}") from why


def end_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
