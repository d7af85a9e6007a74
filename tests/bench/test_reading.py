"""What the benchmark reads and prints: tables, ratios, other programs' output, and its verdicts."""

import subprocess
import sys

import anatomy
import pytest
import report
import vitals


def test_table_is_markdown_with_numbers_to_the_right():
    text = report.table(["server", "a"], [["ours", "1.5"], ["x", "12345"]])
    assert text.splitlines() == [
        "| server |     a |",
        "| ------ | ----: |",
        "| ours   |   1.5 |",
        "| x      | 12345 |",
    ]


def test_table_has_long_text_to_the_left():
    text = report.table(["a", "b"], [["x", "y" * 50]])
    assert text.splitlines()[1] == f"| --- | {'-' * 50} |"


def runs(server: str, order: int, rates: list[float], at_once: int = 8) -> list[dict]:
    common = {"server": server, "order": order, "at_once": at_once}
    common |= {"errors": 0, "warm_up_errors": 0, report.CPU: 1.0, report.P99: 1.0}
    return [{**common, "round": number, report.RATE: rate} for number, rate in enumerate(rates)]


def test_ratio_is_taken_within_each_round():
    found = runs("ours-userdb", 1, [400, 40, 900]) + runs("courier-userdb", 0, [100, 10, 300])
    assert report.ratio_of(found, "ours-userdb", "courier-userdb", 8, report.RATE) == 4
    assert report.ratio_of(found, "ours-userdb", "popa3d", 8, report.RATE) is None


def test_ratios_say_whether_the_aim_is_met():
    found = runs("ours-userdb", 1, [400]) + runs("courier-userdb", 0, [101])
    (row,) = [line for line in report.ratios(found).splitlines() if "sessions/s" in line]
    assert "3.96 x" in row and ">= 4.0 x: MISSED" in row


def test_sessions_that_failed_are_told():
    (run,) = runs("ours-userdb", 0, [400])
    run |= {"errors": 3, "sessions": 10, "first_bad_reply": "pass: -ERR"}
    text = report.errors([run])
    assert text.startswith("***") and "at_once 8, round 0: 3 of 10" in text and "pass: -ERR" in text


def test_strace_table_is_read_without_its_total():
    text = "syscall               calls\n--------- ---------\nread   5200\nclose_range 300\n"
    text += "--------- ---------\ntotal                  5500\n"
    assert anatomy.parsed_calls(text) == {"read": 5200, "close_range": 300}


def test_import_times_are_those_behind_site():
    argv = [sys.executable, "-I", "-X", "importtime", "-c", "import colorsys"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = anatomy.parsed_imports(done.stderr)
    assert "colorsys" in found and "site" not in found and "encodings" not in found


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (
            "/venv/bin/python -I -B -c import|x;|x() /v/couriertls -server -relay",
            "couriertls -server",
        ),
        ("/python3 -IB /bin/courierpop3login -front authpam ./Maildir", "courierpop3login -front"),
        ("/usr/lib/courier/authdaemond", "authdaemond"),
        ("", ""),
    ],
)
def test_role_is_named_after_program_and_first_option(command, role):
    words = [word.replace("|", " ") for word in command.split(" ")]
    assert vitals.role_name(words) == role


def samples(anonymous: list[int], files: int = 10) -> list[vitals.Sample]:
    listener = {"processes": 1, "private": 100, "pss": 100, "files": files}
    return [{"listener": {**listener, "anonymous": one}} for one in anonymous]


def test_memory_that_wavers_is_flat():
    _, flat = vitals.verdict(samples([6000, 6100, 6050, 6090] * 4))
    assert flat


def test_memory_that_grows_is_not():
    rows, flat = vitals.verdict(samples([6000 + 200 * number for number in range(16)]))
    assert not flat and rows[0][-1] == "GROWS"


def test_descriptors_that_grow_are_not_flat():
    _, flat = vitals.verdict(samples([6000] * 12) + samples([6000] * 4, files=40))
    assert not flat


def test_sessions_processes_are_not_judged():
    found = [{vitals.SESSIONS: dict.fromkeys(vitals.MEASURES, number)} for number in range(9999)]
    assert vitals.verdict(found)[1]
