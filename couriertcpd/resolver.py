"""resolver - the process that asks the DNS for the listener

Reads questions and writes answers on one channel, see `lookups`; ends when the listener hangs up.
As root it becomes `nobody` first: what it reads comes from strangers. Many clients are looked up at
a time, MOST at the most, the others wait; and for each of them all is asked at once, so that a
name server that keeps silent costs what it would have said, and nothing else.

Host names are asked for by the system's resolver, in threads, because it can't do otherwise; the
lists by dnspython, which remembers what it has heard for as long as that is valid. Loaded here and
nowhere else: both are large.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  (loaded while this process may still read it)
import gc
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from signal import SIG_IGN, SIGHUP, signal
from socket import AF_INET6, inet_pton, socket
from time import monotonic
from typing import Any

from courierchain import daemon
from couriertcpd import dnslists
from couriertcpd.arrival import Variables
from couriertcpd.dnslists import Answer, DnsList
from couriertcpd.hostname import UNDECIDED, host_name
from couriertcpd.lookups import GRACE, LARGEST, Plan, Server, answer, questioned

MOST = 200  # clients at a time, and threads
NOBODY = "nobody"
LONGEST_TEXT = 512  # octets of a TXT record that a session is told
REMEMBERED = 10_000  # answers


def run(channel: socket, plan: Plan) -> None:
    """Answer until the listener hangs up. Raises Refused, ImportError."""
    gc.enable()
    signal(SIGHUP, SIG_IGN)
    # A thread that waits for a silent server is to be free again soon.
    os.environ.setdefault("RES_OPTIONS", f"timeout:{max(1, int(plan.seconds // 2))} attempts:2")
    lists = Lists(plan.servers) if plan.lists else None
    if os.geteuid() == 0:
        daemon.change_user(NOBODY)
    asyncio.run(Resolver(channel, plan, lists).serve())
    os._exit(0)  # threads may still wait


class Resolver:
    def __init__(self, channel: socket, plan: Plan, lists: Lists | None):
        self._channel = channel
        self._plan = plan
        self._lists = lists
        self._places = asyncio.Semaphore(MOST)
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(MOST))
        self._channel.setblocking(False)
        tasks = set()
        while question := await loop.sock_recv(self._channel, LARGEST):
            task = loop.create_task(self._answer(question))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        os._exit(0)

    async def _answer(self, message: bytes) -> None:
        number, until, remote, local, preset = questioned(message)
        async with self._places:
            found = await self._look_up(until, remote, local, {*preset, *self._plan.preset})
        reply = answer(number, found)
        if len(reply) <= LARGEST:  # else the command line says more than anybody reads
            async with self._sending:
                await asyncio.get_running_loop().sock_sendall(self._channel, reply)

    async def _look_up(self, until: float, remote: str, local: str, preset: set[str]) -> Variables:
        """What can be found out until then."""
        loop = asyncio.get_running_loop()
        address = inet_pton(AF_INET6, remote)
        names: dict[str, asyncio.Future[str]] = {}
        if self._plan.names:
            names = {
                "TCPREMOTEHOST": loop.run_in_executor(None, host_name, remote),
                "TCPLOCALHOST": loop.run_in_executor(None, host_name, local),
            }
        concerned = [each for each in self._plan.lists if each.variable not in preset]
        asked = [
            loop.create_task(self._lists.ask(each, address, until))
            for each in concerned
            if self._lists
        ]
        await settle([*names.values(), *asked], until)
        answers = [result(each, []) for each in asked]
        found = dnslists.variables(concerned, answers, preset, address)
        hosts = {variable: result(names[variable], UNDECIDED) for variable in names}
        return {**found, **{variable: name for variable, name in hosts.items() if name}}


async def settle(futures: list[Any], until: float) -> None:
    """Wait for all of them until then, and hardly longer."""
    if futures:
        time = until + GRACE / 2 - monotonic()  # to hear from those who have just given up
        _, late = await asyncio.wait(futures, timeout=max(0.0, time))
        for future in late:
            future.cancel()


def result(future: asyncio.Future[Any], otherwise: Any) -> Any:
    """What has come of it; `otherwise` if nothing has."""
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    return otherwise


class Lists:
    """Asks about lists. servers: as in Plan. Made while all of dnspython can be read."""

    def __init__(self, servers: list[Server]):
        import dns.asyncbackend
        import dns.asyncresolver
        import dns.exception
        import dns.rdata
        import dns.resolver

        for kind in (1, 2, 5, 6, 16):  # A, NS, CNAME, SOA, TXT: loaded when first seen
            dns.rdata.get_rdata_class(1, kind)
        dns.asyncbackend.get_backend("asyncio")
        self._dns = dns
        self._servers = servers
        self._cache = dns.resolver.LRUCache(REMEMBERED)
        self._stamp: tuple[int, int] | None = None
        self._made: Any = None

    async def ask(self, dns_list: DnsList, address: bytes, until: float) -> list[Answer]:
        """The answers for the client's names in turn, up to the one that has it on the list."""
        answers: list[Answer] = []
        for name in dns_list.names(address):
            wanted: list[Coroutine[Any, Any, list[Any]]] = [self._records(name, "A", until)]
            if dns_list.with_text:
                wanted.append(self._records(name, "TXT", until))
            values, *texts = await asyncio.gather(*wanted)
            text = b"".join(texts[0][0].strings) if texts and texts[0] else b""
            shown = dnslists.printable(text, LONGEST_TEXT)
            answers.append(([value.address for value in values], shown))
            if dns_list.judge("", answers[-1]) is not None:
                break
        return answers

    async def _records(self, name: str, kind: str, until: float) -> list[Any]:
        """The records of a name; none if there are none or nobody can say."""
        time = until - monotonic()
        if time <= 0:
            return []
        try:
            heard = await self._resolver().resolve(
                f"{name}.",
                kind,
                search=False,
                raise_on_no_answer=False,
                lifetime=time,
            )
        except (self._dns.exception.DNSException, OSError, ValueError):
            return []
        return list(heard.rrset or ())

    def _resolver(self) -> Any:
        """One that knows the name servers of now: resolv.conf may change while we run."""
        stamp = None if self._servers else self._look_at_configuration()
        if self._made is None or stamp != self._stamp:
            self._stamp = stamp
            self._made = self._make()
            self._made.cache = self._cache
        return self._made

    def _look_at_configuration(self) -> tuple[int, int]:
        try:
            there = os.stat("/etc/resolv.conf")
            return there.st_ino, there.st_mtime_ns
        except OSError:
            return 0, 0

    def _make(self) -> Any:
        made = self._dns.asyncresolver.Resolver(configure=False)
        if not self._servers:
            try:
                return self._dns.asyncresolver.Resolver()
            except self._dns.resolver.NoResolverConfiguration:
                made.nameservers = ["127.0.0.1"]  # as with the C library
                return made
        made.nameserver_ports = dict(self._servers)
        made.nameservers = [address for address, _ in self._servers]
        return made
