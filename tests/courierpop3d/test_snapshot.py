"""What a session sees: messages and list brought together, whatever others do meanwhile."""

from __future__ import annotations

import os
import random
import time
from fcntl import LOCK_EX, LOCK_NB, flock

import pytest

from courierpop3d import lock, sizelist, snapshot
from courierpop3d.journal import Journal

JOE = Journal({"AUTHENTICATED": "joe"})


def take(now: int = 200) -> list[tuple[bytes, bytes]]:
    return [(message.name, message.uidl) for message in snapshot.take(now, JOE)]


def ids(now: int = 200) -> list[bytes]:
    return [uidl for _, uidl in take(now)]


def test_1939_39_ids_last_and_new_mail_gets_new_ones(box):
    box.put("cur/1.a:2,")
    assert ids(200) == [b"UID1-200"]
    box.put("cur/0.b:2,")
    assert ids(300) == [b"UID2-200", b"UID1-200"]
    assert ids(400) == [b"UID2-200", b"UID1-200"]


def test_F_TIME_2_ids_do_not_hang_on_the_clock(box):
    for name, now in (("1.a", 200), ("2.b", 5), ("3.c", 10**10)):
        box.put(f"cur/{name}:2,")
        ids(now)
    assert ids(0) == [b"UID1-200", b"UID2-200", b"UID3-200"]


def test_F_BIG_1_the_second_login_reads_no_message(box, monkeypatch):
    for number in range(3000):
        box.put(f"cur/{number}.a:2,", b"x\n")
    started = time.process_time()
    first = take()
    monkeypatch.setattr(snapshot, "measure_all", None)
    monkeypatch.setattr(snapshot, "measure", None)
    assert take() == first
    assert time.process_time() - started < 3


def test_1939_38_messages_with_equal_bytes_have_ids_of_their_own(box):
    for name in ("1.a", "1.b", "1.c"):
        box.put(f"cur/{name}:2,", b"same\n")
    assert len(set(ids())) == 3


def test_1939_40_the_id_of_a_removed_message_never_comes_back(box):
    box.put("cur/1.a:2,")
    box.put("cur/2.b:2,")
    assert ids() == [b"UID1-200", b"UID2-200"]
    os.unlink("cur/2.b:2,")
    assert ids() == [b"UID1-200"]
    box.put("cur/2.b:2,")
    assert ids() == [b"UID1-200", b"UID3-200"]


def test_1939_40_an_empty_mailbox_leaves_the_list_alone(box):
    assert ids() == []
    assert not box.list.exists()
    box.list.write_bytes(b"/3 8 200\ngone 5 7:200:0\n")
    before = os.stat(box.list)
    assert ids() == []
    assert os.stat(box.list) == before
    box.put("cur/1.a:2,")
    assert ids() == [b"UID8-200"]


@pytest.mark.parametrize("renamed", ["1.a", "1.a:2,S", "1.a:2,", "1.a:2,FSab", "1.a:1,x"])
def test_1939_41_ids_outlast_renames_and_the_list_is_not_touched(box, renamed):
    box.put("cur/1.a:2,F")
    assert ids() == [b"UID1-200"]
    before = os.stat(box.list).st_ino
    os.rename("cur/1.a:2,F", "cur/" + renamed)
    assert take() == [(renamed.encode(), b"UID1-200")]
    assert os.stat(box.list).st_ino == before


def test_an_unchanged_list_takes_no_lock_and_no_write(box, monkeypatch):
    box.put("cur/1.a:2,")
    take()
    monkeypatch.setattr(lock, "flock", None)
    monkeypatch.setattr(sizelist, "save", None)
    assert ids() == [b"UID1-200"]


def test_the_size_in_the_list_is_believed(box):
    box.list.write_bytes(b"/3 9 200\n1.a:2, 4711 5:100:0\n")
    box.put("cur/1.a:2,")
    assert [message.size for message in snapshot.take(200, JOE)] == [4711]


def test_F_FILE_2_an_unreadable_message_is_listed_and_measured_again(box, capfd, monkeypatch):
    box.put("cur/1.a:2,", b"x\n")
    real = os.open

    def refuse(path, *arguments):
        if path == b"cur/1.a:2,":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert [message.size for message in snapshot.take(200, JOE)] == [0]
    line = "WARN: cannot read message file cur/1.a:2,: Permission denied, user=joe\n"
    assert capfd.readouterr().err == line
    before = box.list.read_bytes()
    assert [message.size for message in snapshot.take(200, JOE)] == [3]
    assert box.list.read_bytes() == before


