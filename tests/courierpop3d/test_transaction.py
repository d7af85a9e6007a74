"""The TRANSACTION and UPDATE states, without descriptors."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierpop3d import message
from courierpop3d.maildrop import Damaged
from courierpop3d.session import Transaction
from pop3proto import state

MAIL = b"Subject: test\nFrom: nobody@example.com\n\nLine 1\nLine 2\nLine 3\n"  # 61 octets, 6 lines
SENT = MAIL.replace(b"\n", b"\r\n")
INVALID = b"-ERR Invalid command.\r\n"
NO_SUCH = b"-ERR Invalid message number.\r\n"
GONE = b"-ERR Can't open the message file - it's gone!\r\n"
LISTING = b"+OK POP3 clients that break here, they violate STD53.\r\n"


@pytest.fixture
def three(box, talk):
    """A session on messages of 67, 69 and 3 octets."""
    box.put("new/1.a", MAIL)
    box.put("new/2.b", MAIL.replace(b"test", b"test 2"))
    box.put("new/3.c", b"x\n")
    return talk()


def test_every_verb_of_the_state_has_its_answer():
    assert set(Transaction._ANSWERS) == state.TRANSACTION


# Replies


@pytest.mark.parametrize(
    "command, reply",
    [
        ("STAT", b"+OK 3 139\r\n"),
        ("LIST", LISTING + b"1 67\r\n2 69\r\n3 3\r\n.\r\n"),
        ("LIST 2", b"+OK 2 69\r\n"),
        ("LIST 02", b"+OK 2 69\r\n"),
        ("UIDL", b"+OK\r\n1 UID1-200\r\n2 UID2-200\r\n3 UID3-200\r\n.\r\n"),
        ("UIDL 2", b"+OK 2 UID2-200\r\n"),
        ("RETR 1", b"+OK 67 octets follow.\r\n" + SENT + b".\r\n"),
        ("TOP 1 1", b"+OK headers follow.\r\n" + SENT[:51] + b".\r\n"),
        ("DELE 1", b"+OK Deleted.\r\n"),
        ("RSET", b"+OK Resurrected.\r\n"),
        ("NOOP", b"+OK Yup.\r\n"),
        ("UTF8", b"+OK UTF8 enabled\r\n"),
        ("QUIT", b"+OK Bye-bye.\r\n"),
    ],
)
def test_1939_15_17_18_27_35_36_the_texts_are_courier_s(three, command, reply):
    assert three.say(command) == reply


@pytest.mark.parametrize("command", ["stat", "Stat", "  STAT", "\tSTAT\t", "STAT \r", "STAT more"])
def test_1939_02_commands_are_taken_in_any_case_and_between_blanks(three, command):
    assert three.say(command) == b"+OK 3 139\r\n"


@pytest.mark.parametrize(
    "line",
    ["", " ", "\r", "LAST", "XTND", "\vSTAT", "STATS", "USER joe", "PASS x", "APOP joe x", "STLS"]
    + ["AUTH", "AUTH PLAIN", "RPOP", "%s%n", "{0.__class__}", "\xff"],
)
def test_1939_07_09_CVE_04_other_commands_are_refused_and_the_session_goes_on(three, line):
    assert three.say(line.encode("latin-1")) == INVALID
    assert three.say("NOOP") == b"+OK Yup.\r\n"


@pytest.mark.parametrize("line", [None, b"NO\0OP", b"STAT\0", b"\0"])
def test_CVE_06_ROB_09_too_long_a_line_or_a_nul_is_one_error(three, line):
    assert three.say(line) == INVALID


@given(st.one_of(st.none(), st.binary(max_size=600)))
@settings(max_examples=200)
def test_1939_03_04_55_no_line_gets_another_reply_than_pop3_s(talk_about, line):
    reply = talk_about(MAIL).say(line)
    status = reply.partition(b"\r\n")[0] + b"\r\n"
    assert reply.startswith((b"+OK", b"-ERR "))
    assert len(status) <= 512
    bare = reply.replace(b"\r\n", b"")
    assert b"\r" not in bare and b"\n" not in bare and b"\0" not in bare


# Numbers

BAD_NUMBERS = ["", "0", "-1", "4", "x", "1x", "+1", "1.0", "4294967297", "9" * 40, "0x1", "%d"]
BAD_NUMBERS += ["18446744073709551617", "1" * 8000, "\u0661", "1,2", "-0"]


@pytest.mark.parametrize("verb", ["RETR", "DELE", "TOP"])
@pytest.mark.parametrize("word", BAD_NUMBERS)
def test_1939_19_26_42_CVE_03_CVE_10_bad_numbers_mean_no_message(three, verb, word):
    assert three.say(f"{verb} {word}" + (" 0" if verb == "TOP" and word else "")) == NO_SUCH
    assert three.say("STAT") == b"+OK 3 139\r\n"


@pytest.mark.parametrize("verb", ["LIST", "UIDL"])
@pytest.mark.parametrize("word", [word for word in BAD_NUMBERS if word])
def test_1939_19_36_42_bad_numbers_are_in_no_listing(three, verb, word):
    assert three.say(f"{verb} {word}") == NO_SUCH


@pytest.mark.parametrize("arguments", ["1", "1 ", "1 -1", "1 x", "1 2xyz", "1 +1", "1 " + "9" * 99])
def test_1939_33_34_top_without_a_good_count_is_refused(three, arguments):
    assert three.say("TOP " + arguments) == INVALID


def test_1939_34_top_looks_at_the_number_first(three):
    assert three.say("TOP 1xyz 2") == NO_SUCH
    assert three.say("TOP 9") == NO_SUCH


def test_1939_47_2449_10_long_arguments_are_taken(three):
    assert three.say("NOOP " + "x" * 40) == b"+OK Yup.\r\n"
    assert three.say("LIST " + "2 ".ljust(249, "x")) == b"+OK 2 69\r\n"


# Deletion


def test_1939_21_numbers_do_not_move_after_dele(three):
    three.say("DELE 2")
    assert three.lines("LIST") == [b"1 67", b"3 3"]
    assert three.lines("UIDL") == [b"1 UID1-200", b"3 UID3-200"]
    assert three.say("LIST 3") == b"+OK 3 3\r\n"
    assert three.say("UIDL 3") == b"+OK 3 UID3-200\r\n"
    assert three.say("RETR 3") == b"+OK 3 octets follow.\r\nx\r\n.\r\n"


def test_1939_16_20_deleted_messages_are_left_out(three):
    three.say("DELE 1")
    assert three.say("STAT") == b"+OK 2 72\r\n"
    assert three.say("LIST 1") == NO_SUCH


@pytest.mark.parametrize("command", ["RETR 1", "TOP 1 0", "UIDL 1", "LIST 1", "DELE 1"])
def test_1939_25_26_a_deleted_message_is_no_message(three, command):
    three.say("DELE 1")
    assert three.say(command) == NO_SUCH


def test_1939_28_rset_brings_back_deleted_messages(box, three):
    three.say("DELE 1")
    three.say("DELE 3")
    three.say("RSET")
    assert three.say("STAT") == b"+OK 3 139\r\n"
    three.say("QUIT")
    assert len(box.names()) == 3


def test_1939_29_quit_removes_just_the_marked_messages(box, three):
    three.say("DELE 1")
    three.say("DELE 3")
    assert len(box.names()) == 3
    assert three.say("QUIT") == b"+OK Bye-bye.\r\n"
    assert box.names() == ["2.b:2,"]
    assert three.session.quit


def test_1939_51_the_reply_to_quit_comes_after_the_removal(box, three):
    three.say("DELE 1")
    reply = three.session.obey(b"QUIT")
    assert reply == b"+OK Bye-bye.\r\n"
    assert "1.a:2," not in box.names()


def test_1939_52_F_DISK_2_quit_says_when_something_is_left(box, three, monkeypatch):
    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuse)
    three.say("DELE 1")
    assert three.say("QUIT") == b"-ERR Some deleted messages not removed.\r\n"
    assert three.session.quit
    assert len(box.names()) == 3


def test_F_CONC_2_what_another_session_removed_is_removed(box, talk, three):
    other = talk()
    for session in (three, other):
        session.say("DELE 2")
    assert three.say("QUIT") == b"+OK Bye-bye.\r\n"
    assert other.say("QUIT") == b"+OK Bye-bye.\r\n"
    assert box.names() == ["1.a:2,", "3.c:2,"]


def test_1939_44_mail_that_comes_in_the_session_is_not_in_it(box, three):
    box.put("new/0.z", MAIL)
    box.put("cur/9.z:2,", MAIL)
    assert three.say("STAT") == b"+OK 3 139\r\n"
    assert len(three.lines("UIDL")) == 3


def test_1939_22_an_empty_mailbox_is_no_error(talk):
    empty = talk()
    assert empty.say("STAT") == b"+OK 0 0\r\n"
    assert empty.say("LIST") == LISTING + b".\r\n"
    assert empty.say("UIDL") == b"+OK\r\n.\r\n"
    assert empty.say("RETR 1") == NO_SUCH
    assert empty.say("QUIT") == b"+OK Bye-bye.\r\n"


# Messages


@pytest.mark.parametrize(
    "content, sent",
    [
        (b"", b""),
        (b"x", b"x\r\n"),
        (b".", b"..\r\n"),
        (b".\n", b"..\r\n"),
        (b"\n.\n.\n", b"\r\n..\r\n..\r\n"),
        (b"\n\nx\n", b"\r\n\r\nx\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\r", b"a\r\r\n"),
        (b"a\rb\0\xff\n", b"a\rb\0\xff\r\n"),
        (b"..a\n.b", b"...a\r\n..b\r\n"),
        (b"x" * 1_000_000 + b"\n.", b"x" * 1_000_000 + b"\r\n..\r\n"),
    ],
)
def test_1939_05_06_23_24_ROB_11_12_13_messages_travel_whole_at_their_size(
    box, talk, content, sent
):
    box.put("cur/1.a:2,", content)
    session = talk()
    octets = len(sent) - sum(line.startswith(b".") for line in sent.split(b"\r\n"))
    assert session.say("RETR 1") == b"+OK %d octets follow.\r\n" % octets + sent + b".\r\n"
    assert session.say("STAT") == b"+OK 1 %d\r\n" % octets
    assert session.say("LIST 1") == b"+OK 1 %d\r\n" % octets


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\n\n", b"\r\n"]), max_size=30))
@settings(max_examples=150)
def test_1939_24_45_sizes_are_true_and_stat_is_their_sum(talk_about, pieces):
    content = b"".join(pieces)
    session = talk_about(content, b"Subject: x\n\n.\n" + content)
    sizes = [int(line.split()[1]) for line in session.lines("LIST")]
    assert session.say("STAT") == b"+OK 2 %d\r\n" % sum(sizes)
    assert [len(session.body("RETR 1")), len(session.body("RETR 2"))] == sizes


def test_1939_49_50_reading_twice_gives_the_same_and_changes_no_byte(box, three):
    before = box.contents()
    assert three.say("RETR 1") == three.say("RETR 1")
    three.say("QUIT")
    assert box.contents() == before


TOPS = [
    ("TOP 1 0", b"H: x\n\n"),
    ("TOP 1 1", b"H: x\n\n.one\n"),
    ("TOP 1 2", b"H: x\n\n.one\ntwo\n"),
    ("TOP 1 3", b"H: x\n\n.one\ntwo\n\n"),
    ("TOP 1 9", b"H: x\n\n.one\ntwo\n\nend\n"),
    ("TOP 1 9999999999", b"H: x\n\n.one\ntwo\n\nend\n"),
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("command, expected", TOPS)
def test_1939_30_31_32_top_sends_the_header_and_so_many_lines(
    box, talk, command, expected, line_end
):
    box.put("cur/1.a:2,", b"H: x\n\n.one\ntwo\n\nend".replace(b"\n", line_end))
    session = talk()
    sent = expected.replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..")
    assert session.say(command) == b"+OK headers follow.\r\n" + sent + b".\r\n"


def test_1939_46_a_message_without_a_blank_line_is_all_header(box, talk):
    box.put("cur/1.a:2,", b"H: x\nno blank line")
    assert talk().body("TOP 1 0") == b"H: x\r\nno blank line\r\n"


def test_CVE_11_top_with_a_huge_count_takes_no_longer_than_retr(box, talk):
    box.put("cur/1.a:2,", b"H: x\n\n" + b"x\n" * 500_000)
    session = talk()
    started = time.process_time()
    session.say("RETR 1")
    retr = time.process_time() - started
    session.say("TOP 1 9999999999")
    assert time.process_time() - started < 5 * retr + 0.5


def test_F_BIG_2_large_messages_come_in_pieces_and_small_ones_in_one(box, talk):
    box.put("cur/1.a:2,", b"x" * 79 + b"\n")
    box.put("cur/2.b:2,", (b"x" * 79 + b"\n") * 50_000)
    session = talk().session
    assert len(list(session.obey(b"RETR 1"))) == 1
    pieces = [len(piece) for piece in session.obey(b"RETR 2")]
    assert 10 < len(pieces) < 30 and max(pieces) < 300_000


def test_F_BIG_1_long_listings_are_whole_whatever_they_are_made_of(box, talk, monkeypatch):
    monkeypatch.setattr(message, "BATCH", 10)
    for number in range(35):
        box.put(f"cur/{number}.a:2,")
    session = talk()
    session.say("DELE 7")
    expected = [b"%d" % number for number in range(1, 36) if number != 7]
    assert [line.split()[0] for line in session.lines("LIST")] == expected
    assert [line.split()[0] for line in session.lines("UIDL")] == expected


def test_seen_is_set_by_a_complete_retr_and_by_nothing_else(box, three):
    three.say("TOP 1 9")
    for _ in three.session.obey(b"RETR 2"):
        pass
    started = three.session.obey(b"RETR 3")
    next(started)
    three.session.settle()
    assert box.names() == ["1.a:2,", "2.b:2,S", "3.c:2,"]
    assert list(started) == []
    assert not three.session.is_settled
    three.session.settle()
    assert three.session.is_settled
    assert box.names() == ["1.a:2,", "2.b:2,S", "3.c:2,S"]


def test_a_seen_message_is_still_deleted(box, three):
    three.say("RETR 2")
    three.say("DELE 2")
    assert three.say("QUIT") == b"+OK Bye-bye.\r\n"
    assert box.names() == ["1.a:2,", "3.c:2,"]


def test_what_is_fetched_and_deleted_is_never_renamed(box, three, monkeypatch):
    monkeypatch.setattr(os, "rename", None)
    list(three.session.obey(b"RETR 2"))
    three.session.obey(b"DELE 2")
    assert three.say("QUIT") == b"+OK Bye-bye.\r\n"
    three.session.settle()
    assert box.names() == ["1.a:2,", "3.c:2,"]


@pytest.fixture
def reads(monkeypatch):
    """Messages that are opened."""
    opened = []
    real = os.open

    def watched(path, *arguments):
        if path.startswith(b"cur/"):
            opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", watched)
    return opened


def test_the_next_message_is_read_while_the_client_is_busy_with_one(three, reads):
    three.parks = False  # it would be read once more
    three.say("RETR 1")
    assert reads == [b"cur/1.a:2,", b"cur/2.b:2,"]
    assert three.body("RETR 2") == SENT.replace(b"test", b"test 2")
    assert reads == [b"cur/1.a:2,", b"cur/2.b:2,", b"cur/3.c:2,"]
    assert three.session.counts["retr"] == 61 + 63


@pytest.mark.parametrize("asked", [["RETR 2"], ["RETR 3", "RETR 1"], ["TOP 1 9"], ["RETR 3"]])
def test_who_does_not_fetch_in_turn_gets_nothing_read_ahead(three, reads, asked):
    for command in asked:
        three.say(command)
    assert len(reads) == len(asked)


def test_what_was_read_ahead_and_changed_is_read_again(box, three):
    three.say("RETR 1")
    box.put("cur/2.b:2,", b"Subject: changed\n\n")
    assert three.body("RETR 2") == b"Subject: changed\r\n\r\n"
    os.unlink("cur/3.c:2,")
    assert three.say("RETR 3") == GONE


def test_6856_05_what_was_read_ahead_for_a_client_without_utf8_is_wrapped(box, talk):
    box.put("cur/1.a:2,", b"Subject: x\n\n")
    box.put("cur/2.b:2,", b"Subject: \xe9\n\n")
    session = talk(utf8=False)
    session.say("RETR 1")
    assert b"Cannot display Unicode content" in session.body("RETR 2")


def test_a_message_renamed_by_somebody_else_gets_its_seen_flag_too(box, three):
    os.rename("cur/2.b:2,", "cur/2.b:2,F")
    three.say("RETR 2")
    assert box.names() == ["1.a:2,", "2.b:2,FS", "3.c:2,"]


def test_F_CONC_4_a_vanished_message_is_an_error_for_itself_alone(box, three):
    os.unlink("cur/2.b:2,")
    assert three.say("RETR 2") == GONE
    assert three.say("TOP 2 0") == GONE
    assert three.say("STAT") == b"+OK 3 139\r\n"
    assert three.say("RETR 3").startswith(b"+OK")
    three.say("DELE 2")
    assert three.say("QUIT") == b"+OK Bye-bye.\r\n"


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_F_FILE_3_what_replaced_a_message_is_never_served(box, three, kind):
    os.unlink("cur/2.b:2,")
    if kind == "symlink":
        (box.home / "secret").write_bytes(b"secret\n")
        os.symlink("../../secret", "cur/2.b:2,")
    elif kind == "fifo":
        os.mkfifo("cur/2.b:2,")
    else:
        os.mkdir("cur/2.b:2,")
    assert three.say("RETR 2") == GONE
    assert three.say("RETR 1").startswith(b"+OK")


@pytest.mark.parametrize("octets", [0, 30])
def test_F_FILE_10_a_message_cut_after_the_listing_stays_well_formed(box, three, octets):
    os.truncate("cur/1.a:2,", octets)
    reply = three.say("RETR 1")
    assert reply.startswith(b"+OK 67 octets follow.\r\n") and reply.endswith(b".\r\n")
    assert three.say("NOOP") == b"+OK Yup.\r\n"


def test_F_FILE_11_a_message_that_breaks_off_gets_no_dot_and_no_seen(box, talk, monkeypatch):
    box.put("cur/1.a:2,", b"x\n" * 400_000)
    session = talk()
    real, reads = os.read, []

    def read(descriptor, size):
        reads.append(size)
        if len(reads) > 2:
            raise OSError(5, "Input/output error")
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", read)
    sent = b""
    with pytest.raises(Damaged):
        for piece in session.session.obey(b"RETR 1"):
            sent += piece
    assert sent and not sent.endswith(b".\r\n")
    assert box.names() == ["1.a:2,"]


# CAPA, LANG, UTF8


def test_2449_02_03_04_05_06_capa_lists_what_is_served(three):
    tags = three.lines("CAPA")
    assert tags == [
        *(b"TOP", b"USER", b"LOGIN-DELAY 10", b"PIPELINING", b"UIDL", b"UTF8 USER", b"LANG"),
        b"IMPLEMENTATION Courier Mail Server",
    ]
    assert three.say("CAPA").startswith(b"+OK Here's what I can do:\r\n")


def test_2449_12_no_user_part_stands_behind_limits_after_login(three):
    (delay,) = (tag for tag in three.lines("CAPA") if tag.startswith(b"LOGIN-DELAY"))
    assert delay.split()[1].isdigit() and b"USER" not in delay


@pytest.mark.parametrize("command", ["RETR 9", "NOPE", "TOP 1", "DELE 0", "LANG xx"])
def test_2449_11_14_no_reply_has_a_response_code(three, command):
    assert not three.say(command).startswith(b"-ERR [")


@pytest.mark.parametrize("command", ["LANG", "LANG \r", "lang"])
def test_6856_02_lang_alone_lists_languages(three, command):
    assert three.say(command) == (
        b"+OK Language listing follows:\r\nen English\r\ni-default Default language\r\n.\r\n"
    )


@pytest.mark.parametrize(
    "argument, reply",
    [
        ("en", b"+OK en King's English\r\n"),
        ("i-default", b"+OK i-default King's English\r\n"),
        ("*", b"+OK en King's English\r\n"),
        *((tag, b"-ERR Language not available.\r\n") for tag in ("EN", "en ", " en", "de", "en x")),
    ],
)
def test_6856_03_lang_chooses_exactly(three, argument, reply):
    assert three.say("LANG " + argument) == reply


UNICODE = b"Subject: \xd0\x9f\xd1\x80\n\nLine 1\n.dot\nend"


@pytest.fixture
def unicode(box, talk):
    box.put("cur/1.a:2,", UNICODE)
    return talk(utf8=False)


def test_6856_04_with_utf8_a_unicode_message_comes_as_stored_at_its_size(unicode):
    assert unicode.say("UTF8") == b"+OK UTF8 enabled\r\n"
    body = unicode.body("RETR 1")
    assert body == UNICODE.replace(b"\n", b"\r\n") + b"\r\n"
    assert unicode.say("LIST 1") == b"+OK 1 %d\r\n" % len(body)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n", b"\n\n"])
def test_6856_05_without_utf8_it_is_wrapped_with_a_true_octet_count(box, talk, ending):
    box.put("cur/1.a:2,", UNICODE + ending)
    session = talk(utf8=False)
    reply = session.say("RETR 1")
    body = session.body("RETR 1")
    assert reply.startswith(b"+OK %d octets follow.\r\n" % len(body))
    header, _, rest = body.partition(b"\r\n\r\n")
    assert header.isascii() and b'boundary="=_1-200"' in header
    assert b"\r\n--=_1-200\r\nContent-Type: message/global\r\n\r\nSubject: \xd0" in rest
    assert rest.endswith(b"\r\n--=_1-200--\r\n")
    assert b"\r\n..dot\r\n" in reply
    assert box.names() == ["1.a:2,S"]


def test_6856_05_top_gives_the_header_of_the_wrapper(unicode):
    body = unicode.body("TOP 1 0")
    assert body.startswith(b"From: Mail Delivery Subsystem <postmaster>\r\n")
    assert body.endswith(b"\r\n\r\n") and body.isascii()


def test_6856_05_a_wrapped_message_that_is_gone_is_gone(unicode):
    os.unlink("cur/1.a:2,")
    assert unicode.say("RETR 1") == GONE


# Counters


def test_the_counters_are_those_of_the_log_line(three):
    received = 0
    for line in ("TOP 1 1\r", "TOP 3 0", "RETR 1\r", "RETR 3", "NOOP"):
        three.say(line)
        received += len(line) + 1
    assert three.session.counts == {"top": 47 + 2, "retr": 61 + 2, "rcvd": received}
    replies = len(three.say("CAPA")) + len(three.say("LANG")) + len(three.say("LANG xx"))
    assert three.session.uncounted == replies


def test_CVE_02_an_overlong_line_counts_as_what_was_taken_of_it(three):
    three.say(None)
    assert three.session.counts["rcvd"] == 8191
