"""maildirsize: what removals take off it, when it is made anew, and what may be wrong with it."""

from __future__ import annotations

import os
import time
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierpop3d.journal import Journal
from courierpop3d.quota import FRESH, LONG, Quota, Sizes, is_trashed, parse_change, size_of
from tests.conftest import needs_root
from tests.courierpop3d.conftest import USER, Box

JOURNAL = Journal({"AUTHENTICATED": "joe"})
LINE = b"         -17           -1\n"  # what the removal of a message of 17 octets adds
MESSAGE = b"x" * 17


class QuotaBox(Box):
    """A Maildir, in which removals are made without a session."""

    @property
    def size(self) -> bytes:
        return (self.path / "maildirsize").read_bytes()

    @size.setter
    def size(self, text: bytes) -> None:
        (self.path / "maildirsize").write_bytes(text)

    def age(self, seconds: float) -> None:
        then = time.time() - seconds
        os.utime(self.path / "maildirsize", (then, then))

    def remove(self, *names: str, **env: str) -> None:
        quota = Quota(env, JOURNAL)
        for name in map(os.fsencode, names):
            octets = quota.octets_of(name)
            os.unlink(b"cur/" + name)
            quota.subtract(octets)
        quota.update()


@pytest.fixture
def box(tmp_path, monkeypatch):
    box = QuotaBox(tmp_path / "home")
    monkeypatch.chdir(box.path)
    for name in ("1.a", "2.b", "3.c"):
        box.put(f"cur/{name}:2,", MESSAGE)
    return box


# What removals subtract


def test_the_removals_of_a_session_are_one_line_in_columns_before_QUIT_is_answered(box, talk):
    box.size = b"1000S\n51 3\n"
    session = talk()
    session.say("DELE 1")
    session.say("DELE 3")
    assert session.say("QUIT") == b"+OK Bye-bye.\r\n"
    assert box.size == b"1000S\n51 3\n         -34           -2\n"


def test_a_session_that_removes_nothing_leaves_maildirsize_alone(box, talk):
    box.size = b"1000S\n-51 -3\n"
    for commands in (["DELE 1"], ["DELE 1", "RSET", "RETR 1", "TOP 2 1", "QUIT"]):
        session = talk()
        for command in commands:
            session.say(command)
    assert box.size == b"1000S\n-51 -3\n"


def test_1939_52_what_can_not_be_removed_is_not_subtracted(box, talk):
    box.size = b"1000S\n51 3\n"
    session = talk()
    os.unlink("cur/2.b:2,")
    os.mkdir("cur/2.b:2,")
    for number in (1, 2):
        session.say(f"DELE {number}")
    assert session.say("QUIT").startswith(b"-ERR")
    assert box.size == b"1000S\n51 3\n" + LINE


def test_F_CONC_3_a_message_renamed_meanwhile_is_subtracted_as_it_is_called_now(box, talk):
    box.size = b"1000S\n51 3\n"
    session = talk()
    os.rename("cur/1.a:2,", "cur/1.a:2,T")
    os.rename("cur/2.b:2,", "cur/2.b:2,S")
    os.unlink("cur/3.c:2,")
    for command in ("DELE 1", "DELE 2", "DELE 3", "QUIT"):
        session.say(command)
    assert box.size == b"1000S\n51 3\n" + LINE


def test_without_maildirsize_none_is_made_and_no_message_looked_at(box, monkeypatch):
    looked_at = []
    real = os.stat

    def stat(path, *args, **kwargs):
        looked_at.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    box.remove("1.a:2,", "2.b:2,", "3.c:2,")
    assert not [path for path in looked_at if b"cur/" in os.fsencode(path)]
    assert not os.path.exists("maildirsize")


SIZES = {
    "4.a": 3,
    "4.a,S=100": 100,
    "4.a,S=100,W=105:2,S": 100,
    "4.a,W=105,S=100": 100,
    "4.a,S=5,S=100": 100,
    "4.a,S=007": 7,
    "4.a,S=5x": 5,
    "4.a,S=": 0,
    "4.a,S=5,S=": 0,
    "4.a,S= 5": 0,
    "4.a,S=-5": 0,
    "4.a,s=5": 3,
    "4.a,W=5": 3,
    "4.a:2,S,S=9": 3,
    "4.a:2,S=9": 3,
}


