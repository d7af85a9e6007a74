"""authpgsql - find the user in a PostgreSQL table, as Courier's authpgsqlrc describes it

    AUTHPGSQL_RC              the file (/etc/courier/authpgsqlrc); see `sqltable` for what is in it
    AUTHSQL_CONNECT_TIMEOUT   seconds to reach the server
    AUTHSQL_QUERY_TIMEOUT     seconds for its answer

How the server is reached is said in the file:

    PGSQL_CONNECTION      libpq's words: host= port= user= password= dbname= ..., or a URI
    PGSQL_CHARACTER_SET   of what clients type and of what is in the table, if not the database's
    PGSQL_HOST, PGSQL_PORT, PGSQL_USERNAME, PGSQL_PASSWORD, PGSQL_DATABASE, PGSQL_OPT
                          in older files, which have no PGSQL_CONNECTION; else they don't count,
                          so that the PGSQL_DATABASE of the file as it is shipped does no harm

Values are bound by the server. Bytes that are none of its character set are nobody's name. The
connection is kept where the process lives on (courierchain.connections).

psycopg is imported with the module, so that the listener has it before it forks: 95 ms once, and
1.3 ms more for each fork, instead of 95 ms for each login. Of it libpq is used as it is: its own
connections have no limit to the time that a query takes.
"""

from __future__ import annotations

import os
from select import POLLIN, POLLOUT, poll
from time import monotonic

from authmodules import sqlclause, sqltable
from authmodules.rcfile import RcFile
from authmodules.sqlclause import Statement
from authmodules.sqltable import Rows, seconds
from courierchain import connections
from courierchain.account import Account
from courierchain.authmodule import PermanentFailure, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

try:
    import psycopg
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError:  # said when somebody logs in: a listener must not fail to start by it
    psycopg = None  # type: ignore[assignment]

OLDER = {
    "HOST": "host",
    "PORT": "port",
    "USERNAME": "user",
    "PASSWORD": "password",
    "DATABASE": "dbname",
    "OPT": "options",
}
NOT_TEXT = ("22021", "22P05")  # SQLSTATE: bytes that are none of the character set
DONE = (2, 1)  # ExecStatus: TUPLES_OK, and COMMAND_OK of a statement without rows
LASTING = ("42", "3D", "28")  # its beginning: wrong query, no such database, not allowed


@auth_module
def authpgsql(request: Request, settings: Settings) -> Account:
    return sqltable.answer(request, settings, settings.text("AUTHPGSQL_RC"), DATABASE)


@authpgsql.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    from authmodules import sqlchange  # here: no login needs it

    sqlchange.change(request, new, settings, settings.text("AUTHPGSQL_RC"), DATABASE)


@authpgsql.rehashes
def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    from authmodules import sqlchange

    sqlchange.rehash(request, stored, settings, settings.text("AUTHPGSQL_RC"), DATABASE)


def ask(rc: RcFile, statement: Statement, settings: Settings, *, writes: bool = False) -> Rows:
    if psycopg is None:
        raise PermanentFailure("psycopg is not installed (pip install 'psycopg[binary]')")
    limits = [seconds(settings, f"AUTHSQL_{kind}_TIMEOUT") for kind in ("CONNECT", "QUERY")]
    try:
        return connections.ask(
            "authpgsql",
            rc,
            lambda: Link(connect(rc, monotonic() + limits[0])),
            lambda link: link.rows(rc, statement, monotonic() + limits[1]),
        )
    except psycopg.Error as why:
        raise unreachable(rc, str(why)) from why
    except TimeoutError as why:
        raise unreachable(rc, "no answer in time") from why


class Link(connections.Connection):
    """A connection to the server."""

    __slots__ = ("_connection",)

    def __init__(self, connection: pq.abc.PGconn):
        self._connection = connection

    def rows(self, rc: RcFile, statement: Statement, until: float) -> Rows:
        """Raises psycopg.Error, TimeoutError, TemporaryFailure, PermanentFailure, and Gone."""
        try:
            return rows(self._connection, rc, statement, until)
        except (psycopg.Error, TemporaryFailure) as why:
            if self._connection.status == pq.ConnStatus.BAD:
                raise connections.Gone(why) from why
            raise

    def descriptors(self) -> tuple[int, ...]:
        return (self._connection.socket,)

    def close(self) -> None:
        self._connection.finish()

    def abandon(self) -> None:
        os.close(self._connection.socket)


