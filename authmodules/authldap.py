"""authldap - find the user in an LDAP directory, as Courier's authldaprc describes it

Reads AUTHLDAP_RC (/etc/courier/authldaprc), in the form of `rcfile`, and asks the `directory`
(reference auth.md 2.8). Below LDAP_BASEDN one entry must match

    (LDAP_MAIL=userid)    or with a filter    (&LDAP_FILTER(LDAP_MAIL=userid))

where LDAP_DOMAIN is appended to a userid without `@`. With LDAP_EMAILMAP, userids that have one are
looked up by that filter first, below LDAP_EMAILMAP_BASEDN; the entry's LDAP_EMAILMAP_ATTRIBUTE is
then what LDAP_EMAILMAP_MAIL is to be. None, or several: it is nobody.

The password is right if one can bind as the entry with it (LDAP_AUTHBIND), or it is LDAP_CLEARPW,
or, where the entry has none, one of LDAP_CRYPTPW was made from it. CRAM needs LDAP_CLEARPW; SCRAM
needs it too, or, where there is none, an LDAP_CRYPTPW of its own kind. Who has proved an identity
by a certificate needs no password. A locked one (`!`) keeps them out, and who comes with SCRAM.
"""

from __future__ import annotations

import grp
import os
import pwd
from _operator import _compare_digest as same

from authmodules import directory, rcfile
from authmodules.directory import Attributes, Directory, Found, Question, Several, escape
from authmodules.rcfile import RcFile
from courierchain import cram, handover, log, passwords, proof, scram
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

NAMES = frozenset(
    "LDAP_" + name
    for name in (
        *("URI", "PROTOCOL_VERSION", "BASEDN", "BINDDN", "BINDPW", "INITBIND", "AUTHBIND"),
        *("TIMEOUT", "TLS", "DEREF", "MAIL", "FILTER", "DOMAIN", "GLOB_UID", "GLOB_GID", "UID"),
        *("GID", "HOMEDIR", "MAILROOT", "MAILDIR", "DEFAULTDELIVERY", "MAILDIRQUOTA", "FULLNAME"),
        *("CLEARPW", "CRYPTPW", "AUXOPTIONS", "ENUMERATE_FILTER", "EMAILMAP", "EMAILMAP_BASEDN"),
        *("EMAILMAP_ATTRIBUTE", "EMAILMAP_MAIL"),
    )
)
HOMEDIR = "homeDir"  # the attribute where LDAP_HOMEDIR is not set


@auth_module
def authldap(request: Request, settings: Settings) -> Account:
    response = cram.asked(request)
    question = scram.asked(request)
    if request.login:
        user, secret = request.login
    elif claim := response or question:
        user, secret = claim.user, b""
    elif request.external:
        user, secret = request.external, b""
    else:
        raise Rejected
    if handover.is_rehearsing():
        raise Rejected
    rc = rcfile.read(settings.text("AUTHLDAP_RC"), NAMES)
    binds = rc.number("LDAP_AUTHBIND") != 0
    if not (binds or rc.text("LDAP_CLEARPW") or rc.text("LDAP_CRYPTPW")):
        raise TemporaryFailure(f"{rc.path}: set LDAP_AUTHBIND 1, LDAP_CLEARPW or LDAP_CRYPTPW")

    def talk(server: Directory, question: Question) -> Found:
        user, secret = question
        dn, entry = look_up(user, rc, server)
        return dn, entry, binds and server.is_password(dn, secret)

    try:
        dn, entry, bound = directory.ask(rc, talk, (user, secret))
    except Several:
        log.warn(f"authldap: several entries match user={log.safe(user)}: nobody is let in")
        dn, entry, bound = *NOBODY, False
    stored = None
    if request.login and binds:
        proved = bound or passwords.verify(secret, None)  # so an unknown user takes as long
    elif request.login:
        is_right = is_clear(secret, entry, rc)
        stored = None if is_right else hash_of(secret, entry, rc)
        proved = is_right or stored is not None
    elif response:
        proved = not binds and is_response(response, entry, rc)
    elif question:
        proved = not binds and has_proved(question, entry, rc, settings)
    else:
        proved = not is_locked(entry, rc)
    if not dn or not proved:
        raise Rejected
    found = account(os.fsdecode(user), dn, entry, rc)
    found.stored = stored
    return found


