"""userdb, makeuserdb, userdbpw, pw2userdb and vchkpw2userdb. What Debian's originals do with the
same words and files, ours do too; and what they let pass and ours don't."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierchain import userdb
from courierchain.refusal import Refused
from tests.conftest import BIN, DEADLINE, needs, needs_module, sha

gnu = needs_module("dbm.gnu")

ORIGINALS = Path("/usr/sbin")
HMAC_OF_SECRET = {  # reference auth.md 2.3; what Debian's userdbpw says
    "md5": "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
    "sha1": "091e0f4c6cb5277ee2beb639a60d0831b5c8adcdaee172433df3e96ba4f00fb1b6a490c3929d2034",
}


def run(folder: Path, *words, text: bytes = b"", cwd: Path, **env) -> tuple[int, str, str]:
    """Exit status, output and descriptor 2 of a program, without the program's own path."""
    argv = [str(folder / words[0]), *map(str, words[1:])]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env}
    done = subprocess.run(
        argv, input=text, capture_output=True, timeout=DEADLINE, cwd=cwd, env=env, umask=0o022
    )
    shown = done.stderr.decode().replace(argv[0], "PROGRAM").replace(str(cwd), ".")
    return done.returncode, done.stdout.decode(), shown.partition(" at PROGRAM line")[0].strip()


def as_sets(text: str) -> list[tuple[str, frozenset[str]]]:
    """The lines with their fields in no order: that of the originals is Perl's of the day."""
    lines = (line.partition("\t") for line in text.splitlines())
    return [(name, frozenset(fields.split("|"))) for name, _, fields in lines]


COMMANDS = [
    ("userdb",),
    ("userdb", "-f", "./db"),
    ("userdb", "-f", "./db", "john"),
    ("userdb", "-x", "db", "john", "set", "a=b"),
    ("userdb", "-f", "./db", "john", "frob", "a=b"),
    ("userdb", "-f", "./db", "john", "set", "uid=1000", "gid=1000", "home=/h/john"),
    ("userdb", "-f", "./db", "john", "set", "systempw"),
    ("userdb", "-f", "./db", "john", "set", "pop3pw", "mail"),
    ("userdb", "-f", "./db", "john", "set", "uid=5", "mail="),
    ("userdb", "-f", "./db", "john", "set", "gecos=a=b=c"),
    ("userdb", "-f", "./db", "john", "unset", "mail", "nothing"),
    ("userdb", "-f", "./db", "jane", "set", "a=1", "b=2", "c"),
    ("userdb", "-f", "./db", "jane", "set", "gid=5|x"),
    ("userdb", "-f", "./db", "jane", "set", "gid=5\nx"),
    ("userdb", "-f", "./db", "none", "unset", "uid"),
    ("userdb", "-f", "./db", "none", "del"),
    ("userdb", "-show", "-f", "./db"),
    ("userdb", "-show", "-f", "./db", "x y"),
    ("userdb", "-show", "-f", "./db", "none"),
    ("userdb", "-show", "-f", "./nothing-here"),
    ("userdb", "-f", "./db", "jane", "del"),
    ("userdb", "-f", "./db", "john", "del", "x"),
    ("userdb", "-f", "./folder", "john", "set", "a=b"),
    ("userdb", "-show", "-f", "./folder"),
    ("userdb", "-f", "./folder/new", "john", "set", "a=b"),
    ("userdb", "-f", "./nowhere/new", "john", "set", "a=b"),
]


def test_userdb_does_what_the_original_does(tmp_path):
    needs("userdb")
    found = []
    for folder in (ORIGINALS, BIN):
        place = tmp_path / folder.name
        (place / "folder").mkdir(parents=True)
        db = place / "db"
        db.write_text("# comment\n\nx y\tuid=3\nUID=\tjohn\n")
        db.chmod(0o640)
        said = []
        for words in COMMANDS:  # two lines, for fields without a value
            status, out, err = run(folder, *words, text=b"one\ntwo\n", cwd=place)
            out = sorted(out.replace(f"{folder}/userdb", "PROGRAM").splitlines())
            mode = stat.S_IMODE(db.stat().st_mode)
            said.append((words, status, out, err, as_sets(db.read_text()), mode))
        new = place / "folder" / "new"
        said.append((new.read_text(), stat.S_IMODE(new.stat().st_mode)))
        found.append(said)
    for theirs, ours in zip(*found, strict=True):
        assert ours == theirs


