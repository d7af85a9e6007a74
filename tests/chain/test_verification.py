"""Verification of passwords: while one is computed the others are served, and with POP3_LOGIN_CACHE
a right one isn't computed again.

The programs are the real ones; only their libcrypt notes each call of crypt(3), and waits where it
is told to (crypt.c). So nothing here is decided by how long something takes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from courierchain import passwords
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.chain.test_tls import COURIERTLS, authority, settings, tls
from tests.chain.test_uses import idle, virtual
from tests.conftest import (
    BIN,
    DEADLINE,
    ROOT,
    Account,
    Accounts,
    Client,
    needs,
    needs_root,
    sha,
    wait_until,
)
from tests.cyruspop3d.conftest import Cyrus
from tests.cyruspop3d.test_master import USER, Master

__all__ = ["authority", "settings", "tls", "virtual"]

GREETING = b"+OK Hello there.\r\n"
NO_DELAY = {"POP3_FAILURE_DELAY": "0"}
CACHE = {"POP3_LOGIN_CACHE": "3600"}
REFUSED = "-ERR Login failed."


def hashed(password: str, salt: str) -> str:
    return passwords.crypt(password.encode(), f"$6$rounds=1000${salt}$".encode()).decode()


class Crypt:
    """What the programs have asked of crypt(3) in this test."""

    def __init__(self, directory: Path):
        self.env = {"LD_LIBRARY_PATH": str(directory)}
        self._file = directory / "calls"
        self._gate = directory / "gate"
        self._file.write_text("\n")
        self._file.chmod(0o666)

    def calls(self, salt: str) -> int:
        """How often, for a hash that isn't locked, with this salt."""
        return self._file.read_text().count(f"\n$6$rounds=1000${salt}$")

    def open_gate(self) -> None:
        """Let go on who waits there; nobody need be there."""
        os.close(os.open(self._gate, os.O_RDWR))


@pytest.fixture(scope="module")
def library():
    """The directory of a libcrypt.so.1 of ours."""
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-crypt-", dir="/var/tmp"))
    directory.chmod(0o755)
    os.mkfifo(directory / "gate")
    (directory / "gate").chmod(0o666)
    maps = Path("/proc/self/maps").read_text().split()
    real = next(word for word in maps if "/libcrypt.so" in word)
    places = {"CALLS": directory / "calls", "GATE": directory / "gate", "REAL": real}
    defines = [f'-D{name}="{place}"' for name, place in places.items()]
    source = Path(__file__).with_name("crypt.c")
    output = directory / "libcrypt.so.1"
    subprocess.run(
        [needs("cc"), "-shared", "-fPIC", *defines, "-o", output, source, "-ldl"], check=True
    )
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def crypt(library):
    found = Crypt(library)
    yield found
    found.open_gate()


def add(accounts: Accounts, name: str, salt: str = "") -> Account:
    """With a slow hash if there is a salt, else with a quick one."""
    password = f"secret of {name}"
    return accounts.add(name, systempw=hashed(password, salt) if salt else sha(password))


def rewrite(accounts: Accounts, old: str, new: str) -> None:
    text = accounts.userdb.read_text()
    assert old in text
    accounts.userdb.write_text(text.replace(old, new))


# Others are served meanwhile