@pytest.mark.parametrize("name, octets", SIZES.items())
def test_the_size_is_what_the_name_says_before_the_colon_or_that_of_the_file(box, name, octets):
    box.put("cur/" + name, b"abc")
    assert size_of(b"cur", name.encode()) == octets
    box.size = b"1000S\n51 3\n"
    box.remove(name)
    change = b"%12d %12d\n" % (-octets, -1) if octets else b""
    assert box.size == b"1000S\n51 3\n" + change


@pytest.mark.parametrize("name", ["4.a:2,T", "4.a:2,ST", "4.a:2,STa", "4.a,S=5:2,RST", "a:b:2,T"])
def test_a_message_in_the_trash_is_not_subtracted(box, name):
    assert is_trashed(name.encode())
    box.put("cur/" + name)
    box.size = b"1000S\n51 3\n"
    box.remove(name, "1.a:2,")
    assert box.size == b"1000S\n51 3\n" + LINE


@pytest.mark.parametrize(
    "name", ["T", "4.aT", "4.a:T", "4.a:1,T", "4.a:2,sT", "4.a:2,S,T", "4.a:2T"]
)
def test_a_T_that_is_no_flag_means_nothing(name):
    assert not is_trashed(name.encode())


# What a maildirsize says

CHANGES = {
    b"17 1": (17, 1),
    b"         -17           -1": (-17, -1),
    b"\t+17 \t +1\r": (17, 1),
    b"17 1 and more": (17, 1),
    b"17 1more": (17, 1),
    b"17 1\0": (17, 1),
    b"17-1": (17, -1),
    b" -17+1": (-17, 1),
    b"": (0, 0),
    b"17": (0, 0),
    b"17 x": (0, 0),
    b"17x 1": (0, 0),
    b"- 17 1": (0, 0),
    b"+-17 1": (0, 0),
    b"1.7 1": (0, 0),
    b"\0 17 1": (0, 0),
    b"9" * 1000 + b" 1": (2**63 - 1, 1),
}


@pytest.mark.parametrize("line, change", CHANGES.items())
def test_a_line_is_two_numbers_or_says_nothing(line, change):
    assert parse_change(line) == change


# First lines, with what they allow, and as they are in a file made anew.
QUOTAS = {
    b"1000S,7C": (1000, 7, b"1000S,7C"),
    b"7C,1000S": (1000, 7, b"1000S,7C"),
    b"1000S": (1000, None, b"1000S"),
    b"7C": (None, 7, b"7C"),
    b"5S1000S": (1000, None, b"1000S"),
    b"quota: -01000S/7C\r": (1000, 7, b"1000S,7C"),
    b"0S,0C": (None, None, b""),
    b"": (None, None, b""),
    b"NOQUOTA": (None, None, b"NOQUOTA"),
    b"1000": (None, None, b"1000"),
    b"1000s": (None, None, b"1000s"),
    b"1000 S": (None, None, b"1000 S"),
    b"1000S,7C,3X": (1000, 7, b"1000S,7C,3X"),
    b"\x7fELF\0\xff": (None, None, b"\x7fELF\0\xff"),
    b"9" * 1000 + b"S": (None, None, b"9223372036854775807S"),
}


def doubtful(text: bytes, *, octets: int = 0, count: int = 0, age: float = 0) -> bool:
    return Sizes(text, JOURNAL).are_doubtful(octets, count, age)


@pytest.mark.parametrize("line, quota", QUOTAS.items())
def test_the_quota_is_numbers_with_letters_in_any_order(line, quota):
    max_octets, max_count, as_written = quota
    much = 10**15
    assert Sizes(line + b"\n", JOURNAL).quota == as_written
    assert not is_over(line, max_octets or much, max_count or much)
    assert not max_octets or is_over(line, max_octets + 1, 0)
    assert not max_count or is_over(line, 0, max_count + 1)


def is_over(quota: bytes, octets: int, count: int) -> bool:
    return doubtful(b"%s\n0 0\n%d %d\n" % (quota, octets, count))


@pytest.mark.parametrize("line", [b"1000", b"1000s", b"5X,6Y 7", b"1000S,7"])
def test_a_number_that_is_no_limit_is_one_warning(line, capfd):
    Sizes(line + b"\n", JOURNAL)
    text = line.decode().replace(" ", ".")
    assert capfd.readouterr().err == f"WARN: quota string '{text}' not parseable, user=joe\n"


