"""The command line: what is taken, what is refused and in which words."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couriertcpd.options import (
    IGNORED,
    LIST,
    TABLE,
    Options,
    Refused,
    leading_number,
    listing,
    parse,
)

PLACE = ["110", "/bin/cat"]


def options(*words: str) -> Options:
    return parse(["tcpd", *words, *PLACE])


def complaint(*words: str) -> str:
    with pytest.raises(Refused) as caught:
        parse(["tcpd", *words])
    return str(caught.value)


def test_row_27_without_options_courier_s_defaults_hold():
    chosen = options()
    assert (chosen.maxprocs, chosen.maxperip, chosen.maxperc, chosen.warn) == (40, 4, 40, None)
    assert (chosen.address, chosen.nodnslookup, chosen.stop, chosen.restart) == (
        "0",
        False,
        False,
        False,
    )
    assert (chosen.user, chosen.group, chosen.pid, chosen.stderr) == (None, None, "", None)
    assert (chosen.prefork, chosen.uses, chosen.coldexec) == (0, 1, False)
    assert (chosen.lists, chosen.maxfailsperip, chosen.maxfailsperuser) == ([], 0, 0)


def test_lists_add_up_in_the_order_of_the_command_line():
    words = ["-block=a", "-allow=b,X", "-maxprocs=3", "-block=c", "-block=a"]
    lists = [("block", "a"), ("allow", "b,X"), ("block", "c"), ("block", "a")]
    assert options(*words).lists == lists


@pytest.mark.parametrize("text", ["0.05", "1", "86400", "3.", ".5"])
def test_park_is_a_number_of_seconds(text):
    assert options("-uses=2", f"-park={text}").park == float(text)


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.0", ".", "-1", "+1", "1s", "1e3", "nan", "inf", "86401", "1.2.3", "1_0", "\u0661"],
)
def test_park_refuses_anything_else(text):
    assert complaint("-uses=2", f"-park={text}", *PLACE) == "Invalid -park option."


def test_park_needs_processes_that_are_used_again():
    assert complaint("-park=1", *PLACE) == "-park requires -uses=2 or more"
    assert options("-uses=2").park is None


def test_positionals_are_the_ports_and_the_program_with_all_its_arguments():
    chosen = parse(["tcpd", "-maxprocs=3", "110,995", "./login", "-maxprocs=9", "-", "Maildir"])
    assert chosen.portlist == "110,995"
    assert chosen.program == ["./login", "-maxprocs=9", "-", "Maildir"]
    assert chosen.maxprocs == 3


def test_a_lone_dash_ends_the_options():
    chosen = parse(["tcpd", "-nodnslookup", "-", "-1", "-prog"])
    assert (chosen.portlist, chosen.program) == ("-1", ["-prog"])


def test_the_last_of_several_counts():
    assert options("-maxperip=3", "-maxperip=7").maxperip == 7


@pytest.mark.parametrize("word", ["-nodnslookup", "-nodnslookup=0", "-nodnslookup="])
def test_a_flag_is_on_if_it_is_there(word):
    assert options(word).nodnslookup is True


def test_a_value_may_hold_anything_after_the_first_equals_sign():
    assert options("-stderr=/a=b -c").stderr == "/a=b -c"


def test_a_text_option_without_a_value_is_empty():
    assert options("-address").address == ""


@pytest.mark.parametrize("word", ["--maxprocs=3", "--", "-maxproc=3", "-MAXPROCS=3", "-=3", "-1"])
def test_row_01_names_are_whole_and_begin_with_one_dash(word):
    assert complaint(word, *PLACE) == f"tcpd: Invalid option: {word}"


@pytest.mark.parametrize("words", [[], ["110"], ["-nodnslookup"], ["-", "110"], ["-maxprocs=0"]])
def test_fewer_than_two_positionals_get_the_usage_line(words):
    assert complaint(*words) == "Usage: tcpd [options] port prog arg1 arg2..."


@pytest.mark.parametrize("word", ["-noidentlookup", "-noidentlookup=1", "-proxy", "-proxy=host"])
def test_row_03_options_of_old_command_lines_are_taken_and_ignored(word):
    assert options(word).program == ["/bin/cat"]


def test_accesslocal_needs_an_access_file_wherever_it_stands():
    assert complaint("-accesslocal", *PLACE) == "-accesslocal requires -access"
    assert options("-accesslocal", "-access=/x").accesslocal


@pytest.mark.parametrize(
    "word, variable",
    [("-drop", "BLOCK"), ("-drop=", "BLOCK"), ("-drop=A", "A"), ("-drop=A,B", "A")],
)
def test_drop_is_about_one_variable_and_without_a_value_about_BLOCK(word, variable):
    assert options(word).drop == variable
    assert options().drop is None


@pytest.mark.parametrize(
    "text, number", [("3", 3), (" +3x", 3), ("007", 7), ("9" * 9000, 2**31 - 1)]
)
def test_courier_s_numbers_are_read_as_c_reads_them(text, number):
    assert options(f"-maxprocs={text}").maxprocs == number


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "-", "+"])
@pytest.mark.parametrize(
    "option, name",
    [("maxprocs", "maxprocsarg"), ("maxperc",) * 2, ("maxperip",) * 2, ("listen",) * 2],
)
def test_courier_s_numbers_begin_at_one(option, name, text):
    assert complaint(f"-{option}={text}", *PLACE) == f"Invalid -{name} option."


@pytest.mark.parametrize("text", ["4x", " 4", "+4", "-1", "", "x", "\u0664", "4" * 10])
@pytest.mark.parametrize("option", ["prefork", "uses", "maxidle"])
def test_our_numbers_are_digits_or_refused(option, text):
    assert complaint(f"-{option}={text}", *PLACE) == f"Invalid -{option} option."


def test_no_process_need_wait_but_each_is_used_at_least_once():
    assert options("-prefork=0", "-uses=7").uses == 7
    assert complaint("-uses=0", *PLACE) == "Invalid -uses option."


def test_maxperc_is_maxprocs_unless_given():
    assert options("-maxprocs=7").maxperc == 7
    assert options("-maxprocs=7", "-maxperc=2").maxperc == 2


@pytest.mark.parametrize("text, level", [("0", 0), ("x", 0), ("8", 8), ("9", None), ("-1", None)])
def test_a_warning_level_out_of_range_counts_as_none(text, level):
    assert options("-maxprocs=8", f"-warn={text}").warn == level


def test_the_logger_s_name_is_the_program_s_last_part_unless_given():
    assert options().stderrloggername == "cat"
    assert options("-stderrloggername=").stderrloggername == "cat"
    assert options("-stderrloggername=pop3d-ssl").stderrloggername == "pop3d-ssl"


@pytest.mark.parametrize(
    "words", [["-stop"], ["-restart"], ["-stop", "-pid"], ["-stop", "-pid=x", "-pid="]]
)
def test_stop_and_restart_need_a_pid_file(words):
    assert complaint(*words) == "tcpd: -pid argument is required."


def test_a_pid_file_needs_a_name():
    assert complaint("-pid=", *PLACE) == "tcpd: -pid argument is required."


def test_stop_needs_nothing_else_and_looks_at_nothing_else():
    chosen = parse(["tcpd", "-maxprocs=0", "-pid=/run/x.pid", "-stop=no"])
    assert (chosen.stop, chosen.pid, chosen.program) == (True, "/run/x.pid", [])


def test_the_table_and_the_attributes_are_the_same_options():
    rows = {option.name for option in TABLE if option.kind not in (IGNORED, LIST)}
    assert rows | {"lists", "argv0", "portlist", "program"} == set(Options.__annotations__)
    for option in TABLE:
        assert f"-{option.name} " in listing()


@given(st.text(alphabet=" \t\v+-0123456789x\u0664", max_size=14))
def test_leading_number_is_c_s_atoi_within_the_range_of_int(text):
    libc = ctypes.CDLL(None)
    libc.strtol.restype = ctypes.c_long
    number = libc.strtol(text.encode(), None, 10)
    assert leading_number(text) == max(-(2**31), min(number, 2**31 - 1))


@given(st.lists(st.text(max_size=8).map(lambda text: "-" + text), max_size=4))
def test_any_argument_is_taken_or_refused_in_one_sentence(words):
    try:
        chosen = parse(["tcpd", *words, *PLACE])
    except Refused as why:
        assert str(why)
    else:
        assert chosen.maxprocs >= 1 and chosen.uses >= 1
