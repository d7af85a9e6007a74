"""Cyrus's own pop3d and ours answer the same conversations alike (cyrus-pop3d.md 5)

Both run under Debian's master with one imapd.conf, as the services NAME and NAMEours. They have the
same mail: ours is a copy of what Cyrus has stored. `conversations` lists what differs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import textwrap
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from courierchain.cram import state_of
from tests.conftest import DEADLINE, Account, Accounts, Client, needs_root, sha, wait_until
from tests.cyruspop3d.conftest import POP3D
from tests.cyruspop3d.conversations import (
    CHANGING,
    CONVERSATIONS,
    DIFFERENCES,
    LOGGED,
    MESSAGES,
    SERVICES,
    plain,
)
from tests.cyruspop3d.realcyrus import (
    NOBODY,
    PASSWORD,
    RealCyrus,
    environment,
    give_to_nobody,
    program,
)

USERS = {name: f"user{number}" for number, name in enumerate(CONVERSATIONS, 1)}
OBSERVED = "mary"  # whose sessions are logged in full
MOVING = "max"  # whose mail is carried over


def real_cyrus_at(directory: Path) -> RealCyrus:
    return RealCyrus(
        directory,
        workers={
            **{name: program("pop3d") for name in SERVICES},
            **{f"{name}ours": POP3D for name in SERVICES},
        },
        keys="prefork=0",
        config=configuration(directory),
        users=(*USERS.values(), OBSERVED, MOVING),
    )


def has_mail(name: str) -> bool:
    return any("@" in session for session in CONVERSATIONS[name][1:])


class Pair:
    """Both servers, with the mail of all conversations."""

    def __init__(self, cyrus: RealCyrus):
        self.cyrus = cyrus
        users = [USERS[name] for name in CONVERSATIONS if has_mail(name)] + [OBSERVED]
        for message in MESSAGES:
            self.cyrus.deliver(" ".join([*users, MOVING]), message)
        self.accounts = Accounts(cyrus.directory)
        for user in users:
            self.copy(user)
        os.chown(self.accounts.userdb, NOBODY, NOBODY)

    def copy(self, user: str) -> None:
        home = self.accounts.directory / user
        home.mkdir()
        account = Account(user, home, NOBODY, NOBODY)
        for folder in ("new", "cur", "tmp"):
            (account.maildir / ".Lists" / folder).mkdir(parents=True)
        for message in self.cyrus.spool(user):
            account.deliver(message.replace(b"\r\n", b"\n"))
        give_to_nobody(home)
        ids = {"uid": NOBODY, "gid": NOBODY, "home": home}
        state = state_of("md5", PASSWORD.encode()).decode()
        secrets = {"systempw": sha(PASSWORD), "hmac-md5pw": state, "apoppw": PASSWORD}
        self.accounts.record(user, **ids, **secrets)

    def session(self, service: str, said: bytes) -> tuple[list[str], list[str]]:
        """The lines that come until the server closes, and what it logs meanwhile."""
        before = self.logged(service)
        with Client(self.cyrus.ports[service]) as client:
            client.send(said)
            client.socket.shutdown(socket.SHUT_WR)
            answer = client.rest().decode("latin-1").split("\r\n")

        def all_of_it() -> list[str]:
            new = self.logged(service)[len(before) :]
            return new if any(line.startswith("counts: ") for line in new) else []

        lines = wait_until(all_of_it, f"{service} logs its counts")
        end = next(at for at, line in enumerate(lines) if line.startswith("counts: "))
        return answer, lines[: end + 1]

    def logged(self, service: str) -> list[str]:
        pattern = re.compile(rf"<\d+>.{{15}} (?:cyrus/)?{service}\[\d+\]: (.*)")
        return [found[1] for line in self.cyrus.lines() if (found := pattern.fullmatch(line))]


def configuration(directory: Path) -> str:
    lines = ["autocreate_inbox_folders: Lists", "courier_modules: authuserdb"]
    lines.append(f"courier_authuserdb_file: {directory}/userdb")
    lines.append("telemetry_name: service")
    for name, options in SERVICES.items():
        for service in (name, f"{name}ours"):
            lines += [f"{service}_{option}: {value}" for option, value in options.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def pair():
    needs_root()
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-pair-", dir="/var/tmp"))
    directory.chmod(0o755)
    cyrus = real_cyrus_at(directory)
    try:
        yield Pair(cyrus)
    finally:
        cyrus.stop()
        shutil.rmtree(directory, ignore_errors=True)


def octets(session: str, user: str) -> bytes:
    lines = session.replace("@LOGIN", f"USER {user}\nPASS {PASSWORD}").replace("@NAME", user)
    return "".join(f"{line}\r\n" for line in lines.split("\n") if session).encode("latin-1")


def expected(name: str, line: str) -> str:
    """What ours is to say where Cyrus's says `line`."""
    for where, theirs, ours, _ in DIFFERENCES:
        if where == name and line == theirs:
            return ours
    return line


