"""front - hold the clients that have not logged in yet, all in one process without rights

    courierpop3login -front [-user=USER] [-relay] COURIERPOP3LOGIN MODULE... courierpop3d MAILDIR

Started by couriertcpd -front, which gives it connections on descriptor 0 (`courierchain.front`) and
the environment that all sessions have in common. It greets, and obeys as courierpop3login does for
a client of its own: the same session, log lines, limits and delays. Only a client that has sent a
complete login costs a process: its connection goes back to the listener with the record for the
modules. No octet behind that login has been read.

-user       whom it becomes before it reads anything, if it is root; there is no way back
-relay      the listener makes the handshake that follows STLS

It waits for nobody: each turn reads at most one line of each client that has sent something, sends
what the client takes at once, and keeps the rest. Sessions that are other than Courier's, or can't
be, are left to a process of their own: POP3_DIALECT=cyrus, STLS by a program of another's, settings
that make no sense.

Exits 0 when the listener hangs up: the clients that it held are gone. 1 if it can't give up root.
"""

from __future__ import annotations

import os
import select
from _socket import (
    AF_INET,
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from collections.abc import Callable
from errno import EMFILE
from heapq import heapify, heappop, heappush
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from stat import S_ISSOCK
from sys import byteorder
from time import monotonic

from courierchain import daemon, front, handover, log, netstrings
from courierchain.client import PEEKED
from courierchain.refusal import Refused
from courierchain.request import RECORD
from courierpop3login.visitor import Manner, Unfit, Visitor

BATCH = 16  # messages of the listener that are read in a row
MOST_MANNERS = 1000  # sets of variables whose sessions are known
SLACK = 64  # times of clients that have left, beyond twice as many as have not
DESCRIPTOR = CMSG_SPACE(4)
EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Front:
    __slots__ = (
        *("_channel", "_argv", "_env", "_has_relay", "_epoll", "_manners", "_visitors"),
        *("_by_descriptor", "_ready", "_times"),
    )

    def __init__(self, channel: socket, argv: list[str], env: dict[str, str], has_relay: bool):
        """argv, env: as the login program is called with them, but for the client's variables."""
        self._channel = channel
        self._argv = argv
        self._env = env
        self._has_relay = has_relay
        self._manners: dict[bytes, Manner] = {}
        self._visitors: dict[int, Visitor] = {}
        self._by_descriptor: dict[int, Visitor] = {}
        self._ready: list[Visitor] = []  # who has to be looked at
        self._times: list[tuple[float, int]] = []  # a heap: when whose time is up, or delay over
        self._epoll = select.epoll()
        self._epoll.register(channel, select.EPOLLIN)

    def run(self) -> int:
        """Until the listener hangs up; the exit status."""
        channel = self._channel.fileno()
        while True:
            for descriptor, events in self._epoll.poll(0 if self._ready else self._patience()):
                if descriptor != channel:
                    if visitor := self._by_descriptor.get(descriptor):
                        visitor.is_ending = visitor.is_ending or bool(events & ENDS)
                        self._ready.append(visitor)
                elif not self._hear():
                    return 0
            ready, self._ready = self._ready, []
            for visitor in ready:
                self._look(visitor)
            self._keep_time()

    # The listener

    def _hear(self) -> bool:
        """Take what the listener has sent; False when it has hung up."""
        for _ in range(BATCH):
            try:
                data, controls, _, _ = self._channel.recvmsg(
                    front.LONGEST, DESCRIPTOR, MSG_DONTWAIT | MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            except OSError:
                return False
            if not data:
                return False
            kind, number, rest = front.parsed(data)
            if kind == front.LOST:
                self._lose(number)
            elif controls:
                descriptor = int.from_bytes(controls[0][2][:4], byteorder)
                client = socket(AF_INET, SOCK_STREAM, 0, fileno=descriptor)
                self._TAKEN[kind](self, number, client, rest)
            else:  # there was no descriptor left for it
                log.err(f"front: {os.strerror(EMFILE)}")
                self._tell(front.OVER, number)
        return True

    def _hold(self, number: int, client: socket, rest: bytes) -> None:
        visitor = self._visitor(number, client, rest)
        if visitor:
            log.debug(f"Connection, {visitor.where}")
            self._watch(visitor)
            self._say(visitor, visitor.session.greeting)

    def _hold_again(self, number: int, client: socket, rest: bytes) -> None:
        rest, returned = netstrings.decode(rest)
        refused = front.Return.decode(returned)
        visitor = self._visitor(number, client, rest, refused.expire)
        if visitor:
            visitor.session = visitor.manner.begun(refused.utf8)
            self._delay(visitor, refused.reply)
            self._watch(visitor)

    def _visitor(
        self, number: int, client: socket, rest: bytes, expire: int | None = None
    ) -> Visitor | None:
        """A new one; None if it isn't for us."""
        address, port, others = front.split_ends(rest)
        try:
            manner = self._manner(others)
        except Unfit:
            self._pass(front.PLAIN, number, client)
            client.close()
            return None
        where = f"ip=[{address}], port=[{port}]"
        visitor = Visitor(number, client, where, manner, expire)
        self._visitors[number] = visitor
        self._remind(visitor.deadline, number)
        return visitor

    def _manner(self, others: bytes) -> Manner:
        """Raises Unfit."""
        manner = self._manners.get(others)
        if manner is None:
            if len(self._manners) >= MOST_MANNERS:
                self._manners.clear()
            env = {**self._env, **front.variables(others)}
            manner = self._manners[others] = Manner(self._argv, env, self._has_relay)
        return manner

    def _secure(self, number: int, client: socket, rest: bytes) -> None:
        visitor = self._visitors.get(number)
        if visitor is None:  # its time was up meanwhile
            client.close()
            return
        visitor.begin_again(client, self._manner(front.split_ends(rest)[2]))
        self._watch(visitor)

    def _lose(self, number: int) -> None:
        if visitor := self._visitors.pop(number, None):
            log.debug(f"Disconnected, {visitor.where}")

    _TAKEN: dict[bytes, Callable[[Front, int, socket, bytes], None]] = {
        front.HOLD: _hold,
        front.AGAIN: _hold_again,
        front.SECURED: _secure,
    }

    def _tell(self, kind: bytes, number: int) -> None:
        try:
            self._channel.send(front.message(kind, number), MSG_NOSIGNAL)
        except OSError:
            pass  # it has hung up: `_hear` will see it

    def _pass(self, kind: bytes, number: int, client: socket, rest: bytes = b"") -> None:
        """Give a connection to the listener; our descriptor is still to be closed."""
        descriptor = client.fileno().to_bytes(4, byteorder)
        try:
            message = front.message(kind, number, rest)
            self._channel.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, descriptor)], MSG_NOSIGNAL)
        except OSError as why:
            log.err(f"front: {why.strerror}")
            self._tell(front.OVER, number)

    # The clients

    def _watch(self, visitor: Visitor) -> None:
        """Have a client looked at, also if it has sent something already."""
        if visitor.socket:
            self._by_descriptor[visitor.socket.fileno()] = visitor
            self._epoll.register(visitor.socket, EDGES)

    def _look(self, visitor: Visitor) -> None:
        """Take at most one line of a client who may have sent something, or gone."""
        client = visitor.socket
        if client is None or visitor.until:
            return
        if visitor.unsent:
            self._say(visitor, b"")
            if visitor.unsent or visitor.socket is None:
                return
        try:
            seen = client.recv(PEEKED, MSG_PEEK | MSG_DONTWAIT)
            size = seen.find(b"\n") + 1 or len(seen)
            data = client.recv(size, MSG_DONTWAIT) if seen else b""
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect(visitor)
            return
        visitor.reader.limit = visitor.session.limit
        for line in visitor.reader.feed(data):
            self._answer(visitor, visitor.session.obey(line))
        # There is one event for each change: what is known to be there isn't told again.
        if size < len(seen) or size == PEEKED or visitor.is_ending:
            self._ready.append(visitor)

    def _answer(self, visitor: Visitor, reply: bytes) -> None:
        session = visitor.session
        if session.failed:
            log.info(f"LOGIN FAILED, method={log.safe(session.failed)}, {visitor.where}")
            if session.is_slow:
                self._delay(visitor, reply)
                return
        self._say(visitor, reply)

    def _delay(self, visitor: Visitor, reply: bytes) -> None:
        visitor.delayed = reply
        visitor.until = min(monotonic() + visitor.manner.delay, visitor.deadline)
        self._remind(visitor.until, visitor.number)

    def _say(self, visitor: Visitor, reply: bytes) -> None:
        """Send what the client takes. With the last octet the session goes on, or is over."""
        assert visitor.socket
        octets = visitor.unsent + reply
        visitor.unsent = b""
        if octets:
            try:
                sent = visitor.socket.send(octets, MSG_DONTWAIT | MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._disconnect(visitor)
                return
            if sent < len(octets):
                visitor.unsent = octets[sent:]
                self._await_room(visitor)
                return
        if visitor.session.is_over:
            self._conclude(visitor)

    def _await_room(self, visitor: Visitor) -> None:
        assert visitor.socket
        self._epoll.modify(visitor.socket, EDGES | select.EPOLLOUT)

    def _conclude(self, visitor: Visitor) -> None:
        session = visitor.session
        if session.quit:
            visitor.discard_input()
            log.info(f"LOGOUT, {visitor.where}")
            self._disconnect(visitor)
            return
        client = self._let_go(visitor)
        if session.starts_tls:
            self._visitors[visitor.number] = visitor
            self._pass(front.STLS, visitor.number, client)
        else:
            login = front.Login(
                *(visitor.expire, session.utf8),
                *(session.user, session.method, session.request or b""),
            )
            self._pass(front.LOGIN, visitor.number, client, login.encode())
        client.close()

    def _disconnect(self, visitor: Visitor) -> None:
        log.debug(f"Disconnected, {visitor.where}")
        self._let_go(visitor).close()
        self._tell(front.OVER, visitor.number)

    def _let_go(self, visitor: Visitor) -> socket:
        """Its connection, which is not looked at any more."""
        client, visitor.socket = visitor.socket, None
        assert client
        del self._visitors[visitor.number]
        if self._by_descriptor.pop(client.fileno(), None):
            self._epoll.unregister(client)  # others may have the connection too
        return client

    # Time

    def _remind(self, when: float, number: int) -> None:
        heappush(self._times, (when, number))

    def _patience(self) -> float:
        """Seconds until somebody's time is up or delay over; negative: nobody's is."""
        if not self._times:
            return -1
        return max(0.0, self._times[0][0] - monotonic())

    def _keep_time(self) -> None:
        now = monotonic()
        while self._times and self._times[0][0] <= now:
            visitor = self._visitors.get(heappop(self._times)[1])
            if visitor:
                self._act_in_time(visitor, now)
        if len(self._times) > 2 * len(self._visitors) + SLACK:
            self._times = [
                (time_, visitor.number)
                for visitor in self._visitors.values()
                for time_ in {visitor.until or visitor.deadline, visitor.deadline}
            ]
            heapify(self._times)

    def _act_in_time(self, visitor: Visitor, now: float) -> None:
        if visitor.until and visitor.until <= now:
            reply, visitor.delayed, visitor.until = visitor.delayed, b"", 0.0
            self._say(visitor, reply)
            self._ready.append(visitor)  # perhaps it has sent something meanwhile
        elif visitor.deadline <= now and visitor.socket:
            self._disconnect(visitor)
        elif visitor.deadline <= now:
            log.info(f"STLS failed: no handshake in time, {visitor.where}")
            log.debug(f"Disconnected, {visitor.where}")
            del self._visitors[visitor.number]
            self._tell(front.OVER, visitor.number)


def main(argv: list[str], env: dict[str, str]) -> int:
    user, has_relay, words = "", False, argv[2:]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        has_relay = has_relay or option == "-relay"
        user = option.removeprefix("-user=") if option.startswith("-user=") else user
    os.closerange(RECORD, handover.HIGHEST)
    try:
        if not words or not S_ISSOCK(os.fstat(0).st_mode):
            raise Refused("it is couriertcpd -front that starts this")
        give_up_root(user)
    except Refused as why:
        log.err(f"{argv[0]} -front: {why}")
        return 1
    raise_limit()
    channel = socket(AF_UNIX, SOCK_SEQPACKET, 0, fileno=daemon.park(0))
    daemon.to_null((0,))  # what has a client there is taken for its process
    return Front(channel, words, env, has_relay).run()


def give_up_root(user: str) -> None:
    """Raises Refused."""
    if os.geteuid() != 0:
        return
    if not user:
        raise Refused("it must not be root (-user)")
    daemon.change_user(user)
    if 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()):
        raise Refused(f"{user} has rights of root")


def raise_limit() -> None:
    """Have room for as many descriptors as there may be."""
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
