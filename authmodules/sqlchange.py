"""sqlchange - change a password in a table, as one of Courier's rc files describes it

By PREFIX_CHPASS_CLAUSE, with the variables $(local_part), $(domain), $(service), and

    $(newpass)         the new password
    $(newpass_crypt)   its stored form, see `courierchain.newhash`

or, without it, by

    UPDATE USER_TABLE SET crypt = ..., clear = ... WHERE login = 'userid' AND (WHERE_CLAUSE)

of the columns that the account has something in (reference auth.md 2.7). Afterwards the account is
looked up again: only if the new password is its password then, it has been changed.
"""

from __future__ import annotations

from authmodules import newpassword, rcfile, sqltable
from authmodules.rcfile import RcFile
from authmodules.sqlclause import Statement
from authmodules.sqltable import Database, Row
from courierchain import log
from courierchain.authmodule import PermanentFailure, Rejected
from courierchain.request import Request
from courierchain.settings import Settings

CRYPT, CLEAR = 1, 2  # columns of a row


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
    prefix = database.prefix
    values = sqltable.variables(user, service, rc)
    clause = rc.text(prefix + "CHPASS_CLAUSE")
    if clause:
        values["newpass"] = new
        if "$(newpass_crypt)" in clause:
            values["newpass_crypt"] = newpassword.stored(new, settings, row[CRYPT])
        name = prefix + "CHPASS_CLAUSE"
        return sqltable.translated(name, clause, values, rc, database.grammar)
    if rc.text(prefix + "SELECT_CLAUSE"):
        raise PermanentFailure(
            f"{rc.place(prefix + 'CHPASS_CLAUSE')} is not set, and a SELECT_CLAUSE does not tell"
            " what to change (add an UPDATE with '$(newpass_crypt)')"
        )
    columns = [rc.text(prefix + name, column) for name, column in sqltable.FIELDS]
    changed: Statement = []
    if row[CRYPT]:
        changed += [f"{columns[CRYPT]} = ", newpassword.stored(new, settings, row[CRYPT])]
    if row[CLEAR]:
        changed += [f"{', ' if changed else ''}{columns[CLEAR]} = ", new]
    where = rc.text(prefix + "WHERE_CLAUSE", "1=1")
    return [
        f"UPDATE {rc.needed(prefix + 'USER_TABLE')} SET ",
        *changed,
        f" WHERE {columns[0]} = ",
        sqltable.with_domain(user, rc),
        " AND (",
        *sqltable.translated(prefix + "WHERE_CLAUSE", where, values, rc, database.grammar),
        ")",
    ]
