"""parking - a session that waits for its client without a process

Where the listener keeps sessions (couriertcpd -park), a program of ours whose client has been
silent for a while offers its session: argv, environment, and what it knows, as octets. If they are
taken, it lets go of the client and returns. As soon as the client sends something, or goes, or the
time is up, a process of the same user calls the program again with the same argv and environment,
and the program `take`s what it knew, and goes on as if nothing had happened.

No octet that the client has sent may be in the program's hands meanwhile, no lock, no open file.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from courierchain import handover
from courierchain.client import Client

Offer = Callable[[list[str], dict[str, str], bytes, float], bool]

# Set by couriertcpd.worker in processes that may give sessions away. The last argument is when the
# time is up, on the monotonic clock. False: the session stays where it is.
offer: Offer | None = None
after = 0.0  # seconds of silence after which a session is offered

_state: bytes | None = None


class Parked(Exception):
    """The session is the listener's from now on; nothing of it is left to do here."""


def is_due(client: Client, deadline: float) -> bool:
    """Whether the client is silent for so long that the session had better be offered. Raises Gone.

    deadline: when the client's time is up, on the monotonic clock
    """
    return offer is not None and monotonic() + after < deadline and not client.sends_within(after)


def park(argv: list[str], env: dict[str, str], state: bytes, deadline: float) -> None:
    """Offer the session. Raises Parked if it is taken."""
    if offer is not None and offer(argv, env, state, deadline):
        raise Parked


def go_on(argv: list[str], env: dict[str, str], state: bytes) -> int:
    """Call the program of a session that was parked; the exit status of the last of the chain.

    It is the one that was loaded, though there may be another at its path by now. Raises KeyError
    if none was.
    """
    global _state
    main = handover.loaded(argv[0])
    _state = state
    return handover.run(main, argv, env)


def take() -> bytes | None:
    """What the program knew when the session was parked; None if it has just begun."""
    global _state
    state, _state = _state, None
    return state
