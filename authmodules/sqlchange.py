"""sqlchange - change a password in a table, as one of Courier's rc files describes it

By PREFIX_CHPASS_CLAUSE, with the variables $(local_part), $(domain), $(service), and

    $(newpass)         the new password
    $(newpass_crypt)   its stored form, see `courierchain.newhash`
    $(oldpass_crypt)   the form that it takes the place of; ours

or, without it, by

    UPDATE USER_TABLE SET crypt = ..., clear = ... WHERE login = 'userid' AND (WHERE_CLAUSE)

of the columns that the account has something in (reference auth.md 2.7). Afterwards the account is
looked up again: only if the new password is its password then, it has been changed.

A rehash (courierchain.rehash) is a change to the same password that must not undo another one: it
leaves `clear` alone, and has `AND crypt = 'old form'` in its statement. So a CHPASS_CLAUSE is used
for it only if $(oldpass_crypt) is in it.
"""

from __future__ import annotations

from authmodules import newpassword, rcfile, sqltable
from authmodules.rcfile import RcFile
from authmodules.sqlclause import Statement, Values
from authmodules.sqltable import Database, Row
from courierchain import log
from courierchain.authmodule import PermanentFailure, Rejected
from courierchain.request import Request
from courierchain.settings import Settings

CRYPT, CLEAR = 1, 2  # columns of a row
OLD = "$(oldpass_crypt)"


def change(request: Request, new: bytes, settings: Settings, path: str, database: Database) -> None:
    """Raises Rejected if the old password is wrong, TemporaryFailure and PermanentFailure."""
    if request.login is None:
        raise Rejected
    user, old = request.login
    newpassword.check(new)
    rc = rcfile.read(path, database.names, has_secret=database.has_secret)
    row = sqltable.lookup(user, request.service, rc, database, settings)
    if not sqltable.is_password(old, row) or row is None:
        raise Rejected
    sqltable.account(row, rc, database.prefix)
    statement = update(user, request.service, new, row, rc, database, settings)
    database.ask(rc, statement, settings, writes=True)
    if not sqltable.is_password(
        new, sqltable.lookup(user, request.service, rc, database, settings)
    ):
        place = rc.place(database.prefix + "CHPASS_CLAUSE")
        raise PermanentFailure(f"{place}: {log.safe(user)} has not the new password after it")


def rehash(
    request: Request, stored: bytes, settings: Settings, path: str, database: Database
) -> None:
    """Put another form of the request's password in the place of `stored`.

    Raises Rejected if that isn't there, or somebody else renews a form; TemporaryFailure and
    PermanentFailure.
    """
    if request.login is None:
        raise Rejected
    user, secret = request.login
    rc = rcfile.read(path, database.names, has_secret=database.has_secret)
    with newpassword.alone(path):
        if form(user, request, rc, database, settings) != stored:
            raise Rejected
        fresh = newpassword.renewed(secret, settings, stored)
        statement = replacement(request, fresh, stored, rc, database)
        database.ask(rc, statement, settings, writes=True)
        if form(user, request, rc, database, settings) == stored:
            place = rc.place(database.prefix + "CHPASS_CLAUSE")
            raise PermanentFailure(f"{place}: {log.safe(user)} has not the new hash after it")


def form(
    user: bytes, request: Request, rc: RcFile, database: Database, settings: Settings
) -> bytes | None:
    row = sqltable.lookup(user, request.service, rc, database, settings)
    return row[CRYPT] if row else None


def update(
    user: bytes,
    service: bytes,
    new: bytes,
    row: Row,
    rc: RcFile,
    database: Database,
    settings: Settings,
) -> Statement:
    """Raises PermanentFailure for settings that make none."""
    values = sqltable.variables(user, service, rc)
    clause = rc.text(database.prefix + "CHPASS_CLAUSE")
    if clause:
        values["newpass"] = new
        values["oldpass_crypt"] = row[CRYPT] or b""
        if "$(newpass_crypt)" in clause:
            values["newpass_crypt"] = newpassword.stored(new, settings, row[CRYPT])
        return of_clause(clause, values, rc, database)
    changed: Statement = []
    if row[CRYPT]:
        stored = newpassword.stored(new, settings, row[CRYPT])
        changed += [f"{column(CRYPT, rc, database)} = ", stored]
    if row[CLEAR]:
        changed += [f"{', ' if changed else ''}{column(CLEAR, rc, database)} = ", new]
    return of_table(changed, [], user, values, rc, database)


def replacement(
    request: Request, fresh: bytes, stored: bytes, rc: RcFile, database: Database
) -> Statement:
    """Of `stored` by `fresh`, if it is still there. Raises PermanentFailure for settings that make
    none."""
    user, secret = request.login or (b"", b"")
    values = sqltable.variables(user, request.service, rc)
    clause = rc.text(database.prefix + "CHPASS_CLAUSE")
    if clause and OLD not in clause:
        raise PermanentFailure(
            f"{rc.place(database.prefix + 'CHPASS_CLAUSE')}: it would undo a change made meanwhile"
            f" (let it change nothing unless the old hash is '{OLD}')"
        )
    if clause:
        values |= {"newpass": secret, "newpass_crypt": fresh, "oldpass_crypt": stored}
        return of_clause(clause, values, rc, database)
    crypt = column(CRYPT, rc, database)
    return of_table(
        [f"{crypt} = ", fresh], [f" AND {crypt} = ", stored], user, values, rc, database
    )


def of_clause(clause: str, values: Values, rc: RcFile, database: Database) -> Statement:
    name = database.prefix + "CHPASS_CLAUSE"
    return sqltable.translated(name, clause, values, rc, database.grammar)


def of_table(
    changed: Statement,
    condition: Statement,
    user: bytes,
    values: Values,
    rc: RcFile,
    database: Database,
) -> Statement:
    """An UPDATE of the account. Raises PermanentFailure."""
    prefix = database.prefix
    if rc.text(prefix + "SELECT_CLAUSE"):
        raise PermanentFailure(
            f"{rc.place(prefix + 'CHPASS_CLAUSE')} is not set, and a SELECT_CLAUSE does not tell"
            " what to change (add an UPDATE with '$(newpass_crypt)')"
        )
    where = rc.text(prefix + "WHERE_CLAUSE", "1=1")
    return [
        f"UPDATE {rc.needed(prefix + 'USER_TABLE')} SET ",
        *changed,
        f" WHERE {column(0, rc, database)} = ",
        sqltable.with_domain(user, rc),
        *condition,
        " AND (",
        *sqltable.translated(prefix + "WHERE_CLAUSE", where, values, rc, database.grammar),
        ")",
    ]


def column(number: int, rc: RcFile, database: Database) -> str:
    """What a column of the row is called in the table."""
    name, default = sqltable.FIELDS[number]
    return rc.text(database.prefix + name, default)
