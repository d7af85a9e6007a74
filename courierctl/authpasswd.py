"""authpasswd - make the stored form of a password

    authpasswd [METHOD]             by Courier's METHOD: md5, md5raw, sha, ssha, sha256, sha512
    authpasswd -scheme=SCHEME       by ours, as PASSWORD_SCHEME names them (courierchain.newhash)

The password is a line of descriptor 0, or is typed twice on a terminal; the form is on descriptor
1. Without a METHOD it is that of PASSWORD_SCHEME, or else $1$; another METHOD makes {SSHA}, as
Courier's does (reference auth.md Part 3).

Exits 0, or 1 with a line on descriptor 2.
"""

from __future__ import annotations

import os

from courierchain import log, newhash, typed
from courierchain.newhash import CannotMake
from courierchain.settings import Settings

USUAL = "$1$"
SCHEME = "-scheme="


def main(argv: list[str], env: dict[str, str]) -> int:
    method = "".join(argv[1:2])
    if not method:
        scheme = Settings(env).text("PASSWORD_SCHEME") or USUAL
    elif method.startswith(SCHEME):
        scheme = method.removeprefix(SCHEME)
    else:
        known = method.upper().encode() in newhash.COURIER
        scheme = method.upper() if known else newhash.OTHERWISE
    secret = typed.new_password()
    if secret is None:
        return 1
    try:
        os.write(1, newhash.make(secret, scheme) + b"\n")
    except CannotMake as why:
        log.plain(f"authpasswd: {why}")
        return 1
    return 0