def test_the_warning_is_fit_for_a_log(capfd):
    Sizes(b"5\nINFO: LOGIN", JOURNAL)
    Sizes(b"5\r\x1b[2J, ip=[1.2.3.4]\n", JOURNAL)
    Sizes(b"5," * 2000 + b"\n", JOURNAL)
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == [
        "WARN: quota string '5' not parseable, user=joe",
        "WARN: quota string '5...2J,.ip=.1.2.3.4.' not parseable, user=joe",
    ]
    assert len(lines) == 3 and len(lines[2]) < 320


# When it is made anew

ANEW = b"          34            2\n"  # the totals of the box after one removal


@pytest.mark.parametrize("text", [b"1000S\n-1 3\n", b"1000S\n51 -1\n", b"1000S\n5 1\n-6 1\n"])
def test_a_file_with_a_negative_sum_is_made_anew_and_nothing_subtracted_twice(box, text):
    box.size = text
    box.remove("1.a:2,")
    assert box.size == b"1000S\n" + ANEW
    assert box.names("tmp") == []


def test_a_sum_that_only_this_removal_makes_negative_is_left_to_the_next(box):
    box.size = b"1000S\n"
    box.remove("1.a:2,")
    assert box.size == b"1000S\n" + LINE
    box.remove("2.b:2,")
    assert box.size == b"1000S\n          17            1\n"


def test_a_file_of_5120_octets_is_made_anew(box):
    for text in (b"1000S\n".ljust(LONG - 1) + b"\n", b"1000S\n" + b"17 1\n" * 10**6):
        box.put("cur/1.a:2,", MESSAGE)
        box.size = text
        box.remove("1.a:2,")
        assert box.size == b"1000S\n" + ANEW


def test_a_file_of_5119_octets_is_not(box):
    box.size = text = b"1000S\n".ljust(LONG - 2) + b"\n"
    box.remove("1.a:2,")
    assert box.size == text + LINE


OVER = {  # the quota is 50S,5C; the change -17 -1
    b"68 3\n": (FRESH - 1, False),  # the one line may be a new file
    b"68 3\n0 0\n": (0, True),
    b"68 3\n\n": (0, True),
    b"68 3": (FRESH - 1, False),
    b"67 3\n0 0\n": (FRESH, False),
    b"0 7\n0 0\n": (0, True),
    b"0 6\n0 0\n": (FRESH, False),
}


@pytest.mark.parametrize("lines, age_and_doubt", OVER.items())
def test_over_quota_a_file_is_doubtful_unless_it_is_new(lines, age_and_doubt):
    age, doubt = age_and_doubt
    assert doubtful(b"50S,5C\n" + lines, octets=-17, count=-1, age=age) is doubt
    assert not doubtful(b"0S,0C\n" + lines, age=age)


def test_a_file_of_one_line_that_says_over_quota_is_believed_for_15_minutes(box):
    box.size = b"20S\n51 3\n"
    box.age(FRESH - 30)
    box.remove("1.a:2,")
    assert box.size == b"20S\n51 3\n" + LINE
    box.size = b"20S\n51 3\n"
    box.age(FRESH)
    box.remove("2.b:2,")
    assert box.size == b"20S\n          17            1\n"


@pytest.fixture
def folders(box):
    """Folders of the box, with messages that count 17 octets each, or nothing in their folder."""
    for folder in (".Sent", ".Trash", ".Trash.Old", "..odd", "no folder"):
        for part in ("new", "cur"):
            (box.path / folder / part).mkdir(parents=True)
            box.put(f"{folder}/{part}/1.a,S=17:2,S", b"x")
            box.put(f"{folder}/{part}/2.b:2,ST", b"a message in the trash")
            box.put(f"{folder}/{part}/.hidden", b"x")
        (box.path / folder / "tmp").mkdir()
        box.put(f"{folder}/tmp/3.c", b"x")
    box.put("new/5.e", MESSAGE)
    box.put("new/6.f,S=:2,", b"counts as a message without octets")
    os.symlink(".Sent", ".Alias")
    os.mkdir(".empty")
    box.put(".file", b"x")
    box.size = b"1000S,1C\n-1 -1\n"
    return box


def test_all_folders_but_Trash_count_and_links_do_not(folders):
    folders.remove("1.a:2,")
    assert folders.size == b"1000S,1C\n%12d %12d\n" % (17 * 9, 10)