def has_said(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def others_are_served(crypt: Crypt, connect, slow: Account, others: list[Account]) -> None:
    """While slow's password is computed; connect() gives a client."""
    with connect() as waiting:
        assert waiting.line() == GREETING
        assert waiting.ask(f"USER {slow.name}") == "+OK Password required."
        waiting.send(f"PASS {slow.password}\r\n".encode())
        wait_until(lambda: crypt.calls("held"), "slow's password is being computed")
        for account in others:
            with connect().login(account) as client:
                assert client.ask("STAT") == "+OK 0 0"
                assert client.ask("QUIT") == "+OK Bye-bye."
        assert not has_said(waiting.socket)
        crypt.open_gate()
        assert waiting.line() == b"+OK logged in.\r\n"
        assert crypt.calls("held") == 1


def test_while_one_password_is_computed_others_log_in(serve, accounts, any_mode, crypt):
    others = [add(accounts, "quick"), add(accounts, "other", "other")]
    slow = add(accounts, "slow", "held")
    server = serve(*any_mode, env=crypt.env)
    others_are_served(crypt, server.client, slow, others * 2)
    assert crypt.calls("other") == 2


def test_inside_tls_too(serve, accounts, crypt, settings, tls):
    slow, quick = add(accounts, "slow", "held"), add(accounts, "quick")
    stages = [*COURIERTLS, "courierpop3login", "authuserdb", "courierpop3d", "./Maildir"]
    server = serve("-uses=5", "-front", stages=stages, env={**crypt.env, **settings})
    others_are_served(crypt, lambda: Client(server.port, tls), slow, [quick, quick])


def test_authdaemond_answers_others_meanwhile(authdaemond, environment, accounts, crypt):
    slow, quick = add(accounts, "slow", "held"), add(accounts, "quick")
    environment.update(crypt.env)
    daemon = authdaemond(authmodulelist="authuserdb", daemons=2)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(DEADLINE)
        waiting.connect(str(daemon.socket))
        record = f"pop3\nlogin\nslow\n{slow.password}\n".encode()
        waiting.sendall(b"AUTH %d\n%s" % (len(record), record))
        wait_until(lambda: crypt.calls("held"), "slow's password is being computed")
        for _ in range(3):
            assert b"\nADDRESS=quick\n" in daemon.login("quick", quick.password)
        assert not has_said(waiting)
        crypt.open_gate()
        assert b"\nADDRESS=slow\n" in waiting.recv(4096)


@pytest.fixture
def master(public, crypt):
    """master(keys, LINE of imapd.conf): cyrusmaster and pop3d, with mailboxes of john and of slow
    that are nobody's, as they are."""
    needs_root()
    cyrus = Cyrus(public)
    cyrus.environment.update(crypt.env)
    running: list[Master] = []

    def start(keys: str, line: str = "") -> Master:
        cyrus.accounts.userdb.write_text("")
        slow = cyrus.accounts.add("slow", listed=False)
        for account, salt in ((cyrus.john, "john"), (slow, "held")):
            own = {"uid": USER, "gid": USER, "home": account.home}
            secret = hashed(account.password, salt)
            cyrus.accounts.record(account.name, **own, systempw=secret)
        cyrus.configure(line)
        for path in (public, *public.rglob("*")):
            os.lchown(path, USER, USER)
        running.append(Master("ours", cyrus, "-U 30", keys))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_under_cyrusmaster_others_are_served_meanwhile(master, crypt):
    one = master("prefork=2 maxchild=9")
    with Client(one.port) as waiting:
        waiting.line()
        assert waiting.ask("USER slow").startswith("+OK")
        waiting.send(b"PASS secret of slow\r\n")
        wait_until(lambda: crypt.calls("held"), "slow's password is being computed")
        for _ in range(3):
            assert one.session("STAT") == "+OK 0 0"
        assert not has_said(waiting.socket)
        crypt.open_gate()
        assert waiting.line().startswith(b"+OK Mailbox locked")


# POP3_LOGIN_CACHE


class Site:
    """A server, and john and mary with slow hashes: log_in(john) is the reply to PASS."""

    def __init__(self, serve, accounts: Accounts, crypt: Crypt, john, mary, *options, env):
        self.accounts = accounts
        self.crypt = crypt
        self.john, self.mary = john, mary
        for account in (john, mary):
            rewrite(accounts, sha(account.password), hashed(account.password, account.name))
        self.server = serve(*options, env={**NO_DELAY, **crypt.env, **env})

    def log_in(self, account: Account, password: str = "") -> str:
        """One after the other, so that the process that asks for passwords is always the same."""
        with self.server.client() as client:
            assert client.line() == GREETING
            reply = client.try_login(account.name, password or account.password)
            client.ask("QUIT")
            client.rest()
        idle(self.server)
        return reply

    def change(self, account: Account, stored: str) -> None:
        """The stored form of an account's password."""
        lines = self.accounts.userdb.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith(f"{account.name}\t"):
                begin, _, old = line.partition("systempw=")
                lines[number] = f"{begin}systempw={stored}"
                assert stored != old
        self.accounts.userdb.write_text("\n".join(lines) + "\n")


KEPT = {"a uid each": [], "one uid": [], "front": ["-front"], "park": ["-park=0.001"]}


@pytest.fixture
def site(serve, accounts, crypt, request):
    def start(kind: str, *options: str, env=CACHE) -> Site:
        if kind == "one uid":
            john, mary, user = request.getfixturevalue("virtual")
            options = (*options, *user)
        else:
            needs_root()
            john, mary = accounts.add("john"), accounts.add("mary")
        return Site(serve, accounts, crypt, john, mary, *options, env=env)

    return start


@pytest.mark.parametrize("kind", KEPT)
def test_a_right_password_is_computed_once_and_no_other(site, crypt, kind):
    here = site(kind, "-uses=40", *KEPT[kind])
    for _ in range(3):
        assert here.log_in(here.john) == "+OK logged in."
    assert crypt.calls("john") == 1
    for number in (2, 3):
        assert here.log_in(here.john, "wrong") == REFUSED
        assert crypt.calls("john") == number
    assert here.log_in(here.mary, here.john.password) == REFUSED
    assert here.log_in(here.mary) == "+OK logged in."
    assert here.log_in(here.mary) == "+OK logged in."
    assert crypt.calls("mary") == 2
    assert here.log_in(here.john) == "+OK logged in."
    assert crypt.calls("john") == 3


@pytest.mark.parametrize("kind", ["a uid each", "one uid"])
def test_a_password_that_was_changed_or_locked_and_an_account_that_is_gone_count_at_once(
    site, crypt, kind
):
    here = site(kind, "-uses=40")
    john = here.john
    for _ in range(2):
        assert here.log_in(john) == "+OK logged in."
    assert crypt.calls("john") == 1
    first = hashed(john.password, "john")
    here.change(john, hashed("another", "changed"))
    assert here.log_in(john) == REFUSED
    for _ in range(2):
        assert here.log_in(john, "another") == "+OK logged in."
    assert crypt.calls("changed") == 2
    here.change(john, f"!{first}")
    assert here.log_in(john) == REFUSED
    here.change(john, first)
    assert here.log_in(john) == "+OK logged in."
    assert crypt.calls("john") == 1
    rewrite(here.accounts, "john\t", "jack\t")
    assert here.log_in(john) == REFUSED


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["-uses=20"], {}),
        (["-uses=20"], {"POP3_LOGIN_CACHE": "0"}),
        (["-prefork=1"], CACHE),
        (["-uses=20", "-coldexec"], CACHE),
    ],
    ids=["not set", "0", "no -uses", "-coldexec"],
)
def test_else_a_password_is_computed_at_each_login(site, crypt, options, env):
    here = site("a uid each" if ROOT else "one uid", *options, env=env)
    for _ in range(3):
        assert here.log_in(here.john) == "+OK logged in."
    assert crypt.calls("john") == 3


