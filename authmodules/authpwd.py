"""authpwd - find the user, and the password, in the passwd file

For systems that keep password hashes in passwd itself; a shadowed `x` never matches (reference
auth.md 2.1). The supplementary groups are the user's.
"""

from __future__ import annotations

import os

from authmodules.passwd import passwd_entry, system_account
from courierchain import passwords
from courierchain.account import Account
from courierchain.authmodule import Rejected, auth_module
from courierchain.request import Request
from courierchain.settings import Settings


@auth_module
def authpwd(request: Request, settings: Settings) -> Account:
    if request.login is None:
        raise Rejected
    user, secret = request.login
    entry = passwd_entry(user)
    # verify() takes as long over None, so an unknown user is not a faster answer.
    if not passwords.verify(secret, entry and os.fsencode(entry.pw_passwd)) or entry is None:
        raise Rejected
    return system_account(entry)
