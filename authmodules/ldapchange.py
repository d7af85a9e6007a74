"""ldapchange - change a password in an LDAP directory, as Courier's authldaprc describes it

The old password is verified as for a login; with LDAP_AUTHBIND one is bound as the user then, and
else as LDAP_BINDDN (reference auth.md 2.8). Replaced are LDAP_CLEARPW and LDAP_CRYPTPW, those that
the entry shows. Where it shows none, which is usual with LDAP_AUTHBIND, the server is asked to
change the password, and stores it in its own way (RFC 3062).
"""

from __future__ import annotations

from authmodules import authldap, directory, newpassword, rcfile
from authmodules.directory import Attributes, Directory, Found, Question, Several
from authmodules.rcfile import RcFile
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

    try:
        _, _, is_changed = directory.ask(rc, talk, request.login, once=True)
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
        changed[rc.text("LDAP_CRYPTPW")] = [newpassword.stored(new, settings, hashes[0])]
    return changed
