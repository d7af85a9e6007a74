"""makedat and makedatprog: the database that comes of a text, and when there is none. Debian's
programs make the same of the same."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couriertcpd.access import in_text
from makedat.cidr import expand
from tests.conftest import BIN, DEADLINE, needs, needs_module, needs_root

gnu = needs_module("dbm.gnu")

MAKEDAT, MAKEDATPROG = "/usr/lib/courier/makedat", "/usr/lib/courier/courier/makedatprog"


def run(program: str | Path, *arguments: object, text: bytes = b"") -> subprocess.CompletedProcess:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, timeout=DEADLINE)


def content(file: Path) -> dict[bytes, bytes]:
    with gnu.open(str(file), "ru") as database:
        return {key: database[key] for key in database.keys()}


class Place:
    """A directory with a source, and what a program makes of it there."""

    def __init__(self, directory: Path):
        self.source = directory / "source"
        self.file = directory / "file"
        self.tmp = directory / "tmp"

    def prog(self, text: bytes, program: str | Path = BIN / "makedatprog"):
        """Exit status, descriptor 2 without the program's name, and the records if there is a
        file."""
        self.file.unlink(missing_ok=True)
        return self.outcome(program, "-", self.tmp, self.file, text=text)

    def makedat(self, *options: str, program: str | Path = BIN / "makedat"):
        self.file.unlink(missing_ok=True)
        names = [f"-src={self.source}", f"-file={self.file}", f"-tmp={self.tmp}"]
        return self.outcome(program, *names, *options)

    def outcome(self, program: str | Path, *arguments: object, text: bytes = b""):
        done = run(program, *arguments, text=text)
        assert done.stdout == b""
        assert not self.tmp.exists()
        records = content(self.file) if self.file.exists() else None
        return done.returncode, done.stderr.decode().replace(str(program), "PROGRAM"), records


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


TEXTS = [
    b"a\tb\n.\n",
    b"a\n.\n",
    b"a\t\n.\n",
    b"a\t\tb\n.\n",
    b"a\tb\tc\n.\n",
    b" a \t b \n.\n",
    b"a b\n.\n",
    b"a\tb\r\n.\r\n.\n",
    b"\tb\n.\n",
    b"\t\n.\n",
    b"#a\n\n # x\n \n.\nq\tr\n",
    b".x\n .\n. \n.\tx\n.\n",
    b"a\tx\0y\n.\n",
    b"a\0b\tx\n.\n",
    b"a\xff\t\xe4\n.\n",
    b".\n",
    b"k\t" + b"v" * 9000 + b"\n.\n",
    b"k" * 20000 + b"\tx\n.\n",
    b"".join(b"%d\t%d\n" % (n, n) for n in range(3000)) + b".\n",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_row_37_makedatprog_makes_what_debian_s_makes(place, text):
    expected = place.prog(text, needs(MAKEDATPROG))
    assert place.prog(text) == expected
    assert expected[:2] == (0, "")


@given(st.lists(st.sampled_from([b"a", b"b", b"\t", b"\n", b"#", b".", b" "]), max_size=30))
def test_the_records_of_a_text_are_those_that_debian_finds(tmp_path_factory, pieces):
    place = Place(tmp_path_factory.mktemp("place"))
    text = b"".join(pieces) + b"\n.\n"
    status, _, records = place.prog(text, needs(MAKEDATPROG))
    ours = place.prog(text)
    assert (ours[0], ours[2]) == (status, records)


@pytest.mark.parametrize("text", [b"", b"a\tb\n", b"a\tb\n.", b"a\tb\n..\n", b"a\tb\n.\r\n"])
def test_a_text_without_its_dot_is_incomplete(place, text):
    status, complaint, records = place.prog(text)
    assert (status, records) == (1, None)
    assert complaint == "-: incomplete (its last line is a single dot)\n"
    assert place.prog(text, needs(MAKEDATPROG))[0::2] == (1, None)


def test_a_key_that_is_there_twice_makes_no_database(place):
    expected = "Cannot store record for a - duplicate or out of disk space.\n"
    for program in (BIN / "makedatprog", needs(MAKEDATPROG)):
        assert place.prog(b"a\tb\nc\td\na\tb\n.\n", program) == (1, expected, None)


def test_what_was_there_stays_when_the_new_text_is_wrong(place):
    place.prog(b"a\tb\n.\n")
    assert run(BIN / "makedatprog", "-", place.tmp, place.file, text=b"a\na\n.\n").returncode == 1
    assert content(place.file) == {b"a": b"b"}


def test_makedatprog_reads_a_file_and_obeys_the_umask(place):
    place.source.write_bytes(b"a\tb\n.\n")
    umask = os.umask(0o027)
    try:
        assert run(BIN / "makedatprog", place.source, place.tmp, place.file).returncode == 0
    finally:
        os.umask(umask)
    assert content(place.file) == {b"a": b"b"}
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o640


def test_files_that_can_t_be_read_or_written(place, tmp_path):
    for program in (BIN / "makedatprog", needs(MAKEDATPROG)):
        nowhere = tmp_path / "no" / "such"
        done = run(program, nowhere, place.tmp, place.file)
        assert (done.returncode, done.stderr.decode()) == (
            1,
            f"{nowhere}: No such file or directory\n",
        )
        done = run(program, "-", nowhere, place.file, text=b".\n")
        assert done.returncode == 1
        assert done.stderr.decode().startswith(f"Cannot create {nowhere}")
        done = run(program, "-", place.tmp, nowhere, text=b".\n")
        assert (done.returncode, done.stderr) == (1, b"rename: No such file or directory\n")
        assert not place.tmp.exists()


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b"]])
def test_the_usage_of_makedatprog(arguments):
    for program in (BIN / "makedatprog", needs(MAKEDATPROG)):
        done = run(program, *arguments)
        usage = f"Usage: {program} textfile tmpfile gdbmfile\n"
        assert (done.returncode, done.stderr.decode()) == (1, usage)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-src=a", "-file=b"],
        ["-src=a", "-tmp=b"],
        ["-src=a", "-tmp=b", "-file="],
        ["-src=a", "-file=b", "-tmp=c", "-x"],
        ["-src=a", "-file=b", "-tmp=c", "word"],
        ["-src", "-file=b", "-tmp=c"],
        ["-src=a", "-file=b", "-tmp=c", "-cidr=1"],
    ],
)
def test_the_usage_of_makedat(arguments):
    for program in (BIN / "makedat", needs(MAKEDAT)):
        done = run(program, *arguments)
        usage = f"Usage: {program} -src=src -file=file -tmp=tmpfile -hup=hupfile [-cidr]\n"
        assert (done.returncode, done.stderr.decode()) == (1, usage)


def test_makedat_of_a_file_needs_no_dot_and_obeys_one(place):
    for text, expected in (
        (b"a\tb", {b"a": b"b"}),
        (b"a\tb\nc\n#\n\n", {b"a": b"b", b"c": b"1"}),
        (b"a\tb\n.\nc\td\n", {b"a": b"b"}),
        (b"", {}),
    ):
        place.source.write_bytes(text)
        assert place.makedat() == (0, "", expected)
        if text.endswith(b"\n"):
            assert place.makedat(program=needs(MAKEDAT)) == (0, "", expected)


def test_makedat_without_its_source(place):
    assert place.makedat() == (1, f"{place.source}: No such file or directory\n", None)
    assert place.makedat(program=needs(MAKEDAT))[0] == 1


def test_makedat_of_a_directory_takes_its_files_without_leftovers(place):
    place.source.mkdir()
    for name in ("b", "a", ".hidden", "b~", "a.dpkg-old", "a.dpkg-dist"):
        (place.source / name).write_text(f"{name}\tvalue of {name}\n")
    (place.source / "folder").mkdir()
    (place.source / "folder" / "c").write_text("c\t1\n")
    (place.source / "link").symlink_to("../elsewhere")
    place.source.with_name("elsewhere").write_text("linked\t1\n")
    (place.source / "dangling").symlink_to("nowhere")
    status, complaint, records = place.makedat()
    assert (status, complaint) == (0, "")
    assert set(records) == {b"a", b"b", b".hidden", b"linked"}
    assert place.makedat(program=needs(MAKEDAT))[2] == records
    (place.source / "a.rpmnew").write_text("rpm\t1\n")
    (place.source / "z").write_text("without a last LF")
    (place.source / "zz").write_text("zz")
    assert set(place.makedat()[2]) - set(records) == {b"without a last LF", b"zz"}


def test_makedat_sends_sighup_to_the_process_of_a_pid_file(place, tmp_path):
    place.source.write_text("a\tb\n")
    pidfile = tmp_path / "pid"
    assert place.makedat(f"-hup={pidfile}")[:2] == (0, "")  # nobody is running
    process = subprocess.Popen(["sleep", "60"])
    try:
        pidfile.write_text(f"{process.pid}\n")
        assert place.makedat(f"-hup={pidfile}")[:2] == (0, "")
        assert process.wait(DEADLINE) == -signal.SIGHUP
    finally:
        process.kill()
    for text in ("", "0", "-1", "x", f"{process.pid}"):
        pidfile.write_text(text)
        status, complaint, records = place.makedat(f"-hup={pidfile}")
        assert (status, records) == (1, {b"a": b"b"})
        assert complaint.startswith(f"{pidfile}: ")


CIDR = {
    "192.168.0.0/22 deny": ["192.168.0", "192.168.1", "192.168.2", "192.168.3"],
    "192.0.2.7/32\tdeny": ["192.0.2.7"],
    "192.0.2.77/24 \t deny": ["192.0.2"],
    "10.0.0.0/8\tdeny": ["10"],
    "10.2.0.0/15\tdeny": ["10.2", "10.3"],
    "128.0.0.0/2\tdeny": [str(octet) for octet in range(128, 192)],
    "0.0.0.0/0\tdeny": [str(octet) for octet in range(256)],
    "192.0.2.254-192.0.3.255\tdeny": ["192.0.2.254", "192.0.2.255", "192.0.3"],
    "2001:db8::/32\tdeny": [":2001:0db8"],
    "2001:DB8::/31\tdeny": [":2001:0db8", ":2001:0db9"],
    "2001:db8::1/128\tdeny": [":2001:0db8" + ":0000" * 5 + ":0001"],
    "::ffff:192.0.2.0/120\tdeny": ["192.0.2"],
}


@pytest.mark.parametrize("line", CIDR)
def test_cidr_makes_keys_that_couriertcpd_knows(place, line):
    place.source.write_text(line + "\n")
    expected = {key.encode(): b"deny" for key in CIDR[line]}
    assert place.makedat("-cidr") == (0, "", expected)


def test_other_lines_are_left_as_they_are(place):
    place.source.write_text(
        "192.0.2\tdeny\n#10.0.0.0/8\tdeny\n*\tallow\n 10.0.0.0/8\tx\nw/x\ty\n10.0.0.0/24\n"
    )
    assert place.makedat("-cidr")[2] == {
        b"192.0.2": b"deny",
        b"*": b"allow",
        b" 10.0.0.0/8": b"x",
        b"w/x": b"y",
        b"10.0.0": b"1",
    }
    assert place.makedat()[2][b"10.0.0.0/24"] == b"1"


@pytest.mark.parametrize(
    "line", ["10.0.0.0/33\tdeny", "10.0.0.9-10.0.0.1\tdeny", "10.0.0.1-::1\tdeny", "a/b\tdeny"]
)
def test_a_network_that_is_none_is_refused(place, line):
    place.source.write_text(line + "\n")
    status, complaint, records = place.makedat("-cidr")
    assert (status, records) == (1, None)
    assert complaint.startswith(f"{place.source}: ") and complaint.count("\n") == 1


@given(st.integers(0, 2**32 - 1), st.integers(9, 32), st.integers(0, 2**32 - 1))
def test_the_keys_and_the_text_itself_mean_the_same(number, bits, probe):
    network = ip_network((number, bits), strict=False)
    client = ip_address((number & ~0xFFFF) | probe & 0xFFFF)
    text = f"{network}\tdeny".encode()
    mapped = bytes(10) + b"\xff\xff" + client.packed
    assert in_text("F", text).find(mapped) == in_text("F", expand(text)).find(mapped)
    assert in_text("F", text).find(mapped) == (b"deny" if client in network else b"")


def test_a_full_disk_leaves_the_old_database(place, tmp_path):
    needs_root()
    needs("mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = run("/bin/mount", "-t", "tmpfs", "-o", "size=64k", "none", disk)
    if mounted.returncode:
        pytest.skip("this container cannot mount")
    try:
        place = Place(disk)
        assert place.prog(b"a\tb\n.\n")[0] == 0
        text = b"".join(b"%d\t%s\n" % (n, b"x" * 500) for n in range(1000)) + b".\n"
        done = run(BIN / "makedatprog", "-", place.tmp, place.file, text=text)
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1
        assert content(place.file) == {b"a": b"b"}
        assert not place.tmp.exists()
    finally:
        run("/bin/umount", disk)
