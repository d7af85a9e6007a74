"""What is kept open from one question to the next, by whom, and who never gets hold of it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest

from courierchain import connections
from courierchain.connections import Gone


class Line(connections.Connection):
    """A connection to a server that is this test: `server` is its end."""

    made: list[Line] = []

    def __init__(self) -> None:
        self.socket, self.server = socket.socketpair()
        self.server.settimeout(10)
        self.made.append(self)

    def ask(self, question: bytes) -> bytes:
        if self.server.fileno() < 0:
            raise Gone(OSError("it has gone"))
        return question.upper()

    def descriptors(self) -> tuple[int, ...]:
        return (self.socket.fileno(),)

    def close(self) -> None:
        with suppress(OSError):
            self.socket.sendall(b"bye")
        self.socket.close()

    def abandon(self) -> None:
        self.socket.close()


@pytest.fixture(autouse=True)
def kept():
    Line.made = []
    connections.allowed = True
    yield
    connections.drop()
    connections.allowed = False
    for line in Line.made:
        line.server.close()


def ask(question: bytes = b"who", key: object = "settings") -> bytes:
    return connections.ask("test", key, Line, lambda line: line.ask(question))


def last_words(line: Line) -> bytes:
    return line.server.recv(99)


def test_one_connection_serves_many_questions():
    assert [ask(b"a"), ask(b"b"), ask(b"c")] == [b"A", b"B", b"C"]
    assert len(Line.made) == 1
    assert connections.descriptors() == list(Line.made[0].descriptors())


def test_where_it_is_not_allowed_each_question_has_its_own():
    connections.allowed = False
    ask()
    ask()
    assert len(Line.made) == 2 and connections.descriptors() == []
    assert [last_words(line) for line in Line.made] == [b"bye", b"bye"]


def test_other_settings_are_another_connection():
    ask(key="old")
    ask(key="new")
    assert len(Line.made) == 2
    assert last_words(Line.made[0]) == b"bye"


def test_one_that_was_closed_or_has_something_unasked_is_not_used():
    ask()
    Line.made[0].server.close()
    assert ask() == b"WHO" and len(Line.made) == 2
    Line.made[1].server.sendall(b"by the way")
    assert ask() == b"WHO" and len(Line.made) == 3


def test_one_that_was_idle_for_long_is_not_used(monkeypatch):
    ask()
    monkeypatch.setattr(connections, "IDLE", -1.0)
    ask()
    assert len(Line.made) == 2


def test_one_that_turns_out_to_be_gone_is_mended_once():
    ask()
    told: list[Line] = []

    def put(line: Line) -> bytes:
        told.append(line)
        raise Gone(OSError("it has gone"))

    with pytest.raises(OSError, match="it has gone"):
        connections.ask("test", "settings", Line, put)
    assert told == Line.made[:2] and len(Line.made) == 2
    assert connections.descriptors() == []


def test_any_other_failure_is_raised_and_nothing_is_kept():
    ask()
    with pytest.raises(ZeroDivisionError):
        connections.ask("test", "settings", Line, lambda line: 1 / 0)
    assert len(Line.made) == 1 and last_words(Line.made[0]) == b"bye"
    assert connections.descriptors() == []


def test_its_descriptors_are_none_of_the_chains():
    ask()
    assert min(connections.descriptors()) >= connections.LOWEST


def test_a_child_closes_what_its_parent_keeps_and_says_nothing():
    ask()
    child = os.fork()
    if child == 0:
        descriptor = connections.descriptors()[0]
        connections.drop()
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask()
    assert len(Line.made) == 1
    Line.made[0].server.setblocking(False)
    with pytest.raises(BlockingIOError):
        last_words(Line.made[0])
    child = os.fork()
    if child == 0:  # one that does not drop it has it not either
        connections.ask("test", "settings", Line, lambda line: line.ask(b""))
        os._exit(0 if len(Line.made) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
