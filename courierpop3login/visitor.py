"""visitor - a client of the front's, and what sessions with the same settings have in common

Unfit      there is to be a login program for it
Manner     how a session is to be: made once for all that have the same variables
Visitor    a client: its connection, its session, and how much time it has
"""

from __future__ import annotations

from _socket import MSG_DONTWAIT, socket
from collections.abc import Callable
from time import monotonic, time

from courierchain.client import MOST_DISCARDED, PEEKED
from courierchain.settings import Settings
from courierpop3login import stls
from courierpop3login.main import begin, has_login_path, is_again, sessions
from courierpop3login.session import Authorization
from pop3proto.commands import LineReader


class Unfit(Exception):
    """Sessions with these variables are left to processes of their own."""


class Manner:
    """What sessions with the same variables have in common.

    begun: makes one. budget, delay: seconds, POP3_LOGIN_TIMEOUT and POP3_FAILURE_DELAY.
    """

    __slots__ = ("begun", "budget", "delay")

    def __init__(self, argv: list[str], env: dict[str, str], has_relay: bool):
        """Raises Unfit."""
        try:
            if is_again(env) or not has_login_path(argv, env):
                raise Unfit
            argv, env = begin(argv, env)
            settings = Settings(env)
            self.budget = settings.seconds("POP3_LOGIN_TIMEOUT")
            self.delay = settings.seconds("POP3_FAILURE_DELAY")
            is_other = settings.choice("POP3_DIALECT", "courier", "cyrus") != "courier"
            if is_other or not self.budget or (not has_relay and stls.is_usable(env, False)):
                raise Unfit
            self.begun: Callable[[bool], Authorization] = sessions(argv, env, settings, has_relay)
        except ValueError as why:
            raise Unfit from why


class Visitor:
    """A client. socket: None while the listener makes a handshake with it, and when it has left.

    where: its address and port, as they stand in log lines. unsent: octets that it hasn't taken.
    is_ending: it sends no more than it has sent.
    deadline, until: when its time is up, and before when nothing is said to it or heard of it, on
    the monotonic clock. delayed: what is to be said then.
    """

    __slots__ = (
        *("number", "socket", "manner", "session", "reader", "where", "expire", "deadline"),
        *("unsent", "until", "delayed", "is_ending"),
    )

    def __init__(self, number: int, client: socket, where: str, manner: Manner, expire: int | None):
        """expire: when its time is up, in seconds since 1970; None if it has just come."""
        self.number = number
        self.socket: socket | None = client
        self.where = where
        self.manner = manner
        now = time()
        self.expire = int(now) + manner.budget if expire is None else expire
        left = manner.budget if expire is None else min(expire - now, manner.budget)
        self.deadline = monotonic() + left
        self.session = manner.begun(False)
        self.reader = LineReader()
        self.unsent = b""
        self.until = 0.0
        self.delayed = b""
        self.is_ending = False

    def begin_again(self, client: socket, manner: Manner) -> None:
        """After STLS: what was said before it is forgotten."""
        self.socket = client
        self.manner = manner
        self.session = manner.begun(False)
        self.reader = LineReader()
        self.is_ending = False

    def discard_input(self) -> None:
        """As courierchain.client.Client has it."""
        try:
            for _ in range(MOST_DISCARDED):
                if not (self.socket and self.socket.recv(PEEKED, MSG_DONTWAIT)):
                    break
        except OSError:
            pass
