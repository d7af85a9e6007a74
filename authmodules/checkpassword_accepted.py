"""checkpassword-accepted - what a checkpassword program becomes when it has accepted

    checkpassword-accepted NEXT [ARGUMENT...]

Started by the program that authcheckpassword has started, as the user, in the user's home, with
USER and HOME set, and perhaps MAILDIR, MAILDIRQUOTA, OPTIONS, AUTHADDR and AUTHFULLNAME. It looks
whether these may own a mailbox, reports to authcheckpassword, and becomes NEXT, as an accepting
module does.

    COURIER_CHECKPASSWORD    `DESCRIPTOR GROUP SERVICE`: where to report (ACCEPTED, or why not), the
                             process group to return to, and the request's service

Exits 111 where there is nobody to report to, and when it refuses.
"""

from __future__ import annotations

import os

from courierchain import failure, handover, log, request
from courierchain.account import Account, Unusable
from courierchain.handover import AuthFailure, CannotBecome
from courierchain.request import BadRequest

REPORT = "COURIER_CHECKPASSWORD"
ACCEPTED = b"+"
LARGEST = 1024  # octets of a report
REFUSED = 111

# What says in the environment who the user is. What the listener was started with does not count.
OF_ACCOUNT = (
    *("USER", "LOGNAME", "HOME", "SHELL", "AUTHENTICATED", "AUTHADDR", "AUTHFULLNAME"),
    *("MAILDIR", "MAILDIRQUOTA", "OPTIONS"),
)


def main(argv: list[str], env: dict[str, str]) -> int:
    report, _, rest = env.pop(REPORT, "").partition(" ")
    group, _, service = rest.partition(" ")
    if len(argv) < 2 or not (report.isdigit() and group.isdigit()):
        raise AuthFailure
    try:
        account = accepted(env)
    except Unusable as why:
        tell(int(report), os.fsencode(str(why))[:LARGEST])
        return REFUSED
    if not tell(int(report), ACCEPTED):
        return REFUSED
    try:
        os.setpgid(0, int(group))
        told = {**env, **account.environment()}
        answer = request.encode(
            os.fsencode(service), request.AUTHENTICATED, os.fsencode(account.user)
        )
        request.offer(answer)
        handover.become(argv[1:], told, record=True)
    except (BadRequest, CannotBecome, OSError) as why:
        log.err(f"checkpassword-accepted: user={log.safe(account.user)}: {why}")
        os.write(1, failure.temporary(env))
    return 1


def accepted(env: dict[str, str]) -> Account:
    """Whom this process has become. Raises Unusable."""
    uids, gids = os.getresuid(), os.getresgid()
    account = Account(
        user=env.get("USER", ""),
        uid=uids[0],
        gid=gids[0],
        home=env.get("HOME") or os.getcwd(),
        address=env.get("AUTHADDR", ""),
        fullname=env.get("AUTHFULLNAME", ""),
        maildir=env.get("MAILDIR", ""),
        quota=env.get("MAILDIRQUOTA", ""),
        options=env.get("OPTIONS", ""),
    )
    account.check()
    if len({*uids}) > 1 or len({*gids}) > 1 or 0 in os.getgroups():
        raise Unusable(f"uids {uids}, gids {gids}, groups {os.getgroups()}: root's rights are left")
    return account


def tell(report: int, text: bytes) -> bool:
    try:
        os.write(report, text)
        return True
    except OSError as why:
        log.err(f"checkpassword-accepted: cannot report on descriptor {report}: {why.strerror}")
        return False
