"""-block and -allow: what is asked, and what an answer sets (reference couriertcpd.md 8.3)."""

from __future__ import annotations

import time
from socket import AF_INET6, inet_pton

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.refusal import Refused
from couriertcpd.dnslists import DnsList, is_host_name, printable, variables

IPV4 = "::ffff:192.0.2.7"
CLIENT = inet_pton(AF_INET6, IPV4)
A = ["127.0.0.2"]
NIBBLES = "7.0.2.0.0.0.0.c.f.f.f.f." + "0." * 20


def found(option: str, text: str, *answers, preset=()) -> dict[str, str]:
    return variables([DnsList(option, text)], [list(answers)], preset, CLIENT)


def hit(value: str, variable: str = "BLOCK", zone: str = "bl.example", **more: str):
    return {variable: value, f"{variable}_ZONE": zone, f"{variable}_IP": A[0]} | {
        f"{variable}_{name}": text for name, text in more.items()
    }


ROWS = [
    ("bl.example", A, "", hit("Blacklisted by bl.example")),
    ("bl.example", [], "", {}),
    ("bl.example=shown", A, "", hit("Blacklisted by bl.example", zone="shown")),
    ("bl.example,", A, "", hit("Blacklisted by bl.example")),
    ("bl.example,BAD", A, "", hit("Blacklisted by bl.example", "BAD")),
    ("bl.example,BAD,", A, "", hit("Blacklisted by bl.example", "BAD")),
    ("bl.example,,go, away", A, "", hit("go, away")),
    ("bl.example,BAD,@ at @", A, "", hit(f"{IPV4} at @", "BAD")),
    ("bl.example,BAD/127.0.0.2", A, "", hit("Blacklisted by bl.example", "BAD")),
    ("bl.example,BAD/127.0.0.3", A, "", {}),
    ("bl.example/127.0.0.3", A, "", {}),
    ("bl.example/127.0.0.2,BAD,x", A, "", hit("x", "BAD")),
    ("bl.example,BAD/127.0.0.2,x", ["127.0.0.9", *A], "", hit("x", "BAD")),
    ("bl.example,BLOCK,*", A, "", hit("*")),
    ("bl.example,BLOCK,*", A, "see @", hit("see @", TXT="see @")),
    ("bl.example,BLOCK/127.0.0.2,*", A, "text", hit("*")),
    ("bl.example,BLOCK/127.0.0.3,*", A, "text", {}),
    ("bl.example,BLOCK/127.0.0.3,*", [], "text", {}),
    (
        "bl.example,BLOCK,*",
        [],
        "text",
        {"BLOCK": "text", "BLOCK_ZONE": "bl.example", "BLOCK_TXT": "text"},
    ),
]


@pytest.mark.parametrize(("text", "values", "txt", "expected"), ROWS, ids=[r[0] for r in ROWS])
def test_what_a_block_list_sets(text, values, txt, expected):
    assert found("block", text, (values, txt)) == expected


ALLOWED = [
    ("bl.example", A, "", hit("")),
    ("bl.example,OK", A, "", hit("", "OK")),
    ("bl.example,OK/127.0.0.3", A, "", {}),
    ("bl.example,OK,", A, "t", hit("", "OK", TXT="t")),
    ("bl.example,OK,*", [], "t", {"OK": "", "OK_ZONE": "bl.example", "OK_TXT": "t"}),
    ("bl.example,OK/127.0.0.3,", [], "t", {}),
    ("bl.example,OK/127.0.0.2,", A, "t", hit("", "OK", TXT="t")),
]


@pytest.mark.parametrize(("text", "values", "txt", "expected"), ALLOWED)
def test_what_an_allow_list_sets(text, values, txt, expected):
    variable = DnsList("allow", text).variable
    expected = {**expected, "ALLOW_0": variable} if expected else {}
    assert found("allow", text, (values, txt)) == expected


@pytest.mark.parametrize(
    ("option", "text", "with_text"),
    [
        ("block", "z", False),
        ("block", "z,V", False),
        ("block", "z,V,", False),
        ("block", "z,V,text", False),
        ("block", "z,V,*", True),
        ("block", "z,V,**", False),
        ("allow", "z,V", False),
        ("allow", "z,V,", True),
        ("allow", "z,V,x", True),
    ],
)
def test_when_txt_is_asked_for(option, text, with_text):
    assert DnsList(option, text).with_text is with_text


