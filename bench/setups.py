"""setups - which servers each comparison starts

    for_sessions(folder, mailboxes, canned, bin, more)    short sessions
    for_crowds(folder, mailboxes, bin, most, more)        many clients that wait
    for_growth(folder, many, bin, more)                   one server for each number of accounts
    for_long(folder, mailboxes, bin)                      large mailboxes
    for_tls(folder, mailboxes, bin, pem, more)            TLS

Without `bin`, the directory of our programs, those that are not ours. `more` are further options of
our listener, for the set-ups where processes are used again.
"""

from __future__ import annotations

import originals
from accounts import Accounts, Mailboxes
from canned import Canned
from courier import Courier, CourierTls
from cyrusmail import Store
from dovecot import Dovecot, DovecotTls, DovecotTuned, DovecotVirtual
from mastered import Mastered
from ours import Ours, OursCached, OursTls, OursVirtual
from popa3d import Popa3d
from servers import Server

REUSED = "-uses=1000"
PARKED = "-park=1"
FRONT = "-front"


def for_sessions(
    folder: str, mailboxes: Mailboxes, canned: str, bin: str | None, more: list[str]
) -> list[Server]:
    system, strong, virtual = mailboxes.system, mailboxes.strong, mailboxes.virtual
    servers: list[Server] = [
        Canned("generator", folder, system, canned),
        Courier("courier-userdb", folder, system, "authuserdb"),
        Courier("courier-pam", folder, system, "authpam"),
        Courier("courier-sha512", folder, strong, "authuserdb"),
        Dovecot("dovecot", folder, system),
        DovecotTuned("dovecot-tuned", folder, system),
        DovecotTuned("dovecot-sha512", folder, strong),
        DovecotVirtual("dovecot-virtual", folder, virtual),
        *others(folder, system),
    ]
    if bin:
        kept = [REUSED, *more]
        servers += [
            Ours("ours-userdb", folder, system, bin, "authuserdb", *kept),
            Ours("ours-pam", folder, system, bin, "authpam", *kept),
            Ours("ours-sha512", folder, strong, bin, "authuserdb", *kept),
            OursCached("ours-sha512-cache", folder, strong, bin, "authuserdb", *kept),
            OursVirtual("ours-virtual", folder, virtual, bin, *more),
            Ours("ours-park", folder, system, bin, "authuserdb", *kept, PARKED),
            Ours("ours-front", folder, system, bin, "authuserdb", *kept, FRONT),
            Ours("ours-fork", folder, system, bin, "authuserdb"),
            Ours("ours-fork-pam", folder, system, bin, "authpam"),
        ]
    return servers


def others(folder: str, system: Accounts) -> list[Server]:
    """Cyrus, and popa3d if this distribution has it."""
    servers: list[Server] = [cyrus_of(folder, system)]
    if originals.is_unpacked(originals.POPA3D):
        servers.append(Popa3d("popa3d", folder, system))
    return servers


def cyrus_of(folder: str, system: Accounts) -> Server:
    """With mail of its own, made when it starts for the first time."""
    store = Store(system.homes, originals.cyrus())
    theirs = f"{store.programs}/usr/lib/cyrus/bin"
    return Mastered(
        "cyrus", folder, store, [f"{theirs}/master"], f"{theirs}/pop3d", store.cyrus_conf
    )


def for_crowds(
    folder: str, mailboxes: Mailboxes, bin: str | None, most: int, more: list[str]
) -> list[Server]:
    """Each takes `most` clients, and some more."""
    servers: list[Server] = [
        Courier("courier", folder, mailboxes.system, "authuserdb"),
        DovecotTuned("dovecot-tuned", folder, mailboxes.system),
        cyrus_of(folder, mailboxes.system),
    ]
    if bin:
        options = [REUSED, PARKED, FRONT, *more]
        servers.append(Ours("ours", folder, mailboxes.system, bin, "authuserdb", *options))
    for server in servers:
        server.most = most + 200
    return servers


def for_growth(folder: str, many: list[Accounts], bin: str | None, more: list[str]) -> list[Server]:
    """Courier, and ours, with each of these sets of accounts."""
    servers: list[Server] = []
    for accounts in many:
        count = len(accounts.owners)
        servers.append(Courier(f"courier-{count}", folder, accounts, "authuserdb"))
        if bin:
            options = [REUSED, *more]
            servers.append(Ours(f"ours-{count}", folder, accounts, bin, "authuserdb", *options))
    return servers


def for_long(folder: str, mailboxes: Accounts, bin: str | None) -> list[Server]:
    """One set-up of each server; ours with a process for each connection."""
    servers: list[Server] = [
        Courier("courier", folder, mailboxes, "authuserdb"),
        Dovecot("dovecot", folder, mailboxes),
    ]
    if bin:
        servers.append(Ours("ours", folder, mailboxes, bin, "authuserdb"))
    return servers


def for_tls(
    folder: str, mailboxes: Accounts, bin: str | None, pem: str, more: list[str]
) -> list[Server]:
    """All of them with each account's own uid, and the same certificate."""
    servers: list[Server] = [
        CourierTls("courier", folder, mailboxes, pem),
        DovecotTls("dovecot", folder, mailboxes, pem, reused=False),
        DovecotTls("dovecot-reused", folder, mailboxes, pem, reused=True),
    ]
    if bin:
        servers += [
            OursTls("ours", folder, mailboxes, bin, pem, REUSED, PARKED, *more),
            OursTls("ours-fork", folder, mailboxes, bin, pem),
        ]
    return servers
