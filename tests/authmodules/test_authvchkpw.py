"""authvchkpw: vpopmail's users/assign and vpasswd, as vpopmail writes them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmodules import cdb
from authmodules.authvchkpw import authvchkpw
from courierchain import request
from courierchain.authmodule import PermanentFailure, Rejected, TemporaryFailure, Unchangeable
from courierchain.settings import Settings
from tests.authmodules.asking import HOSTILE, NO_DELAY, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.conftest import DEADLINE, ROOT, needs, sha, wait_until


@pytest.fixture
def domain(public, accounts):
    """example.com, with the other name example.net; the home of john, and two broken domains."""
    john = accounts.add("john", listed=False)
    ids = f"{john.uid}:{john.gid}"
    (public / "assign").write_text(
        f"+example.com-:example.com:{ids}:{public}:-::\n"
        f"+example.net-:example.com:{ids}:{public}:-::\n"
        f"+root.example-:root.example:0:0:{public}:-::\n"
        f"+gone.example-:gone.example:{ids}:{public}/gone:-::\n"
        "+broken.example-:broken\n.\n"
    )
    hashed = sha("secret")
    lines = [
        f"john:{hashed}:0:0:John:{john.home}:NOQUOTA",
        f"clear:{hashed}:0:0:John:{john.home}:1000S:secret",
        f"nopop:{hashed}:0:2:John:{john.home}:NOQUOTA",
        f"fixed:{hashed}:0:1:John:{john.home}:NOQUOTA",
        f"noimap:{hashed}:0:12:John:{john.home}:NOQUOTA",
        f"locked:!{hashed}:0:0:John:{john.home}:NOQUOTA",
        f"empty::0:0:John:{john.home}:NOQUOTA",
        f"odd:{hashed}:0:x:John:{john.home}:NOQUOTA",
        "short:x:0",
    ]
    (public / "vpasswd").write_text("\n".join(lines) + "\n")
    return public


@pytest.fixture
def vchkpw(ask, domain):
    def vchkpw(user="john@example.com", password="secret", **more):
        settings = {"VPOPMAIL_ASSIGN": domain / "assign", "VPOPMAIL_DOMAIN": "", **more}
        return ask("authvchkpw", user, password, **settings)

    return vchkpw


def test_a_user_of_a_domain(vchkpw, domain):
    found = vchkpw()
    assert found.word == "accepted", found
    assert found.env["AUTHADDR"] == "john@example.com"
    assert found.env["AUTHFULLNAME"] == "John"
    assert found.env["MAILDIR"] == ""
    assert found.env["CWD"] == str(domain / "home1")
    if ROOT:
        assert found.env["UID"] == found.env["GROUPS"] == "20001"


@pytest.mark.parametrize("user", ["JOHN@Example.Com", "john%example.com", "john@example.net"])
def test_other_ways_to_write_it(vchkpw, user):
    found = vchkpw(user)
    assert (found.word, found.env["AUTHADDR"]) == ("accepted", "john@example.com")


def test_a_userid_without_a_domain_has_the_default_one(vchkpw):
    assert vchkpw("john").word == "rejected"
    assert vchkpw("john", VPOPMAIL_DOMAIN="example.com").word == "accepted"
    assert vchkpw("john", VPOPMAIL_DOMAIN="example.org").word == "rejected"


@pytest.mark.parametrize(
    "user, password",
    [
        ("john@example.com", "wrong"),
        ("nobody@example.com", "secret"),
        ("john@example.org", "secret"),
        ("nopop@example.com", "secret"),
        ("locked@example.com", "secret"),
        ("empty@example.com", "secret"),
        ("clear@example.com", "x"),
        ("@example.com", "secret"),
        ("john@", "secret"),
    ],
)
def test_who_is_rejected(vchkpw, user, password):
    assert vchkpw(user, password).word == "rejected"


def test_flags_are_for_their_service(vchkpw):
    assert vchkpw("noimap@example.com").word == "accepted"
    record = b"imap\nlogin\nnoimap@example.com\nsecret\n\n"
    assert vchkpw(record=record).word == "rejected"
    assert vchkpw(record=record.replace(b"noimap", b"nopop")).word == "accepted"


@pytest.mark.parametrize("user", HOSTILE.values(), ids=HOSTILE.keys())
def test_CVE_05_CVE_48_hostile_userids_find_nobody(vchkpw, user):
    for whole in (user, b"john@" + user):
        assert vchkpw(whole, VPOPMAIL_DOMAIN="example.com").word == "rejected"


def test_no_other_type_of_request_is_looked_up(vchkpw):
    assert vchkpw(record=external(b"john@example.com")).word == "rejected"
    assert vchkpw(record=b"pop3\nlogin\njohn@example.com\nx\nsecret\n\n").word == "rejected"


def test_AUTHCHAIN_05_uid_0_is_refused(vchkpw):
    found = vchkpw("john@root.example")
    assert (found.word, found.env["WHY"]) == ("trouble", "permanent")


@pytest.mark.parametrize(
    "user, said",
    [
        ("john@gone.example", "gone/vpasswd: No such file or directory"),
        ("john@broken.example", "the line of '+broken.example-' lacks a field"),
        ("short@example.com", "the line of 'short' lacks a field"),
        ("odd@example.com", "'odd': 'x' is no number"),
    ],
)
def test_3206_02_what_is_wrong_with_the_files_is_a_temporary_failure(vchkpw, user, said):
    found = vchkpw(user)
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert said in found.log


def test_files_that_everybody_may_write_are_not_believed(vchkpw, domain):
    (domain / "vpasswd").chmod(0o666)
    assert "may be written by everybody" in vchkpw().log
    (domain / "assign").unlink()
    assert "assign: No such file or directory" in vchkpw().log


def test_the_whole_chain(serve, any_mode, domain, accounts):
    mary = accounts.add("mary")
    stages = ["courierpop3login", "authvchkpw", "authuserdb", "courierpop3d", "./Maildir"]
    server = serve(
        *any_mode, stages=stages, env={"VPOPMAIL_ASSIGN": str(domain / "assign"), **NO_DELAY}
    )

    assert server.answer("john@example.com", "secret") == "+OK logged in."
    assert server.answer("mary", mary.password) == "+OK logged in."
    assert server.answer("john@example.com", "wrong") == "-ERR Login failed."
    assert server.answer("john@example.net", "secret") == "+OK logged in."


@pytest.fixture
def compiled(domain):
    """The domain's vpasswd.cdb, without john's text; `write` replaces it."""
    text = domain / "vpasswd"
    lines = [line.encode().partition(b":") for line in text.read_text().splitlines()]

    def write(octets: bytes) -> None:
        (domain / "vpasswd.cdb").write_bytes(octets)
        newer = text.stat().st_mtime + 10
        os.utime(domain / "vpasswd.cdb", (newer, newer))

    write(cdb.made([(key, data) for key, _, data in lines]))
    text.write_text("text:x:0:0:Text:/home:NOQUOTA\n")
    newer = text.stat().st_mtime + 10
    os.utime(domain / "vpasswd.cdb", (newer, newer))
    return write


def test_a_constant_database_is_read_in_the_place_of_the_text(vchkpw, domain, compiled):
    found = vchkpw()
    assert (found.word, found.env["AUTHFULLNAME"]) == ("accepted", "John")
    for user, password in (("john", "wrong"), ("nobody", "secret"), ("nopop", "secret")):
        assert vchkpw(f"{user}@example.com", password).word == "rejected"
    assert "the line of 'short' lacks a field" in vchkpw("short@example.com").log
    (domain / "vpasswd.cdb").chmod(0o666)
    assert "vpasswd.cdb may be written by everybody" in vchkpw().log
    (domain / "vpasswd.cdb").chmod(0o644)
    os.utime(domain / "vpasswd.cdb", (0, 0))
    assert vchkpw().word == "rejected"  # the text is newer, and does not have him


@pytest.mark.parametrize("octets", [b"", b"x" * 100, b"\xff" * 4096], ids=["empty", "short", "ff"])
def test_3206_02_what_is_no_constant_database_is_a_temporary_failure(vchkpw, compiled, octets):
    compiled(octets)
    found = vchkpw()
    assert (found.word, found.env["WHY"]) == ("trouble", "temporary")
    assert "cannot read " in found.log and "vpasswd.cdb: " in found.log


def looked_up(path, octets: bytes, key: bytes) -> bytes | None:
    path.write_bytes(octets)
    with path.open("rb", buffering=0) as file:
        return cdb.find(file.fileno(), key)


KEYS = st.lists(st.binary(min_size=1, max_size=3), max_size=20, unique=True)


@settings(max_examples=50)
@given(keys=KEYS, other=st.binary(max_size=3))
def test_every_key_is_found_and_no_other(tmp_path_factory, keys, other):
    path = tmp_path_factory.getbasetemp() / "cdb"
    octets = cdb.made([(key, b"data of " + key) for key in keys])
    for key in {*keys, other}:
        assert looked_up(path, octets, key) == (b"data of " + key if key in keys else None)


@settings(max_examples=100)
@given(st.data())
def test_CVE_48_a_damaged_database_gives_something_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cdb"
    good = bytearray(cdb.made([(b"a", b"1"), (b"b", b"2")]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from([cdb.hash_of(b"a") % 256 * 8, *range(2048, len(good))]))
        good[at] = data.draw(st.integers(0, 255))
    octets = bytes(good[: data.draw(st.sampled_from([len(good), 2050, 100]))])
    try:
        found = looked_up(path, octets, b"a")
    except cdb.Broken:
        return
    assert found is None or len(found) <= len(octets)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=9)), max_size=20))
def test_a_database_that_is_made_gives_the_first_data_of_each_key(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "made"
    octets = cdb.made(records)
    for key, _ in records:
        assert looked_up(path, octets, key) == next(data for name, data in records if name == key)
    assert looked_up(path, octets, b"four") is None


def test_tinycdb_reads_what_is_made(tmp_path):
    names = [b"user%d" % number for number in range(2000)]
    (tmp_path / "cdb").write_bytes(cdb.made((name, b"data of " + name) for name in names))
    told = subprocess.run(
        [needs("cdb"), "-d", "-m", tmp_path / "cdb"], capture_output=True, check=True
    ).stdout
    assert told == b"".join(b"%s data of %s\n" % (name, name) for name in names)
    for name in (b"user7", b"user1999"):
        argv = [needs("cdb"), "-q", tmp_path / "cdb", name]
        assert subprocess.run(argv, capture_output=True, check=True).stdout == b"data of " + name


def test_a_table_without_a_free_slot_is_given_up(tmp_path):
    slots = 1 << 20
    header = pack("<2I", 2048, slots) * 256
    table = pack("<2I", 1, 2048) * slots
    with pytest.raises(cdb.Broken, match="without free slots"):
        looked_up(tmp_path / "cdb", header + table, b"a")


# Changing a password


class Change:
    """A question put to the module's function, and what stands in the domain's files."""

    def __init__(self, domain):
        self.text = domain / "vpasswd"
        self.database = domain / "vpasswd.cdb"
        self.lock = domain / ".vpasswd.lock"
        self.environment = {"VPOPMAIL_ASSIGN": str(domain / "assign")}

    def __call__(self, old: str, new: str, user="john@example.com", **more: str) -> None:
        self._do(authvchkpw.change, user, old, new.encode(), more)

    def rehash(self, stored: str, user="john@example.com", password="secret", **more: str) -> None:
        self._do(authvchkpw.rehash, user, password, stored.encode(), {**POLICY, **more})

    def _do(self, function, user: str, password: str, argument: bytes, more) -> None:
        question = request.parse(f"pop3\nlogin\n{user}\n{password}\n\n".encode())
        function(question, argument, Settings({**self.environment, **more}))

    def line(self, user: str = "john") -> list[str]:
        lines = [line.split(":") for line in self.text.read_text().splitlines()]
        return next(fields for fields in lines if fields[0] == user)

    def compiled(self, user: str = "john") -> str:
        with self.database.open("rb", buffering=0) as file:
            return cdb.find(file.fileno(), user.encode()).decode()

    def compile(self, end: bytes = b"") -> None:
        lines = [line.encode().partition(b":") for line in self.text.read_text().splitlines()]
        records = [(key, data + end) for key, _, data in lines]
        self.database.write_bytes(cdb.made(records))
        os.utime(self.database, (self.text.stat().st_mtime + 1,) * 2)


POLICY = {"PASSWORD_SCHEME": "sha512_crypt rounds=1000"}


@pytest.fixture
def change(domain):
    return Change(domain)


def test_a_password_is_changed_and_all_else_stays(change, vchkpw):
    before = change.text.read_text()
    change.text.chmod(0o640)
    if ROOT:
        os.chown(change.text, 20001, 20002)
    change("secret", "new")
    assert vchkpw(password="new").word == "accepted"
    assert vchkpw(password="secret").word == "rejected"
    fresh = change.line()[1]
    assert fresh.startswith("$1$")  # vpopmail's usual
    assert change.text.read_text() == before.replace(f"john:{sha('secret')}:", f"john:{fresh}:")
    status = change.text.stat()
    assert status.st_mode & 0o777 == 0o640
    if ROOT:
        assert (status.st_uid, status.st_gid) == (20001, 20002)
        status = change.lock.stat()
        assert (status.st_uid, status.st_gid) == (20001, 20002)  # whom vpopmail runs as
    left = [path.name for path in change.text.parent.iterdir() if path.name.endswith(".tmp")]
    assert not left
    change("new", "newer", "john@example.net", PASSWORD_SCHEME="bcrypt rounds=4")
    assert change.line()[1].startswith("$2b$04$")
    change("newer", "newest")
    assert change.line()[1].startswith("$2b$")  # of the kind that it was


@pytest.mark.parametrize("end", [b"", b"\n", b"\0"], ids=["bare", "LF", "NUL"])
def test_the_database_is_made_again(change, vchkpw, end):
    change.compile(end)
    change.database.chmod(0o600)
    change("secret", "new")
    assert change.compiled() == ":".join(change.line()[1:]) + end.decode()
    assert change.compiled("nopop") == ":".join(change.line("nopop")[1:]) + end.decode()
    assert change.database.stat().st_mode & 0o777 == 0o600
    assert change.database.stat().st_mtime_ns >= change.text.stat().st_mtime_ns
    assert vchkpw(password="new").word == "accepted"
    assert vchkpw(password="secret").word == "rejected"


def test_the_password_in_clear_goes_with_it(change):
    change("secret", "new", "clear@example.com")
    assert change.line("clear")[7] == "new"
    before = change.text.read_text()
    with pytest.raises(Rejected):
        change("new", "a:b", "clear@example.com")
    assert change.text.read_text() == before
    change("secret", "a:b")
    assert len(change.line()) == 7


@pytest.mark.parametrize(
    "user, old, new",
    [
        ("john@example.com", "wrong", "new"),
        ("john@example.com", "secret", ""),
        ("john@example.com", "secret", "x" * 512),
        ("locked@example.com", "secret", "new"),
        ("nobody@example.com", "secret", "new"),
        ("john@example.org", "secret", "new"),
    ],
)
def test_whose_password_is_not_changed(change, user, old, new):
    before = change.text.read_text()
    with pytest.raises(Rejected):
        change(old, new, user)
    assert change.text.read_text() == before


def test_a_user_who_may_not_change_it(change):
    before = change.text.read_text()
    with pytest.raises(Unchangeable, match="NO_PASSWD_CHNG"):
        change("secret", "new", "fixed@example.com")
    assert change.text.read_text() == before


def test_a_text_that_is_not_what_the_database_was_made_of_stays(change):
    change.compile()
    for user, why in (("john", "another hash in it than in"), ("nopop", "has no nopop, but")):
        text = change.text.read_text().replace(f"{user}:", f"{user if user == 'john' else 'x'}:x")
        change.text.write_text(text)
        os.utime(change.text, (0, 0))
        before = change.database.read_bytes()
        with pytest.raises(TemporaryFailure, match=rf"{why}.*\(call vmkpasswd\)"):
            change("secret", "new", f"{user}@example.com")
        assert change.text.read_text() == text
        assert change.database.read_bytes() == before


def test_a_scheme_that_a_line_cannot_hold_is_refused(change):
    before = change.text.read_text()
    with pytest.raises(PermanentFailure, match="SCRAM-SHA-256: a vpasswd can't hold it"):
        change("secret", "new", PASSWORD_SCHEME="SCRAM-SHA-256")
    assert change.text.read_text() == before


def test_a_rehash_replaces_the_hash_that_was_verified(change):
    change.compile()
    before = change.line("clear")
    change.rehash(before[1], "clear@example.com")
    after = change.line("clear")
    assert after[1].startswith("$6$rounds=1000$")
    assert (before[0], *before[2:]) == (after[0], *after[2:])
    assert change.compiled("clear") == ":".join(after[1:])
    with pytest.raises(Rejected):
        change.rehash(before[1], "clear@example.com")
    change.rehash(sha("secret"), "fixed@example.com")  # it stays the same password


def test_a_rehash_does_not_wait_for_vpopmail_and_a_change_does(change, authdaemond):
    """Nor does a change write anything before it has the lock."""
    stored = change.line()[1]
    daemon = authdaemond(authmodulelist="authvchkpw", **change.environment)
    with socket.socket(socket.AF_UNIX) as client:
        held = [sys.executable, "-c", HOLD, change.lock]
        with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vpopmail:
            assert vpopmail.stdout.read(1) == b"."
            with pytest.raises(Rejected):
                change.rehash(stored)
            client.settimeout(DEADLINE)
            client.connect(str(daemon.socket))
            client.sendall(b"PASSWD pop3\tjohn@example.com\tsecret\tnew\n")
            wait_until(lambda: is_waiting(change.lock), "the change waits for the lock")
            assert change.line()[1] == stored
        assert client.recv(100) == b"OK\n"
    assert change.line()[1] != stored


HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    sys.stdout.write(".")
    sys.stdout.flush()
    sys.stdin.read()
"""


