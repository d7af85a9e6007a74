"""ldapchange - change a password in an LDAP directory, as Courier's authldaprc describes it

The old password is verified as for a login; with LDAP_AUTHBIND one is bound as the user then, and
else as LDAP_BINDDN (reference auth.md 2.8). Replaced are LDAP_CLEARPW and LDAP_CRYPTPW, those that
the entry shows. Where it shows none, which is usual with LDAP_AUTHBIND, the server is asked to
change the password, and stores it in its own way (RFC 3062).

A rehash (courierchain.rehash) puts one value of LDAP_CRYPTPW in the place of the one with which the
password was compared; in one step, so it fails where that is gone. With LDAP_AUTHBIND, and where
there is an LDAP_CLEARPW, no hash was compared.
"""

from __future__ import annotations

from authmodules import authldap, directory, newpassword, rcfile
from authmodules.directory import Attributes, Directory, Found, Question, Several, Talk
from authmodules.rcfile import RcFile
from courierchain import scram
from courierchain.authmodule import Rejected
from courierchain.request import Request
from courierchain.settings import Settings


def change(request: Request, new: bytes, settings: Settings) -> None:
    """Raises Rejected if the old password is wrong, and TemporaryFailure."""
    if request.login is None:
        raise Rejected
    newpassword.check(new)
    rc = rcfile.read(settings.text("AUTHLDAP_RC"), authldap.NAMES)
    binds = rc.number("LDAP_AUTHBIND") != 0

    def talk(server: Directory, question: Question) -> Found:
        user, old = question
        dn, entry = authldap.look_up(user, rc, server)
        is_right = server.is_password(dn, old) if binds else authldap.is_password(old, entry, rc)
        if not (dn and is_right):
            return dn, entry, False
        try:
            changed = replaced(new, entry, rc, settings)
        except Rejected:
            return dn, entry, False
        if changed:
            server.replace(dn, changed)
        else:
            server.change_password(dn, old, new)
        return dn, entry, True

    carry_out(rc, talk, request.login)


def carry_out(rc: RcFile, talk: Talk, question: Question) -> None:
    """Let a server be talked to. Raises Rejected if nothing was changed; TemporaryFailure."""
    try:
        _, _, is_changed = directory.ask(rc, talk, question, once=True)
    except Several as why:
        raise Rejected from why
    if not is_changed:
        raise Rejected


def replaced(new: bytes, entry: Attributes, rc: RcFile, settings: Settings) -> Attributes:
    """The new values of the attributes that hold a password. Raises Rejected, PermanentFailure."""
    clear = authldap.values(entry, rc, "LDAP_CLEARPW")
    hashes = authldap.values(entry, rc, "LDAP_CRYPTPW")
    changed: Attributes = {}
    if clear:
        changed[rc.text("LDAP_CLEARPW")] = [new]
    if hashes:
        made = newpassword.stored(new, settings, hashes[0])
        changed[rc.text("LDAP_CRYPTPW")] = [in_directory(made, hashes[0])]
    return changed


def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    """Put another hash of the request's password in the place of `stored`.

    Raises Rejected if that isn't there, or somebody else renews a hash; TemporaryFailure.
    """
    if request.login is None:
        raise Rejected
    user, secret = request.login
    path = settings.text("AUTHLDAP_RC")
    rc = rcfile.read(path, authldap.NAMES)

    def talk(server: Directory, question: Question) -> Found:
        dn, entry = authldap.look_up(user, rc, server)
        is_there = stored in authldap.values(entry, rc, "LDAP_CRYPTPW")
        if not is_there or authldap.values(entry, rc, "LDAP_CLEARPW"):
            return dn, entry, False
        return dn, entry, server.exchange(dn, rc.text("LDAP_CRYPTPW"), stored, fresh)

    with newpassword.alone(path):
        fresh = in_directory(newpassword.renewed(secret, settings, stored), stored)
        carry_out(rc, talk, request.login)


def in_directory(made: bytes, old: bytes) -> bytes:
    """A hash in the form of the old one: with the name of a scheme in braces, without which the
    server itself would take it for a password in clear, if that has one (RFC 2307)."""
    if made.startswith(b"{") or not old.startswith(b"{"):
        return made
    return b"{CRYPT}" + made if made.startswith(b"$") else scram.in_braces(made)