def test_files_that_share_a_base_keep_their_ids_apart(box):
    for name in ("1.a:2,", "1.a:2,S", "1.b:2,"):
        box.put("cur/" + name)
    first = take()
    assert len(dict(first)) == 3 and len({uidl for _, uidl in first}) == 3
    assert take() == first
    os.rename("cur/1.a:2,S", "cur/1.a:2,SF")
    assert dict(take())[b"1.a:2,"] == dict(first)[b"1.a:2,"]
    assert dict(take())[b"1.a:2,SF"] == dict(first)[b"1.a:2,S"]


def test_F_FILE_5_hard_links_are_messages_of_their_own(box):
    box.put("cur/1.a:2,")
    os.link("cur/1.a:2,", "cur/1.b:2,")
    assert len(set(ids())) == 2


STRANGE = [
    *(b"1.a\nb", b"\xff\xfe", b"'\"quoted\"'", b"a:b:c:2,S", b"no number", b"-7.negative"),
    *(b"99999999999999999999.huge", b" blank in front", b"\r", b"%s%n{0}", b":2,S", b"x" * 255),
]


def test_F_FILE_4_whatever_files_are_called_ids_are_legal_and_last(box):
    for name in STRANGE:
        box.put(b"cur/" + name)
    first = take()
    assert sorted(name for name, _ in first) == sorted(STRANGE)
    assert all(1 <= len(uidl) <= 70 and uidl.isascii() for _, uidl in first)
    assert len({uidl for _, uidl in first}) == len(STRANGE)
    assert take() == first


@pytest.mark.parametrize(
    "text, expected, written",
    [
        (b"/2 8 99\n1.a:2, 6 7:99\n", b"UID7-99", b"/3 8 99\n1.a:2, 6 7:99:0\n"),
        (b"/2 8 99\n1.a:2, 6 0:99\n", b"1.a", b"/3 8 99\n1.a:2, 6 0:99:0\n"),
        (b"/1 8\n1.a:2, 6 7\n", b"UID7", b"/3 8 200\n1.a:2, 6 7:0:0\n"),
        (b"1.a:2, 6\n", b"1.a", b"/3 1 200\n1.a:2, 6 0:0:0\n"),
        (b"/4 50 777\n1.a:2, 6 7:99:0\n", b"UID50-777", b"/3 51 777\n1.a:2, 3 50:777:0\n"),
        (b"\x7fELF\0\0\n", b"UID1-200", b"/3 2 200\n1.a:2, 3 1:200:0\n"),
    ],
)
def test_older_lists_are_rewritten_at_once_with_their_ids(box, text, expected, written):
    box.put("cur/1.a:2,", b"x\n")
    box.list.write_bytes(text)
    assert ids() == [expected]
    assert box.list.read_bytes() == written


class Disk:
    """Saving fails while `full`."""

    def __init__(self, monkeypatch):
        self.full = False
        real = sizelist.save

        def save(*arguments):
            if self.full:
                raise OSError(28, "No space left on device")
            real(*arguments)

        monkeypatch.setattr(sizelist, "save", save)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_F_DISK_1_with_a_full_disk_new_mail_is_hidden_until_it_can_get_ids(box, disk, capfd):
    box.put("cur/5.old:2,")
    assert ids() == [b"UID1-200"]
    box.put("cur/1.new:2,")
    disk.full = True
    assert take() == [(b"5.old:2,", b"UID1-200")]
    line = "ERR: Error while saving courierpop3dsizelist, user=joe, error=No space left on device\n"
    assert capfd.readouterr().err == line
    disk.full = False
    assert take() == [(b"1.new:2,", b"UID2-200"), (b"5.old:2,", b"UID1-200")]


def test_F_DISK_1_with_only_new_mail_the_first_is_shown_under_a_passing_id(box, disk):
    box.put("cur/2.b:2,")
    box.put("cur/1.a:2,", b"x\n")
    os.utime("cur/1.a:2,", (0x6B026517, 0x6B026517))
    status = os.stat("cur/1.a:2,")
    disk.full = True
    (message,) = snapshot.take(200, JOE)
    expected = b"ENOMEM-000000006B026517-%016X-%016X" % (status.st_dev, status.st_ino)
    assert (message.name, message.uidl, message.size) == (b"1.a:2,", expected, 3)
    assert not box.list.exists()


def test_F_FILE_6_without_tmp_old_mail_is_served(box):
    box.put("cur/5.old:2,")
    assert ids() == [b"UID1-200"]
    os.rmdir("tmp")
    box.put("cur/1.new:2,")
    assert ids() == [b"UID1-200"]


@pytest.mark.parametrize("damage", ["missing", "file"])
def test_F_FILE_7_without_cur_there_is_no_session(box, damage):
    os.rmdir("cur")
    if damage == "file":
        box.put("cur")
    with pytest.raises(snapshot.NoCur):
        take()