def test_everything_counts_where_Courier_is_built_with_trashquota(folders):
    folders.remove("1.a:2,", MAILDIR_TRASHQUOTA="1")
    assert folders.size == b"1000S,1C\n%12d %12d\n" % (17 * 11 + 22 * 8, 20)
    folders.put("cur/4.d:2,T", MESSAGE)
    before = folders.size = b"\n51 3\n"
    folders.remove("4.d:2,T", MAILDIR_TRASHQUOTA="1")
    assert folders.size == before + LINE


@pytest.mark.parametrize("gone", ["maildirfolder", "maildirfolder twice"])
def test_a_folder_counts_in_the_maildir_above(box, monkeypatch, gone):
    for part in ("new", "cur", "tmp"):
        os.mkdir(box.home / part)
    box.put("maildirfolder", b"")
    if gone.endswith("twice"):
        box.put("../maildirfolder", b"")
        for part in ("new", "cur", "tmp"):
            os.mkdir(box.home.parent / part)
    above = box.home.parent if gone.endswith("twice") else box.home
    size = above / "maildirsize"
    size.write_bytes(b"1000S\n51 3\n")
    box.size = b"mine\n"
    box.remove("1.a:2,")
    assert size.read_bytes() == b"1000S\n51 3\n" + LINE
    (above / "new" / "9.z").write_bytes(b"123")
    size.write_bytes(b"1000S\n-1 3\n")
    box.remove("2.b:2,")
    assert size.read_bytes() == b"1000S\n           3            1\n"
    assert box.size == b"mine\n"


def test_folders_of_folders_without_end_have_no_quota(box, tmp_path, monkeypatch):
    inner = tmp_path
    for _ in range(9):
        (inner / "maildirfolder").touch()
        inner /= "in"
        inner.mkdir()
    (inner / "maildirfolder").touch()
    (inner / "cur").mkdir()
    (inner / "cur" / "1.a").write_bytes(b"x")
    (inner / "maildirsize").write_bytes(b"-1 -1\n")
    monkeypatch.chdir(inner)
    box.remove("1.a")
    assert (inner / "maildirsize").read_bytes() == b"-1 -1\n"


def test_F_KILL_7_the_new_file_is_written_aside_and_durable_before_it_is_in_place(box, monkeypatch):
    box.size = b"1000S\n-1 3\n"
    events = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def renamed(path, target):
        events.append((path, target))
        rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    box.remove("1.a:2,")
    synced, (path, target) = events
    assert os.path.samefile(os.path.dirname(synced), "tmp")
    assert os.path.basename(synced) == os.path.basename(path).decode()
    assert target == b"./maildirsize"
    seconds, _, rest = os.path.basename(synced).partition(".")
    assert abs(time.time() - int(seconds)) < 60
    assert rest == f"{os.getpid()}_NeWmAiLdIrSiZe.{os.uname().nodename}"


# What may be in the way


def one_line(capfd) -> str:
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_F_CONC_1_when_mail_comes_meanwhile_the_old_file_stays_and_gets_a_line(
    box, monkeypatch, capfd
):
    box.size = b"1000S\n-1 3\n"
    real = os.fsync

    def deliver_and_sync(descriptor):
        box.deliver("9.z", MESSAGE)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", deliver_and_sync)
    box.remove("1.a:2,")
    assert box.size == b"1000S\n-1 3\n" + LINE
    assert box.names("tmp") == [] and capfd.readouterr().err == ""


def fail(*_):
    raise OSError(28, "No space left on device")


def test_F_DISK_1_a_full_disk_is_one_line_of_log_and_leaves_the_old_file(box, monkeypatch, capfd):
    box.size = b"1000S\n-1 3\n"
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        box.remove("1.a:2,")
    assert box.size == b"1000S\n-1 3\n" + LINE
    assert box.names("tmp") == []
    line = "ERR: cannot update maildirsize: No space left on device, user=joe"
    assert one_line(capfd) == line
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: fail() if fd > 2 else real(fd, data))
    box.remove("2.b:2,")
    assert box.size == b"1000S\n-1 3\n" + LINE
    assert box.names("tmp") == []
    assert one_line(capfd) == line
    assert len(os.listdir("/proc/self/fd")) == before