def comparable(lines: list[str]) -> list[str]:
    """A SASL line's mechanisms in one order; SASL's library has its own."""
    plainer = [plain(line, CHANGING) for line in lines]
    return [" ".join(sorted(line.split())) if "SASL" in line else line for line in plainer]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_c10_53_both_answer_and_log_alike(pair, name):
    service, *sessions = CONVERSATIONS[name]
    for session in sessions:
        said = octets(session, USERS[name])
        theirs, logged = pair.session(service, said)
        ours, logged_here = pair.session(f"{service}ours", said)
        if name == "c10_35 sasl":  # the one line of this text that is another here
            *first, last, quit_reply, end = comparable(theirs)
            theirs = [*first, expected(name, last), quit_reply, end]
            assert comparable(ours) == theirs
        else:
            assert comparable(ours) == [expected(name, line) for line in comparable(theirs)]
        assert readable(logged_here) == readable(logged)


def readable(lines: list[str]) -> list[str]:
    return [text for line in lines if (text := plain(plain(line, CHANGING), LOGGED))]


@pytest.mark.parametrize("service", ["plain", "plainours"])
def test_apop_with_the_right_digest_logs_in(pair, service):
    with pair.cyrus.client(service) as client:
        challenge = client.line().split()[-1]
        digest = hashlib.md5(challenge + PASSWORD.encode()).hexdigest()
        assert client.ask(f"APOP {OBSERVED} {digest}").startswith("+OK Mailbox locked and ready")
        assert client.ask("STAT").startswith(f"+OK {len(MESSAGES)} ")
        assert client.ask("QUIT") == "+OK"


def carry_over_script() -> str:
    """The README's."""
    text = (Path(__file__).parents[2] / "README.rst").read_text()
    block = text.partition("    # carry-over ")[2].partition("\n\n")[0]
    return textwrap.dedent("    # " + block)


def test_uidls_carried_over_are_those_that_cyrus_gave(pair):
    """What was removed before has left no message, and its number doesn't come again."""
    home = pair.accounts.directory / MOVING
    home.mkdir()
    account = Account(MOVING, home, NOBODY, NOBODY)
    with pair.cyrus.client("courier") as client:
        assert log_in(client, MOVING).startswith("+OK")
        for number in (2, 5):
            assert client.ask(f"DELE {number}") == "+OK message deleted"
        assert client.ask("QUIT") == "+OK"
        client.rest()
    tool = pair.accounts.directory / "mbexamine"
    tool.write_text(f'#!/bin/sh\nexec {program("mbexamine")} -C {pair.cyrus.conf} "$@"\n')
    tool.chmod(0o755)
    env = environment() | {"PATH": f"{tool.parent}:/usr/bin:/bin"}
    argv = ["sh", "-c", carry_over_script(), "sh", f"user/{MOVING}", account.maildir]
    subprocess.run(argv, env=env, check=True, timeout=DEADLINE)
    account.deliver(b"Subject: new\n\n", "1999999999.new.host")
    give_to_nobody(home)
    ids = {"uid": NOBODY, "gid": NOBODY, "home": home, "systempw": sha(PASSWORD)}
    pair.accounts.record(MOVING, **ids)
    for service in ("plain", "minimal", "courier"):
        told = {}
        for who in (service, f"{service}ours"):
            with pair.cyrus.client(who) as client:
                assert log_in(client, MOVING).startswith("+OK"), who
                told[who] = [client.listing(said) for said in ("UIDL", "LIST", "RETR 2")]
        ids, sizes, text = told[f"{service}ours"]
        assert [ids[:3], sizes[:3], text] == told[service]
        assert len(ids) == 4
    validity = ids[0].split()[1].partition("-")[0]
    assert ids[3] == f"4 {validity}-{len(MESSAGES) + 1}"


