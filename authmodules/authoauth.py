"""authoauth - whose is an OAuth access token? The modules behind it say which account that is

Reads AUTHOAUTH_RC (/etc/courier/authoauthrc), in the form of `rcfile`. A token is checked by keys
that are here (OAUTH_KEYS, see `jwtkeys`) or by asking who has issued it (OAUTH_INTROSPECTION_URL,
see `introspection`); what it claims then, by `claims`. A userid that the client gives has to be
the token's; nobody acts for anybody else.

The identity is handed on as an `external` question, as that of a certificate is: a module behind
this one has to know the account. So authoauth stands in front of them, and it alone lets nobody in.

    OAUTH_USER_CASE    exact; or lower: userids in either case are the same, and in lower case
    OAUTH_DISCOVERY_URL    what a client is told whose token is refused (RFC 7628 section 3.2.2)

A wrong token is rejected, and one line of log says why; trouble is a temporary failure, never a
wrong token.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from authmodules import rcfile
from authmodules.claims import Claims, Wrong, check
from authmodules.rcfile import RcFile
from courierchain import handover, log
from courierchain.account import Account
from courierchain.authmodule import Proved, Rejected, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

NAMES = frozenset(
    "OAUTH_" + name
    for name in (
        *("KEYS", "ALGORITHMS", "INTROSPECTION_URL", "CLIENT_ID", "CLIENT_SECRET", "CAFILE"),
        *("TIMEOUT", "ISSUER", "AUDIENCE", "SCOPE", "LEEWAY", "USER_CLAIM", "USER_CASE"),
        "DISCOVERY_URL",
    )
)

Checker = Callable[[bytes, RcFile], Claims]


@auth_module
def authoauth(request: Request, settings: Settings) -> Account:
    if handover.is_rehearsing():
        load(settings)
        raise Rejected
    if request.bearer is None:
        raise Rejected
    user, token = request.bearer
    rc = rcfile.read(settings.text("AUTHOAUTH_RC"), NAMES)
    try:
        raise Proved(identity(user, check(checker(rc)(token, rc), rc), rc))
    except Wrong as why:
        log.info(f"authoauth: user={log.safe(user)}, the token is refused: {why}")
        refused = Rejected()
        refused.challenge = answer(why.status, rc)
        raise refused from why


def load(settings: Settings) -> None:
    """In the listener, before it forks: else every session would load the libraries anew."""
    try:
        checker(rcfile.read(settings.text("AUTHOAUTH_RC"), NAMES))
    except TemporaryFailure:
        pass  # said when somebody logs in


def checker(rc: RcFile) -> Checker:
    """How tokens are checked. Raises TemporaryFailure."""
    if bool(rc.text("OAUTH_KEYS")) == bool(rc.text("OAUTH_INTROSPECTION_URL")):
        raise TemporaryFailure(f"{rc.path}: set one of OAUTH_KEYS and OAUTH_INTROSPECTION_URL")
    try:
        if rc.text("OAUTH_KEYS"):
            from authmodules.jwtkeys import claimed
        else:
            from authmodules.introspection import claimed
    except ImportError as why:
        raise TemporaryFailure(str(why)) from why
    return claimed


def identity(user: bytes, owner: str, rc: RcFile) -> bytes:
    """The userid of the token's owner, who has to be `user` if that is not empty. Raises Wrong."""
    case = rc.text("OAUTH_USER_CASE", "exact")
    if case not in ("exact", "lower"):
        raise TemporaryFailure(f"{rc.place('OAUTH_USER_CASE')}: not one of exact, lower")
    own = os.fsencode(owner)
    if case == "lower":
        user, own = user.lower(), own.lower()  # of A to Z alone: bytes
    if user not in (b"", own):
        raise Wrong(f"it is that of {log.safe(own)}")
    return own


def answer(status: str, rc: RcFile) -> str:
    """What the client is told, in JSON. Nothing in it is the client's."""
    import json  # here: a right token needs none

    told = {
        "status": status,
        "scope": rc.text("OAUTH_SCOPE"),
        "openid-configuration": rc.text("OAUTH_DISCOVERY_URL"),
    }
    return json.dumps({name: value for name, value in told.items() if value})
