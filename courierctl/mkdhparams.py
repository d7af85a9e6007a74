"""mkdhparams - Diffie-Hellman parameters for TLS 1.2

    mkdhparams

TLS_DHPARAMS   the file (/etc/courier/dhparams.pem); left alone while it is younger than 25 days
DH_BITS        at least so many bits: 2048 to 8192, or medium, high, ultra (high: 3072)

They are the group ffdhe2048, 3072, 4096, 6144 or 8192 of RFC 7919, not a prime of our own: that
takes no time, where a search takes minutes to hours. The groups are safe primes made by a rule that
everybody can follow, so clients that know them need not doubt them, and they are too large for one
attack on all who share them.

Exits 0, or 1 after an error; 0, silently, where openssl isn't installed. Reference:
couriertcpd.md 14.4.
"""

from __future__ import annotations

import os
from time import time

from courierchain import log
from courierchain.refusal import Refused
from courierctl import openssl, private

FILE = "/etc/courier/dhparams.pem"
FRESH = 25 * 86400  # seconds
GROUPS = (2048, 3072, 4096, 6144, 8192)  # bits


def main(argv: list[str], env: dict[str, str]) -> int:
    os.umask(0o077)
    file = env.get("TLS_DHPARAMS") or FILE
    program = openssl.path(env)
    if program is None or is_fresh(file):
        return 0
    try:
        private.replace(file, parameters(program, env.get("DH_BITS") or "high"))
    except Refused as why:
        log.plain(f"mkdhparams: {why}")
        return 1
    return 0


def is_fresh(file: str) -> bool:
    try:
        return time() - os.stat(file).st_mtime < FRESH
    except OSError:
        return False


def parameters(program: str, wanted: str) -> bytes:
    """PEM. Raises Refused."""
    least = openssl.bits(wanted, "DH_BITS", 1, GROUPS[-1])
    group = next(bits for bits in GROUPS if bits >= least)
    return openssl.run(
        program, "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", f"group:ffdhe{group}"
    )
