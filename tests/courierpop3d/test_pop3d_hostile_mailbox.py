"""Mailboxes made by an enemy, a broken clock or many years: what is in them, and how much of it.

The program is seen from outside: what the client is told, which files are opened and made, what is
in the Maildir afterwards. Most sessions run as in test_pop3d_faults.py, where each call is noted.
"""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.courierpop3d.conftest import DEADLINE, ROOT, Box
from tests.courierpop3d.test_pop3d_faults import A_WHILE, CONSTANTS, Faults, Session

GREETING = b"+OK logged in.\r\n"
GOODBYE = b"+OK Bye-bye.\r\n"
MAIL = b"Subject: x\n\nLine 1\n"
CENTURY = 100 * 366 * 86400

OURS = ["courierpop3dsizelist", "courierpop3dindex", "maildirsize"]


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    faults = Faults(tmp_path_factory.mktemp("faults"))
    yield faults
    faults.close()


@pytest.fixture
def begin(faults, box):
    """Begin a session on the box, as if it were large and had not changed for a while."""

    def start(**how) -> Session:
        box.own()
        time.sleep(2 * A_WHILE)
        return Session(faults, box, **{"constants": CONSTANTS, **how})

    return start


def ids(session: Session) -> list[str]:
    """The ids in the order of the messages; they are unique and legal. Ends the session."""
    assert session.line() == GREETING
    listed = [line.decode().split() for line in session.many("UIDL")]
    assert session.ask("QUIT") == GOODBYE
    session.end()
    assert [number for number, _ in listed] == [str(row + 1) for row in range(len(listed))]
    assert len({uid for _, uid in listed}) == len(listed)
    assert all(re.fullmatch("[!-~]{1,70}", uid) for _, uid in listed)
    return [uid for _, uid in listed]


def subjects(session: Session, count: int) -> list[bytes]:
    """The first lines of messages. Ends the session."""
    assert session.line() == GREETING
    found = [session.many(f"TOP {number} 0")[0] for number in range(1, count + 1)]
    assert session.ask("QUIT") == GOODBYE
    session.end()
    return found


# Time

AGES = {"1901": -(2**31), "1969": -1, "1970": 0, "2038": 2**31, "2100": 4_102_444_800}


def test_F_TIME_1_mail_from_any_time_keeps_its_order_and_ids(box, begin):
    numbers = [-5, 0, 1, 2**31 - 1, 4_102_444_800, 2**32, 10**18]
    for number, age in zip(numbers, [*AGES.values(), 1, 2], strict=True):
        box.put(f"cur/{number}.a:2,", b"Subject: %d\n\n" % number)
        os.utime(box.path / f"cur/{number}.a:2,", (age, age))
    for age in AGES:
        box.put(f"new/3.{age}", b"Subject: 3.%s\n\n" % age.encode())
        os.utime(box.path / f"new/3.{age}", (AGES[age], AGES[age]))
    expected = [b"-5", b"0", b"1", *(f"3.{age}".encode() for age in sorted(AGES))]
    expected += [b"%d" % number for number in numbers[3:]]
    first = ids(begin())
    for _ in range(2):
        found = subjects(begin(), len(expected))
        assert found == [b"Subject: %s\r\n" % subject for subject in expected]
        assert ids(begin()) == first
    assert len(box.names()) == len(expected)


def test_F_TIME_1_only_what_is_old_in_tmp_is_removed(box, begin):
    for name, age in AGES.items():
        for folder in ("tmp", "new", "cur"):
            box.put(f"{folder}/{name}.{folder}", MAIL)
            os.utime(box.path / folder / f"{name}.{folder}", (age, age))
    assert len(ids(begin())) == 2 * len(AGES)
    assert box.names("tmp") == ["2038.tmp", "2100.tmp"]
    assert len(box.names()) == 2 * len(AGES)


