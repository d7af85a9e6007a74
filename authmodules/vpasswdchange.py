"""vpasswdchange - change a password in vpopmail's files

The line of `vpasswd` is rewritten, and `vpasswd.cdb`, if there is one, is made again of the whole
text, as vpopmail's own programs do; else they would go on with the old password. Both are written
aside first, with owner and mode of what they replace, and then take its place: the text first,
which counts where a database is older.

    .vpasswd.lock     held meanwhile (fcntl(2)), as vpopmail holds it where it is built to
    .vpasswd.tmp, .vpasswd.cdb.tmp

A hash is that of PASSWORD_SCHEME, or else of the kind of the old one, or $1$, vpopmail's usual:
vpopmail itself knows what crypt(3) does. A line may have the password in clear as its eighth field:
then the new one stands there. Who has the flag NO_PASSWD_CHNG keeps his password.

A rehash changes the hash and nothing else, and nothing if the line's isn't the one that the
password was compared with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, LOCK_NB, lockf

from authmodules import authvchkpw, cdb, newpassword
from courierchain import gdbm, log, passwords, userdb
from courierchain.authmodule import (
    PermanentFailure,
    Rejected,
    TemporaryFailure,
    Unchangeable,
)
from courierchain.refusal import Refused
from courierchain.request import Request
from courierchain.settings import Settings

NO_PASSWD_CHNG = 0x01  # as in vpopmail.h
HASH, FLAGS, CLEAR = 1, 3, 7  # fields
KINDS = (  # how a hash begins, and the scheme of another one of its kind
    (b"$2", "bcrypt"),
    (b"$5$", "sha256_crypt"),
    (b"$6$", "sha512_crypt"),
    (b"$y$", "yescrypt"),
)
USUAL = "$1$"
NEW_MODE = 0o600
ENDS = b"\n\0"  # what may be behind a record's fields

Fields = list[bytes]


def change(request: Request, new: bytes, settings: Settings) -> None:
    """Raises Rejected if the old password is wrong; TemporaryFailure and Unchangeable."""
    if request.login is None:
        raise Rejected
    newpassword.check(new)
    user, old = request.login
    name, domain = authvchkpw.look_up(user, settings)
    path = authvchkpw.passwd_of(domain) if domain else ""
    found = authvchkpw.user_entry(path, name) if domain else None
    if not found or not passwords.verify(old, found[HASH]):
        raise Rejected
    if authvchkpw.number(found[FLAGS], found) & NO_PASSWD_CHNG:
        raise Unchangeable("the flag NO_PASSWD_CHNG forbids it")
    scheme = settings.text("PASSWORD_SCHEME") or kind_of(found[HASH])
    fresh = of_crypt(newpassword.by_scheme(new, scheme, found[HASH]), scheme)

    def changed(fields: Fields) -> Fields:
        if fields[HASH] != found[HASH]:
            raise TemporaryFailure(
                f"{path}: {log.safe(name)} has another hash in it than in {path}.cdb"
                " (call vmkpasswd)"
            )
        if b"".join(fields[CLEAR:]):
            if b":" in new:
                log.warn("no new password: one that vpopmail has in clear has no : in it")
                raise Rejected
            fields = [*fields[:CLEAR], new]
        return with_hash(fields, fresh)

    rewrite(path, name, changed)


def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    """Put another hash of the request's password in the place of `stored`. Raises Rejected if that
    isn't there, or somebody is changing the file; TemporaryFailure."""
    if request.login is None:
        raise Rejected
    user, secret = request.login
    name, domain = authvchkpw.look_up(user, settings)
    if not domain:
        raise Rejected

    def changed(fields: Fields) -> Fields:
        if fields[HASH] != stored:
            raise Rejected
        fresh = newpassword.renewed(secret, settings, stored)
        return with_hash(fields, of_crypt(fresh, settings.text("PASSWORD_SCHEME")))

    rewrite(authvchkpw.passwd_of(domain), name, changed, waits=False)


def kind_of(old: bytes) -> str:
    return next((scheme for prefix, scheme in KINDS if old.startswith(prefix)), USUAL)


def of_crypt(made: bytes, scheme: str) -> bytes:
    """The hash, if it can be a field. Raises PermanentFailure."""
    if b":" in made:
        raise PermanentFailure(f"PASSWORD_SCHEME={scheme}: a vpasswd can't hold it (take bcrypt)")
    return made


def with_hash(fields: Fields, fresh: bytes) -> Fields:
    return [*fields[:HASH], fresh, *fields[HASH + 1 :]]


def rewrite(
    path: str, name: bytes, changed: Callable[[Fields], Fields], *, waits: bool = True
) -> None:
    """Replace a user's line. Raises what `changed` does, TemporaryFailure, and, if it doesn't wait
    for others, Rejected."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    try:
        held = locked(path, f"{folder}/.vpasswd.lock", waits=waits)
        try:
            text = with_line(userdb.read(path), name, changed, path)
            files = {path: text}
            if os.path.exists(path + ".cdb"):
                files[path + ".cdb"] = database(text, name, path + ".cdb")
            replace(files, folder)
        finally:
            os.close(held)
    except userdb.Busy as why:
        raise Rejected from why
    except (Refused, cdb.Broken) as why:
        raise TemporaryFailure(str(why)) from why
    except OSError as why:
        raise TemporaryFailure(f"{path}: {why.strerror}") from why


def locked(path: str, lock: str, *, waits: bool) -> int:
    """A descriptor that holds the lock until it is closed. A lock that wasn't there is the owner's
    of the file, for vpopmail's programs have to open it. Raises Busy and OSError."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    owner = os.stat(path)
    try:
        descriptor = os.open(lock, flags | os.O_CREAT | os.O_EXCL, NEW_MODE)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except FileExistsError:
        descriptor = os.open(lock, flags)
    try:
        lockf(descriptor, LOCK_EX if waits else LOCK_EX | LOCK_NB)
    except BlockingIOError as why:
        os.close(descriptor)
        raise userdb.Busy(f"{lock}: somebody has it") from why
    return descriptor


def with_line(text: bytes, name: bytes, changed: Callable[[Fields], Fields], path: str) -> bytes:
    """The text with another line of a user. Raises what `changed` does, and TemporaryFailure."""
    lines = text.split(b"\n")
    for number, line in enumerate(lines):
        if line.startswith(name + b":"):
            fields = authvchkpw.fields_of(line, authvchkpw.USER_FIELDS, path)
            lines[number] = b":".join(changed(fields))
            return b"\n".join(lines)
    raise TemporaryFailure(f"{path} has no {log.safe(name)}, but {path}.cdb has (call vmkpasswd)")


def database(text: bytes, name: bytes, old: str) -> bytes:
    """A database of all lines. What stands behind the fields of its records is as in the one that
    it replaces. Raises cdb.Broken and OSError."""
    with open(old, "rb", buffering=0) as file:
        record = cdb.find(file.fileno(), name) or b""
    end = record[len(record.rstrip(ENDS)) :]
    return cdb.made((key, data + end) for key, data in records(text))


def records(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in text.split(b"\n"):
        key, colon, data = line.partition(b":")
        if key and colon:
            yield key, data


def replace(files: dict[str, bytes], folder: str) -> None:
    """Put these in the place of what there is, all or none as long as nothing can be written.
    Raises Refused."""
    asides = {path: f"{folder}/.{os.path.basename(path)}.tmp" for path in files}
    try:
        for path, octets in files.items():
            userdb.write(octets, asides[path], path)
        for path, aside in asides.items():
            gdbm.rename(aside, path)
    finally:
        for aside in asides.values():
            gdbm.remove(aside)