def ours(*words, cwd, text=b"", **env):
    return run(BIN, *words, text=text, cwd=cwd, **env)


@pytest.mark.parametrize(
    "words",
    [
        ("ja|ne", "set", "a=b"),
        ("ja\tne", "set", "a=b"),
        ("#jane", "set", "a=b"),
        ("", "set", "a=b"),
        ("jane", "set", "=b"),
        ("jane", "set", "a=b\x01"),
        ("jane", "set", "a=b\r"),
    ],
)
def test_what_would_break_the_text_is_refused(tmp_path, words):
    assert ours("userdb", "-f", "./db", *words, cwd=tmp_path) == (22, "", "Invalid field or value.")
    assert not (tmp_path / "db").exists()


def test_a_value_that_is_not_given_and_not_there(tmp_path):
    said = ours("userdb", "-f", "./db", "john", "set", "systempw", cwd=tmp_path)
    assert said == (1, "", "no value for john.systempw (write systempw=VALUE)")


def test_a_path_leads_below_the_userdb(tmp_path):
    env = {"AUTHUSERDB_FILE": str(tmp_path / "userdb")}
    (tmp_path / "userdb" / "example.com").mkdir(parents=True)
    words = ("example.com/staff/john", "set", "uid=5", "home=/h")
    assert ours("userdb", *words, cwd=tmp_path, **env) == (0, "", "")
    assert (tmp_path / "userdb/example.com/staff").read_text() == "john\tuid=5|home=/h\n"
    said = ours("userdb", "-show", "example.com/staff/john", cwd=tmp_path, **env)
    assert said == (0, "uid=5\nhome=/h\n", "")


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").write_text("john\tuid=1\n")
    (tmp_path / "link").symlink_to("real")
    assert ours("userdb", "-f", "link", "john", "set", "uid=2", cwd=tmp_path)[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "john\tuid=2\n"


def test_two_at_once_lose_nothing(tmp_path):
    def add(number):
        ours("userdb", "-f", "./db", f"user{number}", "set", f"uid={number}", cwd=tmp_path)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(f"user{number}\tuid={number}" for number in range(6))
    assert sorted((tmp_path / "db").read_text().splitlines()) == expected


NAMES = st.binary(max_size=6).filter(userdb.is_name)
FIELDS = st.dictionaries(
    st.sampled_from([b"a", b"b", b"uid"]),
    st.binary(max_size=4).filter(lambda v: userdb.is_field(b"a=" + v)),
).map(lambda pairs: {key: key + b"=" + value for key, value in pairs.items()})


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, FIELDS), max_size=5), NAMES, FIELDS, st.booleans())
def test_a_changed_line_is_found_and_the_others_stay(lines, name, fields, ends):
    text = b"# c\n\n" + b"\n".join(n + b"\t" + b"|".join(f.values()) for n, f in lines)
    text += b"\n" * ends
    after = userdb.with_fields(text, name, fields)
    assert userdb.find(after, name) == fields
    assert userdb.find(userdb.without(after, name), name) is None
    for other in {n for n, _ in lines} - {name}:
        assert userdb.find(after, other) == userdb.find(text, other)
    assert after.startswith(b"# c\n\n")


# makeuserdb


def content(file: Path) -> dict[bytes, bytes]:
    with gnu.open(str(file), "ru") as database:
        return {key: database[key] for key in database.keys()}


def made(folder: Path, place: Path, name: str = "db"):
    """Exit status, descriptor 2, the databases and their modes."""
    status, out, err = run(folder, "makeuserdb", "-f", f"./{name}", cwd=place)
    databases = [place / f"{name}{suffix}" for suffix in (".dat", "shadow.dat")]
    known = [
        (content(file), oct(stat.S_IMODE(file.stat().st_mode))) if file.exists() else None
        for file in databases
    ]
    for file in databases:
        file.unlink(missing_ok=True)
    assert not list(place.glob("*.tmp"))
    assert out == ""
    return status, err, known


