"""children - the processes that serve connections

Without -prefork and -uses there is one new process for each connection. With them there are
workers: children that wait on a channel of their own for a connection to come as a descriptor.

    -prefork=N   N workers wait, so that a greeting does not wait for a fork
    -uses=N      a worker takes up to N connections, one after another; between them it says so on
                 its channel. Only where no session changes the uid

The parent accepts, counts and refuses, so the limits are exact in all cases; a connection's place
is free again when its process has gone, or its worker has said that it is done. A worker whose
channel closes ends: so do all of them when the parent goes, whatever ended it.
"""

from __future__ import annotations

import array
import gc
import os
from _signal import (
    SIG_DFL,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGTERM,
    set_wakeup_fd,
    signal,
)
from collections.abc import Callable
from socket import (
    AF_INET6,
    AF_UNIX,
    CMSG_SPACE,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SO_KEEPALIVE,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
    socketpair,
)
from time import monotonic

from courierchain import handover
from courierchain.request import RECORD
from couriertcpd.limits import Limits
from couriertcpd.listen import peer_name

CHANNEL = RECORD + 1  # a worker's descriptor for the channel
LOG = RECORD + 2  # and a copy of its descriptor 2
IDLE_LIFE = 60.0  # seconds that a worker beyond -prefork waits for its next connection
DONE = b"."

Address = tuple[str, int]  # as in TCPREMOTEIP, and the port
Serve = Callable[[Address, Address], int]


class Child:
    """A process: its channel if it is a worker, and the address it serves just now, if any."""

    __slots__ = ("pid", "channel", "address", "idle_since")

    def __init__(self, pid: int, channel: socket | None):
        self.pid = pid
        self.channel = channel
        self.address: bytes | None = None
        self.idle_since = monotonic()


class Children:
    """All processes of one listener.

    serve: runs one session in the child, with the client on descriptors 0 and 1, and gives its
    exit status; its arguments are the client's address and ours.

    watch, unwatch: called with a worker's channel when it is to be read from, or no more.
    """

    def __init__(
        self,
        serve: Serve,
        limits: Limits,
        *,
        prefork: int,
        uses: int,
        watch: Callable[[socket, Child], None],
        unwatch: Callable[[socket], None],
    ):
        self._serve = serve
        self._limits = limits
        self._prefork = prefork
        self._uses = uses
        self._watch = watch
        self._unwatch = unwatch
        self._children: dict[int, Child] = {}
        self._idle: list[Child] = []  # the last to come is the first to go: its memory is warm

    def dispatch(self, client: socket, remote: Address, address: bytes) -> None:
        """Give an admitted connection to a process. Raises OSError if there can't be one."""
        while self._idle:
            child = self._idle.pop()
            if child.channel and send_connection(child.channel, client, remote):
                child.address = address
                return
        child = self._fork(client, remote)
        child.address = address

    def replenish(self) -> None:
        """Have -prefork workers waiting, and let go of those that waited long beyond them.

        Raises OSError if there can't be one more process.
        """
        while len(self._idle) < self._prefork:
            self._idle.append(self._fork())
        horizon = monotonic() - IDLE_LIFE
        while len(self._idle) > self._prefork and self._idle[0].idle_since < horizon:
            self._hang_up(self._idle.pop(0))

    def done(self, child: Child) -> None:
        """A worker's channel is readable: it is done with a connection, or it has ended."""
        assert child.channel
        try:
            if child.channel.recv(1) != DONE:
                self._hang_up(child)
                return
        except BlockingIOError:
            return
        except ConnectionError:
            self._hang_up(child)
            return
        self._release(child)
        child.idle_since = monotonic()
        self._idle.append(child)

    def reap(self) -> None:
        """Take leave of the processes that have ended."""
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                child = self._children.pop(pid, None)
                if child:
                    self._release(child)
                    self._hang_up(child)
                    if child in self._idle:
                        self._idle.remove(child)
        except ChildProcessError:
            pass

    def _release(self, child: Child) -> None:
        if child.address is not None:
            self._limits.release(child.address)
            child.address = None

    def _hang_up(self, child: Child) -> None:
        if child.channel:
            self._unwatch(child.channel)
            child.channel.close()
            child.channel = None

    def _fork(self, client: socket | None = None, remote: Address = ("", 0)) -> Child:
        """A new process, that begins with `client` if there is one."""
        ours = theirs = None
        if client is None or self._uses > 1:
            ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            for end in (ours, theirs):
                if end:
                    end.close()
            raise
        if pid == 0:
            self._in_child(client, remote, theirs)
        child = Child(pid, ours)
        self._children[pid] = child
        if ours and theirs:
            theirs.close()
            ours.setblocking(False)
            self._watch(ours, child)
        return child

    def _in_child(self, client: socket | None, remote: Address, channel: socket | None) -> None:
        status = 1
        try:
            signals_to_default()
            ends = (remote, take_over(client)) if client else None
            if channel:
                status = Worker(channel, self._serve, self._uses).work(ends)
            elif ends:
                os.closerange(RECORD, handover.HIGHEST)
                status = self._serve(*ends)
        finally:
            os._exit(status)


