"""How often something has failed lately, against a simple model."""

from __future__ import annotations

from socket import AF_INET6, inet_pton

from hypothesis import given
from hypothesis import strategies as st

from couriertcpd.failures import QUIET, Failures
from couriertcpd.throttle import network

WINDOW = 10


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """All failures ever, looked through each time."""

    def __init__(self):
        self.happened: list[tuple[float, str]] = []

    def count(self, key: str, now: float) -> int:
        began, count = None, 0
        for moment, each in self.happened:
            if each == key and (began is None or moment - began >= WINDOW):
                began, count = moment, 1
            elif each == key:
                count += 1
        return count if began is not None and now - began < WINDOW else 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 15)),
        st.tuples(st.just("add"), st.sampled_from("abc")),
        st.tuples(st.just("over"), st.tuples(st.sampled_from("abc"), st.integers(0, 4))),
    ),
    max_size=60,
)


@given(STEPS)
def test_CVE_08_failures_are_counted_as_in_a_simple_model(steps):
    clock, model = Clock(), Model()
    failures = Failures(WINDOW, clock=clock)
    for kind, what in steps:
        if kind == "wait":
            clock.now += what
        elif kind == "add":
            failures.add(what)
            model.happened.append((clock.now, what))
        else:
            key, limit = what
            count = model.count(key, clock.now)
            assert failures.over(key, limit) is (limit > 0 and count >= limit)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=80))
def test_no_more_keys_than_there_is_room_for_and_the_oldest_goes_first(steps):
    clock = Clock()
    failures = Failures(WINDOW, most=4, clock=clock)
    began: dict[int, float] = {}
    for wait, key in steps:
        clock.now += wait
        if key in began and clock.now - began[key] >= WINDOW:
            del began[key]
        if key not in began:
            if len(began) == 4:
                del began[next(iter(began))]
            began[key] = clock.now
        failures.add(key)
        assert len(failures) == len(began) <= 4
        current = [key for key in began if clock.now - began[key] < WINDOW]
        assert [key for key in range(10) if failures.over(key, 1)] == sorted(current)
        began = {key: began[key] for key in current}  # the looks have removed what has passed


def test_a_refusal_ends_although_somebody_keeps_asking():
    clock = Clock()
    failures = Failures(WINDOW, clock=clock)
    for _ in range(3):
        failures.add("a")
    for clock.now in range(WINDOW):
        assert failures.over("a", 3)
    clock.now = WINDOW
    assert not failures.over("a", 3)


def test_a_line_about_a_key_comes_once_a_minute():
    clock = Clock()
    failures = Failures(1000, clock=clock)
    assert not failures.worth_a_line("a")
    failures.add("a")
    failures.add("b")
    said = []
    for clock.now in range(0, 150, 10):
        said += [clock.now] if failures.worth_a_line("a") else []
    assert said == [0, QUIET + 10, 2 * (QUIET + 10)]
    assert failures.worth_a_line("b")


def test_an_ipv6_client_is_its_64_and_an_ipv4_client_its_address():
    def known(text: str) -> bytes:
        return network(inet_pton(AF_INET6, text))

    assert known("2001:db8::1") == known("2001:db8::ffff:1") != known("2001:db8:0:1::1")
    assert known("::ffff:192.0.2.1") != known("::ffff:192.0.2.2")
    assert known("::1") != known("::ffff:192.0.2.1")
