"""authvchkpw: vpopmail's users/assign and vpasswd, as vpopmail writes them."""

from __future__ import annotations

import os
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmodules import cdb
from tests.authmodules.asking import HOSTILE, NO_DELAY, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.conftest import ROOT, sha


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


def constant_database(records: list[tuple[bytes, bytes]]) -> bytes:
    """As https://cr.yp.to/cdb/cdb.txt says, with tables twice as large as need be."""
    body, tables = b"", [[] for _ in range(256)]
    for key, data in records:
        hashed = cdb.hash_of(key)
        tables[hashed % 256].append((hashed, 2048 + len(body)))
        body += pack("<2I", len(key), len(data)) + key + data
    header = b""
    for table in tables:
        header += pack("<2I", 2048 + len(body), 2 * len(table))
        slots = [(0, 0)] * (2 * len(table))
        for hashed, position in table:
            at = hashed // 256 % len(slots)
            while slots[at][1]:
                at = (at + 1) % len(slots)
            slots[at] = hashed, position
        body += b"".join(pack("<2I", *slot) for slot in slots)
    return header + body


@pytest.fixture
def compiled(domain):
    """The domain's vpasswd.cdb, without john's text; `write` replaces it."""
    text = domain / "vpasswd"
    lines = [line.encode().partition(b":") for line in text.read_text().splitlines()]

    def write(octets: bytes) -> None:
        (domain / "vpasswd.cdb").write_bytes(octets)
        newer = text.stat().st_mtime + 10
        os.utime(domain / "vpasswd.cdb", (newer, newer))

    write(constant_database([(key, data) for key, _, data in lines]))
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
    octets = constant_database([(key, b"data of " + key) for key in keys])
    for key in {*keys, other}:
        assert looked_up(path, octets, key) == (b"data of " + key if key in keys else None)


@settings(max_examples=100)
@given(st.data())
def test_CVE_48_a_damaged_database_gives_something_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cdb"
    good = bytearray(constant_database([(b"a", b"1"), (b"b", b"2")]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from([cdb.hash_of(b"a") % 256 * 8, *range(2048, len(good))]))
        good[at] = data.draw(st.integers(0, 255))
    octets = bytes(good[: data.draw(st.sampled_from([len(good), 2050, 100]))])
    try:
        found = looked_up(path, octets, b"a")
    except cdb.Broken:
        return
    assert found is None or len(found) <= len(octets)


def test_a_table_without_a_free_slot_is_given_up(tmp_path):
    slots = 1 << 20
    header = pack("<2I", 2048, slots) * 256
    table = pack("<2I", 1, 2048) * slots
    with pytest.raises(cdb.Broken, match="without free slots"):
        looked_up(tmp_path / "cdb", header + table, b"a")
