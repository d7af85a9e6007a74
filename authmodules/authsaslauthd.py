"""authsaslauthd - let Cyrus SASL's saslauthd check the password

Asks on the socket AUTHSASLAUTHD_SOCKET (/run/saslauthd/mux; a directory: `mux` in it), as SASL's
library does with `pwcheck_method: saslauthd`: four strings, then the answer is one

    userid, password, service, realm     each with its length in front, two octets, high one first
    OK... or NO...                       the same

What is behind the last `@` of a userid is the realm. The service is the request's: `pop` from
Cyrus's pop3d, else pop3. saslauthd says who may log in, and nothing of an account:

    AUTHSASLAUTHD_ACCOUNTS=passwd    the user is one of the system's (passwd)
    AUTHSASLAUTHD_ACCOUNTS=next      the modules behind this one look for the account: they are told
                                     that the identity is proved, as by a client certificate

No word of saslauthd's in AUTHPROGRAM_TIMEOUT seconds, or none at all, is a temporary failure. It
also says NO when it couldn't find out; that can't be told from a wrong password.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, socket
from select import POLLIN, poll
from time import monotonic

from authmodules.passwd import everybody, passwd_entry, system_account
from courierchain import authsocket, handover
from courierchain.account import Account
from courierchain.authmodule import Proved, Rejected, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

LONGEST_ANSWER = 1024  # octets with the length; saslauthd's are shorter


@auth_module
def authsaslauthd(request: Request, settings: Settings) -> Account:
    if request.login is None or handover.is_rehearsing():
        raise Rejected
    try:
        accounts = settings.choice("AUTHSASLAUTHD_ACCOUNTS", "passwd", "next")
        limit = max(1, settings.seconds("AUTHPROGRAM_TIMEOUT"))
    except ValueError as why:
        raise TemporaryFailure(str(why)) from why
    user, secret = request.login
    if not says_yes(question(user, secret, request.service), place(settings), limit):
        raise Rejected
    if accounts == "next":
        raise Proved(user)
    entry = passwd_entry(user)
    if entry is None:
        raise Rejected
    return system_account(entry)


authsaslauthd.lists(everybody)


def place(settings: Settings) -> str:
    path = settings.text("AUTHSASLAUTHD_SOCKET")
    return f"{path}/mux" if os.path.isdir(path) else path


def question(user: bytes, secret: bytes, service: bytes) -> bytes:
    name, _, realm = user.rpartition(b"@") if b"@" in user else (user, b"", b"")
    parts = (name, secret, service, realm)
    return b"".join(len(part).to_bytes(2) + part for part in parts)


def says_yes(asked: bytes, path: str, limit: int) -> bool:
    """limit: seconds for all of it. Raises TemporaryFailure."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    deadline = monotonic() + limit
    try:
        # With settimeout a daemon whose queue is full would be given up at once.
        authsocket.limit_sending(connection, limit)
        connection.connect(path)
        connection.sendall(asked)
        text = answer(connection, deadline)
    except BlockingIOError as why:
        raise TemporaryFailure(f"{path}: no answer in time") from why
    except (OSError, ValueError) as why:
        reason = why.strerror if isinstance(why, OSError) else str(why)
        raise TemporaryFailure(f"{path}: {reason} (is saslauthd running?)") from why
    finally:
        connection.close()
    if text[:2] not in (b"OK", b"NO"):
        raise TemporaryFailure(f"{path}: neither OK nor NO (is that saslauthd?)")
    return text.startswith(b"OK")


def answer(connection: socket, deadline: float) -> bytes:
    """The text of a whole answer. Raises OSError and ValueError."""
    readable = poll()
    readable.register(connection, POLLIN)
    octets = b""
    while len(octets) < 2 or len(octets) < 2 + int.from_bytes(octets[:2]):
        if len(octets) > LONGEST_ANSWER:
            raise ValueError("an answer that is too long")
        if not readable.poll(max(0, deadline - monotonic()) * 1000):
            raise ValueError("no answer in time")
        piece = connection.recv(LONGEST_ANSWER)
        if not piece:
            raise ValueError("no answer")
        octets += piece
    return octets[2:]
