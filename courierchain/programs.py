"""programs - which programs are ours, and where a program's name leads

A name without `/` is looked up in the directory of our own programs, then in the absolute entries
of PATH; never in the current directory, which after a login is the user's (chain-protocol.md 12.3).

All our programs are one and the same small file, the launcher, under many names: it starts Python
isolated (-I) and calls `start.program`. A file is ours if it has a name of the table below and
holds the launcher's text. So a site may put a program of its own in the place of any of ours, and
it is seen to be foreign.
"""

from __future__ import annotations

import os

ENTRIES = {  # program: "module:what is called with argv and environment"
    "courierlogger": "courierlogger.main:main",
    "couriertcpd": "couriertcpd.main:main",
    "couriertls": "couriertls.main:main",
    "courierpop3login": "courierpop3login.main:main",
    "courierpop3d": "courierpop3d.main:main",
    "courierpop3proxy": "courierpop3proxy.main:main",
    "authdaemond": "authdaemond.main:main",
    "authcheckpassword": "authmodules.authcheckpassword:authcheckpassword",
    "authcram": "authmodules.authcram:authcram",
    "authcustom": "authmodules.authcustom:authcustom",
    "authdaemon": "authmodules.authdaemon:authdaemon",
    "authldap": "authmodules.authldap:authldap",
    "authmysql": "authmodules.authmysql:authmysql",
    "authoauth": "authmodules.authoauth:authoauth",
    "authpam": "authmodules.authpam:authpam",
    "authpgsql": "authmodules.authpgsql:authpgsql",
    "authpipe": "authmodules.authpipe:authpipe",
    "authpwd": "authmodules.authpwd:authpwd",
    "authshadow": "authmodules.authshadow:authshadow",
    "authsqlite": "authmodules.authsqlite:authsqlite",
    "authuserdb": "authmodules.authuserdb:authuserdb",
    "authsaslauthd": "authmodules.authsaslauthd:authsaslauthd",
    "authvchkpw": "authmodules.authvchkpw:authvchkpw",
    "checkpassword-accepted": "authmodules.checkpassword_accepted:main",
    "checkpassword-courier": "authmodules.checkpassword_courier:main",
    "courierctl": "courierctl.main:main",
    "authenumerate": "courierctl.authenumerate:main",
    "authpasswd": "courierctl.authpasswd:main",
    "authtest": "courierctl.authtest:main",
    "mkpop3dcert": "courierctl.mkpop3dcert:main",
    "mkdhparams": "courierctl.mkdhparams:main",
    "makedat": "makedat.main:main",
    "pop3d": "cyruspop3d.main:main",
    "cyrusmaster": "cyrusmaster.main:main",
    "makedatprog": "makedat.prog:main",
    "makeuserdb": "userdb.makeuserdb:main",
    "pw2userdb": "userdb.pw2userdb:main",
    "userdb": "userdb.userdb:main",
    "userdbpw": "userdb.userdbpw:main",
    "vchkpw2userdb": "userdb.vchkpw2userdb:main",
}

LAUNCHER_MARK = b"from courierchain.start import program"
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

directory: str | None = None  # of our own programs; known once one of them has started
resident: set[str] = set()  # paths of the programs that are loaded: handover.preload


def locate(name: str, env: dict[str, str]) -> str | None:
    """The absolute path of an executable file for `name`; None if there is none."""
    if "/" in name:
        path = name if name.startswith("/") else os.path.abspath(name)
        return path if path in resident or os.access(path, os.X_OK) else None
    folders = [directory] if directory else []
    folders += env.get("PATH", STANDARD_PATH).split(":")
    for folder in folders:
        path = f"{folder}/{name}"
        if path in resident:
            return path
        if folder.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def entry_of(path: str) -> str | None:
    """The entry of the program at `path` if it is one of ours, else None."""
    entry = ENTRIES.get(os.path.basename(path))
    if entry is None:
        return None
    try:
        with open(path, "rb") as file:
            return entry if LAUNCHER_MARK in file.read(4096) else None
    except OSError:
        return None
