"""newpassword - the stored form of a password that somebody has chosen, for modules

PASSWORD_SCHEME says which, see `courierchain.newhash`. And another form of a password that was
right, for `courierchain.rehash`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock

from courierchain import hashpolicy, log, newhash
from courierchain.authmodule import PermanentFailure, Rejected, TemporaryFailure
from courierchain.settings import Settings


def check(new: bytes) -> None:
    """Raises Rejected for what nobody could log in with."""
    try:
        newhash.check(new)
    except newhash.Unfit as why:
        log.warn(f"no new password: {why}")
        raise Rejected from why


def stored(new: bytes, settings: Settings, old: bytes | None) -> bytes:
    """The form, after `old`. Raises Rejected for a password, PermanentFailure for a policy that
    can't be used."""
    return by_scheme(new, settings.text("PASSWORD_SCHEME"), old)


def by_scheme(new: bytes, scheme: str, old: bytes | None = None) -> bytes:
    """Raises Rejected and PermanentFailure."""
    try:
        return newhash.make(new, scheme, old)
    except newhash.Unfit as why:
        log.warn(f"no new password: {why}")
        raise Rejected from why
    except newhash.CannotMake as why:
        raise PermanentFailure(str(why)) from why


def renewed(secret: bytes, settings: Settings, old: bytes) -> bytes:
    """Another form of a password that `old` is a form of. Raises Rejected if the policy's scheme
    can't take the password, PermanentFailure for a policy that can't be used."""
    policy = settings.text("PASSWORD_SCHEME")
    try:
        made = newhash.make(secret, policy, old)
        if not hashpolicy.is_kept(made, policy):  # else every login would make another one
            raise newhash.CannotMake(f"PASSWORD_SCHEME={policy}: what comes of it is not of it")
    except newhash.Unfit as why:
        raise Rejected from why
    except newhash.CannotMake as why:
        raise PermanentFailure(str(why)) from why
    return made


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Be the only one who renews forms by the rc file at `path`: a site's logins, all at once, are
    no load for its database then. Raises Rejected if somebody else does, and TemporaryFailure."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as why:
        raise TemporaryFailure(f"cannot read {path}: {why.strerror}") from why
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        yield
    except BlockingIOError as why:
        raise Rejected from why
    finally:
        os.close(descriptor)
