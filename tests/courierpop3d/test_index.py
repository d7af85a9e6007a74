"""courierpop3dindex: an unchanged large mailbox is served from it, and never from a stale one."""

from __future__ import annotations

import os
import random
import time

import pytest

from courierpop3d import index, sizelist, snapshot
from courierpop3d.journal import Journal

JOE = Journal({"AUTHENTICATED": "joe"})
OLD = time.time() - 3600
TICK = 20 * 10**6  # nanoseconds that the clock of a file system may be behind


@pytest.fixture(autouse=True)
def _any_number_of_messages_is_worth_an_index(monkeypatch):
    monkeypatch.setattr(index, "WORTH", 1)


@pytest.fixture
def indexed(box):
    """A mailbox with an index."""
    for name in ("1.a", "2.b", "3.c"):
        box.put(f"cur/{name}:2,", b"Subject: x\n\n" + name.encode() + b"\n")
    settle()
    take()
    assert os.path.exists(index.FILE)
    return box


def settle() -> None:
    """Let the last change of cur/ be long ago."""
    os.utime("cur", (OLD, OLD))
    while time.time_ns() - os.stat("cur").st_ctime_ns < index.SETTLED + TICK:
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _a_moment_is_long_enough(monkeypatch):
    monkeypatch.setattr(index, "SETTLED", 20 * 10**6)


def take() -> list[tuple]:
    messages = snapshot.take(200, JOE)
    index.save(messages)
    every = [(m.name, m.size, m.uidl, m.unicode) for m in messages]
    assert messages.octets == sum(size for _, size, _, _ in every)
    sizes = [b"%d %d\r\n" % (row, size) for row, (_, size, _, _) in enumerate(every, 1)]
    uidls = [b"%d %s\r\n" % (row, uidl) for row, (_, _, uidl, _) in enumerate(every, 1)]
    assert messages.size_lines() == b"".join(sizes)
    assert messages.uidl_lines() == b"".join(uidls)
    return every


def is_from_index() -> bool:
    return isinstance(snapshot.take(200, JOE), index.IndexedMessages)


def without_index() -> list[tuple]:
    os.unlink(index.FILE)
    return take()


def test_F_BIG_1_an_unchanged_mailbox_is_read_from_the_index_alone(indexed, monkeypatch):
    before = take()
    assert [uidl for _, _, uidl, _ in before] == [b"UID1-200", b"UID2-200", b"UID3-200"]
    monkeypatch.setattr(snapshot, "scan", None)
    monkeypatch.setattr(sizelist, "read", None)
    assert take() == before


def test_deleted_it_is_made_anew_and_says_the_same(indexed):
    before = take()
    assert without_index() == before
    assert is_from_index()


def deliver(box):
    box.put("cur/4.d:2,")


def rename(_):
    os.rename("cur/1.a:2,", "cur/1.a:2,S")


def remove(_):
    os.unlink("cur/2.b:2,")


def renumber(box):
    box.list.write_bytes(box.list.read_bytes().replace(b"200", b"201"))


def drop_list(box):
    box.list.unlink()


@pytest.mark.parametrize("change", [deliver, rename, remove, renumber, drop_list])
def test_after_any_change_it_is_not_believed(indexed, change):
    before = take()
    change(indexed)
    assert index.load(index.stamp_of_cur()) is None
    after = take()
    assert after != before or change is drop_list
    settle()
    take()
    assert is_from_index()
    assert take() == after


def test_a_change_in_the_same_moment_is_not_missed(box, monkeypatch):
    """The clock of a file system may stand still between two changes."""
    box.put("cur/1.a:2,")
    settle()
    monkeypatch.setattr(index, "SETTLED", 10**18)
    take()
    assert not os.path.exists(index.FILE)
    assert box.names("tmp") == []