def test_c10_55_telemetry_of_both_has_one_form(pair):
    place = pair.cyrus.configdirectory / "log" / OBSERVED
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    logs = {}
    for service in ("plain", "plainours"):
        with pair.cyrus.client(service) as client:
            client.line()
            client.ask(f"USER {OBSERVED}")
            assert client.ask(f"PASS {PASSWORD}").startswith("+OK Mailbox locked")
            client.listing("RETR 4")
            client.ask("NOOP")
            assert client.ask("QUIT") == "+OK"
            client.rest()
        (log,) = (path for path in place.iterdir() if re.fullmatch(rf"{service}-\d+", path.name))
        assert log.stat().st_mode & 0o777 == 0o600
        logs[service] = log.read_text("latin-1")
    header = re.compile(r"-{10} mary \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n\n")
    told = {}
    for service, text in logs.items():
        begin = header.match(text)
        assert begin, text
        marked = re.sub(r"([<>])\d{10}\1", r"\1", text[begin.end() :])
        told[service] = plain(marked, CHANGING).replace("\n>.\n", "\n.\n")  # 3.8 sends it alone
    assert told["plainours"] == told["plain"]
    assert PASSWORD not in logs["plainours"]


def log_in(client: Client, user: str = OBSERVED) -> str:
    client.line()
    client.ask(f"USER {user}")
    return client.ask(f"PASS {PASSWORD}")


def proc_files(pair, service: str) -> list[str]:
    """Those of a service. A file may be gone before it is read; one that waits for its worker's
    next session is hidden."""
    found = []
    for path in (pair.cyrus.configdirectory / "proc").glob("[!.]*"):
        with suppress(FileNotFoundError):
            text = path.read_text()
            found += [text] if text.startswith(f"{service}\t") else []
    return found


def idle_in_mailbox(pair, service: str) -> str:
    return next((text for text in proc_files(pair, service) if "user.mary\t\n" in text), "")


def no_proc_file(pair, service: str) -> bool:
    return not proc_files(pair, service)


def test_c10_54_proc_files_of_both_have_one_form(pair):
    told = {}
    for service in ("plain", "plainours"):
        with pair.cyrus.client(service) as client:
            assert log_in(client).startswith("+OK")
            text = wait_until(partial(idle_in_mailbox, pair, service), "the client is idle")
            told[service] = plain(text, LOGGED).removeprefix(service)
            client.ask("QUIT")
            client.rest()
        wait_until(partial(no_proc_file, pair, service), "the file is removed")
    assert told["plainours"] == told["plain"] == "\t[127.0.0.1]\tmary\tuser.mary\t\n"


def test_c10_44_sessions_over_the_limit_are_told_and_the_current_one_counts_once(pair):
    with pair.cyrus.client("limitedours") as first:
        assert log_in(first).startswith("+OK")
        with pair.cyrus.client("plain") as other, pair.cyrus.client("limitedours") as second:
            other.line()
            text = "-ERR Too many open connections (3 of 9 from [127.0.0.1], 2 of 1 for mary)"
            assert log_in(second) == text
        assert first.ask("QUIT") == "+OK"
        first.rest()
    wait_until(partial(no_proc_file, pair, "limitedours"), "the files are removed")
    with pair.cyrus.client("limitedours") as third:
        assert log_in(third).startswith("+OK")


def test_c10_50_a_shutdown_file_ends_sessions_and_keeps_new_ones_out(pair):
    place = pair.cyrus.configdirectory / "msg/shutdown"
    told = {}
    try:
        for service in ("plain", "plainours"):
            with pair.cyrus.client(service) as client:
                assert log_in(client).startswith("+OK")
                assert client.ask("NOOP") == "+OK"
                place.write_text("[Back at noon\nor later\n")
                first = client.ask("NOOP")
                told[service] = [first, client.rest()]
            with pair.cyrus.client(service) as client:
                client.line()
                told[service].append(client.rest())
            place.unlink()
    finally:
        place.unlink(missing_ok=True)
    assert told["plainours"] == told["plain"]
