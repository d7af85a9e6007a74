"""authdaemon - ask an authdaemond, Courier's or ours

Sends the request to AUTHDAEMON_SOCKET (default /run/courier/authdaemon/socket), as it is and of
whatever type; `external`, where there is nothing left to prove, as a question for the account alone
(reference auth.md 2.9). The answer gives uid or system user, gid and home, the address that is the
user's name, and perhaps maildir, quota, options and full name.

FAIL rejects. A daemon that isn't there, hangs (TIMEOUT_SOCK, TIMEOUT_WRITE, TIMEOUT_READ) or
answers anything else is a temporary failure, never an unknown user.

Stands in the chain as any module; courierpop3login puts it there where no other one is.
"""

from __future__ import annotations

import os
import pwd

from courierchain import authsocket, authtypes, cram, handover
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.authsocket import NoAnswer
from courierchain.request import BadRequest, Request
from courierchain.settings import Settings


@auth_module
def authdaemon(request: Request, settings: Settings) -> Account:
    if handover.is_rehearsing():
        raise Rejected  # nobody's question; the daemon may be slow
    question = authsocket.about(settings.text("TCPREMOTEIP")) + question_of(request)
    try:
        fields = authsocket.fields(authsocket.ask(question, settings))
    except (NoAnswer, ValueError) as why:
        raise TemporaryFailure(str(why)) from why
    if fields is None:
        raise Rejected
    return account(fields)


def question_of(request: Request) -> bytes:
    """What the daemon is asked. Raises Rejected for a request that has not the form of its type."""
    if request.authtype == authtypes.EXTERNAL:
        try:
            return authsocket.pre(request.service, request.external or b"")
        except BadRequest as why:
            raise Rejected from why
    if request.authtype == authtypes.LOGIN and request.login is None:
        raise Rejected
    if request.authtype in authtypes.SCRAM:
        raise Rejected  # who answers at the other end can't talk with the client
    if request.authtype in authtypes.CRAM and cram.asked(request) is None:
        raise Rejected
    return authsocket.auth(request.service, request.authtype, request.authdata)


def account(fields: authsocket.Fields) -> Account:
    """Raises TemporaryFailure if something is missing that a mailbox must have."""

    def text(name: bytes) -> str:
        return os.fsdecode(fields.get(name, b""))

    system_user, uid, gid = text(b"USERNAME"), text(b"UID"), text(b"GID")
    if system_user and not uid:
        uid = uid_of(system_user)
    name = text(b"ADDRESS") or system_user
    if not (name and is_id(uid) and is_id(gid) and text(b"HOME")):
        raise TemporaryFailure(f"authdaemond: {name!r} lacks ADDRESS, UID, GID or HOME")
    return Account(
        user=name,
        uid=int(uid),
        gid=int(gid),
        home=text(b"HOME"),
        fullname=text(b"NAME"),
        maildir=text(b"MAILDIR"),
        quota=text(b"QUOTA"),
        options=text(b"OPTIONS"),
        system_user=system_user,
    )


def uid_of(system_user: str) -> str:
    try:
        return str(pwd.getpwnam(system_user).pw_uid)
    except (KeyError, ValueError) as why:
        raise TemporaryFailure(f"authdaemond: no system user {system_user!r} here") from why


def is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
