"""Databases with a table of accounts: MariaDB, PostgreSQL, and SQLite files.

The servers are started once for each process of the tests, as `nobody` where that is root, and
listen in a directory of their own. `database` is one of the three, with an empty table `passwd` and
an rc file that says how to reach it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.conftest import DEADLINE, ROOT, children_of, free_port, freeze, needs, sha, wait_until

NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if ROOT else {}
TABLE = """CREATE TABLE passwd (id varchar(128), crypt varchar(255), clear varchar(128),
    uid integer, gid integer, home varchar(128), maildir varchar(128), quota varchar(128),
    name varchar(128), options varchar(128))"""
COLUMNS = "id, crypt, clear, uid, gid, home, maildir, quota, name, options".split(", ")


class DatabaseServer:
    """A server in a directory of its own, which can be stopped, frozen and started again."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.options_for_tls: list[str] = []
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Make what an empty server needs."""
        raise NotImplementedError

    def argv(self) -> list[str]:
        raise NotImplementedError

    def connect(self):
        raise NotImplementedError

    def run(self, *argv: str) -> None:
        done = subprocess.run(
            argv, cwd=self.directory, capture_output=True, text=True, check=False, **NOBODY
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        if self.process:
            return
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.argv(), *self.options_for_tls],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                **NOBODY,
            )
        wait_until(self.answers, f"{self.argv()[0]} answers")

    def answers(self) -> bool:
        try:
            self.connect().close()
        except Exception:
            log = (self.directory / "log").read_text()
            assert self.process and self.process.poll() is None, log
            return False
        return True

    def freeze(self) -> None:
        """The processes of its connections too, which don't become more without the first."""
        assert self.process
        freeze(self.process.pid)
        if children := children_of(self.process.pid):
            freeze(*children)

    def thaw(self) -> None:
        assert self.process
        for pid in (self.process.pid, *children_of(self.process.pid)):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGQUIT if self.quits else signal.SIGTERM)
            self.process.wait(DEADLINE)
            self.process = None

    quits = False


class MariaDB(DatabaseServer):
    def prepare(self) -> None:
        small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"]
        places = [f"--datadir={self.directory}/data", f"--tmpdir={self.directory}"]
        self.options = ["--no-defaults", *places, *small]
        if ROOT:
            self.options.append("--user=nobody")
        install = [needs("mariadb-install-db"), *self.options, "--skip-test-db", "--force"]
        self.run(*install, "--auth-root-authentication-method=normal")

    def argv(self) -> list[str]:
        where = [f"--socket={self.directory}/socket", f"--port={self.port}"]
        more = ["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-fast-shutdown=2"]
        if not self.options_for_tls:
            more.append("--skip-ssl")  # MariaDB 11 would make a certificate of its own
        return [needs("mariadbd"), *self.options, *where, *more]

    def connect(self):
        import pymysql

        return pymysql.connect(
            unix_socket=f"{self.directory}/socket", user="root", autocommit=True, charset="utf8mb4"
        )


class PostgreSQL(DatabaseServer):
    quits = True

    def program(self, name: str) -> str:
        """Debian has them in a directory of each version."""
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        return str(found[-1]) if found else needs(name)

    def prepare(self) -> None:
        options = ["-D", "data", "-U", "root", "-N", "--auth=trust", "-E", "UTF8", "--no-locale"]
        self.run(self.program("initdb"), *options)

    def argv(self) -> list[str]:
        where = ["-k", str(self.directory), "-p", str(self.port), "-c", "listen_addresses="]
        return [self.program("postgres"), "-D", "data", *where, "-c", "fsync=off"]

    def connect(self):
        import psycopg

        return psycopg.connect(
            host=str(self.directory),
            port=self.port,
            user="root",
            dbname="template1",
            autocommit=True,
        )


def started(kind: type[DatabaseServer]):
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-db-", dir="/var/tmp"))
    if ROOT:
        os.chown(directory, 65534, 65534)
    server = None
    try:
        server = kind(directory)
        yield server
    finally:
        if server:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb():
    yield from started(MariaDB)


@pytest.fixture(scope="session")
def postgresql():
    yield from started(PostgreSQL)