def test_F_DISK_1_half_a_line_is_a_failure_too(box, monkeypatch, capfd):
    box.size = b"1000S\n51 3\n"
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5] if fd > 2 else data))
    box.remove("1.a:2,")
    assert "No space left on device" in one_line(capfd)


def test_F_FILE_6_without_tmp_a_line_is_added(box, capfd):
    box.size = b"1000S\n-1 3\n"
    os.rmdir("tmp")
    box.remove("1.a:2,")
    assert box.size == b"1000S\n-1 3\n" + LINE
    assert "No such file or directory" in one_line(capfd)


def test_CVE_33_a_file_of_this_name_in_tmp_is_not_touched(box, monkeypatch, capfd):
    monkeypatch.setattr("courierpop3d.quota.time", lambda: 1700000000.0)
    name = f"tmp/1700000000.{os.getpid()}_NeWmAiLdIrSiZe.{os.uname().nodename}"
    box.put("secret", b"secret\n")
    box.size = b"1000S\n-1 3\n"
    os.symlink("../secret", name)
    box.remove("1.a:2,")
    assert (box.path / "secret").read_bytes() == b"secret\n" and os.path.islink(name)
    assert box.size == b"1000S\n-1 3\n" + LINE
    assert "File exists" in one_line(capfd)


@pytest.mark.parametrize("env", [{}, {"MAILDIR_SKIP_SYMLINK_CHECKS": "no"}])
def test_F_FILE_3_a_symbolic_link_is_ignored_silently(box, capfd, env):
    box.put("real", b"1000S\n51 3\n")
    os.symlink("real", "maildirsize")
    box.remove("1.a:2,", **env)
    assert (box.path / "real").read_bytes() == b"1000S\n51 3\n"
    assert capfd.readouterr().err == ""


def test_a_symbolic_link_is_followed_where_that_is_asked_for(box):
    box.put("real", b"1000S\n51 3\n")
    os.symlink("real", "maildirsize")
    box.remove("1.a:2,", MAILDIR_SKIP_SYMLINK_CHECKS="1")
    assert (box.path / "real").read_bytes() == b"1000S\n51 3\n" + LINE


def test_a_dangling_link_makes_no_file(box):
    os.symlink("real", "maildirsize")
    box.remove("1.a:2,", MAILDIR_SKIP_SYMLINK_CHECKS="1")
    assert not os.path.exists("real")


@pytest.mark.parametrize(
    "make, why", [(os.mkfifo, "Not a regular file"), (os.mkdir, "Is a directory")]
)
def test_F_FILE_3_what_is_no_file_is_one_line_of_log_and_never_waited_for(box, capfd, make, why):
    make("maildirsize")
    before = len(os.listdir("/proc/self/fd"))
    box.remove("1.a:2,")
    assert one_line(capfd) == f"ERR: cannot update maildirsize: {why}, user=joe"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_vanishes_before_it_is_opened_is_not_missed(box, monkeypatch, capfd):
    box.size = b"1000S\n51 3\n"
    quota = Quota({}, JOURNAL)
    quota.subtract(quota.octets_of(b"1.a:2,"))
    os.unlink("maildirsize")
    quota.update()
    assert not os.path.exists("maildirsize") and capfd.readouterr().err == ""


def test_an_empty_file_gets_no_change_for_its_first_line(box, capfd):
    box.size = b""
    box.remove("1.a:2,")
    assert box.size == b"" and capfd.readouterr().err == ""


@pytest.mark.parametrize("text", [b"1000S", b"1000S\n51 3", b"1000S\n51 3\n \0"])
def test_a_missing_line_end_is_added(box, text):
    box.size = text
    box.remove("1.a:2,")
    assert box.size == text + b"\n" + LINE


@pytest.mark.parametrize("quota, as_written", [(line, q[2]) for line, q in QUOTAS.items()])
def test_a_first_line_that_is_no_quota_is_kept_when_the_file_is_made_anew(box, quota, as_written):
    box.size = quota + b"\n-1 3\n"
    box.remove("1.a:2,")
    assert box.size == as_written + b"\n" + ANEW


@pytest.mark.parametrize("octet", [b"\0", b"9", b" ", b"\xff", b"5S", b"5X"])
def test_CVE_46_a_first_line_without_end_is_left_alone(box, capfd, octet):
    box.size = text = octet * 10**6
    box.remove("1.a:2,")
    assert box.size == text
    assert one_line(capfd) == (
        "WARN: maildirsize has no quota in its first line, and is left alone, user=joe"
    )


