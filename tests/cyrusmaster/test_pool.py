"""Whom a pool starts, and when: no process, no clock (cyrus-pop3d.md 3.2, 3.3)."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cyrusmaster.conf import Entry
from cyrusmaster.forkrate import ForkRate
from cyrusmaster.pool import AVAILABLE, CONNECTION, CONNECTION_MULTI, UNAVAILABLE, Pool
from cyrusmaster.services import Service, service

LONG_AGO = 1000.0


def terms(**keys: object) -> Service:
    values = {"cmd": "/bin/true", "listen": "110", **{key: str(keys[key]) for key in keys}}
    return service(Entry("pop3", values, "cyrus.conf line 1"), {})


class Logged(Pool):
    """A pool that keeps its lines."""

    def __init__(self, **keys: object):
        self.lines: list[str] = []
        super().__init__("pop3/ipv4", terms(**keys), self.lines.append)

    def start(self, *pids: int, now: float = LONG_AGO) -> None:
        for pid in pids:
            self.started(pid, now)


def test_prefork_workers_are_kept_ready():
    pool = Logged(prefork=2)
    assert pool.wanted(LONG_AGO) == 2
    pool.start(1, 2)
    assert pool.wanted(LONG_AGO) == 0
    pool.told(1, UNAVAILABLE)
    assert (pool.ready, pool.wanted(LONG_AGO)) == (1, 1)
    pool.told(1, CONNECTION)
    pool.told(1, AVAILABLE)
    assert (pool.ready, pool.wanted(LONG_AGO), pool.connections) == (2, 0, 1)
    assert pool.lines == []


def test_the_door_is_watched_only_while_nobody_is_ready():
    pool = Logged(maxchild=2)
    assert pool.watches(LONG_AGO)
    pool.start(1)
    assert not pool.watches(LONG_AGO)
    pool.told(1, UNAVAILABLE)
    assert pool.watches(LONG_AGO)
    pool.start(2)
    pool.told(2, UNAVAILABLE)
    assert not pool.watches(LONG_AGO)  # there may be no third
    pool.told(1, AVAILABLE)
    pool.ended(2, 0, LONG_AGO)
    assert not pool.watches(LONG_AGO)  # 1 takes the next client
    assert pool.wake_at(LONG_AGO) is None


def test_maxchild_bounds_prefork():
    pool = Logged(prefork=5, maxchild=3)
    assert pool.wanted(LONG_AGO) == 3
    pool.start(1, 2, 3)
    assert pool.wanted(LONG_AGO) == 0
    assert Logged(prefork=5, maxchild=0).wanted(LONG_AGO) == 0


def test_five_quick_failures_close_the_service():
    pool = Logged(prefork=1)
    for pid in range(1, 6):
        assert not pool.is_closed
        assert pool.wanted(LONG_AGO + pid) == 1
        pool.start(pid)
        pool.ended(pid, 71, LONG_AGO + pid)
    assert pool.is_closed
    assert pool.wanted(LONG_AGO + 99) == 0
    assert not pool.watches(LONG_AGO + 99)
    assert pool.lines[-1] == (
        "ERR: too many failures for service pop3/ipv4, disabling until next SIGHUP"
    )
    assert pool.lines[0] == (
        "WARN: service pop3/ipv4: process 1 in READY state: terminated abnormally, status 71"
    )


def test_slow_failures_do_not():
    pool = Logged(prefork=1)
    for pid in range(1, 20):
        pool.start(pid)
        pool.ended(pid, -signal.SIGSEGV, LONG_AGO + 11 * pid)
    assert not pool.is_closed


@pytest.mark.parametrize("code", [0, 75, -signal.SIGHUP, -signal.SIGTERM])
def test_a_worker_told_to_leave_has_not_failed(code):
    pool = Logged(prefork=1)
    for pid in range(1, 10):
        pool.start(pid)
        pool.ended(pid, code, LONG_AGO)
    assert not pool.is_closed
    assert pool.lines == []


def test_a_worker_that_crashes_in_its_session_has_not_failed():
    pool = Logged(prefork=1)
    for pid in range(1, 10):
        pool.start(pid)
        pool.told(pid, UNAVAILABLE)
        pool.ended(pid, -signal.SIGKILL, LONG_AGO)
    assert not pool.is_closed
    assert pool.lines == []


def test_a_babysat_service_pauses_for_ten_seconds():
    pool = Logged(babysit="yes", maxforkrate=1000)
    for pid in range(1, 6):
        pool.start(pid)
        pool.ended(pid, 1, LONG_AGO)
    assert not pool.is_closed
    assert pool.wanted(LONG_AGO + 9.9) == 0
    assert pool.wake_at(LONG_AGO + 1) == LONG_AGO + 10
    assert pool.wanted(LONG_AGO + 10) == 1
    assert any("Applying babysitter" in line for line in pool.lines)
    assert any("disabling for 10 seconds" in line for line in pool.lines)


def test_sighup_forgives_failures():
    pool = Logged(prefork=1)
    for pid in range(1, 5):
        pool.start(pid)
        pool.ended(pid, 1, LONG_AGO)
    pool.change(terms(prefork=3))
    assert pool.wanted(LONG_AGO) == 3
    pool.start(5)
    pool.ended(5, 1, LONG_AGO)
    assert not pool.is_closed


def test_messages_that_make_no_sense_are_logged_and_nothing_else():
    pool = Logged(prefork=1)
    pool.start(1)
    pool.told(1, 99)
    pool.told(77, AVAILABLE)
    assert (pool.ready, pool.workers) == (1, {1: True})
    assert pool.lines == [
        "ERR: pop3/ipv4: process 1: unrecognized message 99",
        "WARN: pop3/ipv4: message 1 from process 77, not ours",
    ]


def test_said_twice_is_said_once():
    pool = Logged(prefork=2)
    pool.start(1, 2)
    for message in (AVAILABLE, UNAVAILABLE, UNAVAILABLE, CONNECTION, CONNECTION_MULTI):
        pool.told(1, message)
    assert (pool.ready, pool.connections) == (2, 2)


@pytest.mark.parametrize("limit", [1, 5, 20])
def test_maxforkrate_in_the_long_run(limit):
    rate, now, forks = ForkRate(limit), 0.0, 0
    while now < 20:
        if rate.due(now) <= now:
            rate.forked(now)
            forks += 1
        else:
            assert 0 < rate.due(now) - now < 2
            now = rate.due(now)
    assert limit * 20 * 0.9 <= forks <= limit * 20 * 1.1


def test_no_limit():
    rate = ForkRate(0)
    for _ in range(1000):
        rate.forked(1.0)
    assert rate.due(1.0) == 1.0


class Life(RuleBasedStateMachine):
    """Whatever happens, the numbers are those of the processes that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Logged(prefork=2, maxchild=4, maxforkrate=50)
        self.alive: dict[int, bool] = {}
        self.now = LONG_AGO
        self.last = 0

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.pool.wanted(self.now) or self.pool.watches(self.now))
    @rule()
    def one_is_started(self) -> None:
        self.last += 1
        self.pool.started(self.last, self.now)
        self.alive[self.last] = True

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), message=st.integers(0, 6))
    def one_speaks(self, data: st.DataObject, message: int) -> None:
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        self.pool.told(pid, message)
        if message in (1, 2, 3, 4):
            self.alive[pid] = message in (1, 4)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 1, 75, -9]))
    def one_ends(self, data: st.DataObject, code: int) -> None:
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        self.pool.ended(pid, code, self.now)
        del self.alive[pid]

    @invariant()
    def the_numbers_are_right(self) -> None:
        pool = self.pool
        assert pool.workers == self.alive
        assert pool.ready == sum(self.alive.values())
        assert len(self.alive) + pool.wanted(self.now) <= 4
        assert not (pool.watches(self.now) and (pool.ready or len(self.alive) == 4))
        due = pool.wake_at(self.now)
        assert due is None or self.now < due < self.now + 3
        if due is not None:
            assert pool.wanted(due) or pool.watches(due)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