@pytest.mark.parametrize("name", ["list", "index"])
def test_F_TIME_2_ids_are_unique_whatever_the_clock_says_at_login(box, begin, name):
    since_1970 = int(time.time())
    given: dict[bytes, str] = {}
    clocks = [0, CENTURY, -CENTURY // 4, 5 - since_1970, 0, 5 - since_1970, -86400, 3600, 0]
    for number, ahead in enumerate(clocks):
        box.put(f"new/{number * 7 % 9}.a", b"Subject: %d\n\n" % number)
        if name == "index":
            ids(begin(ahead=ahead))
        shown = ids(begin(ahead=-ahead // 2 if ahead < 0 else ahead))
        for subject, uid in zip(subjects(begin(ahead=ahead), len(shown)), shown, strict=True):
            assert given.setdefault(subject, uid) == uid
        assert len(set(given.values())) == len(given) == number + 1


@pytest.mark.parametrize("jump", [CENTURY, -CENTURY // 2], ids=["ahead", "back"])
def test_F_TIME_2_a_clock_that_jumps_in_a_session_disturbs_nobody(box, begin, faults, jump):
    box.put("cur/1.a:2,", MAIL)
    box.put("cur/2.b:2,", MAIL)
    session = begin(POP3_IDLE_TIMEOUT="5", POP3_SEND_TIMEOUT="5")
    assert session.line() == GREETING
    faults.set_clock_ahead(jump)
    assert len(session.many("RETR 1")) == 3
    faults.set_clock_ahead(0)
    assert session.ask("DELE 2") == b"+OK Deleted.\r\n"
    faults.set_clock_ahead(jump)
    assert session.ask("QUIT") == GOODBYE
    session.end()
    assert re.search(r"LOGOUT.* time=\d$", session.logged()[-1])
    assert box.names() == ["1.a:2,S"]


@pytest.mark.parametrize("jump", [CENTURY, -CENTURY // 2], ids=["ahead", "back"])
def test_F_TIME_2_silence_is_timed_whatever_the_clock_does(begin, faults, jump):
    session = begin(POP3_IDLE_TIMEOUT="1")
    assert session.line() == GREETING
    began = time.monotonic()
    faults.set_clock_ahead(jump)
    assert session.rest() == b""
    assert time.monotonic() - began > 0.9
    session.end()
    assert session.logged()[-1].startswith("INFO: TIMEOUT")


# Much mail

MANY = 20_000


def many(box: Box, first: int, end: int) -> None:
    for number in range(first, end):
        with open(box.path / f"cur/{number}.a:2,", "wb") as file:
            file.write(MAIL)


@pytest.mark.parametrize("worth", [1000, 10**9], ids=["index", "list"])
def test_F_BIG_1_of_20000_messages_none_is_opened_twice(box, begin, worth):
    how = {"constants": {**CONSTANTS, ("courierpop3d.index", "WORTH"): worth}, "limit": 30.0}
    tenth = MANY // 10
    many(box, 0, tenth)
    few = begin(**how)
    ids(few)
    many(box, tenth, MANY)
    box.own()
    first = begin(**how)
    uids = ids(first)
    assert len(uids) == MANY
    assert first.opened == MANY - tenth
    assert first.calls < 11 * few.calls
    assert first.memory - few.memory < 2 * (MANY - tenth)  # KB; so 2 KB a message
    second = begin(**how)
    assert ids(second) == uids
    assert second.opened == 0
    assert second.memory - few.memory < 2 * (MANY - tenth)
    third = begin(**how)
    assert third.line() == GREETING
    assert third.ask("STAT") == b"+OK %d %d\r\n" % (MANY, MANY * (len(MAIL) + 3))
    assert len(third.many(f"RETR {MANY}")) == 3
    third.send(b"".join(b"DELE %d\r\n" % number for number in range(1, 1001)))
    assert [third.line() for _ in range(1000)] == [b"+OK Deleted.\r\n"] * 1000
    assert third.ask("QUIT") == GOODBYE
    third.end()
    assert third.opened == 1
    fourth = begin(**how)
    assert ids(fourth) == uids[1000:]
    assert fourth.opened == 0


# Files that are made, and what stands in their place


def created(session_calls: list[str]) -> Iterator[tuple[str, int, int]]:
    """Path, flags and mode of all files that were made."""
    for call in session_calls:
        if call.startswith("create "):
            _, path, flags, mode = call.split(" ")
            yield path, int(flags, 8), int(mode, 8)


def test_CVE_31_CVE_33_files_are_made_new_and_nobody_else_may_write_them(box, begin, faults):
    box.put("maildirsize", b"1S\n999 1\n")  # over quota: is made anew
    box.put("new/1.a", MAIL)
    box.put("new/2.b", MAIL)
    made = []
    for line in (b"QUIT\r\n", b"DELE 1\r\nQUIT\r\n", b"QUIT\r\n"):
        session = begin()
        session.send(line)
        assert session.rest().endswith(GOODBYE)
        session.end()
        made += created(faults.calls())
    assert len(made) >= len(OURS)
    for path, flags, mode in made:
        assert flags & os.O_EXCL and flags & os.O_NOFOLLOW and flags & os.O_CLOEXEC, path
        assert not mode & 0o022, path  # the umask was 0
        assert path.lstrip("./").startswith("tmp/"), path
    assert {path.name for path in box.path.iterdir() if path.is_file()} == set(OURS)
    assert not [name for name in OURS if (box.path / name).stat().st_mode & 0o033]
    assert (box.path / "courierpop3dindex").stat().st_mode & 0o777 == 0o600


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangle(path: Path, victim: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def be_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def be_socket(path: Path, victim: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def be_directory(path: Path, victim: Path) -> None:
    path.mkdir()
    (path / "something").write_bytes(b"x")


def be_endless(path: Path, victim: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def be_unreadable(path: Path, victim: Path) -> None:
    path.write_bytes(b"/3 5 7\n")
    path.chmod(0)


class Execute:
    """What is executed by whoever unpickles it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


CONTENTS = {
    "nothing": b"",
    "NULs": bytes(100_000),
    "digits": b"9" * 1_000_000,
    "list of digits": b"/3 " + b"9" * 100_000 + b" 1\n" + b"a 1 1:1:" + b"9" * 500_000 + b"\n",
    "index of digits": b"/index1 " + b"9" * 500 + b"\n",
    "lines": b"\n" * 500_000,
    "blanks": b" " * 500_000 + b"\n" + b"x" + b" " * 500_000,
    "colons": b"/3 1 1\n" + b"x 1 " + b":" * 500_000 + b"\n",
    "minus": b"/3 -1 -1\n1.a:2, -5 -1:-1:-1\n",
    "random": bytes((n * n * 31 + n // 7) % 256 for n in range(100_000)),
    "python": b"__import__('os').mkdir('executed')\n",
}
THINGS = [link, dangle, be_fifo, be_socket, be_directory, be_endless, be_unreadable]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("thing", [*THINGS, *CONTENTS], ids=lambda it: getattr(it, "__name__", it))
def test_F_FILE_8_F_FILE_9_CVE_33_CVE_44_CVE_46_whatever_stands_in_place_of_a_file_of_ours(
    box, begin, name, thing
):
    for number in range(4):
        box.put(f"cur/{number}.a:2,", b"Subject: %d\n\n" % number)
    before = ids(begin())
    victim = box.home / "victim"
    victim.write_bytes(b"/3 9 9\n0.a:2, 1 1:1:0\n")
    path = box.path / name
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    if callable(thing):
        thing(path, victim)
    else:
        path.write_bytes(CONTENTS[thing])
    sessions = []
    for _ in range(2):
        session = begin()
        assert session.line() == GREETING
        assert session.ask("STAT") == b"+OK 4 56\r\n"
        sessions.append([session.ask(f"UIDL {number}") for number in range(1, 5)])
        assert len(session.many("RETR 3")) == 2
        session.send(b"QUIT\r\n")
        assert session.rest() == GOODBYE
        session.end()
        assert session.status == 0
        assert not [line for line in session.logged() if not re.fullmatch("[ -~]*", line)]
    assert sessions[0] == sessions[1]
    after = ids(begin())
    if name != "courierpop3dsizelist":
        assert after == before
    session = begin()
    session.send(b"DELE 1\r\nQUIT\r\n")
    assert session.rest().endswith(GOODBYE)
    session.end()
    assert ids(begin()) == after[1:]
    assert victim.read_bytes() == b"/3 9 9\n0.a:2, 1 1:1:0\n"
    assert not (box.path / "executed").exists()
    assert not box.names("tmp") or thing is be_directory


def test_CVE_44_what_is_pickled_is_not_executed(box, begin):
    marker = box.path / "executed"
    for name in (*OURS, "dovecot-uidlist", "courierimapuiddb", "cur/2.b:2,"):
        box.put(name, pickle.dumps(Execute(marker)))
    box.put("cur/1.a:2,", MAIL)
    for _ in range(2):
        assert len(ids(begin())) == 2
    assert not marker.exists()


def test_CVE_44_nothing_that_executes_what_it_reads_is_used():
    unsafe = {"pickle", "marshal", "shelve", "dbm", "yaml", "code", "codeop", "runpy"}
    for path in (ROOT / "courierpop3d").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not unsafe & {name.name.partition(".")[0] for name in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module.partition(".")[0] not in unsafe, path
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path


# Where the Maildir is

NO_CUR = b"-ERR Maildir invalid (no 'cur' directory)\r\n"


@pytest.mark.parametrize(
    "maildir, reply",
    [
        *[("./Maildir", GREETING), ("Maildir/", GREETING), ("Maildir/../Maildir", GREETING)],
        *[("", GREETING), (".", NO_CUR), ("/", NO_CUR), ("Maildir/cur", NO_CUR)],
        *[("Other", None), ("file", None), ("loop", None), ("/dev/null", None), ("-", None)],
        *[("x" * 300, None), ("x/" * 3000, None), ("\udcff\udc80", None), ("\u65e5\u672c", None)],
        *[("a\nb", None), ("a\r\n-ERR x\r\n.", None), ("\x1b[2J\x07", None), ("a\0b", None)],
        *[("Maildir\0", None), ("~", None), ("$HOME/Maildir", None), ("%s%n", None)],
    ],
)
def test_CVE_34_a_maildir_is_served_or_refused_in_one_line(box, begin, maildir, reply):
    (box.home / "file").touch()
    (box.home / "loop").symlink_to("loop")
    session = begin(MAILDIR=maildir)
    first = session.line()
    if reply == GREETING:
        session.send(b"QUIT\r\n")
    rest = session.rest()
    session.end()
    assert session.status in (0, 1)
    assert reply in (None, first)
    assert rest == (GOODBYE if reply == GREETING else b"")
    assert first == GREETING or re.fullmatch(rb"-ERR [^\r\n]*\r\n", first)
    for line in session.logged():
        assert re.fullmatch("[ -~]+", line)
        assert "internal error" not in line


# Messages and commands that cost much if they are read carelessly

LONG = 100_000
FLOODS = {
    "letters": b"a" * LONG,
    "blanks": b" " * LONG,
    "header names": b"a:" * (LONG // 2),
    "continuations": b"Subject: x\n" + b" \n" * (LONG // 2),
    "empty headers": b":\n" * (LONG // 2),
    "encoded words": b"Subject: " + b"=?" * (LONG // 2) + b"\n\n",
    "CRs": b"\r" * LONG,
    "dots": b".\n" * (LONG // 2),
    "eight bits": b"Subject: " + b"\xe9" * LONG + b"\n\n",
    "boundaries": b"Content-Type: multipart/mixed; boundary=" + b"-" * LONG + b"\n\n" + b"-" * LONG,
    "parameters": b"Content-Type: multipart/mixed;" + b" a=b;" * (LONG // 5) + b"\n\n\xe9",
    "quotes": b'Content-Type: multipart/mixed; boundary="' + b'\\"' * LONG + b"\n\n\xe9",
    "comments": b"Content-Type: " + b"(" * LONG + b"\n\n\xe9",
    "parts": b"".join(
        b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(3000)
    )
    + b"\nSubject: \xe9\n\n",
    "messages": b"Content-Type: message/rfc822\n\n" * 5000 + b"Subject: \xe9\n\n",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_CVE_45_CVE_46_a_flood_in_a_message_costs_little(box, begin, flood):
    """The limit is that of the processor's time: a loop in a loop over so much takes minutes."""
    box.put("cur/1.a:2,", FLOODS[flood])
    box.put("cur/2.b:2,", MAIL)
    for _ in range(2):
        session = begin(limit=3.0, UTF8="0")
        assert session.line() == GREETING
        assert session.many("TOP 1 5")
        assert session.many("RETR 1")
        assert len(session.many("RETR 2")) == 3
        assert session.ask("QUIT") == GOODBYE
        session.end()
        assert session.status == 0


@pytest.mark.parametrize(
    "name",
    [
        *[",S=" + "9" * 200, ",S=" * 80, ",W=" * 80, "1,S=18,W=" + "9" * 200, "1,S=1,W=1"],
        *["9" * 250, "-" * 250, "+" * 250, " " * 250, "1.a:2," + "S" * 200, "1" + ":" * 200],
        *["1.a:2,:2,:2,", "a\nb", "/3 1 1".replace("/", "|"), "\udcff" * 200, "1.a 5 1:1:0"],
    ],
)
def test_F_FILE_4_CVE_45_CVE_46_a_name_costs_little_and_lies_to_nobody(box, begin, name):
    box.put(b"cur/" + os.fsencode(name), MAIL)
    box.put("cur/2.b:2,", MAIL)
    listed = []
    for _ in range(3):
        session = begin(limit=3.0)
        assert session.line() == GREETING
        assert session.ask("STAT") == b"+OK 2 %d\r\n" % (2 * len(MAIL) + 6)
        assert len(session.many("RETR 1")) == len(session.many("RETR 2")) == 3
        listed.append(session.many("UIDL"))
        assert session.ask("QUIT") == GOODBYE
        session.end()
    assert listed[0] == listed[1] == listed[2]


NUMBERS = [
    *["9" * 19, "9" * 200, "1" + "0" * 230, "-1", "+1", "1_0", "0x1", "1e0", "1.0", "\u0661"],
    *["\xb9", "1,2", "1-2", "0", "2", "NaN", "--1"],
]


def test_CVE_46_a_number_is_a_number_of_a_message_or_an_error(box, begin):
    box.put("cur/1.a:2,", MAIL)
    session = begin()
    assert session.line() == GREETING
    for verb in ("RETR", "DELE", "LIST", "UIDL", "TOP"):
        for number in NUMBERS:
            suffix = " 0" if verb == "TOP" else ""
            assert session.ask(f"{verb} {number}{suffix}").startswith(b"-ERR "), (verb, number)
    for lines in ("-1", "+1", "1_0", "0x1", "\u0661"):
        assert session.ask(f"TOP 1 {lines}").startswith(b"-ERR "), lines
    session.send(b"RETR " + b"9" * 1_000_000 + b"\r\nNOOP\r\n")
    assert session.line().startswith(b"-ERR ")
    assert session.line() == b"+OK Yup.\r\n"
    assert session.ask("QUIT") == GOODBYE
    session.end()
    assert box.names() == ["1.a:2,"]


# Python and the environment


def test_CVE_47_started_alone_it_imports_nothing_of_the_users(box):
    evil = 'open("imported-" + __name__, "w")\n'
    for directory in (box.home, box.path):
        for name in ("os", "sitecustomize", "usercustomize", "courierpop3d", "fcntl", "stat"):
            (directory / f"{name}.py").write_text(evil)
    box.put("new/1.a", MAIL)
    box.own()
    env = {"PYTHONPATH": ".:Maildir:..", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "os.py"}
    env |= {"PYTHONUSERBASE": ".", "HOME": ".", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"}
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"STAT\r\nQUIT\r\n")
        run = subprocess.run(
            [Path(sys.executable).parent / "courierpop3d", "./Maildir"],
            stdin=there,
            stdout=there,
            stderr=subprocess.PIPE,
            cwd=box.home,
            env={"AUTHENTICATED": "joe", "PATH": os.defpath, **env},
            timeout=DEADLINE,
            check=False,
            **Box.as_owner(),
        )
        assert here.recv(4096) == GREETING + b"+OK 1 22\r\n" + GOODBYE, run.stderr
    made = [path for path in box.home.rglob("*") if path.name.startswith(("imported", "__pyc"))]
    assert not made
    assert not list(box.home.rglob("*.pyc"))


HOSTILE = ["joe\tuid=0", "joe|gid=0", "joe=", "joe,", "joe user=x", "joe\x7f", "j\xf6e", "joe\r"]


@pytest.mark.parametrize("name", HOSTILE)
def test_CVE_38_CVE_48_a_name_is_one_field_in_record_and_log(box, program, name):
    front = b"pop3\nauthenticated\n"
    record = front + os.fsencode(name) + b"\n"
    server = program(record=record, AUTHENTICATED=name)
    assert server.line() == GREETING
    server.send(b"QUIT\r\n")
    lines = server.end()[1]
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(r"INFO: LOG(IN|OUT), user=[!-+\--Z\\^-~]+, ip=\[127.0.0.1\], .*", line)
    for other in (front + b"joe\n", front + b"j\n", record + b"joe\n", record + record):
        server = program(record=other, AUTHENTICATED=name)
        assert server.rest() == b""
        assert server.end() == (1, ["AUTHFAILURE"])