TEXT = """# comment

john\tuid=1|gid=2|home=/h|systempw=abc|pop3pw=|hmac-md5pw=ff|shell
1=\tjohn
jane\tuid=3|gid=4|home=/j|mail
x y\tuid=5|gid=6|home=/x|pw=z
"""


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_makeuserdb_makes_what_the_original_makes(tmp_path):
    needs("makeuserdb")
    private(tmp_path / "db", TEXT)
    theirs, ours = made(ORIGINALS, tmp_path), made(BIN, tmp_path)
    assert theirs == ours
    assert ours[2][1] == (
        {b"john": b"systempw=abc|pop3pw=|hmac-md5pw=ff", b"x y": b"pw=z"},
        "0o600",
    )
    assert b"abc" not in ours[2][0][0][b"john"]


@pytest.mark.parametrize("case", ["wide", "link", "missing", "wide directory"])
def test_makeuserdb_refuses_what_the_original_refuses(tmp_path, case):
    needs("makeuserdb")
    if case == "wide directory":
        (tmp_path / "db").mkdir(mode=0o750)
    elif case == "link":
        private(tmp_path / "real", TEXT)
        (tmp_path / "db").symlink_to("real")
    elif case == "wide":
        private(tmp_path / "db", TEXT).chmod(0o640)
    theirs, ours = made(ORIGINALS, tmp_path), made(BIN, tmp_path)
    remedy = " (chmod go= ./db)" if "wide" in case else ""
    assert ours == (theirs[0], theirs[1] + remedy, [None, None])


def test_a_directory_of_texts(tmp_path):
    place = tmp_path / "db"
    (place / "sub").mkdir(parents=True)
    place.chmod(0o700)
    private(place / "one", "a\tuid=1|gid=2|home=/a|systempw=x\n")
    private(place / "sub" / "two", "b\tuid=1|gid=2|home=/b\n")
    for hidden in (".dot", "one~"):
        private(place / hidden, "z\tuid=1\n")
    status, err, (open_part, shadow) = made(BIN, tmp_path)
    assert (status, err) == (0, "")
    assert open_part[0] == {
        b"a": b"uid=1|gid=2|home=/a|_=one/",
        b"b": b"uid=1|gid=2|home=/b|_=sub/two/",
    }
    assert shadow[0] == {b"a": b"systempw=x"}
    left = private(place / "one.dpkg-dist", "z\tuid=1\n")
    status, err, known = made(BIN, tmp_path)
    assert (status, known) == (1, [None, None])
    assert err.startswith("./db/one.dpkg-dist: left by an upgrade (compare it with ")
    left.unlink()
    dist = private(place / "one.dist", "z\tuid=1|gid=1|home=/z\n")
    os.utime(dist, (0, 2**31 - 1))
    assert made(BIN, tmp_path)[0] == 1
    os.utime(dist, (0, 0))
    assert made(BIN, tmp_path)[0] == 0


@pytest.mark.parametrize(
    "line, why",
    [
        ("nofields", "no TAB in it (write NAME, a TAB, and fields with | between them)"),
        ("\tuid=2", "no name in front of the TAB"),
        ("a\tuid=1\r", "a control character in it, such as a CR or a second TAB"),
        ("john\tuid=1", "Cannot store record for john - duplicate of ./db line 1"),
    ],
)
def test_a_line_that_cannot_be_is_named_and_nothing_is_replaced(tmp_path, line, why):
    good = private(tmp_path / "db", "john\tuid=1|gid=2|home=/h|systempw=x\n")
    assert ours("makeuserdb", "-f", "./db", cwd=tmp_path) == (0, "", "")
    before = [(tmp_path / name).read_bytes() for name in ("db.dat", "dbshadow.dat")]
    private(good, f"{good.read_text()}\n{line}\n")
    said = ours("makeuserdb", "-f", "./db", cwd=tmp_path)
    assert said == (1, "", f"./db line 3: {why}")
    assert [(tmp_path / name).read_bytes() for name in ("db.dat", "dbshadow.dat")] == before


