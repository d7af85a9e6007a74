"""sqltable - find the user in a table of a database, as one of Courier's rc files describes it

What authmysql, authpgsql and authsqlite share (reference auth.md 2.7): the settings, the query, and
what a row means. The query is the PREFIX_SELECT_CLAUSE, or is made of the other settings:

    SELECT login, crypt, clear, uid, gid, home, maildir, quota, name, options
    FROM USER_TABLE WHERE login = 'userid' AND (WHERE_CLAUSE)

It gives these columns in this order, the first six at least. Names of columns and table are pasted,
so they may be SQL expressions; DEFAULT_DOMAIN is appended to a userid without `@`.

A password is compared with `crypt` if that isn't empty, in a form that `courierchain.passwords`
knows, else with `clear`, to the octet. CRAM needs `clear`; SCRAM needs `clear`, or a `crypt` of its
own kind. Who has proved an identity by a
certificate needs neither, but a `crypt` with `!` in front keeps everybody out.

No row is nobody's account; several rows are a mistake in the query, and let nobody in.
"""

from __future__ import annotations

import os
from _operator import _compare_digest as same
from collections.abc import Callable

from authmodules import rcfile, sqlclause
from authmodules.rcfile import RcFile
from authmodules.sqlclause import BadClause, Grammar, Statement
from courierchain import cram, handover, log, options, passwords, proof, scram
from courierchain.account import MAX_ID, Account
from courierchain.authmodule import PermanentFailure, Rejected, TemporaryFailure
from courierchain.request import Request
from courierchain.settings import Settings

FIELDS = (  # setting, column if it isn't set; in the order of the query
    ("LOGIN_FIELD", "id"),
    ("CRYPT_PWFIELD", "''"),
    ("CLEAR_PWFIELD", "''"),
    ("UID_FIELD", "uid"),
    ("GID_FIELD", "gid"),
    ("HOME_FIELD", "home"),
    ("MAILDIR_FIELD", "''"),
    ("QUOTA_FIELD", "''"),
    ("NAME_FIELD", "''"),
    ("AUXOPTIONS_FIELD", "''"),
)
OTHERS = (
    *("USER_TABLE", "WHERE_CLAUSE", "SELECT_CLAUSE"),
    *("APP_PASSWORD_TABLE", "APP_PASSWORD_CLAUSE"),  # ours, see apppassword
    # For other programs than modules of a chain:
    *("ENUMERATE_CLAUSE", "CHPASS_CLAUSE", "DEFAULTDELIVERY", "DEFAULTDELIVERY_FIELD"),
)
LEAST, MOST = 6, len(FIELDS)  # columns
MOST_ROWS = 64  # that a database gives at the most, where it can be told so

Row = list[bytes | None]
Rows = tuple[int, list[Row]]  # how many columns they have, and the rows


class Database:
    """A kind of database.

    prefix       of its settings' names
    connection   names of those that say how to reach it, without the prefix
    ask          sends a statement and gives all rows; raises TemporaryFailure and PermanentFailure.
                 With `writes` the statement may change something
    """

    __slots__ = ("prefix", "module", "names", "grammar", "ask", "has_secret")

    def __init__(
        self,
        prefix: str,
        connection: tuple[str, ...],
        grammar: Grammar,
        ask: Callable[..., Rows],
        *,
        has_secret: bool = True,
    ):
        self.prefix = prefix
        self.module = f"auth{prefix.rstrip('_').lower()}"  # its name in the log
        own = (*connection, *(name for name, _ in FIELDS), *OTHERS)
        self.names = frozenset((*(prefix + name for name in own), "DEFAULT_DOMAIN"))
        self.grammar = grammar
        self.ask = ask
        self.has_secret = has_secret


def answer(request: Request, settings: Settings, path: str, database: Database) -> Account:
    """The account of who asks, by the rc file at `path`.

    Raises Rejected, TemporaryFailure and PermanentFailure.
    """
    response = cram.asked(request)
    question = scram.asked(request)
    if request.login:
        user, secret = request.login
    elif response:
        user = response.user
    elif question:
        user = question.user
    elif request.external:
        user = request.external
    else:
        raise Rejected
    rc = rcfile.read(path, database.names, has_secret=database.has_secret)
    row = lookup(user, request.service, rc, database, settings)
    stored = None
    # What follows takes as long over no row, so an unknown user is not a faster answer.
    if request.login:
        proved = is_password(secret, row) and not has_option("onlyapppasswords", row)
        stored = row[1] if row and proved else None
        if row and not proved and may_have_app_passwords(row, rc, database):
            from authmodules import apppassword  # here: few sites have them

            proved = apppassword.is_one(secret, user, request.service, row, rc, database, settings)
    elif response:
        proved = is_response(response, row) and not has_option("onlyapppasswords", row)
    elif question:
        proved = not has_option("onlyapppasswords", row) and has_proved(question, row, settings)
    else:
        proved = row is not None and not passwords.is_locked(row[1])
    if row is None or not proved:
        raise Rejected
    found = account(row, rc, database.prefix)
    found.stored = stored
    return found


def lookup(
    user: bytes, service: bytes, rc: RcFile, database: Database, settings: Settings
) -> Row | None:
    """The user's row, with all columns; None if there is none."""
    statement = query(user, service, rc, database)
    if handover.is_rehearsing():
        return None
    columns, rows = database.ask(rc, statement, settings)
    source = rc.place(database.prefix + "SELECT_CLAUSE")
    if columns < LEAST:
        raise TemporaryFailure(
            f"{source} gives {columns} columns, not {LEAST} to {MOST}"
            " (username, crypt, clear, uid, gid, home, maildir, quota, fullname, options)"
        )
    if len(rows) > 1:
        if not rc.text(database.prefix + "SELECT_CLAUSE"):
            source = rc.place(database.prefix + "LOGIN_FIELD")
        raise TemporaryFailure(
            f"{source} gives several rows for {log.safe(user)} (make it give one at most)"
        )
    if not rows:
        return None
    return [*rows[0], *[None] * (MOST - columns)]


