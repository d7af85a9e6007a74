"""options - what the environment says of the account and the connection

OPTIONS     the account's: `name=value,name=value,...`. Names are compared exactly, blanks are not
            stripped, the first of a name counts (reference courierpop3d.md 1.6)
POP3_TLS    not zero: the connection is encrypted
UTF8        zero: the client has not said UTF8 before it logged in. Not set: it has
"""

from __future__ import annotations

import os

from courierpop3d.atol import atol


def is_on(name: str, env: dict[str, str]) -> bool:
    """Whether an option is there and true: a bare name, an empty value, t..., y..., not zero."""
    for option in env.get("OPTIONS", "").split(","):
        key, _, value = option.partition("=")
        if key == name:
            return not value or value[0] in "tTyY" or atol(os.fsencode(value)) != 0
    return False


def is_damaged(env: dict[str, str]) -> bool:
    """Whether OPTIONS holds what no database was meant to hold: control characters."""
    return any(character < " " or character == "\x7f" for character in env.get("OPTIONS", ""))


def is_encrypted(env: dict[str, str]) -> bool:
    return atol(os.fsencode(env.get("POP3_TLS", ""))) != 0


def has_said_utf8(env: dict[str, str]) -> bool:
    return atol(os.fsencode(env.get("UTF8", "1"))) != 0
