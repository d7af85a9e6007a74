"""failure - why there is no login: for the login program, and for the client if it may know

A program of ours that goes back to the login program says why in COURIER_LOGIN_FAILURE:

    rejected    every module was asked, and none knew the user and the secret
    aborted     the client has broken off what a module had to say to it (see proof)
    locked      there were too many failures before, nobody was asked; the client can't tell
    temporary   somebody couldn't tell; trying again later may help
    permanent   somebody couldn't tell, and the administrator has to do something

Other people's programs say nothing, so nothing is known. With POP3_RESPONSE_CODES=1 the client
learns it, by a response code of RFC 3206, which is never a guess; else replies are Courier's.

A module that has refused a token may say what is wrong with it in COURIER_LOGIN_CHALLENGE, a JSON
text for the client (RFC 7628 section 3.2.2), before the next module is asked.
"""

from __future__ import annotations

VARIABLE = "COURIER_LOGIN_FAILURE"
CHALLENGE = "COURIER_LOGIN_CHALLENGE"
REJECTED = "rejected"
ABORTED = "aborted"
LOCKED = "locked"
TEMPORARY = "temporary"
PERMANENT = "permanent"

AUTH = b"[AUTH] "
SYS_TEMP = b"[SYS/TEMP] "
SYS_PERM = b"[SYS/PERM] "

PASSING = b"Temporary problem, please try again later"

Environment = dict[str, str]


def has_codes(env: Environment) -> bool:
    """Whether replies may begin with codes. A setting that makes no sense is no."""
    return env.get("POP3_RESPONSE_CODES") == "1"


def coded(code: bytes, text: bytes, env: Environment) -> bytes:
    """A text behind `-ERR`, with its code if there are codes."""
    return code + text if has_codes(env) else text


def lasting(env: Environment) -> bytes:
    """The text for trouble that stays until somebody mends it; Courier has none of its own."""
    return b"Permanent problem, please tell the administrator" if has_codes(env) else PASSING


def temporary(env: Environment) -> bytes:
    """The reply for trouble that may pass."""
    return b"-ERR %s\r\n" % coded(SYS_TEMP, PASSING, env)


def permanent(env: Environment) -> bytes:
    """The reply for trouble that stays."""
    return b"-ERR %s\r\n" % coded(SYS_PERM, lasting(env), env)


def refused(env: Environment) -> bytes:
    """The reply to a login that has come back, with what COURIER_LOGIN_FAILURE says."""
    if env.get(VARIABLE) == ABORTED:
        return b"-ERR Authentication aborted.\r\n"
    why = env.get(VARIABLE) if has_codes(env) else None
    if why in (TEMPORARY, PERMANENT):
        return trouble(env)
    return b"-ERR %sLogin failed.\r\n" % (AUTH if why in (REJECTED, LOCKED) else b"")


def trouble(env: Environment) -> bytes:
    """The reply to a login that nobody could check; empty if it was not such a one."""
    why = env.get(VARIABLE)
    if why == TEMPORARY:
        return temporary(env)
    return permanent(env) if why == PERMANENT else b""


def counts(env: Environment) -> bool:
    """Whether a login that has come back may have been somebody guessing."""
    return env.get(VARIABLE, "") in ("", REJECTED)
