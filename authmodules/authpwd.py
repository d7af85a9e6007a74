"""authpwd - find the user, and the password, in the passwd file

For systems that keep password hashes in passwd itself; a shadowed `x` never matches (reference
auth.md 2.1). The supplementary groups are the user's.

Who has proved an identity by a certificate gets in unless the password is locked, or shadowed: what
else may be wrong with the account then stands where only authshadow and PAM look.
"""

from __future__ import annotations

import os

from authmodules.passwd import everybody, passwd_entry, system_account
from courierchain.account import Account
from courierchain.authmodule import Rejected, auth_module
from courierchain.passwords import is_locked, verify
from courierchain.request import Request
from courierchain.settings import Settings


@auth_module
def authpwd(request: Request, settings: Settings) -> Account:
    if request.external is not None:
        return identified(request.external)
    if request.login is None:
        raise Rejected
    user, secret = request.login
    entry = passwd_entry(user)
    # verify() takes as long over None, so an unknown user is not a faster answer.
    if not verify(secret, entry and os.fsencode(entry.pw_passwd)) or entry is None:
        raise Rejected
    return system_account(entry)


authpwd.lists(everybody)


def identified(user: bytes) -> Account:
    entry = passwd_entry(user)
    if entry is None or entry.pw_passwd == "x" or is_locked(os.fsencode(entry.pw_passwd)):
        raise Rejected
    return system_account(entry)
