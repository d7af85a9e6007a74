"""Reading, marking and removing messages while other programs rename and remove them."""

from __future__ import annotations

import os

import pytest

from courierpop3d import maildir
from courierpop3d.maildrop import Damaged

CONTENT = b"Subject: x\n\nLine 1\n"


def read(drop, index: int) -> bytes:
    return b"".join(drop.read(drop.messages[index]))


@pytest.fixture
def drop(box, talk):
    for name in ("1.a", "2.b", "3.c"):
        box.put(f"cur/{name}:2,", name.encode() + b"\n")
    return talk().maildrop


@pytest.mark.parametrize("name", ["2.b:2,S", "2.b", "2.b:2,FRST", "2.b:1,odd"])
def test_F_CONC_3_a_renamed_message_is_found_again(drop, name):
    os.rename("cur/2.b:2,", "cur/" + name)
    assert read(drop, 1) == b"2.b\n"
    assert drop.messages[1].name == name.encode()


def test_F_CONC_3_a_message_put_back_into_new_is_found_again(box, drop):
    os.rename("cur/2.b:2,", "new/2.b")
    box.put("new/4.other")
    assert read(drop, 1) == b"2.b\n"
    assert box.names("new") == ["4.other"]


def test_F_CONC_4_a_message_that_has_vanished_is_gone_for_itself_alone(drop, capfd):
    os.unlink("cur/2.b:2,")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            drop.read(drop.messages[1])
    assert read(drop, 0) + read(drop, 2) == b"1.a\n3.c\n"
    log = "WARN: cannot open message file cur/2.b:2,: No such file or directory, user=joe\n"
    assert capfd.readouterr().err == log * 2


@pytest.fixture
def looks(monkeypatch):
    """How often cur/ has been read."""
    counted = []
    real = maildir.scan

    def scan(folder):
        if folder == b"cur":
            counted.append(folder)
        return real(folder)

    monkeypatch.setattr(maildir, "scan", scan)
    return counted


def test_F_CONC_4_many_missing_messages_cost_one_search_not_one_each(box, talk, looks):
    for number in range(100):
        box.put(f"cur/{number}.a:2,")
    drop = talk().maildrop
    for name in os.listdir("cur"):
        os.unlink("cur/" + name)
    for message in drop.messages:
        with pytest.raises(FileNotFoundError):
            drop.read(message)
    assert len(looks) == 2
    assert drop.remove(drop.messages)
    assert len(looks) == 4


def test_a_message_never_takes_the_file_of_another_with_the_same_base(box, talk):
    box.put("cur/1.a:2,", b"one\n")
    box.put("cur/1.a:2,S", b"two\n")
    drop = talk().maildrop
    os.unlink("cur/1.a:2,S")
    assert read(drop, 0) == b"one\n"
    with pytest.raises(FileNotFoundError):
        drop.read(drop.messages[1])
    assert drop.remove([drop.messages[1]])
    assert box.names() == ["1.a:2,"]


def test_removal_follows_renames_and_tells_the_truth(box, drop):
    os.rename("cur/1.a:2,", "cur/1.a:2,S")
    os.unlink("cur/2.b:2,")
    assert drop.remove([drop.messages[0], drop.messages[1]])
    assert box.names() == ["3.c:2,"]


def test_1939_52_what_can_not_be_removed_is_told_and_the_rest_is_removed(
    box, drop, monkeypatch, capfd
):
    real = os.unlink

    def unlink(path):
        if path == b"cur/2.b:2,":
            raise PermissionError(13, "Permission denied")
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)
    assert not drop.remove(drop.messages)
    assert box.names() == ["2.b:2,"]
    line = "ERR: cannot remove cur/2.b:2,: Permission denied, user=joe\n"
    assert capfd.readouterr().err == line


def test_1939_52_a_message_that_somebody_keeps_renaming_is_told_as_not_removed(
    box, drop, monkeypatch, capfd
):
    real = maildir.scan

    def scan(folder):
        names = real(folder)
        if b"2.b:2," in names:
            os.rename("cur/2.b:2,", "cur/2.b:2,S")
        elif b"2.b:2,S" in names:
            os.rename("cur/2.b:2,S", "cur/2.b:2,")
        return names

    os.rename("cur/2.b:2,", "cur/2.b:2,S")
    monkeypatch.setattr(maildir, "scan", scan)
    assert not drop.remove(drop.messages)
    assert [name[:3] for name in box.names()] == ["2.b"]
    assert "its name keeps changing, user=joe" in capfd.readouterr().err


def test_F_FILE_7_removal_without_cur_fails_and_raises_nothing(drop):
    os.rename("cur", "elsewhere")
    assert not drop.remove(drop.messages)


def test_seen_is_set_but_never_over_another_message(box, drop):
    drop.mark_seen(drop.messages[0])
    box.put("cur/2.b:2,S", b"other\n")
    drop.mark_seen(drop.messages[1])
    os.unlink("cur/3.c:2,")
    drop.mark_seen(drop.messages[2])
    assert box.names() == ["1.a:2,S", "2.b:2,", "2.b:2,S"]
    assert [message.name[3:] for message in drop.messages] == [b":2,S", b":2,", b":2,"]


@pytest.mark.parametrize("first_failing", [1, 2, 3])
def test_F_FILE_11_a_read_error_is_told_before_anything_is_sent_or_else_as_damage(
    box, talk, monkeypatch, capfd, first_failing
):
    box.put("cur/1.a:2,", b"x" * 800_000)
    drop = talk().maildrop
    real, reads = os.read, []

    def read(descriptor, size):
        reads.append(size)
        if len(reads) >= first_failing:
            raise OSError(5, "Input/output error")
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", read)
    before = len(os.listdir("/proc/self/fd"))
    if first_failing == 1:
        with pytest.raises(OSError, match="Input/output error"):
            drop.read(drop.messages[0])
    else:
        with pytest.raises(Damaged):
            b"".join(drop.read(drop.messages[0]))
        text = (
            "ERR: I/O error while reading message file cur/1.a:2,: Input/output error, user=joe\n"
        )
        assert capfd.readouterr().err == text
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left_by_a_message_that_is_not_read_on(box, talk):
    box.put("cur/1.a:2,", b"x" * 200_000)
    drop = talk().maildrop
    before = len(os.listdir("/proc/self/fd"))
    next(drop.read(drop.messages[0]))
    assert len(os.listdir("/proc/self/fd")) == before