@pytest.mark.parametrize("line", [b"9" * 10**6, b"\0" * 10**6, b"-" * 10**6, b"9 " * 10**6])
def test_CVE_46_lines_of_any_kind_take_no_time(box, line):
    for text in (b"1000S\n" + line, b"1000S\n" + line[:5000] + b"\n"):
        box.put("cur/1.a:2,", MESSAGE)
        box.size = text
        started = time.process_time()
        box.remove("1.a:2,")
        assert time.process_time() - started < 1.0
        assert box.size.startswith(b"1000S\n") and box.size.endswith((ANEW, LINE))


PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\n", b" ", b"1000S", b",", b"5C", b"-1", b"+", b"\0", b"9" * 4000, b"x"]),
    st.integers(-(10**30), 10**30).map(lambda number: b"%d" % number),
)


@settings(max_examples=300)
@given(text=st.lists(PIECES, max_size=40).map(b"".join), change=st.integers(-(10**12), 10**12))
def test_F_FILE_8_any_octets_are_read_without_error(text, change):
    sizes = Sizes(text[:LONG], JOURNAL)
    assert sizes.are_doubtful(change, change, 0.0) in (True, False)
    assert b"\n" not in sizes.quota


@pytest.fixture(scope="module")
def own_box(tmp_path_factory):
    return QuotaBox(tmp_path_factory.mktemp("home"))


@settings(max_examples=100)
@given(text=st.lists(PIECES, max_size=40).map(b"".join))
def test_F_FILE_8_any_file_keeps_what_is_in_it_or_is_made_anew_under_its_own_quota(own_box, text):
    os.chdir(own_box.path)
    own_box.put("cur/1.a,S=17:2,", b"x")
    own_box.size = text
    own_box.remove("1.a,S=17:2,")
    kept = own_box.size
    if not kept.startswith(text):
        assert kept == Sizes(text[:LONG], JOURNAL).quota + b"\n           0            0\n"
    else:
        assert kept[len(text) :] in (b"", LINE, b"\n" + LINE)
    assert own_box.names("tmp") == []


def test_F_CONC_2_lines_of_many_sessions_at_once_are_all_there_and_whole(box):
    box.size = b"0S\n100000 1000\n"
    names = [f"{number}.m:2," for number in range(120)]
    for name in names:
        box.put("cur/" + name, MESSAGE)

    def end_sessions(mine):
        for name in mine:
            box.remove(name)

    threads = [Thread(target=end_sessions, args=(names[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert box.size == b"0S\n100000 1000\n" + LINE * 120


# In the program, as the user


def test_the_program_reads_its_settings(box, program):
    box.put("cur/4.d:2,T", MESSAGE)
    box.put("real", b"1000S\n68 4\n")
    os.symlink("real", "maildirsize")
    server = program(MAILDIR_SKIP_SYMLINK_CHECKS="1", MAILDIR_TRASHQUOTA="1")
    server.line()
    server.ask("DELE 4")
    assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"
    assert (box.path / "real").read_bytes() == b"1000S\n68 4\n" + LINE
    assert server.end()[0] == 0


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_F_FILE_2_a_file_of_somebody_else_is_one_line_of_log(box, program, mode):
    needs_root()
    box.size = b"1000S\n-1 3\n"
    server = program()
    os.chown("maildirsize", USER + 1, USER + 1)
    os.chmod("maildirsize", mode)
    server.line()
    server.ask("DELE 1")
    assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"
    log = server.end()[1]
    assert "ERR: cannot update maildirsize: Permission denied, user=joe" in log
    assert len(log) == 3 and box.size == b"1000S\n-1 3\n"


def test_a_folder_that_is_closed_to_the_user_is_not_counted(box, program):
    needs_root()
    for folder in (".closed/cur", ".listed/cur", ".open/cur"):
        (box.path / folder).mkdir(parents=True)
        box.put(folder + "/9.z", MESSAGE)
    box.size = b"1000S\n-1 3\n"
    server = program()
    os.chmod(".closed/cur", 0o000)
    os.chmod(".listed/cur", 0o444)
    server.line()
    server.ask("DELE 1")
    server.ask("QUIT")
    status, log = server.end()
    assert status == 0 and len(log) == 2
    assert box.size == b"1000S\n          51            3\n"
