"""What a parked session is packed into, and back; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import netstrings
from courierpop3d import index, parked
from courierpop3d.index import IndexedMessages
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN, Messages
from courierpop3d.visit import Visit

name = st.binary(min_size=1, max_size=20).filter(lambda name: not set(b"/\0") & set(name))
number = st.integers(0, 2**64 - 1)
uid = st.one_of(st.just(b""), st.binary(min_size=1, max_size=70))
entry = st.tuples(name, number, number, number, st.sampled_from([PLAIN, UNICODE, UNKNOWN]), uid)


class Silent:
    sent = 0


def of(entries) -> Messages:
    messages = Messages([entry[0] for entry in entries])
    for row, one in enumerate(entries):
        messages.put(row, one)
    return messages


@given(st.lists(entry), st.lists(number).map(tuple))
def test_messages_come_back_as_they_were(entries, stamps):
    messages = of(entries)
    messages.stamps = stamps
    back = parked.messages_of(messages.columns())
    assert [back.entry(row) for row in range(len(back))] == entries
    assert back.stamps == stamps
    assert back.size_lines() == messages.size_lines()
    assert back.uidl_lines() == messages.uidl_lines()


@given(st.lists(name, min_size=1, max_size=9), st.data())
def test_messages_of_the_index_come_back_as_they_were(names, data):
    sizes = data.draw(st.lists(number, min_size=len(names), max_size=len(names)))
    lists = b"".join(b"%d %d\r\n" % pair for pair in enumerate(sizes, 1))
    uidls = b"".join(b"%d UID%d-1\r\n" % (row, row) for row in range(1, len(names) + 1))
    sections = [b"\0".join([b"", *names]), lists, uidls, bytes(len(names))]
    messages = IndexedMessages(len(names), sum(sizes), sections)
    if data.draw(st.booleans()):
        row = data.draw(st.integers(0, len(names) - 1))
        messages[row].name = names[row] = names[row] + b"S"
    back = parked.messages_of(messages.columns())
    assert isinstance(back, IndexedMessages)
    assert (len(back), back.octets, back.names) == (len(names), sum(sizes), names)
    assert list(back.sizes) == sizes
    assert (back.size_lines(), back.uidl_lines()) == (lists, uidls)


def test_a_large_mailbox_is_parked_with_its_index(box, talk, monkeypatch):
    monkeypatch.setattr(index, "WORTH", 3)
    monkeypatch.setattr(index, "SETTLED", 0)
    for row in range(4):
        box.put(f"cur/17000000{row}.a:2,", b"x\n" * row)
    first = talk()
    lines = first.lines("LIST"), first.lines("UIDL")
    index.save(first.session.messages)
    assert (box.path / "courierpop3dindex").exists()
    second = talk()
    assert isinstance(second.session.messages, IndexedMessages)
    assert second.say("DELE 4") == b"+OK Deleted.\r\n"
    assert second.say("STAT") == b"+OK 3 9\r\n"
    assert second.body("RETR 2") == b"x\r\n"
    assert second.say("RSET") == b"+OK Resurrected.\r\n"
    assert (second.lines("LIST"), second.lines("UIDL")) == lines


def packed(talk) -> bytes:
    session = talk()
    session.say("DELE 1")
    return parked.pack(Visit(session.session, Silent(), 300, started=1.5))


@pytest.fixture
def three(box):
    for row in range(3):
        box.put(f"cur/17000000{row}.a:2,")


def test_what_is_cut_off_is_refused(three, talk):
    whole = packed(talk)
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            parked.Parcel(whole[:length])
    assert parked.Parcel(whole).started == 1.5


@given(st.data())
def test_what_is_damaged_is_refused_or_is_something_else_of_the_same_form(data):
    messages = of([(b"a", 1, 2, 3, 0, b""), (b"b", 4, 5, 6, 1, b"x")])
    columns = messages.columns()
    place = data.draw(st.integers(0, len(columns) - 1))
    columns[place] = data.draw(st.binary(max_size=30))
    try:
        back = parked.messages_of(columns)
    except ValueError:
        return
    assert len(back) == len(back.names) == len(back.sizes) == len(back.unicode)
    back.size_lines(), back.uidl_lines()


def test_a_mark_on_no_message_is_refused(three, talk):
    session = talk().session
    numbers, _, boundary = session.columns()
    for deleted in (b"0", b"4", b"-1", b"x"):
        with pytest.raises(ValueError):
            talk().session.resume([numbers, deleted, boundary])


def test_the_place_is_the_same_directory_or_none(three, talk, box):
    parcel = parked.Parcel(packed(talk))
    assert Path(parcel.place[0].decode()) == box.path
    parcel.enter_place()
    box.path.rename(box.home / "Away")
    with pytest.raises(OSError):
        parcel.enter_place()
    box.path.mkdir()
    with pytest.raises(OSError, match="another directory"):
        parcel.enter_place()


@given(st.lists(st.binary(max_size=300)))
def test_netstrings_come_back(fields):
    assert netstrings.decode(netstrings.encode(fields)) == fields


@given(st.binary(max_size=40))
def test_netstrings_are_written_in_one_way_only(data):
    try:
        fields = netstrings.decode(data)
    except ValueError:
        return
    assert netstrings.encode(fields) == data


@pytest.mark.parametrize(
    "data",
    [b"1:ab,", b"1:a", b"1:a;", b":a,", b"-1:,", b"01:a,", b"99999999999:a,", b"1", b",", b"5:a,"],
)
def test_what_is_no_netstring_is_refused(data):
    with pytest.raises(ValueError):
        netstrings.decode(data)