def test_an_account_that_lacks_something_is_named(tmp_path):
    private(tmp_path / "db", "john\tuid=1|gid=x\n")
    status, err, known = made(BIN, tmp_path)
    assert (status, err) == (0, "./db line 1: john lacks gid, home, so it can't be used")
    assert known[0][0] == {b"john": b"uid=1|gid=x|_="}


def test_a_second_makeuserdb_waits_for_the_first(tmp_path):
    private(tmp_path / "db", TEXT)
    held = userdb.locked(str(tmp_path / "db.lock"))
    argv = [BIN / "makeuserdb", "-f", "./db"]
    second = subprocess.Popen(argv, cwd=tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.5)  # it is right to wait for ever here: too short a time can't fail
    assert not (tmp_path / "db.dat").exists()
    os.close(held)
    assert second.wait(DEADLINE) == 0
    assert (tmp_path / "db.dat").exists()


def test_options_that_are_none(tmp_path):
    for words in (("-x",), ("-f",), ("-f", "a", "b")):
        said = ours("makeuserdb", *words, cwd=tmp_path)
        assert said == (1, "", "Usage: PROGRAM [-f file]")


def test_records_of_any_text_come_or_are_refused():
    @settings(deadline=None)
    @given(st.binary(max_size=40))
    def check(text):
        try:
            found = list(userdb.records(text, "db"))
        except Refused as why:
            assert str(why).startswith("db line ")
            return
        assert all(userdb.find(text, name) is not None for _, name, _ in found)

    check()


# userdbpw


@pytest.mark.parametrize("algorithm", HMAC_OF_SECRET)
def test_userdbpw_makes_the_secrets_of_cram(tmp_path, algorithm):
    said = ours("userdbpw", f"-hmac-{algorithm}", cwd=tmp_path, text=b"secret\n")
    assert said == (0, HMAC_OF_SECRET[algorithm] + "\n", "")


@pytest.mark.parametrize("words", [("-hmac-sha256",), ("-md5", "-hmac-md5"), ("-x",), ("foo",)])
def test_userdbpw_says_what_the_original_says(tmp_path, words):
    needs("userdbpw")
    for text in (b"se cret\r\nx\n", b"secret", b"\xff" * 100):
        theirs, our = (
            run(folder, "userdbpw", *words, text=text, cwd=tmp_path) for folder in (ORIGINALS, BIN)
        )
        assert our == theirs


def test_userdbpw_makes_hashes_that_courier_knows(tmp_path):
    needs("openssl")
    status, out, err = ours("userdbpw", "-md5", cwd=tmp_path, text=b"secret\n")
    salt = out.split("$")[2]
    assert (status, len(salt), err) == (0, 8, "")
    argv = ["openssl", "passwd", "-1", "-salt", salt, "secret"]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == out
    assert ours("userdbpw", cwd=tmp_path, text=b"secret\n")[1].startswith("$2b$12$")
    policy = {"PASSWORD_SCHEME": "SHA256"}
    said = ours("userdbpw", cwd=tmp_path, text=b"secret\n", **policy)
    assert said == (0, "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\n", "")


def test_nobody_gets_an_empty_password(tmp_path):
    for words in ((), ("-md5",), ("-hmac-md5",)):
        status, out, err = ours("userdbpw", *words, cwd=tmp_path, text=b"\n")
        assert (status, out) == (1, "")
        assert err == "userdbpw: a password has 1 to 511 octets, none of them NUL"
        assert ours("userdbpw", *words, cwd=tmp_path) == (1, "", "")


