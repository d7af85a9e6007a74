"""newpassword - the stored form of a password that somebody has chosen, for modules

PASSWORD_SCHEME says which, see `courierchain.newhash`; it is imported when a password is changed,
and never for a login.
"""

from __future__ import annotations

from courierchain import log, newhash
from courierchain.authmodule import PermanentFailure, Rejected
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
