"""Who waits for a process, and for how long: the machine's state is a file, and the clock ours."""

from __future__ import annotations

import pytest

from courierchain.processors import Processors
from couriertcpd.queue import GLANCE, MOST, PATIENCE, Queue

PROCESSORS = 4
MANY = MOST * PROCESSORS  # processes that serve somebody, so that the next one may have to wait


class Machine:
    def __init__(self, path):
        self.path = path
        self.now = 100.0
        self.wanting(1)

    def wanting(self, processes: int) -> None:
        """So many processes have or want a processor, the listener itself included."""
        self.path.write_text(f"0.20 0.18 0.12 {processes}/80 11206\n")

    def queue(self, *names: str) -> Queue:
        made = Queue(Processors(str(self.path), PROCESSORS), lambda: self.now)
        for name in names:
            made.add(name)
        return made


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "loadavg")


def test_nobody_waits_while_a_processor_is_free(machine):
    machine.wanting(PROCESSORS + 1)
    waiting = machine.queue("first", "second")
    assert [waiting.next(1000) for _ in range(3)] == ["first", "second", None]
    assert len(waiting) == 0
    assert waiting.patience() == float("inf")


def test_nobody_waits_while_few_of_ours_serve_somebody(machine):
    machine.wanting(500)
    assert machine.queue("first").next(MANY - 1) == "first"


def test_who_comes_to_a_busy_machine_waits_in_turn(machine):
    machine.wanting(PROCESSORS + 2)
    waiting = machine.queue("first", "second")
    assert waiting.next(MANY) is None
    assert waiting.patience() == GLANCE
    assert waiting.next(MANY - 1) == "first"  # one has done
    assert waiting.next(MANY) is None
    machine.wanting(1)
    assert waiting.next(MANY) == "second"


def test_nobody_waits_longer_than_that(machine):
    machine.wanting(500)
    waiting = machine.queue("first")
    machine.now += PATIENCE / 2
    waiting.add("second")
    assert waiting.next(MANY) is None
    machine.now += PATIENCE / 2
    assert waiting.next(MANY) == "first"
    assert waiting.next(MANY) is None
    machine.now += PATIENCE / 2
    assert waiting.next(MANY) == "second"


@pytest.mark.parametrize("text", ["", "0.20 0.18 0.12", "0.20 0.18 0.12 many/80 1\n"])
def test_nobody_waits_where_the_machine_does_not_say(machine, text):
    machine.path.write_text(text)
    assert machine.queue("first").next(MANY) == "first"


def test_nobody_waits_where_there_is_no_such_file(tmp_path):
    waiting = Queue(Processors(str(tmp_path / "none"), PROCESSORS))
    waiting.add("first")
    assert waiting.next(MANY) == "first"


def test_this_machine_says_how_many_want_a_processor():
    """At the least this process does; and there are never more than this."""
    assert not Processors(count=1_000_000).are_busy()
    assert Processors(count=-1).are_busy()