@pytest.mark.parametrize("preset", ["BLOCK"])
def test_a_variable_that_is_set_keeps_its_value(preset):
    assert found("block", "z", (A, ""), preset=[preset]) == {}
    assert found("block", "z", (A, ""), preset=["BLOCK_IP"]) != {}


def test_the_first_list_with_the_client_on_it_counts_and_others_with_the_same_variable_don_t():
    options = [("block", "none"), ("allow", "white"), ("block", "black"), ("allow", "w2,OTHER")]
    lists = [DnsList(*option) for option in options]
    miss, listed = ([], ""), (A, "")
    answers = [[miss, miss], [listed], [listed], [miss, listed]]
    assert variables(lists, answers, [], CLIENT) == {
        **hit("", zone="white"),
        **hit("", "OTHER", zone="w2"),
        "ALLOW_0": "BLOCK",
        "ALLOW_1": "OTHER",
    }
    answers[1] = [miss]
    assert variables(lists, answers, [], CLIENT) == {
        **hit("Blacklisted by black", zone="black"),
        **hit("", "OTHER", zone="w2"),
        "ALLOW_0": "OTHER",
    }


@pytest.mark.parametrize(
    ("address", "names"),
    [
        (IPV4, ["7.2.0.192.z", f"{NIBBLES}z"]),
        ("::1", ["1." + "0." * 31 + "z"]),
        (
            "2001:db8::f00d",
            ["d.0.0.f." + "0." * 20 + "8.b.d.0.1.0.0.2.z"],
        ),
    ],
)
def test_the_names_that_are_asked_for(address, names):
    assert DnsList("block", "z").names(inet_pton(AF_INET6, address)) == names


def test_a_name_that_is_too_long_is_not_asked_for():
    for length, count in ((190, 2), (191, 2), (192, 1), (244, 1), (243, 1)):
        zone = ("a." * length)[: length - 1] + "b"
        names = DnsList("block", zone).names(CLIENT)
        assert len(names) == count == sum(len(name) <= 255 for name in names)
    assert DnsList("block", ("a." * 127)[:-1]).names(CLIENT) == []


@pytest.mark.parametrize(
    "text",
    [*("", ",V", "=shown", "a b", "a..b", ".a", "x" * 64, "a\0b", "ä.example"), "/127.0.0.2"],
)
def test_a_list_without_a_zone_is_refused(text):
    with pytest.raises(Refused, match="no zone"):
        DnsList("block", text)


@pytest.mark.parametrize("text", ["z,A=B", "z,A B", "z,1", "z,Ä", "z,A\0"])
def test_a_variable_that_can_t_be_one_is_refused(text):
    with pytest.raises(Refused, match="can't be the name of a variable"):
        DnsList("block", text)


@pytest.mark.parametrize("text", ["z,V/127", "z/x", "z,V/127.0.0.256", "z,V/::1", "z,V/1.2.3.4/5"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(Refused, match="Invalid IP address"):
        DnsList("block", text)


@pytest.mark.parametrize("name", ["a", "a.b", "mail-1.example.org", "_x._tcp.example", "1.2", "a."])
def test_host_names(name):
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "a..b", ".a", "a b", "a\nb", "a\0", "$(id)", "a,b", "[a]", "ä", "a=b", "a/b"),
        *("a" * 64, "a." * 128, "() { :;}", "%s%n"),
    ],
)
def test_CVE_40_a_name_that_is_none(name):
    assert not is_host_name(name)


@given(st.text())
def test_CVE_40_no_text_makes_a_name_of_other_characters(text):
    if is_host_name(text):
        assert len(text) <= 255 and text.isascii()
        assert all(char.isalnum() or char in "-_." for char in text)


@given(st.binary())
def test_CVE_40_a_text_record_is_printable_and_short(text):
    shown = printable(text, 20)
    assert len(shown) == min(len(text), 20) and (not shown or shown.isprintable())


def test_CVE_45_long_names_take_no_time():
    begin = time.process_time()
    assert not is_host_name("a" * 100_000)
    assert not is_host_name("a." * 50_000)
    with pytest.raises(Refused):
        DnsList("block", "a" * 100_000)
    assert time.process_time() - begin < 0.1
