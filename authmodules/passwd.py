"""passwd - the system's users, as authpwd, authshadow and authpam share them"""

from __future__ import annotations

import os
import pwd

from courierchain.account import Account, Session


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