@authldap.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    from authmodules import ldapchange  # here: no login needs it

    ldapchange.change(request, new, settings)


@authldap.rehashes
def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    from authmodules import ldapchange

    ldapchange.rehash(request, stored, settings)


NOBODY: tuple[str, Attributes] = ("", {})


def look_up(user: bytes, rc: RcFile, server: Directory) -> tuple[str, Attributes]:
    """The user's entry, or NOBODY. Raises TemporaryFailure."""
    attribute, value = rc.text("LDAP_MAIL", "mail"), user
    if b"@" not in user and rc.text("LDAP_DOMAIN"):
        value += b"@" + os.fsencode(rc.text("LDAP_DOMAIN"))
    elif b"@" in user and rc.text("LDAP_EMAILMAP"):
        mapped = by_map(user, rc, server)
        if not mapped:
            return NOBODY
        attribute, value = rc.text("LDAP_EMAILMAP_MAIL", attribute), mapped
    pattern = f"({attribute}={escape(value)})"
    if rc.text("LDAP_FILTER"):
        pattern = f"(&{rc.text('LDAP_FILTER')}{pattern})"
    return only(server.find(rc.needed("LDAP_BASEDN"), pattern, wanted(rc)))


def by_map(user: bytes, rc: RcFile, server: Directory) -> bytes:
    """What LDAP_EMAILMAP makes of an address; empty if it has nothing for it."""
    local_part, _, realm = user.rpartition(b"@")
    parts = rc.text("LDAP_EMAILMAP").split("@user@")
    filled = [part.replace("@realm@", escape(realm)) for part in parts]
    base = rc.text("LDAP_EMAILMAP_BASEDN") or rc.needed("LDAP_BASEDN")
    attribute = rc.text("LDAP_EMAILMAP_ATTRIBUTE", "handle")
    _, entry = only(server.find(base, escape(local_part).join(filled), [attribute]))
    return next(iter(entry.get(attribute.lower(), [])), b"")


def only(entries: list[tuple[str, Attributes]]) -> tuple[str, Attributes]:
    """Raises Several."""
    if len(entries) > 1:
        raise Several
    return entries[0] if entries else NOBODY


def wanted(rc: RcFile) -> list[str]:
    names = ("UID", "GID", "MAILDIR", "MAILDIRQUOTA", "FULLNAME", "CLEARPW", "CRYPTPW")
    attributes = [rc.text("LDAP_" + name) for name in names]
    attributes += [rc.text("LDAP_HOMEDIR", HOMEDIR), *(name for name, _ in aux_options(rc))]
    return [name for name in attributes if name]


def aux_options(rc: RcFile) -> list[tuple[str, str]]:
    """Attributes and the account's options that they give. An option without a name has the
    attribute's."""
    pairs = (item.partition("=") for item in rc.text("LDAP_AUXOPTIONS").split(",") if item)
    return [(name.strip(), option.strip() or name.strip()) for name, _, option in pairs]


def values(entry: Attributes, rc: RcFile, setting: str) -> list[bytes]:
    return entry.get(rc.text(setting).lower(), [])


def hash_of(secret: bytes, entry: Attributes, rc: RcFile) -> bytes | None:
    """The hash that was made from a password; None if there is none, or a clear one is right."""
    clear = values(entry, rc, "LDAP_CLEARPW")
    hashes: list[bytes | None] = [] if clear else [*values(entry, rc, "LDAP_CRYPTPW")]
    # verify() takes as long over None, so an unknown user is not a faster answer.
    return next((stored for stored in hashes or [None] if passwords.verify(secret, stored)), None)


