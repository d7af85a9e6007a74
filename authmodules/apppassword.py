"""apppassword - passwords of an account that are for one device each

Ours, in Courier's rc files for SQL (see `sqltable`); without one of these there are none:

    PREFIX_APP_PASSWORD_TABLE    a table with the columns id, service, crypt, device and expires:
                                 the userid as in the table of accounts; pop3, another service or *
                                 for all; a hash; a name for the log; seconds since 1970, or NULL
    PREFIX_APP_PASSWORD_CLAUSE   or a whole query, with the variables of a SELECT_CLAUSE: it gives
                                 crypt and device, and expires if it likes

They are asked when the account's own password is not what was typed. Each is compared, so MOST
counts, and digests such as {SHA256} are right for them: they are long and random.

An account says in its options

    disableapppasswords    none of them counts
    onlyapppasswords       its own password doesn't, and CRAM neither

A locked account (`!` in front of its hash) has none. Whose device it was is logged.
"""

from __future__ import annotations

from time import time

from authmodules import sqltable
from authmodules.rcfile import RcFile
from authmodules.sqlclause import Statement
from authmodules.sqltable import Database, Row
from courierchain import log, passwords
from courierchain.authmodule import PermanentFailure
from courierchain.settings import Settings

MOST = 32
LEAST_COLUMNS = 2


def is_one(
    secret: bytes,
    user: bytes,
    service: bytes,
    row: Row,
    rc: RcFile,
    database: Database,
    settings: Settings,
) -> bool:
    """Whether what was typed is a password for one of the account's devices.

    Raises TemporaryFailure and PermanentFailure.
    """
    statement = query(user, service, row, rc, database)
    columns, rows = database.ask(rc, statement, settings)
    if columns < LEAST_COLUMNS:
        place = rc.place(database.prefix + "APP_PASSWORD_CLAUSE")
        raise PermanentFailure(
            f"{place} gives {columns} columns, not 2 or 3: crypt, device, expires"
        )
    name = row[0] or b""
    if len(rows) > MOST:
        log.warn(f"{database.module}: over {MOST} app passwords, user={log.safe(name)}")
    for stored, device, *expires in rows[:MOST]:
        if stored and is_valid(expires) and matches(secret, stored):
            shown = log.safe(device or b"")
            log.info(f"{database.module}: app password, user={log.safe(name)}, device={shown}")
            return True
    return False


def query(user: bytes, service: bytes, row: Row, rc: RcFile, database: Database) -> Statement:
    """Raises TemporaryFailure for a clause that can't be used."""
    name = database.prefix + "APP_PASSWORD_CLAUSE"
    clause = rc.text(name)
    if clause:
        values = sqltable.variables(user, service, rc)
        return sqltable.translated(name, clause, values, rc, database.grammar)
    table = rc.text(database.prefix + "APP_PASSWORD_TABLE")
    return [
        f"SELECT crypt, device, expires FROM {table} WHERE id = ",
        row[0] or b"",
        " AND (service = '*' OR service = ",
        service,
        ")",
    ]


def is_valid(expires: Row) -> bool:
    """Whether now is before the time; what is no time is over."""
    if not expires or not expires[0]:
        return True
    return expires[0].isdigit() and time() < int(expires[0][:18])


def matches(secret: bytes, stored: bytes) -> bool:
    """As passwords.verify(), but a refusal takes no longer than it must: that has been paid for
    with the account's own."""
    if not 0 < len(secret) <= passwords.MAX_SECRET or b"\0" in secret:
        return False
    return passwords.check(secret, stored) is True
