"""Who takes a connection while the processors are busy; that they are is for the test to say."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from cyruspop3d import turns
from cyruspop3d.turns import NAP, PATIENCE, Turns

NUMBERS = itertools.count(100)  # of descriptors


class Service:
    """One worker of a service; `others` is called in each of its naps."""

    def __init__(self, path: str, room: int = 64):
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=room)
        self.listening.setblocking(False)
        self.turns = turns_of(self.listening, path)
        self.file = os.open(path, os.O_RDWR)
        self.clients: list[socket.socket] = []
        self.naps = 0
        self.others: Callable[[], None] = lambda: None
        self.is_busy = True

    def are_busy(self) -> bool:
        return self.is_busy

    def nap(self, seconds: float) -> None:
        assert seconds == NAP
        self.naps += 1
        self.others()

    def connects(self, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.listening.getsockname()))

    def others_take(self, count: int) -> None:
        """Other workers take connections, and say so in the file."""
        for _ in range(count):
            self.listening.accept()[0].close()
        taken = int.from_bytes(os.pread(self.file, 8, 0), "little")
        os.pwrite(self.file, (taken + count).to_bytes(8, "little"), 0)

    def takes_one(self) -> bool:
        """Whether the worker itself takes one."""
        self.turns.wait()
        try:
            os.close(self.turns.accept())
        except BlockingIOError:
            return False
        return True


def turns_of(listening: socket.socket, path: str) -> Turns:
    made = Turns(listening, next(NUMBERS), next(NUMBERS))
    made.open_lock(path)
    return made


@pytest.fixture
def service(tmp_path, monkeypatch) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(**more: int) -> Service:
        one = Service(str(tmp_path / "lock"), **more)
        monkeypatch.setattr(turns, "sleep", one.nap)
        monkeypatch.setattr(turns.Processors, "are_busy", lambda self: one.are_busy())
        made.append(one)
        return one

    yield make
    for one in made:
        for client in one.clients:
            client.close()
        one.listening.close()
        os.close(one.file)


def test_nobody_waits_while_a_processor_is_free(service):
    one = service()
    one.is_busy = False
    one.connects()
    assert one.takes_one()
    assert one.naps == 0


def test_a_connection_that_no_other_worker_takes_waits_for_one_nap(service):
    one = service()
    one.connects()
    assert one.takes_one()
    assert one.naps == 1


def test_those_that_are_quick_have_it(service):
    one = service()
    one.connects(3)
    one.others = lambda: one.others_take(1)
    assert not one.takes_one()
    assert one.naps == 3


def test_nobody_has_to_wait_longer_than_that_for_them(service):
    """At one connection in each nap, more than PATIENCE / NAP of them are too many."""
    most = int(PATIENCE / NAP)
    one = service(room=4 * most)
    one.connects(most + 2)
    one.others = lambda: one.others_take(1)
    assert one.takes_one()
    assert one.naps == 1
    assert not one.takes_one()


def test_the_kernel_turns_nobody_away_meanwhile(service):
    one = service(room=8)
    one.connects(5)
    one.others = lambda: one.others_take(1)
    assert one.takes_one()
    assert one.naps == 1


def test_who_is_free_again_takes_what_is_there_at_once(service):
    one = service()
    one.connects()
    one.turns.served()
    assert one.takes_one()
    assert one.naps == 0


def test_who_is_free_again_and_has_to_wait_is_like_the_others(service):
    one = service()
    one.turns.served()
    later = threading.Timer(0.1, one.connects)
    later.start()
    assert one.takes_one()
    assert one.naps == 1
    later.join()


def test_all_that_are_taken_are_counted(service):
    one = service()
    one.is_busy = False
    one.connects(3)
    for _ in range(3):
        assert one.takes_one()
    assert os.pread(one.file, 8, 0) == (3).to_bytes(8, "little")


def test_a_service_on_a_path_is_served_at_once(service, tmp_path):
    one = service()
    one.listening.close()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    listening.setblocking(False)
    other = turns_of(listening, str(tmp_path / "lock"))
    with socket.socket(socket.AF_UNIX) as client, listening:
        client.connect(str(tmp_path / "socket"))
        other.wait()
        os.close(other.accept())
    assert one.naps <= 1


def test_F_DISK_1_a_count_that_cannot_be_written_costs_no_client(service, monkeypatch):
    one = service()
    one.is_busy = False
    one.connects(2)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "pread", full)
    assert one.takes_one()
    one.is_busy = True
    assert one.takes_one()
