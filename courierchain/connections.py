"""connections - what a process keeps open to its databases, from one question to the next

    ask(name, key, connect, put)   put a question on the connection of `name`, kept or new
    drop()                         let go of all of them

Only a process keeps them that answers many questions and serves nobody's mailbox: it sets `allowed`
(authdaemond's, and those of `couriertcpd -uses=N` that log people in as root). Elsewhere each
question has a connection of its own, closed after it. Whoever becomes a user drops them first
(`account.become_user`), so none is ever in the hands of a mailbox's owner; nor does one survive
execve. A process that is forked has none of its parent's: it closes them without a word, which the
other end would take for the parent's.

A kept connection is used again if the settings are the same, its last question is less than IDLE
seconds old, and nothing has come on it since, such as its end. When it turns out to be gone all the
same, the question is put once more on a new one, and nobody hears of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from select import POLLIN, poll
from time import monotonic

IDLE = 60.0  # seconds; less than firewalls and servers have patience with silence
LOWEST = 16  # descriptors below it are the chain's: the client's, the record's, a worker's

allowed = False


class Gone(Exception):
    """The connection is no more; `failure` is what to raise if it was a new one."""

    def __init__(self, failure: Exception):
        super().__init__()
        self.failure = failure


class Connection:
    """To be kept: a subclass says how."""

    __slots__ = ()

    def descriptors(self) -> tuple[int, ...]:
        """All that must stay open, and are not inherited by other programs."""
        raise NotImplementedError

    def close(self) -> None:
        """Say goodbye and close it. Raises nothing."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Close the descriptors without a word: it is another process's."""
        raise NotImplementedError


_kept: dict[str, tuple[object, Connection, float, int]] = {}  # key, since when, whose


def ask(name: str, key: object, connect, put):  # type: ignore[no-untyped-def]
    """What put(connection) gives, with the kept connection or one that connect() gives.

    `put` raises Gone if another connection may do better; what else they raise is raised.
    """
    connection = _take(name, key)
    if connection is not None:
        try:
            return _asked(name, key, connection, put)
        except Gone:
            pass
    try:
        return _asked(name, key, _connected(connect), put)
    except Gone as why:
        raise why.failure from why


def drop() -> None:
    """Close all of them."""
    while _kept:
        _, (_, connection, _, owner) = _kept.popitem()
        _let_go(connection, owner)


def descriptors() -> list[int]:
    """Those of all kept connections, in order."""
    if not _kept:
        return []
    return sorted(number for entry in _kept.values() for number in entry[1].descriptors())


def _take(name: str, key: object) -> Connection | None:
    """The kept connection, which is the caller's from now on; None if there is none to be used."""
    if name not in _kept:
        return None
    its_key, connection, since, owner = _kept.pop(name)
    if owner == os.getpid() and its_key == key and monotonic() - since < IDLE:
        if not _has_something(connection):
            return connection
    _let_go(connection, owner)
    return None


def _has_something(connection: Connection) -> bool:
    """Whether something can be read on it, its end for instance, while nobody has asked."""
    readable = poll()
    for descriptor in connection.descriptors():
        readable.register(descriptor, POLLIN)
    return bool(readable.poll(0))


def _asked(name: str, key: object, connection: Connection, put):  # type: ignore[no-untyped-def]
    try:
        answer = put(connection)
    except BaseException:
        connection.close()
        raise
    if allowed:
        _kept[name] = key, connection, monotonic(), os.getpid()
    else:
        connection.close()
    return answer


def _connected(connect: Callable[[], Connection]) -> Connection:
    """A new connection; if it is to be kept, its descriptors are not among the chain's."""
    held: list[int] = []
    try:
        while allowed and (not held or held[-1] < LOWEST):
            held.append(os.open("/dev/null", os.O_RDONLY))
        return connect()
    finally:
        for descriptor in held:
            os.close(descriptor)


def _let_go(connection: Connection, owner: int) -> None:
    if owner == os.getpid():
        connection.close()
    else:
        connection.abandon()
