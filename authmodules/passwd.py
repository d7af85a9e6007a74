"""passwd - the system's users, as authpwd, authshadow and authpam share them"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

from courierchain.account import Account, Session
from courierchain.settings import Settings

SYSTEM = 100  # uids below are not people's (reference auth.md Part 3)


def passwd_entry(user: bytes) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(os.fsdecode(user))
    except (KeyError, ValueError):
        return None


def system_account(entry: pwd.struct_passwd, session: Session | None = None) -> Account:
    """The account of a passwd entry; AUTHFULLNAME is GECOS without the commas at its end."""
    return Account(
        user=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=entry.pw_dir,
        fullname=entry.pw_gecos.rstrip(","),
        system_user=entry.pw_name,
        session=session,
    )


def everybody(_: Settings) -> Iterator[Account]:
    return (system_account(entry) for entry in pwd.getpwall() if entry.pw_uid >= SYSTEM)
