"""authmysql - find the user in a MySQL or MariaDB table, as Courier's authmysqlrc describes it

    AUTHMYSQL_RC              the file (/etc/courier/authmysqlrc); see `sqltable` for what is in it
    AUTHSQL_CONNECT_TIMEOUT   seconds to reach the server
    AUTHSQL_QUERY_TIMEOUT     seconds that it may be silent

How the server is reached is said in the file:

    MYSQL_SERVER, MYSQL_PORT, MYSQL_SOCKET   `localhost` is the socket, the first of SOCKETS if none
                                             is named, or the port if there is no socket
    MYSQL_USERNAME, MYSQL_PASSWORD, MYSQL_DATABASE, MYSQL_CHARACTER_SET, MYSQL_OPT (client flags)
    MYSQL_SSL_KEY, _CERT, _CACERT, _CAPATH, _CIPHER   TLS, if one of them is set. With an authority
                                             the server must prove to be MYSQL_SERVER

What a client types is sent as a literal in hexadecimal digits, `_utf8mb4 X'6a6f686e'`, which no
byte and no character set can turn into SQL. Bytes that are none of the character set are nobody's
name. The connection is kept where the process lives on (courierchain.connections).

PyMySQL is imported with the module, so that the listener has it before it forks: 50 ms once, and
0.4 ms more for each fork, instead of 50 ms for each login.
"""

from __future__ import annotations

import os

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
    import encodings.idna  # noqa: F401 - what looking up a host would import, each time

    import pymysql
    from pymysql.charset import charset_by_name
except ImportError:  # said when somebody logs in: a listener must not fail to start by it
    pymysql = None

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")
LOCAL = ("", "localhost")
CHARACTER_SET = "utf8mb4"
ENDED = ((2006,), (2013,), (2055,), (1053,), (1927,), (4031,))  # errors of a closed connection
STRICT = "SET SESSION sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), 'STRICT_ALL_TABLES')"
NOT_TEXT = 1300  # bytes that are none of the character set
LASTING = frozenset(  # errors of the server that need an administrator
    (
        *(1044, 1045, 1698),  # access denied
        *(1046, 1049, 1051, 1146),  # no such database, no such table
        *(1052, 1054, 1064, 1142, 1143, 1305, 1370),  # the query, or the right to ask it
    )
)


@auth_module
def authmysql(request: Request, settings: Settings) -> Account:
    return sqltable.answer(request, settings, settings.text("AUTHMYSQL_RC"), DATABASE)


@authmysql.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    from authmodules import sqlchange  # here: no login needs it

    sqlchange.change(request, new, settings, settings.text("AUTHMYSQL_RC"), DATABASE)


@authmysql.rehashes
def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    from authmodules import sqlchange

    sqlchange.rehash(request, stored, settings, settings.text("AUTHMYSQL_RC"), DATABASE)


def ask(rc: RcFile, statement: Statement, settings: Settings, *, writes: bool = False) -> Rows:
    if pymysql is None:
        raise PermanentFailure("PyMySQL is not installed (pip install PyMySQL)")
    name = rc.text("MYSQL_CHARACTER_SET", CHARACTER_SET)
    try:
        encoding = charset_by_name(name).encoding
    except KeyError as why:
        raise TemporaryFailure(
            f"{rc.place('MYSQL_CHARACTER_SET')}: {name!r} is not one of MySQL's (utf8mb4 is)"
        ) from why
    try:
        sql = "".join(literal(piece, name, encoding) for piece in statement)
    except UnicodeDecodeError:
        return sqltable.MOST, []
    limits = tuple(seconds(settings, f"AUTHSQL_{kind}_TIMEOUT") for kind in ("CONNECT", "QUERY"))
    try:
        return connections.ask(
            "authmysql",
            (rc, limits),
            lambda: Link(connect(rc, name, *limits)),
            lambda link: link.rows(sql, whole=writes),
        )
    except pymysql.Error as why:
        values = b"".join(piece for piece in statement if isinstance(piece, bytes))
        if why.args and why.args[0] == NOT_TEXT and not values.isascii():
            return sqltable.MOST, []
        raise failure(why, rc) from why
    except (OSError, ValueError) as why:  # certificates; what is not in the character set
        text = sqltable.shown(str(why))
        raise TemporaryFailure(f"{rc.place('MYSQL_SERVER')}: {text}") from why