class Worker:
    """The child's side of a channel. What a session changes in the process is put back after it."""

    __slots__ = ("_channel", "_serve", "_uses", "_directory", "_umask")

    def __init__(self, channel: socket, serve: Serve, uses: int):
        os.dup2(channel.detach(), CHANNEL, inheritable=False)
        os.dup2(2, LOG, inheritable=False)
        os.closerange(RECORD, RECORD + 1)
        os.closerange(LOG + 1, handover.HIGHEST)
        handover.keep(LOG)
        self._channel = socket(fileno=CHANNEL)
        self._serve = serve
        self._uses = uses
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._directory = "."
        if uses > 1:
            self._directory = enter_again()
            gc.enable()

    def work(self, ends: tuple[Address, Address] | None) -> int:
        """Serve up to `uses` connections; the first is that of `ends` if it is there already."""
        status = 0
        for left in range(self._uses - 1, -1, -1):
            ends = ends or receive_connection(self._channel)
            if ends is None:
                break
            if not left:
                self._say_goodbye()
            status = self._serve(*ends)
            ends = None
            if left:
                self._forget()
                self._channel.send(DONE)
        return status

    def _say_goodbye(self) -> None:
        """Nothing but the session is left to do, and nothing but its descriptors stays open."""
        handover.keep(RECORD)
        os.closerange(CHANNEL, LOG + 1)

    def _forget(self) -> None:
        os.closerange(0, 2)
        os.closerange(RECORD, RECORD + 1)
        os.dup2(LOG, 2)  # which was the client, with -stderr=socket
        os.chdir(self._directory)
        os.umask(self._umask)
        signals_to_default()


def enter_again() -> str:
    """The current directory, or `/` from now on if this user couldn't return to it."""
    try:
        directory = os.getcwd()
        os.chdir(directory)
    except OSError:
        directory = "/"
        os.chdir(directory)
    return directory


def take_over(client: socket) -> Address:
    """Put the client on descriptors 0 and 1, with nothing of its own left; our end's address."""
    sockaddr = client.getsockname()
    client.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    client.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    number = client.detach()
    for descriptor in (0, 1):
        if number == descriptor:
            os.set_inheritable(descriptor, True)
        else:
            os.dup2(number, descriptor)
    if number > 1:
        os.close(number)
    return peer_name(sockaddr), sockaddr[1]


def send_connection(channel: socket, client: socket, remote: Address) -> bool:
    """Whether the worker at the other end is there to take it."""
    text = f"{remote[0]} {remote[1]}".encode()
    rights = array.array("i", [client.fileno()])
    try:
        channel.sendmsg([text], [(SOL_SOCKET, SCM_RIGHTS, rights)], MSG_NOSIGNAL)
        return True
    except OSError:
        return False


def receive_connection(channel: socket) -> tuple[Address, Address] | None:
    """The next connection, put on descriptors 0 and 1; None when the parent has hung up."""
    text, ancillary, _, _ = channel.recvmsg(128, CMSG_SPACE(4))
    if not ancillary:
        return None
    rights = array.array("i", ancillary[0][2])
    local = take_over(socket(AF_INET6, SOCK_STREAM, 0, fileno=rights[0]))
    ip, _, port = text.decode().partition(" ")
    return (ip, int(port)), local


def signals_to_default() -> None:
    set_wakeup_fd(-1)
    for number in (SIGCHLD, SIGHUP, SIGINT, SIGTERM):
        signal(number, SIG_DFL)