def test_a_password_is_typed_twice_and_not_shown(tmp_path):
    ours_end, terminal = pty.openpty()
    argv = [BIN / "userdbpw", "-hmac-md5"]
    typist = subprocess.Popen(argv, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""

    def answer(prompt: bytes, typed: bytes) -> None:
        nonlocal shown
        begin = len(shown)
        while not shown[begin:].endswith(prompt):
            shown += os.read(ours_end, 1)
        os.write(ours_end, typed + b"\n")

    for prompt, typed in (
        (b"Password: ", b"secret"),
        (b"Reenter password: ", b"secrt"),
        (b"Password: ", b"secret"),
        (b"Reenter password: ", b"secret"),
    ):
        answer(prompt, typed)
    out, _ = typist.communicate(timeout=DEADLINE)
    os.close(ours_end)
    assert out.decode() == HMAC_OF_SECRET["md5"] + "\n"
    assert b"Passwords don't match." in shown
    assert b"secr" not in shown


# pw2userdb, vchkpw2userdb

PASSWD = """root:x:0:0:root:/root:/bin/bash
joe:x:1000:1001:Joe |x,room,,:/home/joe:/bin/sh
old:ab1:1002:1001::/home/old:
star:*:1003:1001:S:/home/star:/bin/sh
"""
SHADOW = """root:*:1:0:99999:7:::
joe:$6$abc$def:1:0:99999:7:::
star:!:1:0:99999:7:::
"""


@pytest.mark.parametrize(
    "words",
    [
        ("--passwd=p", "--shadow=s"),
        ("--passwd", "p", "--shadow", "s", "--nouid", "--domain=example.com"),
        ("--passwd=p", "--noshadow", "--domain", "example.com"),
        ("--passwd=p", "--shadow=nothing-here"),
        ("--passwd=nothing-here", "--noshadow"),
        ("--frob",),
    ],
)
def test_pw2userdb_writes_what_the_original_writes(tmp_path, words):
    needs("pw2userdb")
    (tmp_path / "p").write_text(PASSWD)
    (tmp_path / "s").write_text(SHADOW)
    theirs, our = (run(folder, "pw2userdb", *words, cwd=tmp_path) for folder in (ORIGINALS, BIN))
    assert our[0] == theirs[0]
    assert sorted(as_sets(our[1]), key=str) == sorted(as_sets(theirs[1]), key=str)
    assert our[2].endswith(theirs[2])


def test_makeuserdb_takes_what_pw2userdb_writes(tmp_path):
    (tmp_path / "p").write_text(PASSWD + "toor:x:0:0::/root:\n")
    status, out, _ = ours("pw2userdb", "--passwd=p", "--noshadow", cwd=tmp_path)
    private(tmp_path / "db", out)
    assert (status, made(BIN, tmp_path)[:2]) == (0, (0, ""))


def test_vchkpw2userdb(tmp_path):
    home = tmp_path / "vpopmail"
    for folder in ("users", "domains/example.com", "domains/empty.example"):
        (home / folder).mkdir(parents=True)
    hashed = sha("secret")
    (home / "users/vpasswd").write_text(f"jo:{hashed}:0:0:Jo:/v/jo:NOQUOTA\nbroken:x\n")
    (home / "domains/example.com/vpasswd").write_text(
        f"ann:{hashed}:1:0:Ann|a:/v/ann:1000S:clear\n"
    )
    ids = f"uid={os.getuid()}|gid={os.getgid()}"
    jo = f"jo\t{ids}|home=/v/jo|systempw={hashed}|gecos=Jo\n"
    ann = f"ann@example.com\t{ids}|home=/v/ann|systempw={hashed}|gecos=Ann.a|quota=1000S\n"
    broken = "./vpopmail/users/vpasswd line 2: left out, it is no line of vpopmail's"
    said = ours("vchkpw2userdb", f"--vpopmailhome={home}", cwd=tmp_path)
    assert said == (0, jo + ann, broken)
    (tmp_path / "to").mkdir()
    words = (f"--vpopmailhome={home}", f"--todir={tmp_path}/to")
    assert ours("vchkpw2userdb", *words, cwd=tmp_path) == (0, "", broken)
    files = {path.name: path.read_text() for path in (tmp_path / "to").iterdir()}
    assert files == {"default": jo, "example.com": ann}
    (tmp_path / "to").chmod(0o700)
    assert made(BIN, tmp_path, "to")[:2] == (0, "")
    status, out, err = ours("vchkpw2userdb", "--vpopmailhome=/nowhere", cwd=tmp_path)
    assert (status, out) == (1, "")
    assert err == "vchkpw2userdb: /nowhere: no users/vpasswd and no domains/*/vpasswd in it"