def test_another_process_computes_it_anew(site, crypt):
    """Each of these serves three."""
    here = site("a uid each" if ROOT else "one uid", "-uses=3")
    for _ in range(9):
        assert here.log_in(here.john) == "+OK logged in."
    assert crypt.calls("john") == 3


def test_in_authdaemond_and_after_sighup(authdaemond, environment, accounts, crypt):
    john = add(accounts, "john", "john")
    environment.update(crypt.env)
    daemon = authdaemond(authmodulelist="authuserdb", daemons=1, **CACHE)
    for _ in range(3):
        assert b"\nADDRESS=john\n" in daemon.login("john", john.password)
    assert crypt.calls("john") == 1
    rewrite(accounts, hashed(john.password, "john"), hashed("another", "changed"))
    assert daemon.login("john", john.password) == b"FAIL\n"
    for _ in range(2):
        assert b"\nADDRESS=john\n" in daemon.login("john", "another")
    assert crypt.calls("changed") == 2
    daemon.configure(authmodulelist="authuserdb", POP3_LOGIN_CACHE="")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log.read_text().count("modules=") == 2, "it has read the file")
    before = crypt.calls("changed")
    for _ in range(3):
        assert b"\nADDRESS=john\n" in daemon.login("john", "another")
    assert crypt.calls("changed") > before + 1


def test_in_a_worker_of_pop3d_that_is_of_one_uid(master, crypt):
    one = master("prefork=1 maxchild=1", "courier_pop3_login_cache: 3600\n")
    john = one.cyrus.john
    for _ in range(3):
        one.session()
    assert crypt.calls("john") == 1
    old, new = hashed(john.password, "john"), hashed("another", "changed")
    rewrite(one.cyrus.accounts, old, new)
    with Client(one.port) as client:
        client.line()
        assert client.try_login("john", john.password) == "-ERR [AUTH] Invalid login"


def run(*argv: object, env=None) -> tuple[int, str]:
    done = subprocess.run(
        [*map(str, argv)], env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("options", [["-check"], []])
def test_a_time_that_makes_no_sense_keeps_couriertcpd_from_starting(options):
    chain = ["courierpop3login", "authuserdb", "courierpop3d", "./Maildir"]
    argv = [BIN / "couriertcpd", *options, "-address=127.0.0.1", "1", *chain]
    said = "POP3_LOGIN_CACHE=1h: not a number from 0 to 3600\n"
    assert run(*argv, env={"POP3_LOGIN_CACHE": "1h"}) == (1, said)


def test_and_authdaemond_and_pop3d(public):
    rc = public / "authdaemonrc"
    rc.write_text(f"authmodulelist=authuserdb\nauthdaemonvar={public}/run\nPOP3_LOGIN_CACHE=1h\n")
    said = "POP3_LOGIN_CACHE=1h: not a number from 0 to 3600\n"
    assert run(BIN / "authdaemond", f"-rc={rc}") == (1, f"authdaemond: {said}")
    cyrus = Cyrus(public)
    cyrus.configure("courier_pop3_login_cache: 1h\n")
    with cyrus.start() as client:
        assert client.end() == (78, f"ERR: pop3d: {said}")