class Database:
    """One kind of database: its module, and the rc file that leads to it."""

    def __init__(self, kind: str, directory: Path, server: DatabaseServer | None):
        self.kind = kind
        self.module = f"auth{kind}"
        self.prefix = kind.upper() + "_"
        self.server = server
        self.file = directory / "accounts.sqlite"
        self.rc = directory / f"{self.module}rc"
        self.environment = {
            f"{self.module.upper()}_RC": str(self.rc),
            "POP3AUTH": "PLAIN CRAM-MD5 CRAM-SHA256",
            "POP3_FAILURE_DELAY": "0",
            "POP3_RESPONSE_CODES": "1",
        }
        self.stages = ["courierpop3login", self.module, "courierpop3d", "./Maildir"]
        if kind == "mysql":
            self.execute("CREATE DATABASE IF NOT EXISTS mail CHARACTER SET utf8mb4", "")
        self.execute("DROP TABLE IF EXISTS passwd")
        self.execute(TABLE)
        self.configure()

    def connect(self):
        return self.server.connect() if self.server else sqlite3.connect(self.file)

    def execute(self, sql: str, database: str = "mail") -> None:
        with closing(self.connect()) as connection:
            if self.kind == "mysql" and database:
                connection.select_db(database)
            connection.cursor().execute(sql)
            connection.commit()

    def reached_by(self) -> dict[str, str]:
        """The settings that lead to the server."""
        if self.kind == "mysql":
            return {
                "SERVER": "localhost",
                "SOCKET": f"{self.server.directory}/socket",
                "USERNAME": "root",
                "DATABASE": "mail",
            }
        if self.kind == "pgsql":
            where = f"host={self.server.directory} \\\n   port={self.server.port}"
            return {
                "CONNECTION": f"\\\n   {where} \\\n   user=root \\\n\tdbname=template1",
                "DATABASE": "ignored",
            }
        return {"DATABASE": str(self.file)}

    def configure(self, **settings: str | None) -> None:
        """Write the rc file; None leaves a setting out, DEFAULT_DOMAIN has no prefix."""
        usual = {"USER_TABLE": "passwd", "CRYPT_PWFIELD": "crypt", "CLEAR_PWFIELD": "clear"}
        usual |= {name + "_FIELD": name.lower() for name in ("MAILDIR", "QUOTA", "NAME")}
        usual |= {"AUXOPTIONS_FIELD": "options"} | self.reached_by()
        lines = ["##VERSION: of the tests", "", "# a comment"]
        for name, value in {**usual, **settings}.items():
            if value is not None:
                whole = name if name == "DEFAULT_DOMAIN" else self.prefix + name
                lines += [f"##NAME: {name}:0", f"{whole}\t\t{value}"]
        self.rc.write_text("\n".join([*lines, "##NAME: MARKER:0", ""]))
        self.rc.chmod(0o600)

    def add(self, account, **columns) -> None:
        """A row for an account, with its password in `crypt`."""
        row = {
            "id": account.name,
            "crypt": sha(account.password),
            "uid": account.uid,
            "gid": account.gid,
            "home": str(account.home),
            **columns,
        }
        values = [row.get(name, "") for name in COLUMNS]
        places = ", ".join(["?" if self.kind == "sqlite" else "%s"] * len(COLUMNS))
        with closing(self.connect()) as connection:
            if self.kind == "mysql":
                connection.select_db("mail")
            connection.cursor().execute(f"INSERT INTO passwd VALUES ({places})", values)
            connection.commit()


@pytest.fixture(params=["mysql", "pgsql", "sqlite"])
def database(request, public):
    servers = {"mysql": "mariadb", "pgsql": "postgresql"}
    server = None
    if request.param in servers:
        server = request.getfixturevalue(servers[request.param])
    return Database(request.param, public, server)


@pytest.fixture
def remote(database):
    """A database that is a server."""
    if database.server is None:
        pytest.skip("SQLite has no server")
    yield database
    database.server.thaw() if database.server.process else database.server.start()


@pytest.fixture
def silent():
    """A port at which somebody listens, who takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener
