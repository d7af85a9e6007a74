"""load - drive one server with popload, and look into one of its mailboxes

load = Load(folder)                               compiles popload.c and canned.c
load.measure(server, at_once, seconds)            one measurement, as a dictionary
with load.held(server, count, greeted=False):     so many sessions are logged in, and silent;
                                                  or connected only
load.idle_pss_mb(server, count)                   memory of a session that is logged in
check_mailbox(server, messages)                   Failed unless it serves that many
"""

from __future__ import annotations

import json
import os
import poplib
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import processes
from servers import Failed, Server, unverified

HERE = os.path.dirname(os.path.abspath(__file__))
NO_LIMIT = 1_000_000
FROM_ONE_ADDRESS = 2000  # held sessions; more would take too many of its 28,000 ports


class Load:
    def __init__(self, folder: str):
        self.popload = compiled("popload", folder)
        self.canned = compiled("canned", folder)

    def command(self, server: Server, at_once: int, *options: str, tls: str = "new") -> list[str]:
        if server.pem:
            options = ("-s", tls, *options)
        place = ["127.0.0.1", str(server.port), server.accounts.users]
        return [self.popload, "-c", str(at_once), *options, *place]

    def run(self, server: Server, at_once: int, sessions: int, seconds: float, tls: str) -> dict:
        limits = ["-n", str(sessions), "-t", str(seconds)]
        command = self.command(server, at_once, *limits, tls=tls)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if not done.stdout:
            raise RuntimeError(f"popload ended with {done.returncode}")
        return json.loads(done.stdout)

    def measure(self, server: Server, at_once: int, seconds: float, tls: str = "new") -> dict:
        """`tls`: as popload's -s has it, for a server that is for TLS."""
        warm = self.run(server, at_once, max(20, 4 * at_once), seconds / 4, tls)
        before = server.cpu_ms()
        result = self.run(server, at_once, NO_LIMIT, seconds, tls)
        used = server.cpu_ms() - before
        result["cpu_ms_per_session"] = used / max(1, result["sessions"])
        result["warm_up_errors"] = warm["errors"]
        result["first_bad_reply"] = warm["first_bad_reply"] or result["first_bad_reply"]
        return result

    @contextmanager
    def held(self, server: Server, count: int, *, greeted: bool = False) -> Iterator[None]:
        """Failed if they don't get in, or if one of them is dropped meanwhile."""
        addresses = str(1 + count // FROM_ONE_ADDRESS)
        command = self.command(server, count, "-g" if greeted else "-i", "-a", addresses)
        pipe = subprocess.PIPE
        patience = 15 + count / 50
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as clients:
            assert clients.stdin and clients.stdout
            try:
                waited = select.select([clients.stdout], [], [], patience)[0]
                ready = waited and clients.stdout.readline()
                if ready != "ready\n":
                    raise Failed(f"{server.name}: {count} idle sessions: {ready or 'no answer'}")
                yield
            finally:
                clients.stdin.close()
                end = clients.stdout.read()
                clients.wait(patience)
        if clients.returncode:
            bad = json.loads(end)["first_bad_reply"]
            raise Failed(f"{server.name}: {count} idle sessions: {bad}")

    def idle_pss_mb(self, server: Server, count: int, *, greeted: bool = False) -> float:
        """PSS that each of `count` sessions adds while it is logged in, or greeted, and idle."""
        time.sleep(server.idle_seconds)
        before = processes.pss_kb(server.pids())
        with self.held(server, count, greeted=greeted):
            time.sleep(server.idle_seconds)
            return (processes.pss_kb(server.pids()) - before) / 1024 / count


def compiled(name: str, folder: str) -> str:
    program = f"{folder}/{name}"
    libraries = ["-lssl", "-lcrypto"]
    subprocess.run(["cc", "-O2", "-o", program, f"{HERE}/{name}.c", *libraries], check=True)
    return program


def check_mailbox(server: Server, messages: int) -> None:
    with open(server.accounts.users) as file:
        user, password = file.readline().split()
    try:
        if server.pem:
            client = poplib.POP3_SSL("127.0.0.1", server.port, timeout=10, context=unverified())
        else:
            client = poplib.POP3("127.0.0.1", server.port, timeout=10)
        client.user(user)
        client.pass_(password)
        count = client.stat()[0]
        client.quit()
    except (OSError, poplib.error_proto) as why:
        raise Failed(f"{server.name}: cannot log in: {why}: {server.last_words()}") from why
    if count != messages:
        raise Failed(f"{server.name}: serves {count} messages instead of {messages}")
