"""authsqlite - find the user in an SQLite database, as Courier's authsqliterc describes it

AUTHSQLITE_RC           the file (/etc/courier/authsqliterc); see `sqltable` for what is in it
SQLITE_DATABASE         in it: the database, which is only read, but to change a password
AUTHSQL_QUERY_TIMEOUT   seconds for the query, and for whoever has locked the database
"""

from __future__ import annotations

import sqlite3
from time import monotonic

from authmodules import sqlclause, sqltable
from authmodules.rcfile import RcFile
from authmodules.sqlclause import Statement
from authmodules.sqltable import Rows, seconds
from courierchain.account import Account
from courierchain.authmodule import PermanentFailure, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

STEPS = 10_000  # instructions of SQLite's machine between two looks at the clock
LASTING = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@auth_module
def authsqlite(request: Request, settings: Settings) -> Account:
    return sqltable.answer(request, settings, settings.text("AUTHSQLITE_RC"), DATABASE)


@authsqlite.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    from authmodules import sqlchange  # here: no login needs it

    sqlchange.change(request, new, settings, settings.text("AUTHSQLITE_RC"), DATABASE)


@authsqlite.rehashes
def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    from authmodules import sqlchange

    sqlchange.rehash(request, stored, settings, settings.text("AUTHSQLITE_RC"), DATABASE)


def ask(rc: RcFile, statement: Statement, settings: Settings, *, writes: bool = False) -> Rows:
    path = rc.needed("SQLITE_DATABASE")
    patience = seconds(settings, "AUTHSQL_QUERY_TIMEOUT")
    try:
        values = [piece.decode() for piece in statement if isinstance(piece, bytes)]
    except UnicodeDecodeError:
        return sqltable.MOST, []  # no text of SQLite's, so nobody's name
    sql = "".join("?" if isinstance(piece, bytes) else piece for piece in statement)
    try:
        mode = "rw" if writes else "ro"
        database = sqlite3.connect(f"file:{quoted(path)}?mode={mode}", uri=True, timeout=patience)
        try:
            database.text_factory = bytes
            until = monotonic() + patience
            database.set_progress_handler(lambda: monotonic() > until, STEPS)
            cursor = database.execute(sql, values)
            rows = [
                [octets(value) for value in row] for row in cursor.fetchmany(sqltable.MOST_ROWS)
            ]
            database.commit()
            return len(cursor.description or ()), rows
        finally:
            database.close()
    except (sqlite3.Error, sqlite3.Warning) as why:
        lasts = getattr(why, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in LASTING
        kind = PermanentFailure if lasts else TemporaryFailure
        text = sqltable.shown(str(why))
        raise kind(f"{rc.place('SQLITE_DATABASE')}: {path}: {text}{remedy(why)}") from why


def remedy(why: sqlite3.Error | sqlite3.Warning) -> str:
    code = getattr(why, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_ERROR:
        return " (compare table and columns with the settings)"
    if code == sqlite3.SQLITE_CANTOPEN:
        return " (it must be there, for the modules' user to read)"
    return ""


def quoted(path: str) -> str:
    """A path in a URI."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def octets(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode()


DATABASE = sqltable.Database("SQLITE_", ("DATABASE",), sqlclause.STANDARD, ask, has_secret=False)
