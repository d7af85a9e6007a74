"""worker - the child's side: one session, or one after another that come over a channel

A worker waits on its channel for a connection, which comes as a descriptor, serves it, says DONE,
and waits again. What a session changes in the process is put back after it. A channel that closes
ends the worker.

    Worker       begins each session at the first program of the chain. As root it serves nobody's
                 mailbox itself: when a module has accepted somebody, it delivers the session to its
                 parent, who gives it to a process of that user; so its modules may keep their
                 connections to databases (courierchain.connections)
    UserWorker   takes such a session, becomes the user with the first one, for good, and goes on
                 with the program behind the module

A delivered session is the client's descriptor and a parcel: what the module would have handed over
by itself, which the parent passes on unread.

With -front sessions begin with the login that their client has sent to the front, and a refused one
goes back there, through the parent.

With -park both give back the sessions of clients that are silent (courierchain.parking), and go on
with those of others: a UserWorker with those of its own user, whatever they say of themselves.
"""

from __future__ import annotations

import gc
import os
from _signal import (
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGTERM,
    SIGUSR2,
    getsignal,
    set_wakeup_fd,
    signal,
)
from collections.abc import Callable, Sequence
from functools import partial
from socket import (
    MSG_NOSIGNAL,
    recv_fds,
    send_fds,
    socket,
)

from courierchain import (
    authmodule,
    connections,
    front,
    handover,
    log,
    netstrings,
    parking,
    relay,
    request,
    verified,
)
from courierchain.account import Account, Unusable, become_user
from courierchain.request import RECORD
from courierchain.reuse import enter_again, take_over
from couriertcpd import parcel
from couriertcpd.arrival import Address, Variables, announced
from couriertcpd.parkinglot import Terms

CHANNEL = RECORD + 1  # a worker's descriptor for the channel
LOG = RECORD + 2  # and a copy of its descriptor 2
RELAY = RECORD + 3  # in a process that logs people in, the channel to the TLS relay
END = RECORD + 4  # in a user's process, what closes when the session is over
GARBAGE = 20_000  # objects more than were freed, after which cycles are looked for
LONGEST = 4096  # octets of a message on a channel
MOST_DESCRIPTORS = 3
DONE = b"."
STAYS = b"&"  # before a delivered session: the sender is not free yet
AND = b"\0"  # between the key of a delivered session and its parcel; a large one is in a file
PARK = b"_"  # before a deadline, in milliseconds, a blank, and the content unless that is large
RESUME = b"="  # before the content, to go on with; a large one is in a file in memory
KEEP = b"!"  # the same, and it can't be parked
HEARD = b">"  # before netstrings: who connects, and the login that a front has heard
BACK = b"<"  # before what the front is told with a connection whose login was refused

# The client's, ours, variables for the session, and the login that a front has heard, if one has.
Ends = tuple[Address, Address, Variables, bytes | None]
Serve = Callable[[Address, Address, Variables, bytes | None], int]
Session = Callable[[], int]