def connect(rc: RcFile, until: float) -> pq.abc.PGconn:
    """Raises TimeoutError."""
    connection = pq.PGconn.connect_start(os.fsencode(connection_string(rc)))
    state: int = pq.PollingStatus.WRITING
    try:
        while state != pq.PollingStatus.OK:
            if pq.ConnStatus.BAD == connection.status or state == pq.PollingStatus.FAILED:
                raise unreachable(rc, connection.error_message.decode(errors="replace"))
            reads = state == pq.PollingStatus.READING
            wait(connection, POLLIN if reads else POLLOUT, until)
            state = connection.connect_poll()
    except BaseException:
        connection.finish()
        raise
    return connection


def connection_string(rc: RcFile) -> str:
    words = {}
    if not rc.text("PGSQL_CONNECTION"):
        words = {word: value for name, word in OLDER.items() if (value := rc.text(f"PGSQL_{name}"))}
    if character_set := rc.text("PGSQL_CHARACTER_SET"):
        words["client_encoding"] = character_set
    try:
        said = conninfo_to_dict(rc.text("PGSQL_CONNECTION"))
        return make_conninfo("", **{**words, **said})
    except psycopg.Error as why:  # whose text may quote a part of the password
        raise TemporaryFailure(
            f"{rc.place('PGSQL_CONNECTION')} is not understood"
            " (write host=... port=... user=... password=... as libpq has it)"
        ) from why


def rows(connection: pq.abc.PGconn, rc: RcFile, statement: Statement, until: float) -> Rows:
    """Raises TimeoutError, TemporaryFailure and PermanentFailure."""
    values = [piece for piece in statement if isinstance(piece, bytes)]
    number = 0
    sql = b""
    for piece in statement:
        if isinstance(piece, bytes):
            number += 1
            sql += b" $%d " % number
        else:
            sql += os.fsencode(piece)
    connection.nonblocking = 1
    connection.send_query_params(sql, values)
    while connection.flush():
        wait(connection, POLLOUT, until)
    result = next_result(connection, until)
    state = ""
    if result is None or result.status not in DONE:
        state = sqlstate(result)
        if state not in NOT_TEXT or b"".join(values).isascii():
            raise refused(rc, state, connection.error_message.decode(errors="replace"))
    while next_result(connection, until):  # nothing is left of it when the next question is put
        pass
    if result is None or state:
        return sqltable.MOST, []
    columns = range(result.nfields)
    return result.nfields, [
        [result.get_value(row, column) for column in columns] for row in range(result.ntuples)
    ]


def sqlstate(result: pq.abc.PGresult | None) -> str:
    return (result and result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()


def next_result(connection: pq.abc.PGconn, until: float) -> pq.abc.PGresult | None:
    while connection.is_busy():
        wait(connection, POLLIN, until)
        connection.consume_input()
    return connection.get_result()


def wait(connection: pq.abc.PGconn, event: int, until: float) -> None:
    poller = poll()
    poller.register(connection.socket, event)
    if not poller.poll(max(0, (until - monotonic()) * 1000)):
        raise TimeoutError


def unreachable(rc: RcFile, text: str) -> TemporaryFailure:
    return TemporaryFailure(f"{rc.place('PGSQL_CONNECTION')}: {sqltable.shown(text)}")


def refused(rc: RcFile, state: str, text: str) -> TemporaryFailure:
    text = sqltable.shown(text)
    if state.startswith(LASTING):
        return PermanentFailure(
            f"{rc.path}: PostgreSQL says {state}: {text} (compare the settings with the database)"
        )
    return TemporaryFailure(f"{rc.place('PGSQL_CONNECTION')}: PostgreSQL says {state}: {text}")


DATABASE = sqltable.Database(
    "PGSQL_", ("CONNECTION", "CHARACTER_SET", *OLDER), sqlclause.STANDARD, ask
)