def test_what_changes_while_the_messages_are_read_leaves_no_index(box, monkeypatch):
    box.put("cur/1.a:2,")
    settle()
    real = snapshot.scan

    def scan(folder):
        names = real(folder)
        os.utime("cur", (OLD + 1, OLD + 1))
        return names

    monkeypatch.setattr(snapshot, "scan", scan)
    take()
    assert not os.path.exists(index.FILE)


def test_F_FILE_2_with_an_unreadable_message_there_is_no_index(box, monkeypatch):
    box.put("cur/1.a:2,")
    box.put("cur/2.b:2,")
    take()
    box.list.write_bytes(b"/3 3 200\n1.a:2, 22 1:200:0\n2.b:2, 0 2:200:0\n")
    settle()
    if os.path.exists(index.FILE):  # of the first look, if that was slow
        os.unlink(index.FILE)

    def refuse(name):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "measure", refuse)
        take()
    assert not os.path.exists(index.FILE)
    take()
    assert is_from_index()


def test_F_DISK_1_without_room_everything_works_and_nothing_is_left(indexed, monkeypatch):
    before = take()
    os.unlink(index.FILE)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert take() == before
    assert not os.path.exists(index.FILE)
    assert indexed.names("tmp") == []


def test_CVE_44_CVE_46_F_KILL_7_a_damaged_index_is_never_believed(indexed):
    """Every octet changed, cut at every octet, and any octets whatsoever."""
    right = take()
    whole = (indexed.path / "courierpop3dindex").read_bytes()
    chance = random.Random(1)
    damaged = [whole[:cut] for cut in range(0, len(whole), 7)]
    damaged += [whole + b"x", b"", b"\0" * 600, b"9" * 10**6, b"/index1 " + b"9" * 10**6]
    for place in range(len(whole)):
        other = bytes([whole[place] ^ chance.randrange(1, 256)])
        damaged.append(whole[:place] + other + whole[place + 1 :])
    cur = index.stamp_of_cur()
    for data in damaged:
        (indexed.path / "courierpop3dindex").write_bytes(data)
        messages = index.load(cur)
        assert messages is None or [m.uidl for m in messages] == [uidl for _, _, uidl, _ in right]
    assert take() == right


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink", "nothing"])
def test_F_FILE_3_whatever_is_in_its_place_disturbs_nobody(indexed, kind):
    right = take()
    path = indexed.path / "courierpop3dindex"
    os.rename(path, indexed.home / "other")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to(indexed.home / "other")
    assert take() == right
    assert take() == right
    assert (indexed.home / "other").stat().st_size


def test_it_is_for_the_owner_alone(indexed):
    assert os.stat(index.FILE).st_mode & 0o777 == 0o600


def test_a_small_mailbox_has_none(box, monkeypatch):
    monkeypatch.setattr(index, "WORTH", 2)
    box.put("cur/1.a:2,")
    settle()
    take()
    assert not os.path.exists(index.FILE)


def test_a_session_from_the_index_is_like_any_other(indexed, talk):
    session = talk()
    assert session.say("STAT") == b"+OK 3 57\r\n"
    assert session.say("LIST 2") == b"+OK 2 19\r\n"
    assert session.say("UIDL 2") == b"+OK 2 UID2-200\r\n"
    assert session.body("RETR 2") == b"Subject: x\r\n\r\n2.b\r\n"
    assert session.say("DELE 2") == b"+OK Deleted.\r\n"
    assert session.lines("LIST") == [b"1 19", b"3 19"]
    assert session.lines("UIDL") == [b"1 UID1-200", b"3 UID3-200"]
    assert session.say("STAT") == b"+OK 2 38\r\n"
    os.rename("cur/3.c:2,", "cur/3.c:2,F")
    assert session.body("RETR 3") == b"Subject: x\r\n\r\n3.c\r\n"
    assert session.say("QUIT") == b"+OK Bye-bye.\r\n"
    assert indexed.names() == ["1.a:2,", "3.c:2,FS"]
