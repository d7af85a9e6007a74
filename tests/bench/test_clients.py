"""The clients of the soak, with a server that says what the test wants."""

import socket
import threading
from contextlib import contextmanager

import behaviours
import clients
from clients import END, LINE, LINES, Clients, Unexpected

TURNS = 200


@contextmanager
def server(*replies: bytes):
    """Its port; it says one reply at once, and one more for each line it gets, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener, replies))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


def answer(listener: socket.socket, replies: tuple[bytes, ...]) -> None:
    client, _ = listener.accept()
    with client, client.makefile("rb") as lines:
        for number, reply in enumerate(replies):
            if number:
                lines.readline()
            client.sendall(reply)


def played(port: int, behaviour) -> list[str]:
    """What went wrong."""
    wrong: list[str] = []
    crowd = Clients(port, lambda name, why: wrong.append(why))
    crowd.begin("x", behaviour)
    for _ in range(TURNS):
        if not crowd.open:
            return wrong
        crowd.turn(0.5)
    raise AssertionError("it does not end")


def test_a_behaviour_gets_lines_and_the_end():
    heard = []

    def behaviour(client):
        heard.append((yield LINE))
        client.send(b"LIST\r\n")
        heard.append((yield LINES))
        client.send(b"QUIT\r\n")
        yield END
        heard.append("end")

    with server(b"+OK hello\r\n", b"+OK\r\n1 20\r\n.\r\n", b"+OK\r\n") as port:
        assert played(port, behaviour) == []
    assert heard == [b"+OK hello", [b"+OK", b"1 20"], "end"]


def test_a_server_that_closes_early_is_unexpected():
    def behaviour(client):
        yield LINE
        yield LINE

    with server(b"+OK hello\r\n+O") as port:
        (why,) = played(port, behaviour)
    assert why.startswith("line: the end, behind b'+O'")


def test_what_a_behaviour_finds_wrong_is_told():
    def behaviour(client):
        line = yield LINE
        raise Unexpected(f"I don't like {line!r}")

    with server(b"-ERR\r\n") as port:
        assert played(port, behaviour) == ["I don't like b'-ERR'"]


def test_a_silence_ends_by_itself():
    def behaviour(client):
        yield LINE
        yield 0.01

    with server(b"+OK\r\n") as port:
        assert played(port, behaviour) == []


def test_a_server_that_says_nothing_is_unexpected(monkeypatch):
    monkeypatch.setattr(clients, "PATIENCE", 0.05)

    def behaviour(client):
        yield LINE

    with socket.create_server(("127.0.0.1", 0)) as listener:
        (why,) = played(listener.getsockname()[1], behaviour)
    assert why == "line: nothing for 0.05 s"


def test_a_broken_behaviour_stops_where_it_is_told():
    steps = []

    def inner(client):
        for number in range(9):
            steps.append(number)
            yield LINE

    def behaviour(client):
        yield from behaviours.broken(client, inner(client), 2, resets=True)

    with server(b"+OK\r\n+OK\r\n+OK\r\n") as port:
        assert played(port, behaviour) == []
    assert steps == [0, 1]
