"""authshadow - find the user in the passwd file and the password in the shadow file

Reads the shadow file itself: Python's spwd is gone. An account that has expired, or whose password
has passed its greatest age, is refused; the minimum, warning and inactive fields don't matter
(reference auth.md 2.1); so is one whose password is locked, also to who has proved an identity by a
certificate and needs no password. Runs as root, or in the group that may read shadow.
"""

from __future__ import annotations

import os
from time import time

from authmodules.passwd import everybody, passwd_entry, system_account
from courierchain import passwords
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

SHADOW = "/etc/shadow"
DAY = 86400  # seconds


@auth_module
def authshadow(request: Request, settings: Settings) -> Account:
    if request.external is not None:
        return identified(request.external)
    if request.login is None:
        raise Rejected
    user, secret = request.login
    entry = passwd_entry(user)
    fields = shadow_fields(user) if entry else None
    # verify() takes as long over None, so an unknown user is not a faster answer.
    right = passwords.verify(secret, fields[1] if fields else None)
    if entry is None or not right or expired(fields or [], int(time()) // DAY):
        raise Rejected
    return system_account(entry)


authshadow.lists(everybody)


def identified(user: bytes) -> Account:
    entry = passwd_entry(user)
    fields = shadow_fields(user) if entry else None
    if entry is None or not fields or passwords.is_locked(fields[1]):
        raise Rejected
    if expired(fields, int(time()) // DAY):
        raise Rejected
    return system_account(entry)


def shadow_fields(user: bytes, path: str = SHADOW) -> list[bytes] | None:
    """The user's line, split at its colons (shadow(5)). Raises TemporaryFailure."""
    try:
        with open(path, "rb", buffering=0) as file:
            text = b"\n" + file.read() + b"\n"
    except OSError as why:
        raise TemporaryFailure(f"cannot read {path}: {why.strerror} (start as root)") from why
    begin = text.find(b"\n%s:" % user) + 1
    return text[begin : text.index(b"\n", begin)].split(b":") if begin else None


def expired(fields: list[bytes], today: int) -> bool:
    """Whether the account or its password is too old on day `today` since 1970."""

    def day(index: int) -> int | None:
        text = os.fsdecode(fields[index]) if index < len(fields) else ""
        return int(text[:10]) if text.isdigit() else None

    last_change, greatest_age, expire = day(2), day(4), day(7)
    if expire and today > expire:
        return True
    if last_change is None or greatest_age is None:
        return False
    return last_change + greatest_age < today