def test_F_CONC_6_a_lock_that_others_hold_hides_new_mail(box, monkeypatch, capfd):
    box.put("cur/1.a:2,")
    take()
    box.put("cur/2.b:2,")
    holder = os.open(".", os.O_RDONLY)
    flock(holder, LOCK_EX)
    monkeypatch.setattr(snapshot, "LOCK_TIME", 0.0)
    assert ids() == [b"UID1-200"]
    assert "another session holds the lock" in capfd.readouterr().err
    os.close(holder)
    assert ids() == [b"UID1-200", b"UID2-200"]


def test_the_lock_is_freed_after_a_login(box):
    box.put("cur/1.a:2,")
    take()
    probe = os.open(".", os.O_RDONLY)
    flock(probe, LOCK_EX | LOCK_NB)
    os.close(probe)
    assert sorted(os.listdir(".")) == ["courierpop3dsizelist", "cur", "new", "tmp"]


def test_a_file_system_without_locks_serves_as_well(box, monkeypatch):
    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock, "flock", unsupported)
    box.put("cur/1.a:2,")
    assert ids() == [b"UID1-200"]
    assert box.list.exists()


class Looks:
    """Makes scans of cur/ see what is planned, and lets things happen between them."""

    def __init__(self, monkeypatch):
        self.plan: list = []
        real = snapshot.scan

        def scan(folder):
            names = real(folder)
            return self.plan.pop(0)(names) if self.plan else names

        monkeypatch.setattr(snapshot, "scan", scan)


@pytest.fixture
def looks(monkeypatch):
    return Looks(monkeypatch)


def without(name):
    return lambda names: [other for other in names if other != name]


def plus(name):
    return lambda names: [*names, name]


def same(names):
    return names


def test_F_CONC_5_a_message_that_one_look_misses_keeps_its_id(box, looks):
    box.put("cur/1.a:2,")
    box.put("cur/2.b:2,")
    first = take()
    for plan in ([without(b"2.b:2,"), same], [plus(b"3.c:2,"), without(b"2.b:2,")]):
        looks.plan = plan
        assert take() == first
    assert take() == first


def test_F_CONC_5_a_message_renamed_between_two_looks_keeps_its_id(box, looks):
    box.put("cur/1.a:2,")
    box.put("cur/2.b:2,")
    first = dict(take())

    def rename(names):
        os.rename("cur/2.b:2,", "cur/2.b:2,S")
        return [*names, b"3.c:2,"]

    # The second look sees it under neither name: nobody can know of it, but its id is kept.
    looks.plan = [rename, without(b"2.b:2,S")]
    assert take() == [(b"1.a:2,", first[b"1.a:2,"])]
    assert dict(take())[b"2.b:2,S"] == first[b"2.b:2,"]


def test_F_CONC_5_a_message_seen_under_two_names_is_one(box, looks):
    box.put("cur/1.a:2,S")
    looks.plan = [plus(b"1.a:2,"), plus(b"1.a:2,")]
    assert take() == [(b"1.a:2,S", b"UID1-200")]
    assert take() == [(b"1.a:2,S", b"UID1-200")]


def test_F_CONC_6_another_session_that_was_faster_has_given_the_id(box, looks):
    box.put("cur/1.a:2,")

    def faster(names):
        take(100)
        return names

    looks.plan = [faster]
    assert ids(200) == [b"UID1-100"]


def test_mail_that_comes_between_the_looks_is_seen(box, looks):
    box.put("cur/1.a:2,")

    def deliver(names):
        box.put("cur/2.b:2,", b"x\n")
        return names

    looks.plan = [deliver]
    assert take() == [(b"1.a:2,", b"UID1-200"), (b"2.b:2,", b"UID2-200")]
    assert b"2.b:2, 3 2:200:0" in box.list.read_bytes()


def test_F_CONC_6_1939_38_no_run_of_events_gives_an_id_twice(box, disk):
    """Random deliveries, renames, removals, full disks and logins, checked against a model."""
    chance = random.Random(5)
    files: dict[str, str] = {}
    given: dict[str, bytes] = {}
    owners: dict[bytes, str] = {}
    for step in range(400):
        event = chance.choice(["deliver", "rename", "remove", "login", "login"])
        if event == "deliver":
            base = f"{chance.randrange(5)}.{step}"
            files[base] = f"{base}:2,"
            box.put("cur/" + files[base])
        elif event == "login":
            disk.full = chance.random() < 0.2
            for name, uidl in take(1000 + step):
                base = os.fsdecode(name).partition(":")[0]
                if not uidl.startswith(b"ENOMEM"):
                    assert given.setdefault(base, uidl) == uidl
                    assert owners.setdefault(uidl, base) == base
            if not disk.full:
                assert set(files) <= set(given)
        elif files:
            base = chance.choice(sorted(files))
            if event == "remove":
                os.unlink("cur/" + files.pop(base))
            else:
                name = f"{base}:2,{chance.choice('FRST')}"
                os.rename("cur/" + files[base], "cur/" + name)
                files[base] = name
