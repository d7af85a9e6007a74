"""waiting - signals that come only where a worker waits, or serves a client itself

They are blocked everywhere else, so that none comes between a client's acceptance and its session.
"""

from __future__ import annotations

from _signal import (
    SIG_BLOCK,
    SIG_UNBLOCK,
    SIGALRM,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    pthread_sigmask,
    signal,
)
from collections.abc import Callable

ENDING = (SIGTERM, SIGINT, SIGQUIT)
SIGNALS = {SIGHUP, SIGALRM, *ENDING}


class Interrupted(Exception):
    """A signal came while we were waiting."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


Act = Callable[[], object]

_acts: dict[int, Act] = {}


def catch() -> None:
    """From here on a signal of SIGNALS comes where `interruptible` waits, and in `during`."""
    pthread_sigmask(SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        signal(number, caught)


def caught(number: int, frame: object) -> None:
    if act := _acts.get(number):
        act()
    else:
        raise Interrupted(number)


def during(session: Callable[[], int], acts: dict[int, Act]) -> int:
    """What the session gives; meanwhile a signal does what `acts` has for it."""
    _acts.update(acts)
    pthread_sigmask(SIG_UNBLOCK, SIGNALS)
    try:
        return session()
    finally:
        pthread_sigmask(SIG_BLOCK, SIGNALS)
        _acts.clear()


def interruptible(wait: Callable[[], object]) -> list[tuple[int, int]]:
    """What `wait` gives. Raises Interrupted."""
    try:
        pthread_sigmask(SIG_UNBLOCK, SIGNALS)
        return wait()  # type: ignore[return-value]
    finally:
        pthread_sigmask(SIG_BLOCK, SIGNALS)
