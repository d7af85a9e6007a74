"""waiting - signals that come only where a worker waits

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


def catch() -> None:
    """From here on a signal of SIGNALS comes where `interruptible` waits."""
    pthread_sigmask(SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        signal(number, interrupt)


def interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


def interruptible(wait: Callable[[], object]) -> list[tuple[int, int]]:
    """What `wait` gives. Raises Interrupted."""
    try:
        pthread_sigmask(SIG_UNBLOCK, SIGNALS)
        return wait()  # type: ignore[return-value]
    finally:
        pthread_sigmask(SIG_BLOCK, SIGNALS)
