"""authvchkpw - find the user in vpopmail's files, without vpopmail

VPOPMAIL_ASSIGN (/var/qmail/users/assign) has a line for each domain, and for each other name of one

    +DOMAIN-:REAL DOMAIN:UID:GID:DIRECTORY:-::

and DIRECTORY/vpasswd one for each user

    NAME:HASH:0:FLAGS:full name:HOME:QUOTA

with HOME as his directory, where his Maildir is (reference auth.md 2.4; flags as in vpopmail.h). If
DIRECTORY/vpasswd.cdb is there, and not older, it is read instead: a constant database (see `cdb`)
with NAME as a key, and what is behind its colon as data.

A userid without a domain has VPOPMAIL_DOMAIN; `%` may stand for `@`; case does not count. Who has
the flag NO_POP is rejected: in a request of service pop3, as NO_IMAP in one of imap and NO_WEBMAIL
in one of webmail. Sites that keep users in a database have no vpasswd: authmysql is for them, or
authcheckpassword with vpopmail's own vchkpw.
"""

from __future__ import annotations

import os
from stat import S_IWOTH

from authmodules import cdb
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.passwords import verify
from courierchain.request import Request
from courierchain.settings import Settings

REFUSES = {b"pop3": 0x02, b"webmail": 0x04, b"imap": 0x08}  # NO_POP, NO_WEBMAIL, NO_IMAP
DOMAIN_FIELDS, USER_FIELDS = 5, 7  # the least


@auth_module
def authvchkpw(request: Request, settings: Settings) -> Account:
    if request.login is None:
        raise Rejected
    user, secret = request.login
    name, place = look_up(user, settings)
    found = place and user_entry(passwd_of(place), name)
    # verify() takes as long over None, so an unknown user is not a faster answer.
    if not verify(secret, found[1] if found else None) or not (place and found):
        raise Rejected
    if number(found[3], found) & REFUSES.get(request.service, 0):
        raise Rejected
    return Account(
        user=os.fsdecode(name + b"@" + place[1]),
        uid=number(place[2], place),
        gid=number(place[3], place),
        home=os.fsdecode(found[5]),
        fullname=os.fsdecode(found[4]),
        stored=found[1],
    )


@authvchkpw.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    from authmodules import vpasswdchange  # here: no login needs it

    vpasswdchange.change(request, new, settings)


@authvchkpw.rehashes
def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    from authmodules import vpasswdchange

    vpasswdchange.rehash(request, stored, settings)


def look_up(user: bytes, settings: Settings) -> tuple[bytes, list[bytes] | None]:
    """The user's name, and the fields of the domain; None if there is none. Raises
    TemporaryFailure."""
    name, _, domain = user.lower().replace(b"%", b"@").partition(b"@")
    domain = domain or os.fsencode(settings.text("VPOPMAIL_DOMAIN"))
    return name, entry(settings.text("VPOPMAIL_ASSIGN"), b"+" + domain + b"-", DOMAIN_FIELDS)


def passwd_of(place: list[bytes]) -> str:
    """The file of a domain's users."""
    return os.fsdecode(place[4]) + "/vpasswd"


def user_entry(path: str, name: bytes) -> list[bytes] | None:
    """The fields of a user, from PATH.cdb if that is up to date. Raises TemporaryFailure."""
    database = path + ".cdb"
    try:
        with open(database, "rb", buffering=0) as file:
            check_mode(file.fileno(), database)
            made = os.fstat(file.fileno()).st_mtime_ns
            if os.path.exists(path) and os.stat(path).st_mtime_ns > made:
                return entry(path, name, USER_FIELDS)
            data = cdb.find(file.fileno(), name) if is_key(name) else None
    except FileNotFoundError:
        return entry(path, name, USER_FIELDS)
    except (OSError, cdb.Broken) as why:
        reason = why.strerror if isinstance(why, OSError) else str(why)
        raise TemporaryFailure(f"cannot read {database}: {reason}") from why
    if data is None:
        return None
    return fields_of(name + b":" + data.rstrip(b"\n\0"), USER_FIELDS, database)


def is_key(key: bytes) -> bool:
    return key.strip(b"+-") != b"" and b":" not in key


def check_mode(descriptor: int, path: str) -> None:
    if os.fstat(descriptor).st_mode & S_IWOTH:
        raise TemporaryFailure(f"{path} may be written by everybody (chmod o-w {path})")


def fields_of(line: bytes, least: int, path: str) -> list[bytes]:
    fields = line.split(b":")
    if len(fields) < least:
        raise TemporaryFailure(f"{path}: the line of {os.fsdecode(fields[0])!r} lacks a field")
    return fields


def entry(path: str, key: bytes, least: int) -> list[bytes] | None:
    """The fields of the line that begins with `key` and a colon. Raises TemporaryFailure."""
    if not is_key(key):
        return None
    try:
        with open(path, "rb", buffering=0) as file:
            check_mode(file.fileno(), path)
            text = b"\n" + file.read() + b"\n"
    except OSError as why:
        raise TemporaryFailure(f"cannot read {path}: {why.strerror}") from why
    begin = text.find(b"\n%s:" % key)
    if begin < 0:
        return None
    return fields_of(text[begin + 1 : text.index(b"\n", begin + 1)], least, path)


def number(digits: bytes, fields: list[bytes]) -> int:
    if not (digits.isdigit() and len(digits) < 11):
        raise TemporaryFailure(f"{os.fsdecode(fields[0])!r}: {os.fsdecode(digits)!r} is no number")
    return int(digits)
