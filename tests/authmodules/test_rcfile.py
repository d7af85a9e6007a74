"""Courier's rc files: how a line is read, and what is refused."""

from __future__ import annotations

import pytest

from authmodules.rcfile import read
from courierchain.authmodule import TemporaryFailure

NAMES = ("A_SERVER", "A_CLAUSE", "A_PORT")
MARKER = "##NAME: MARKER:0\n"


@pytest.fixture
def rc(tmp_path):
    path = tmp_path / "rc"

    def write(text: str, mode: int = 0o600):
        path.write_text(text)
        path.chmod(mode)
        return read(str(path), NAMES)

    return write


def refusal(rc, text: str, mode: int = 0o600) -> str:
    with pytest.raises(TemporaryFailure) as why:
        rc(text, mode)
    return str(why.value).split("/")[-1]


@pytest.mark.parametrize(
    "line, value",
    [
        ("A_SERVER\t\tlocalhost", "localhost"),
        ("A_SERVER localhost", "localhost"),
        ("  \tA_SERVER \t local host  \t", "local host"),
        ("A_SERVER a#b", "a#b"),
        ("A_SERVER", ""),
        ("A_SERVER \\\n   here \\\n\tand there", "here \tand there"),
        ("A_SERVER one\nA_SERVER two", "one"),
        ("# A_SERVER no\n  # A_SERVER no \\\nA_SERVER yes", "yes"),
        ("A_SERVER at the end \\", "at the end"),
    ],
)
def test_a_line_is_read_as_courier_reads_it(rc, line, value):
    assert rc(MARKER + line + "\n").text("A_SERVER") == value
    assert rc(MARKER + line).text("A_SERVER") == value


def test_what_is_not_set_has_its_default(rc):
    file = rc(MARKER)
    assert file.text("A_SERVER", "localhost") == "localhost"
    assert file.number("A_PORT") == 0


def test_a_file_without_a_marker_is_refused(rc):
    assert refusal(rc, "A_SERVER x\n") == (
        "rc: no line ##NAME: MARKER: in it, so it is not whole (put ##NAME: MARKER:0 at its end)"
    )


def test_a_misspelt_setting_is_named_with_its_line_and_what_is_meant(rc):
    assert refusal(rc, f"# x\nA_SERVER \\\n x\n\nA_PROT 1\n{MARKER}") == (
        "rc line 5: A_PROT: no such setting (A_PORT is meant?)"
    )
    assert refusal(rc, f"XYZ 1\n{MARKER}") == "rc line 1: XYZ: no such setting (remove the line)"


@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_file_that_is_open_to_everybody_is_refused(rc, mode):
    with pytest.raises(TemporaryFailure, match=r"/rc is open to everybody \(chmod o= /.*/rc\)"):
        rc(MARKER, mode)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(TemporaryFailure, match="cannot read .*: No such file or directory"):
        read(str(tmp_path / "none"), NAMES)


@pytest.mark.parametrize("port", ["x", "-1", "1" * 11, "99999999999", "\u0661"])
def test_a_number_is_digits(rc, port):
    file = rc(f"{MARKER}A_PORT {port}\n")
    with pytest.raises(TemporaryFailure, match="line 2: A_PORT: .* is not a number"):
        file.number("A_PORT")