class Link(connections.Connection):
    """A connection to the server."""

    __slots__ = ("_connection",)

    def __init__(self, connection: pymysql.Connection):
        self._connection = connection
        if not connection.get_autocommit():  # it would for ever see what was there at first
            connection.query("SET autocommit = 1")

    def rows(self, sql: str, *, whole: bool) -> Rows:
        """`whole`: what has no room in its column is an error, and not cut. Raises pymysql.Error,
        OSError, ValueError, and Gone."""
        try:
            with self._connection.cursor() as cursor:
                if whole:
                    cursor.execute(STRICT)
                cursor.execute(sql)
                return len(cursor.description or ()), [list(row) for row in cursor.fetchall()]
        except pymysql.Error as why:
            if is_gone(why):
                raise connections.Gone(why) from why
            raise

    def descriptors(self) -> tuple[int, ...]:
        return (self._connection._sock.fileno(),)

    def close(self) -> None:
        self._connection.close()

    def abandon(self) -> None:
        self._connection._force_close()


def is_gone(why: pymysql.Error) -> bool:
    """Whether the server has closed the connection. One that is too slow may be so again."""
    if isinstance(why.__context__, TimeoutError):
        return False
    return isinstance(why, pymysql.InterfaceError) or why.args[:1] in ENDED


def literal(piece: str | bytes, name: str, encoding: str) -> str:
    """SQL for a piece of a statement. Raises UnicodeDecodeError."""
    if isinstance(piece, str):
        return piece
    piece.decode(encoding)
    return f" _{name} X'{piece.hex()}' "


def connect(rc: RcFile, character_set: str, patience: int, silence: int) -> pymysql.Connection:
    server = rc.text("MYSQL_SERVER")
    tls = {
        option: value
        for option in ("key", "cert", "capath", "cipher")
        if (value := rc.text(f"MYSQL_SSL_{option.upper()}"))
    }
    if authority := rc.text("MYSQL_SSL_CACERT"):
        tls["ca"] = authority
    return pymysql.connect(
        host=server or "localhost",
        port=rc.number("MYSQL_PORT"),
        unix_socket=local_socket(rc) if server in LOCAL else None,
        user=rc.text("MYSQL_USERNAME"),
        password=os.fsencode(rc.text("MYSQL_PASSWORD")),
        database=rc.text("MYSQL_DATABASE") or None,
        charset=character_set,
        client_flag=rc.number("MYSQL_OPT"),
        ssl=tls or None,
        ssl_disabled=not tls,
        connect_timeout=patience,
        read_timeout=silence,
        write_timeout=silence,
        use_unicode=False,  # values as they are,
        conv={},  # and as text
        autocommit=None,  # see Link
    )


def local_socket(rc: RcFile) -> str | None:
    path = rc.text("MYSQL_SOCKET")
    return path or next((path for path in SOCKETS if os.path.exists(path)), None)


def failure(why: Exception, rc: RcFile) -> TemporaryFailure:
    code, *texts = why.args or (0,)
    text = sqltable.shown(" ".join(map(str, texts)))
    if code in LASTING:
        return PermanentFailure(
            f"{rc.path}: MySQL says {code}: {text} (compare the settings with the database)"
        )
    return TemporaryFailure(f"{rc.place('MYSQL_SERVER')}: MySQL says {code}: {text}")


DATABASE = sqltable.Database(
    "MYSQL_",
    (
        *("SERVER", "PORT", "SOCKET", "USERNAME", "PASSWORD", "OPT", "DATABASE", "CHARACTER_SET"),
        *("SSL_KEY", "SSL_CERT", "SSL_CACERT", "SSL_CAPATH", "SSL_CIPHER"),
        "SSL_CIPHERS",  # so in the file as it is shipped, in a comment; Courier passes it over too
    ),
    sqlclause.MYSQL,
    ask,
)