def is_waiting(lock) -> bool:
    """Whether somebody waits for a lock of fcntl(2)."""
    inode = f":{lock.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return any("-> POSIX" in line and inode in line for line in lines)


def test_a_login_rehashes(vchkpw, change):
    on = {"PASSWORD_REHASH": "1", **POLICY}
    found = vchkpw(**on)
    done = "INFO: authvchkpw: password rehashed, user=john@example.com\n"
    assert (found.word, found.log) == ("accepted", done)
    fresh = change.line()[1]
    assert fresh.startswith("$6$rounds=1000$")
    found = vchkpw(**on)
    assert (found.word, found.log, change.line()[1]) == ("accepted", "", fresh)


def test_authdaemond_changes_it_and_says_why_not(authdaemond, change):
    daemon = authdaemond(authmodulelist="authvchkpw", **change.environment)
    asked = b"PASSWD pop3\t%s@example.com\tsecret\tnew\n"
    assert daemon.ask(asked % b"john") == b"OK\n"
    assert daemon.ask(asked % b"john") == b"FAIL\n"
    assert b"ADDRESS=john@example.com\n" in daemon.login("john@example.com", "new")
    assert daemon.ask(asked % b"fixed") == b"FAIL\n"
    said = "WARN: authvchkpw: this password can't be changed here, user=fixed@example.com: the flag"
    assert said in daemon.log.read_text()