class Worker:
    """key: the user whose sessions it serves; empty if it logs people in."""

    __slots__ = (
        *("_channel", "_serve", "_uses", "_terms", "_key"),
        *("_directory", "_umask", "_uid", "_is_gone", "_descriptors"),
    )

    def __init__(
        self,
        channel: socket,
        serve: Serve,
        uses: int,
        terms: Terms | None,
        key: bytes,
        tls: socket | None = None,
    ):
        os.dup2(channel.detach(), CHANNEL, inheritable=False)
        os.dup2(2, LOG, inheritable=False)
        os.closerange(RECORD, RECORD + 1)
        handover.keep(LOG)
        if tls:
            relay.lend(tls, RELAY, for_one_program=False)
        os.closerange((RELAY if tls else LOG) + 1, handover.HIGHEST)
        self._channel = socket(fileno=CHANNEL)
        self._serve = serve
        self._uses = uses
        self._terms = terms
        self._key = key
        self._uid = os.geteuid()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._directory = "."
        self._is_gone = False  # the session, to another process
        self._descriptors = [0]  # of the session
        if uses > 1:
            self._directory = enter_again()
            gc.enable()
            gc.set_threshold(GARBAGE)
            if os.geteuid() == 0:
                authmodule.deliver = self._deliver
                connections.allowed = True

    def work(self, ends: Ends | None) -> int:
        """Serve up to `uses` sessions; the first is that of `ends` if it is there already."""
        if self._uses > 1:
            verified.begin()
        status = 0
        session: Session | None = self._from(ends) if ends else None
        for left in range(self._uses - 1, -1, -1):
            self._may_park(True)
            session = session or self._receive()
            if session is None:
                break
            if not left:
                self._prepare_to_leave()
            status = session()
            session = None
            if not left or handover.is_spent() or os.geteuid() != self._uid:
                break
            self._be_ready()
        connections.drop()
        return status

    def _receive(self) -> Session | None:
        """The next session, its client on descriptors 0 and 1; None when the parent has hung up."""
        text, descriptors, _, _ = recv_fds(self._channel, LONGEST, MOST_DESCRIPTORS)
        if not descriptors:
            return None
        if text.startswith((RESUME, KEEP)):
            return self._resumed(text, descriptors)
        take_over(descriptors[0])
        login = None
        if text.startswith(HEARD):
            text, login = netstrings.decode(text.removeprefix(HEARD))
        return self._from((*announced(text), login))

    def _from(self, ends: Ends) -> Session:
        front.give_back = None if ends[3] is None else self._give_back
        return partial(self._serve, *ends)

    def _give_back(self, returned: bytes) -> bool:
        """Let the front have a connection whose login was refused; False if it has to go on here:
        this process isn't what it was."""
        if os.geteuid() != self._uid or handover.is_spent():
            return False
        return send(self._channel, BACK + returned, [0])

    def _resumed(self, text: bytes, descriptors: list[int]) -> Session:
        """A session that was parked. Raises ValueError if it is none."""
        client, *others = descriptors
        content = text[1:] or parcel.read(others.pop(0))
        for descriptor in others:
            self._hold_end(descriptor)
        take_over(client)
        if self._terms and self._terms.is_logged_to:
            os.dup2(0, 2)
        self._may_park(text.startswith(RESUME))
        base = self._terms.base if self._terms else {}
        return partial(parking.go_on, *parcel.unfold(content, base))

    def _hold_end(self, descriptor: int) -> None:
        if descriptor == END:
            os.set_inheritable(END, False)
        else:
            os.dup2(descriptor, END, inheritable=False)
            os.close(descriptor)
        self._descriptors = [0, END]

    def _may_park(self, may: bool) -> None:
        if self._terms and self._uses > 1:
            parking.offer = self._park if may else None
            parking.after = self._terms.after

    def _park(self, argv: list[str], env: dict[str, str], state: bytes, deadline: float) -> bool:
        """Give the session back to the parent; False if it has to go on here: it is large, or this
        is not the process that the parent takes it for."""
        assert self._terms
        content = parcel.fold(argv, env, state, self._terms.base)
        if len(content) > parcel.LARGEST or os.geteuid() != self._uid or handover.is_spent():
            return False
        message = b"%s%d " % (PARK, int(deadline * 1000))
        if len(message) + len(content) <= LONGEST:
            self._is_gone = send(self._channel, message + content, self._descriptors)
        else:
            client, *end = self._descriptors
            file = parcel.written(content)
            self._is_gone = send(self._channel, message, [client, file, *end])
            os.close(file)
        return self._is_gone

    def _be_ready(self) -> None:
        """Nothing of the last session is left here, and the parent knows."""
        self._forget()
        if not self._is_gone:
            self._channel.send(DONE)
        self._is_gone = False

    def _deliver(
        self, name: str, account: Account, service: bytes, argv: list[str], env: dict[str, str]
    ) -> bool:
        """Give an accepted session to the parent; False if it has to go on here: the parent has
        gone, the next program is somebody else's, or an opened session has changed this process.

        Where there is something to be closed after the service, we wait for its end: it holds the
        other end of a pipe.
        """
        if not handover.is_resident(argv[0], env) or (account.session and account.session.changes):
            # What goes on here becomes a user, from whom the parent must not take such messages.
            handover.spend()
            self._say_goodbye()
            return False
        message = parcel.key(account) + AND
        content = parcel.pack(name, account, service, argv, env)
        files = []
        if len(STAYS) + len(message) + len(content) <= LONGEST:
            message += content
        else:
            files = [parcel.written(content)]
        try:
            if account.session:
                return self._wait_for_end(message, [0, *files])
            self._is_gone = send(self._channel, message, [0, *files])
            return self._is_gone
        finally:
            for file in files:
                os.close(file)

    def _wait_for_end(self, message: bytes, descriptors: list[int]) -> bool:
        over, end = os.pipe()
        signal(SIGTERM, SIG_IGN)  # the service gets it too, and ends first
        taken = send(self._channel, STAYS + message, [*descriptors, end])
        os.close(end)
        if taken:
            os.read(over, 1)
        os.close(over)
        return taken

    def _prepare_to_leave(self) -> None:
        """The last session: when it can't go back to the front any more, say goodbye."""
        if front.give_back:
            self._may_park(False)
            authmodule.deliver = self._say_goodbye_and_stay
        else:
            self._say_goodbye()

    def _say_goodbye_and_stay(self, *session: object) -> bool:
        self._say_goodbye()
        return False

    def _say_goodbye(self) -> None:
        """Nothing but the session is left to do, and nothing but its descriptors stays open."""
        authmodule.deliver = None
        connections.allowed = False
        connections.drop()
        front.give_back = None
        relay.lend_no_more()
        self._may_park(False)
        os.closerange(CHANNEL, LOG + 1)

    def _forget(self) -> None:
        os.closerange(0, 2)
        request.close()
        os.dup2(LOG, 2)  # which was the client, with -stderr=socket
        os.chdir(self._directory)
        os.umask(self._umask)
        signals_to_default()


