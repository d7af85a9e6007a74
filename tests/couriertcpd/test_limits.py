"""Places for connections, and the lines about them."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from couriertcpd.limits import MAXPERC, MAXPERIP, MAXPROCS, Limits, default_warn


def ip(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return (b"" if address.version == 6 else bytes(10) + b"\xff\xff") + address.packed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


ONE = ip("192.0.2.1")


def test_F_NET_4_maxperip_connections_of_one_address_are_served_and_the_next_refused():
    limits = Limits(40, 2, 40)
    assert [limits.admit(ONE) for _ in range(4)] == [None, None, MAXPERIP, MAXPERIP]
    assert limits.admit(ip("192.0.2.2")) is None


def test_maxperip_may_be_another_one_for_an_address():
    limits = Limits(40, 1, 40)
    assert [limits.admit(ONE, 3) for _ in range(4)] == [None, None, None, MAXPERIP]
    limits = Limits(40, 5, 40)
    assert [limits.admit(ONE, 1) for _ in range(2)] == [None, MAXPERIP]
    assert limits.admit(ONE) is None


def test_each_refusal_of_an_address_is_one_alert():
    limits = Limits(40, 1, 40)
    limits.admit(ONE)
    assert limits.notices() == []
    for _ in range(2):
        limits.admit(ONE)
        assert limits.notices() == ["ALERT: Maximum connection limit reached for ::ffff:192.0.2.1"]
    assert limits.notices() == []


def test_a_released_place_can_be_taken_again():
    limits = Limits(40, 1, 40)
    limits.admit(ONE)
    limits.release(ONE)
    assert limits.admit(ONE) is None


def test_maxperc_counts_all_of_a_network_and_refuses_silently():
    limits = Limits(40, 40, 2)
    assert limits.admit(ip("192.0.2.1")) is None
    assert limits.admit(ip("192.0.2.255")) is None
    limits.notices()
    assert limits.admit(ip("192.0.2.77")) == MAXPERC
    assert limits.notices() == []
    assert limits.admit(ip("192.0.3.1")) is None


def test_a_network_of_ipv6_is_the_address_without_its_last_byte():
    limits = Limits(40, 40, 1)
    assert limits.admit(ip("2001:db8::1:1")) is None
    assert limits.admit(ip("2001:db8::1:ff")) == MAXPERC
    assert limits.admit(ip("2001:db8::1:101")) is None


def test_the_limit_of_an_address_is_looked_at_before_that_of_its_network():
    limits = Limits(40, 1, 1)
    limits.admit(ONE)
    assert limits.admit(ONE) == MAXPERIP


def test_F_NET_4_maxprocs_connections_are_all():
    limits = Limits(2, 40, 40)
    assert not limits.full
    limits.admit(ONE)
    limits.admit(ONE)
    assert limits.full
    assert limits.admit(ip("::1")) == MAXPROCS
    limits.release(ONE)
    assert not limits.full
    assert limits.admit(ip("::1")) is None


@pytest.mark.parametrize("maxprocs, warn", [(40, 35), (10, 8), (3, 2), (1, 0)])
def test_the_default_warning_level_is_courier_s(maxprocs, warn):
    assert default_warn(maxprocs) == warn


def test_row_31_the_total_is_warned_of_from_the_level_on_and_alerted_of_when_full(clock):
    limits = Limits(4, 40, 40, warn=2, clock=clock)
    said = []
    for _ in range(4):
        clock.now += 61
        assert limits.admit(ONE) is None
        said.append(limits.notices())
    assert said == [
        [],
        ["WARN: 2 active connections."],
        ["WARN: 3 active connections."],
        ["ALERT: 4 maximum active connections."],
    ]


def test_row_31_F_NET_4_each_line_on_the_total_comes_once_a_minute(clock):
    limits = Limits(2, 40, 40, warn=1, clock=clock)

    def fill() -> list[str]:
        """Two come, two go."""
        lines = []
        for _ in range(2):
            limits.admit(ONE)
            lines += limits.notices()
        limits.release(ONE)
        limits.release(ONE)
        return [line.partition(":")[0] for line in lines]

    assert fill() == ["WARN", "ALERT"]
    assert fill() == []
    clock.now += 60
    assert fill() == []
    clock.now += 0.1
    assert fill() == ["WARN", "ALERT"]


def test_the_two_lines_are_throttled_apart(clock):
    limits = Limits(2, 40, 40, warn=1, clock=clock)
    limits.admit(ONE)
    assert limits.notices() == ["WARN: 1 active connections."]
    clock.now += 59
    limits.admit(ONE)
    assert limits.notices() == ["ALERT: 2 maximum active connections."]
    limits.release(ONE)
    limits.release(ONE)
    clock.now += 2
    limits.admit(ONE)
    assert limits.notices() == ["WARN: 1 active connections."]
    limits.admit(ONE)
    assert limits.notices() == []


def test_level_zero_warns_of_the_first_connection():
    limits = Limits(40, 4, 40, warn=0)
    limits.admit(ONE)
    assert limits.notices() == ["WARN: 1 active connections."]


def test_a_refused_connection_is_no_occasion_for_a_warning(clock):
    limits = Limits(40, 40, 1, warn=1, clock=clock)
    limits.admit(ONE)
    limits.notices()
    clock.now += 61
    limits.admit(ONE)
    assert limits.notices() == []


def test_a_place_that_nobody_has_cannot_be_released():
    limits = Limits(1, 1, 1)
    limits.admit(ONE)
    with pytest.raises(KeyError):
        limits.release(ip("192.0.2.2"))
    assert limits.full
    limits.release(ONE)
    with pytest.raises(KeyError):
        limits.release(ONE)
    assert limits.admit(ONE) is None


class Listener(RuleBasedStateMachine):
    """Against a model that keeps the addresses of all connections in a list."""

    ADDRESSES = [ip(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.3.1", "::1", "::2")]

    def __init__(self):
        super().__init__()
        self.limits = Limits(6, 2, 3)
        self.connected: list[bytes] = []

    @rule(address=st.sampled_from(ADDRESSES))
    def connect(self, address):
        network = [other for other in self.connected if other[:15] == address[:15]]
        expected = None
        if len(self.connected) == 6:
            expected = MAXPROCS
        elif self.connected.count(address) == 2:
            expected = MAXPERIP
        elif len(network) == 3:
            expected = MAXPERC
        assert self.limits.admit(address) == expected
        if expected is None:
            self.connected.append(address)

    @precondition(lambda self: self.connected)
    @rule(which=st.integers(0, 5))
    def disconnect(self, which):
        self.limits.release(self.connected.pop(which % len(self.connected)))

    @invariant()
    def test_nothing_is_kept_of_who_has_gone(self):
        assert self.limits._addresses == Counter(self.connected)
        assert self.limits._networks == Counter(address[:15] for address in self.connected)
        assert self.limits.full == (len(self.connected) == 6)


test_F_NET_4_counts_are_those_of_the_connections_there_are = Listener.TestCase


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=60))
def test_F_NET_4_counts_come_back_to_zero(addresses):
    limits = Limits(50, 4, 9)
    admitted = [address for address in addresses if limits.admit(address) is None]
    for address in reversed(admitted):
        limits.release(address)
    assert (limits._total, limits._addresses, limits._networks) == (0, {}, {})