def query(user: bytes, service: bytes, rc: RcFile, database: Database) -> Statement:
    """Raises TemporaryFailure for settings that make none."""
    prefix = database.prefix
    values = variables(user, service, rc)
    clause = rc.text(prefix + "SELECT_CLAUSE")
    if clause:
        return translated(prefix + "SELECT_CLAUSE", clause, values, rc, database.grammar)
    columns = [rc.text(prefix + name, column) for name, column in FIELDS]
    if not (rc.text(prefix + "CRYPT_PWFIELD") or rc.text(prefix + "CLEAR_PWFIELD")):
        raise TemporaryFailure(
            f"{rc.path}: neither {prefix}CRYPT_PWFIELD nor {prefix}CLEAR_PWFIELD is set"
            " (name the column that holds passwords)"
        )
    table = rc.needed(prefix + "USER_TABLE")
    where = rc.text(prefix + "WHERE_CLAUSE", "1=1")
    return [
        f"SELECT {', '.join(columns)} FROM {table} WHERE {columns[0]} = ",
        with_domain(user, rc),
        " AND (",
        *translated(prefix + "WHERE_CLAUSE", where, values, rc, database.grammar),
        ")",
    ]


def variables(user: bytes, service: bytes, rc: RcFile) -> sqlclause.Values:
    """What stands for $(local_part), $(domain) and $(service) in a clause."""
    local_part, _, domain = user.partition(b"@")
    default = os.fsencode(rc.text("DEFAULT_DOMAIN"))
    return {"local_part": local_part, "domain": domain or default, "service": service}


def with_domain(user: bytes, rc: RcFile) -> bytes:
    """The userid as it stands in the table."""
    default = os.fsencode(rc.text("DEFAULT_DOMAIN"))
    return user + b"@" + default if default and b"@" not in user else user


def translated(
    name: str, clause: str, values: sqlclause.Values, rc: RcFile, grammar: Grammar
) -> Statement:
    try:
        return sqlclause.translate(clause, values, grammar)
    except BadClause as why:
        raise TemporaryFailure(f"{rc.place(name)}: {why}") from why


def is_password(secret: bytes, row: Row | None) -> bool:
    crypt, clear = row[1:3] if row else (None, None)
    if not crypt and clear and same(secret, clear):
        return True
    return passwords.verify(secret, crypt)


def has_option(name: str, row: Row | None) -> bool:
    return row is not None and options.is_on(name, {"OPTIONS": os.fsdecode(row[-1] or b"")})


def may_have_app_passwords(row: Row, rc: RcFile, database: Database) -> bool:
    names = ("APP_PASSWORD_TABLE", "APP_PASSWORD_CLAUSE")
    is_configured = any(rc.text(database.prefix + name) for name in names)
    is_off = has_option("disableapppasswords", row) or passwords.is_locked(row[1])
    return is_configured and not is_off


def is_response(response: cram.Answer, row: Row | None) -> bool:
    clear = row[2] if row else None
    return cram.verify(response, cram.state_of(response.algorithm, clear) if clear else None)


def has_proved(question: scram.Question, row: Row | None, settings: Settings) -> bool:
    """Raises Rejected, Refused and PermanentFailure."""
    crypt, clear = row[1:3] if row else (None, None)
    if not passwords.is_locked(crypt):
        proof.demand(question, [crypt], clear, settings)
        return True
    return False


def account(row: Row, rc: RcFile, prefix: str) -> Account:
    """Raises PermanentFailure for a row that no mailbox may have."""
    name = os.fsdecode(row[0] or b"")

    def wrong(column: int, value: str, remedy: str) -> PermanentFailure:
        setting = prefix + "SELECT_CLAUSE"
        if not rc.text(setting):
            setting = prefix + FIELDS[column][0]
        return PermanentFailure(f"{rc.place(setting)}: {log.safe(name)} has {value} ({remedy})")

    def number(column: int, kind: str) -> int:
        digits = row[column]
        if digits is None:
            raise wrong(column, f"no {kind}, but NULL", f"give the account a {kind} over 0")
        if not (digits.isdigit() and len(digits) < 11 and 0 < int(digits) < MAX_ID):
            raise wrong(column, f"{kind} {log.safe(digits)}", f"give the account a {kind} over 0")
        return int(digits)

    if not name:
        raise wrong(0, "a row without a name", "let the first column be the userid")
    if not (row[5] or b"").startswith(b"/"):
        raise wrong(5, f"home {log.safe(row[5] or b'')!r}", "it begins with a /")
    maildir, quota, fullname, more = (os.fsdecode(text or b"") for text in row[6:MOST])
    return Account(
        user=name,
        uid=number(3, "uid"),
        gid=number(4, "gid"),
        home=os.fsdecode(row[5] or b""),
        fullname=fullname,
        maildir=maildir,
        quota=quota,
        options=more,
    )


def seconds(settings: Settings, name: str) -> int:
    """A time limit, 1 at least. Raises TemporaryFailure."""
    try:
        return max(1, settings.seconds(name))
    except ValueError as why:
        raise TemporaryFailure(str(why)) from why


def shown(text: str) -> str:
    """A driver's or server's text for a log line: one line, and nothing in it that could forge a
    field, for it may quote what a client has typed."""
    safe = (c if " " <= c <= "~" and c not in ",[]" else "." for c in text[: log.MAX_SHOWN])
    return "".join(safe).strip()
