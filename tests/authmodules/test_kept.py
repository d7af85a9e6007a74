"""Connections to databases that stay: in authdaemond, and in processes that log people in; and what
becomes of them, and of those who ask, when the server goes and comes back.

Each test runs with MariaDB and PostgreSQL.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.authmodules.test_sql import LATER, SERVED, WRONG, login
from tests.chain.test_uses import idle
from tests.conftest import children_of, has_client, needs_root, wait_until

pytestmark = pytest.mark.parametrize("database", ["mysql", "pgsql"], indirect=True)

ID = {"mysql": "CONNECTION_ID()", "pgsql": "pg_backend_pid()"}
OTHERS = {
    "mysql": "SELECT id FROM information_schema.processlist"
    " WHERE id != CONNECTION_ID() AND user = 'root' AND command != 'Killed'",
    "pgsql": "SELECT pid FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid != pg_backend_pid()",
}
KILL = {"mysql": "KILL {}", "pgsql": "SELECT pg_terminate_backend({})"}


def connected(database) -> set[int]:
    """The connections that the server has, but for that of who asks."""
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(OTHERS[database.kind])
        return {number for (number,) in cursor.fetchall()}


def only(database) -> int:
    """The one connection that is left when those of the tests themselves have ended."""
    (number,) = wait_until(lambda: len(found := connected(database)) == 1 and found, "one is left")
    return number


def kill(database, number: int) -> None:
    with closing(database.connect()) as connection:
        connection.cursor().execute(KILL[database.kind].format(number))
    wait_until(lambda: number not in connected(database), "the server has closed it")


# Short, for servers that hang; and yet long, for those that are only slow.
PATIENT = {"AUTHSQL_CONNECT_TIMEOUT": "3", "AUTHSQL_QUERY_TIMEOUT": "3"}


@pytest.fixture
def table(remote, john):
    """A database with john, and the number of the connection as his full name."""
    wait_until(lambda: not connected(remote), "those of other tests have gone")
    remote.add(john)
    remote.configure(NAME_FIELD=ID[remote.kind])
    return remote


@pytest.fixture
def daemon(table, authdaemond):
    """An authdaemond of one process that asks the database, and then a userdb with john in it."""
    modules = f"{table.module} authuserdb"
    return authdaemond(authmodulelist=modules, **table.environment, **PATIENT)


def number(answer: bytes) -> int:
    """Of the connection on which an account was found."""
    (line,) = [line for line in answer.splitlines() if line.startswith(b"NAME=")]
    return int(line.removeprefix(b"NAME="))


def test_authdaemond_asks_all_on_one_connection(daemon, table, john):
    first = number(daemon.login("john", john.password))
    assert only(table) == first
    assert daemon.login("john", "wrong") == daemon.login("nobody", "x") == b"FAIL\n"
    assert number(daemon.login("john", john.password)) == first
    assert only(table) == first


def test_what_is_changed_in_the_table_counts_at_once(daemon, table, john):
    first = number(daemon.login("john", john.password))
    table.execute("UPDATE passwd SET options = 'x=1'")
    assert daemon.login("john", john.password).endswith(b"OPTIONS=x=1\n.\n")
    table.execute("DELETE FROM passwd")
    assert daemon.ask(b"PRE %s pop3 john\n" % table.module.encode()) == b"FAIL\n"
    table.add(john)
    assert number(daemon.login("john", john.password)) == first


def test_a_transaction_of_the_servers_default_is_none(daemon, table, john):
    if table.kind != "mysql":
        pytest.skip("PostgreSQL has no such default")
    table.execute("SET GLOBAL autocommit = 0")
    try:
        assert number(daemon.login("john", john.password))
        table.execute("UPDATE passwd SET options = 'x=1'")
        assert daemon.login("john", john.password).endswith(b"OPTIONS=x=1\n.\n")
    finally:
        table.execute("SET GLOBAL autocommit = 1")


def test_a_connection_that_the_server_closes_is_mended_and_nobody_hears_of_it(daemon, table, john):
    for _ in range(2):
        was = number(daemon.login("john", john.password))
        kill(table, was)
        now = number(daemon.login("john", john.password))
        assert now != was and only(table) == now
    assert "ERR" not in daemon.log.read_text()


def test_a_restarted_server_is_asked_anew_and_nobody_hears_of_it(daemon, table, john):
    assert number(daemon.login("john", john.password))
    table.server.stop()
    table.server.start()
    assert number(daemon.login("john", john.password))
    assert "ERR" not in daemon.log.read_text()


def test_a_change_of_the_rc_file_is_another_connection(daemon, table, john):
    was = number(daemon.login("john", john.password))
    table.configure(NAME_FIELD=ID[table.kind] + " + 0")
    now = number(daemon.login("john", john.password))
    assert now != was and only(table) == now


def test_3206_02_authdaemond_while_the_server_is_down_hangs_and_comes_back(daemon, table, john):
    """No answer is a temporary failure; authuserdb, which knows john too, is not asked."""
    assert number(daemon.login("john", john.password))
    table.server.stop()
    assert daemon.login("john", john.password) == daemon.login("nobody", "x") == b""
    table.server.start()
    assert number(daemon.login("john", john.password))
    table.server.freeze()
    began = time.monotonic()
    assert daemon.login("john", john.password) == b""  # on the kept connection
    assert daemon.login("john", john.password) == b""  # on a new one
    assert 6 <= time.monotonic() - began
    table.server.thaw()
    assert number(daemon.login("john", john.password))
    assert daemon.login("john", "wrong") == b"FAIL\n"


def sockets(pid: int) -> set[str]:
    links = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    return {target for link in links if (target := os.readlink(link)).startswith("socket:")}


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def test_a_process_that_logs_people_in_keeps_it_and_the_mailboxes_owner_never_has_it(
    serve, table, john
):
    needs_root()
    running = serve("-uses=20", stages=table.stages, env=table.environment)

    def log_in(name: str, password: str) -> str:
        idle(running)  # else another process would be there
        return login(running, name, password)

    assert log_in("john", john.password) == SERVED
    kept = only(table)
    idle(running)
    with running.client() as client:
        client.login(john)
        assert only(table) == kept
        (logs_in,) = [pid for pid in children_of(running.process.pid) if not uid_of(pid)]
        (serves,) = [pid for pid in children_of(running.process.pid) if uid_of(pid) == john.uid]
        assert has_client(serves) and not has_client(logs_in)
        assert not sockets(serves) & sockets(logs_in)
    assert log_in("john", "wrong") == log_in("nobody", "x") == WRONG
    assert log_in("john", john.password) == SERVED
    assert only(table) == kept
    kill(table, kept)
    assert log_in("john", john.password) == SERVED
    assert only(table) != kept
    running.stop()
    wait_until(lambda: not connected(table), "it is closed with the process")


SHOW = """#!/bin/sh
ls -l /proc/self/fd >&2
printf '+OK shown\\r\\n'
read line
"""


@pytest.mark.parametrize("uses", ["-uses=1", "-uses=20"])
def test_a_program_that_is_not_ours_inherits_nothing(serve, table, john, script, uses):
    stages = [*table.stages[:2], script("show", SHOW)]
    running = serve(uses, stages=stages, env=table.environment)
    with running.client() as client:
        client.line()
        client.ask("USER john")
        assert client.ask(f"PASS {john.password}") == "+OK shown"
        wait_until(lambda: not connected(table), "the connection is closed")
        shown = [line for line in running.lines() if " -> " in line]
        assert len([line for line in shown if "socket:" in line]) == 1, shown  # 0; 1 is that of ls
        client.send(b"\r\n")


def test_3206_02_a_process_that_logs_people_in_while_the_server_goes_and_comes_back(
    serve, table, john
):
    stages = [*table.stages[:2], "authuserdb", *table.stages[2:]]
    running = serve("-uses=20", stages=stages, env={**table.environment, **PATIENT})
    assert login(running, "john", john.password) == SERVED
    table.server.stop()
    assert login(running, "john", john.password) == LATER
    table.server.start()
    wait_until(lambda: login(running, "john", john.password) == SERVED, "it answers again")
    table.server.freeze()
    assert login(running, "john", john.password) == LATER
    assert login(running, "john", john.password) == LATER
    table.server.thaw()
    wait_until(lambda: login(running, "john", john.password) == SERVED, "it answers again")