def is_clear(secret: bytes, entry: Attributes, rc: RcFile) -> bool:
    clear = values(entry, rc, "LDAP_CLEARPW")
    return bool(clear and clear[0]) and same(secret, clear[0])


def is_password(secret: bytes, entry: Attributes, rc: RcFile) -> bool:
    return is_clear(secret, entry, rc) or hash_of(secret, entry, rc) is not None


def is_response(response: cram.Answer, entry: Attributes, rc: RcFile) -> bool:
    clear = next(iter(values(entry, rc, "LDAP_CLEARPW")), b"")
    return cram.verify(response, cram.state_of(response.algorithm, clear) if clear else None)


def has_proved(question: scram.Question, entry: Attributes, rc: RcFile, settings: Settings) -> bool:
    """Raises Rejected, Refused and PermanentFailure."""
    if is_locked(entry, rc):
        return False
    clear = next(iter(values(entry, rc, "LDAP_CLEARPW")), None)
    forms = [] if clear else values(entry, rc, "LDAP_CRYPTPW")
    proof.demand(question, forms, clear, settings)
    return True


def is_locked(entry: Attributes, rc: RcFile) -> bool:
    stored = values(entry, rc, "LDAP_CLEARPW") + values(entry, rc, "LDAP_CRYPTPW")
    return any(passwords.is_locked(one.rpartition(b"}")[2]) for one in stored)


def account(user: str, dn: str, entry: Attributes, rc: RcFile) -> Account:
    """Raises TemporaryFailure for an entry that lacks something."""

    def text(setting: str, default: str = "") -> str:
        found = entry.get(rc.text(setting, default).lower(), [])
        return os.fsdecode(found[0]) if found else ""

    home = text("LDAP_HOMEDIR", HOMEDIR)
    if not home:
        raise TemporaryFailure(f"{dn} has no {rc.text('LDAP_HOMEDIR', HOMEDIR)} (LDAP_HOMEDIR)")
    if rc.text("LDAP_MAILROOT"):
        home = f"{rc.text('LDAP_MAILROOT')}/{home}"
    uid, gid = text("LDAP_UID"), text("LDAP_GID")
    return Account(
        user=user,
        uid=number(uid, dn, rc, "LDAP_UID") if uid else shared_id(dn, rc, "UID"),
        gid=number(gid, dn, rc, "LDAP_GID") if gid else shared_id(dn, rc, "GID"),
        home=home,
        fullname=text("LDAP_FULLNAME"),
        maildir=text("LDAP_MAILDIR"),
        quota=text("LDAP_MAILDIRQUOTA"),
        options=options(dn, entry, rc),
    )


def number(digits: str, dn: str, rc: RcFile, setting: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 11):
        raise TemporaryFailure(f"{dn}: {rc.place(setting)}: {digits[:64]!r} is not a number")
    return int(digits)


def shared_id(dn: str, rc: RcFile, kind: str) -> int:
    """The number of LDAP_GLOB_UID or LDAP_GLOB_GID, which may be a name."""
    setting = f"LDAP_GLOB_{kind}"
    name = rc.text(setting)
    if not name:
        raise TemporaryFailure(f"{dn} has no {kind.lower()} (set LDAP_{kind} or {setting})")
    if name.isascii() and name.isdigit():
        return number(name, dn, rc, setting)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "UID" else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError) as why:
        raise TemporaryFailure(f"{rc.place(setting)}: no such name: {name[:64]}") from why


def options(dn: str, entry: Attributes, rc: RcFile) -> str:
    """OPTIONS. A comma in a value would begin another option, so it is not taken."""
    pairs = []
    for attribute, option in aux_options(rc):
        for value in entry.get(attribute.lower(), []):
            if b"," in value:
                raise TemporaryFailure(f"{dn}: {attribute} has a comma in it (LDAP_AUXOPTIONS)")
            pairs.append(f"{option}={os.fsdecode(value)}")
    return ",".join(pairs)
