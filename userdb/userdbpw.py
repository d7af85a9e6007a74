"""userdbpw - make what a userdb keeps of a password

    userdbpw [-md5 | -hmac-md5 | -hmac-sha1 | -hmac-sha256] | userdb NAME set FIELD

The password is a line of descriptor 0, or is typed twice on a terminal. What comes of it is on
descriptor 1:

    (nothing)       a hash for systempw, pop3pw...: bcrypt's, or what PASSWORD_SCHEME says
    -md5            the same in the form $1$
    -hmac-md5...    a secret for CRAM-MD5, CRAM-SHA1 or CRAM-SHA256: for hmac-md5pw and so on

Exits 0, or 1 with a line on descriptor 2. Reference: auth.md 2.3.
"""

from __future__ import annotations

import os

from courierchain import cram, log, newhash, typed
from courierchain.newhash import CannotMake
from courierchain.settings import Settings

HMAC = {f"-hmac-{name}": name for name in cram.ALGORITHMS.values()}
USUAL = "bcrypt"


def main(argv: list[str], env: dict[str, str]) -> int:
    if not {"-md5", *HMAC}.issuperset(argv[1:]):
        log.plain(f"{argv[0]}: invalid argument.")
        return 1
    option = "".join(argv[-1:]) if len(argv) > 1 else ""
    secret = typed.new_password()
    if secret is None:
        return 1
    try:
        if option in HMAC and secret:
            stored = cram.state_of(HMAC[option], secret)
        elif option == "-md5":
            stored = newhash.make(secret, "$1$")
        else:
            stored = newhash.make(secret, Settings(env).text("PASSWORD_SCHEME") or USUAL)
    except CannotMake as why:
        log.plain(f"userdbpw: {why}")
        return 1
    os.write(1, stored + b"\n")
    return 0