class UserWorker(Worker):
    __slots__ = ()

    def work(self, ends: Ends | None = None) -> int:
        """Serve up to `uses` sessions of one user; as root nothing but the way to the user."""
        authmodule.deliver = None
        connections.allowed = False
        handover.keep(END)
        self._directory = "/"
        self._uid = parcel.account_of(self._key).uid
        for left in range(self._uses - 1, -1, -1):
            self._may_park(True)
            session = self._receive()
            if session is None:
                break
            if not left:
                self._may_park(False)
            session()
            os.closerange(END, END + 1)
            self._descriptors = [0]
            if not left or 0 in os.getresuid():
                break  # it was the last, or could not become the user
            self._be_ready()
        return 0

    def _receive(self) -> Session | None:
        text, descriptors, _, _ = recv_fds(self._channel, LONGEST, MOST_DESCRIPTORS)
        if not descriptors:
            return None
        if text.startswith((RESUME, KEEP)):
            try:
                become_user(parcel.account_of(self._key))
            except Unusable as why:
                log.err(f"couriertcpd: a parked session: {why}")
                return None
            return self._resumed(text, descriptors)
        client, *others = descriptors
        content = text.partition(AND)[2] or parcel.read(others.pop(0))
        name, account, service, argv, env = parcel.unpack(content)
        for descriptor in others:
            self._hold_end(descriptor)
        take_over(client)
        return partial(handover.run, authmodule.going_on(name, account, service), argv, env)


def send(channel: socket, message: bytes, descriptors: Sequence[int]) -> bool:
    """Whether the worker at the other end is there to take it."""
    try:
        send_fds(channel, [message], descriptors, MSG_NOSIGNAL)
        return True
    except OSError:
        return False


def signals_to_default() -> None:
    set_wakeup_fd(-1)
    for number in (SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2):
        if getsignal(number) != SIG_DFL:
            signal(number, SIG_DFL)
