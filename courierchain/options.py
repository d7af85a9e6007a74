"""options - what the environment says of the account and the connection

OPTIONS     the account's: `name=value,name=value,...`. Names are compared exactly, blanks are not
            stripped, the first of a name counts (reference courierpop3d.md 1.6)
POP3_TLS    not zero: the connection is encrypted
UTF8        zero: the client has not said UTF8 before it logged in. Not set: it has
"""

from __future__ import annotations

import os

from courierchain.atol import atol


def is_on(name: str, env: dict[str, str]) -> bool:
    """Whether an option is there and true: a bare name, an empty value, t..., y..., not zero."""
    for value in values(name, env):
        return not value or value[0] in "tTyY" or is_nonzero(value)
    return False


def values(name: str, env: dict[str, str]) -> list[str]:
    """The values of all options of this name; that of a bare name is empty."""
    pairs = (option.partition("=") for option in env.get("OPTIONS", "").split(","))
    return [value for key, _, value in pairs if key == name]


def refusal(env: dict[str, str]) -> bytes:
    """What the account is told if it may not use POP3, or not over this connection; else empty."""
    if not env.get("OPTIONS"):
        return b""
    if is_damaged(env):
        return b"The options of this account are damaged."
    if is_on("disablepop3", env):
        return b"POP3 access disabled for this account."
    if is_on("disableinsecurepop3", env) and not is_encrypted(env):
        return b"POP3 access disabled via insecure connection."
    return b""


def is_damaged(env: dict[str, str]) -> bool:
    """Whether OPTIONS holds what no database was meant to hold: control characters."""
    return any(character < " " or character == "\x7f" for character in env.get("OPTIONS", ""))


def is_encrypted(env: dict[str, str]) -> bool:
    return is_nonzero(env.get("POP3_TLS", ""))


def has_said_utf8(env: dict[str, str]) -> bool:
    return is_nonzero(env.get("UTF8", "1"))


def is_nonzero(text: str) -> bool:
    """Whether C takes the text for a number that is not 0."""
    return text not in ("", "0") and atol(os.fsencode(text)) != 0
