"""verified - passwords that were right a short while ago, so that no slow hash is computed again

    configure(env)           at start, before processes are forked: POP3_LOGIN_CACHE seconds, 0: off
    begin()                  in a process that checks the passwords of many logins
    knows(secret, stored)    whether learn(secret, stored) was called in the last so many seconds
    learn(secret, stored)    they match, as has been computed
    forget()                 no more, and nothing stays

Only this one comparison is remembered, never an account: that is looked up for each login, and its
stored form with it. So a password that was changed or locked, and an account that is gone, count at
once. That a secret was wrong is not remembered; nor does a login make the time longer.

A pair is known by its BLAKE2b, with a key that is drawn for each process and nowhere else. Whoever
has key and table can try secrets as quickly as BLAKE2b goes, if he has the stored form too. So they
are of the process that has begun alone: one that is forked from it has nothing, and whoever becomes
another user forgets first (`account.become_user`). There is room for MOST pairs.
"""

from __future__ import annotations

import os
from time import monotonic

from courierchain.refusal import Refused
from courierchain.settings import Settings

SETTING = "POP3_LOGIN_CACHE"
LONGEST = 3600  # seconds
MOST = 10_000  # pairs; each takes about 200 octets

_life = 0
_is_on = False
_key = bytearray(32)  # filled and emptied in place, so that there is one copy
_expiry: dict[bytes, float] = {}  # in the order of the times: all live equally long


def configure(env: dict[str, str]) -> None:
    """Raises Refused."""
    global _life
    try:
        _life = Settings(env).number(SETTING, 0, LONGEST)
    except ValueError as why:
        raise Refused(str(why)) from why
    if _life:
        __import__("_blake2")  # while this process may read where it is


def begin() -> None:
    """Remember from now on, if there is a time for it."""
    global _is_on
    if not _life:
        return
    with open("/dev/urandom", "rb", buffering=0) as source:
        source.readinto(_key)
    _is_on = True


def knows(secret: bytes, stored: bytes) -> bool:
    if not _is_on:
        return False
    _drop_expired()
    return _name(secret, stored) in _expiry


def learn(secret: bytes, stored: bytes) -> None:
    if not _is_on:
        return
    if len(_expiry) >= MOST:
        del _expiry[next(iter(_expiry))]
    name = _name(secret, stored)
    _expiry.pop(name, None)  # so that it goes to the end
    _expiry[name] = monotonic() + _life


def forget() -> None:
    global _is_on
    if not _is_on:
        return
    _is_on = False
    _expiry.clear()
    _key[:] = bytes(len(_key))
    _name(b"", b"")  # goes where the last one has computed with the key, and leaves no trace of it


os.register_at_fork(after_in_child=forget)


def _drop_expired() -> None:
    now = monotonic()
    while _expiry and (oldest := next(iter(_expiry.items())))[1] <= now:
        del _expiry[oldest[0]]


def _name(secret: bytes, stored: bytes) -> bytes:
    from _blake2 import blake2b  # hashlib's; here: few sites need it

    name = blake2b(b"%d:" % len(stored), key=_key, digest_size=32)
    name.update(stored)
    name.update(secret)
    return name.digest()
