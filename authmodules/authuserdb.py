"""authuserdb - find the user in the userdb

    name TAB field=value|field=value...

Reads the text file AUTHUSERDB_FILE (default /etc/courier/userdb), or, if makeuserdb has compiled it
and Python has dbm.gnu, AUTHUSERDB_FILE.dat and AUTHUSERDB_FILE with "shadow.dat" (reference auth.md
2.3). The password is the field `<service>pw` (pop3pw), or else `systempw`; for CRAM-MD5
`<service>-hmac-md5pw`, or else `hmac-md5pw`, and so on (see `courierchain.cram`); for SCRAM
`<service>-scram-sha-256pw`, or else `scram-sha-256pw`, and so on, or else the password if it is of
that kind (see `courierchain.scram`); for APOP it is in clear, in `<service>-apoppw` or `apoppw`.
uid, gid and home
must be there; mail, quota, options and gecos may. The name is looked up as it came, byte by byte.

Who has proved an identity by a certificate needs no password here; but one that is locked, by a `!`
in front of it as in shadow(5), keeps out everybody.

The text file holds passwords, so it is refused while everybody can read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from stat import S_IROTH, S_IWOTH

from courierchain import cram, passwords, wholefile
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.authtypes import APOP, SCRAM
from courierchain.request import Request
from courierchain.settings import Settings

Record = dict[bytes, bytes]


@auth_module
def authuserdb(request: Request, settings: Settings) -> Account:
    path = settings.text("AUTHUSERDB_FILE")
    if request.external is not None:
        return identified(request, request.external, path)
    if request.authtype in SCRAM:
        return by_scram(request, path, settings)
    if request.login is None:
        return by_challenge(request, path)
    user, secret = request.login
    record = lookup(user, path)
    stored = password(request, record)
    # verify() takes as long over None, so an unknown user is not a faster answer.
    if not passwords.verify(secret, stored):
        raise Rejected
    found = account(user, record)
    found.stored = stored
    return found


@authuserdb.lists
def everybody(settings: Settings) -> Iterator[Account]:
    """All accounts of the userdb that can be used. Raises TemporaryFailure."""
    for user, record in records(settings.text("AUTHUSERDB_FILE")):
        try:
            yield account(user, record)
        except TemporaryFailure:
            pass


@authuserdb.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    from authmodules import userdbchange  # here: no login needs it

    userdbchange.change(request, new, settings)


@authuserdb.rehashes
def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    from authmodules import userdbchange

    userdbchange.rehash(request, stored, settings)


def by_challenge(request: Request, path: str) -> Account:
    """The account of who answered a challenge. Raises Rejected and TemporaryFailure."""
    answer = cram.asked(request)
    if answer is None:
        raise Rejected
    record = lookup(answer.user, path)
    is_apop = request.authtype == APOP
    field = b"apoppw" if is_apop else b"hmac-%spw" % answer.algorithm.encode()
    state = record.get(request.service + b"-" + field, record.get(field))
    if is_apop and state:
        state = cram.state_of("apop", state)
    if not cram.verify(answer, state):
        raise Rejected
    return account(answer.user, record)


def identified(request: Request, user: bytes, path: str) -> Account:
    record = lookup(user, path)
    if not record or passwords.is_locked(password(request, record)):
        raise Rejected
    return account(user, record)


def password(request: Request, record: Record) -> bytes | None:
    return record.get(request.service + b"pw", record.get(b"systempw"))


def by_scram(request: Request, path: str, settings: Settings) -> Account:
    """The account of who has proved to have its secret. Raises what `proof` raises."""
    from courierchain import proof, scram  # here: costs what few logins need

    question = scram.asked(request)
    if question is None:
        raise Rejected
    record = lookup(question.user, path)
    proof.demand(question, scram_forms(request, record), None, settings)
    return account(question.user, record)


def scram_forms(request: Request, record: Record) -> list[bytes | None]:
    """The service's own first. A password that is locked keeps them out too."""
    secret = password(request, record)
    field = request.authtype + b"pw"
    own = record.get(request.service + b"-" + field, record.get(field, secret))
    return [] if passwords.is_locked(secret) else [own]


def lookup(user: bytes, path: str) -> Record:
    """The user's fields; none if there is no such user. Raises TemporaryFailure."""
    if os.access(path + ".dat", os.F_OK) and (gnu := gdbm()):
        try:
            return compiled(gnu, path + ".dat", user) | compiled(gnu, path + "shadow.dat", user)
        except (gnu.error, OSError) as why:
            raise TemporaryFailure(f"cannot read {path}.dat, {path}shadow.dat: {why}") from why
    return in_text(path, user)


def records(path: str) -> list[tuple[bytes, Record]]:
    """Every user's name and fields, without passwords from a compiled userdb."""
    if os.access(path + ".dat", os.F_OK) and (gnu := gdbm()):
        try:
            with gnu.open(path + ".dat", "ru") as database:
                pairs = [(name, fields(database[name])) for name in database.keys()]
        except (gnu.error, OSError) as why:
            raise TemporaryFailure(f"cannot read {path}.dat: {why}") from why
        return sorted(pair for pair in pairs if not pair[0].startswith(b"UID="))
    lines = (line.partition(b"\t") for line in text_of(path).split(b"\n"))
    known = ((name, fields(line)) for name, tab, line in lines if tab)
    return [pair for pair in known if not pair[0].startswith((b"#", b"UID="))]


def in_text(path: str, user: bytes) -> Record:
    if b"\t" in user or b"\n" in user:
        return {}
    text = text_of(path)
    begin = text.find(b"\n%s\t" % user)
    if begin < 0 or user.startswith(b"#"):
        return {}
    begin += len(user) + 2
    return fields(text[begin : text.index(b"\n", begin)])


def text_of(path: str) -> bytes:
    """The file, with a line end at its begin and at its end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            octets = wholefile.read(descriptor, status.st_size)
            if status.st_mode & (S_IROTH | S_IWOTH):
                raise TemporaryFailure(f"{path} is open to everybody (chmod 600 {path})")
            return b"\n%s\n" % octets
        finally:
            os.close(descriptor)
    except OSError as why:
        raise TemporaryFailure(f"cannot read {path}: {why.strerror}") from why


def compiled(gnu, path: str, user: bytes) -> Record:  # type: ignore[no-untyped-def]
    with gnu.open(path, "ru") as database:
        return fields(database.get(user, b""))


def gdbm():  # type: ignore[no-untyped-def]
    """dbm.gnu, or None where Python is built without it."""
    try:
        import _gdbm
    except ImportError:
        return None
    return _gdbm


def fields(line: bytes) -> Record:
    parts = (field.partition(b"=") for field in line.split(b"|") if field)
    return {name: value for name, _, value in parts}


def account(user: bytes, record: Record) -> Account:
    """Raises TemporaryFailure for a record that cannot be used."""

    def text(name: bytes) -> str:
        return os.fsdecode(record.get(name, b""))

    uid, gid = record.get(b"uid", b""), record.get(b"gid", b"")
    if not (uid.isdigit() and gid.isdigit() and len(uid + gid) <= 20 and text(b"home")):
        raise TemporaryFailure(f"userdb record of {os.fsdecode(user)!r} lacks uid, gid or home")
    return Account(
        user=os.fsdecode(user),
        uid=int(uid),
        gid=int(gid),
        home=text(b"home"),
        fullname=text(b"gecos"),
        maildir=text(b"mail"),
        quota=text(b"quota"),
        options=text(b"options"),
    )
