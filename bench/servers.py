"""servers - what every server that is compared has: how to start it, stop it and look at it

A set-up is a class with a name, the accounts it serves and the commands to run:

    start()    run the commands, wait for a greeting on a loopback port of its own
    stop()     end them, and whatever they started
    pids()     all its processes
    cpu_ms()   the processor time it has used so far

There is one for each server: courier.py, dovecot.py, cyrus.py, popa3d.py, ours.py. To add a server,
write a class with `commands`, and name it in setups.py.
"""

from __future__ import annotations

import os
import random
import socket
import ssl
import time
from contextlib import suppress

import keeper
import processes
from accounts import Accounts

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 10.0
MOST = 400  # connections at a time, unless more are asked for

Command = tuple[list[str], dict[str, str]]


class Failed(Exception):
    """A server that does not start, or does not serve."""


class Server:
    """`pem`: certificate and key, if its port is one for TLS. `idle_seconds`: after so long an idle
    session needs no more than it ever will. `most`: connections at a time that it must take."""

    pem = ""
    idle_seconds = 0.0
    most = MOST

    def __init__(self, name: str, folder: str, accounts: Accounts):
        self.name = name
        self.accounts = accounts
        self.folder = f"{folder}/{name}"
        self.log = f"{self.folder}/stderr"
        self.port = 0
        self.keepers: list[int] = []
        os.mkdir(self.folder)
        # A listener with -user opens its log when it has already become that user.
        os.close(os.open(self.log, os.O_CREAT | os.O_WRONLY))
        os.chmod(self.log, 0o666)

    def commands(self) -> list[Command]:
        """What to run, in this order, with which environment; the last one listens on the port."""
        raise NotImplementedError

    def start(self) -> None:
        os.truncate(self.log, 0)
        self.port = free_port()
        for argv, env in self.commands():
            self.keepers.append(keeper.start(argv, env, self.log))
        self.wait_for_greeting()

    def stop(self) -> None:
        while self.keepers:
            keeper.stop(self.keepers.pop())

    def pids(self) -> list[int]:
        return [pid for held in self.keepers for pid in processes.descendants(held)]

    def cpu_ms(self) -> float:
        return processes.cpu_ms(self.keepers)

    def wait_for_greeting(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not greets(self.port, tls=bool(self.pem)):
            if not all(keeper.alive(held) for held in self.keepers):
                raise Failed(f"{self.name}: ended at start: {self.last_words()}")
            if time.monotonic() > until:
                raise Failed(f"{self.name}: no greeting on its port: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        with open(self.log, errors="replace") as file:
            lines = [line for line in file.read().splitlines() if line.strip()]
        return " / ".join(lines[-3:]) or "it wrote nothing"


def free_port() -> int:
    """A port that nobody uses, below those that clients are given."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def greets(port: int, *, tls: bool) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            if tls:
                client = unverified().wrap_socket(client)
            return client.recv(512).startswith(b"+OK")
    except OSError:
        return False


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
