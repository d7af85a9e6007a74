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
            return not value or value[0] in "tTyY" or is_nonzero(value)
    return False


def is_damaged(env: dict[str, str]) -> bool:
    """Whether OPTIONS holds what no database was meant to hold: control characters."""
    return any(character < " " or character == "\x7f" for character in env.get("OPTIONS", ""))


def is_encrypted(env: dict[str, str]) -> bool:
    return is_nonzero(env.get("POP3_TLS", ""))


def has_said_utf8(env: dict[str, str]) -> bool:
    return is_nonzero(env.get("UTF8", "1"))


def is_nonzero(text: str) -> bool:
    """Whether C takes the text for a number that is not 0."""
    return atol(os.fsencode(text)) != 0
