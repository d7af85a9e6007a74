"""Debian's courierpop3d and ours, removing the same mail from copies of one Maildir: maildirsize.

The files are equal to the octet but where Courier is wrong:

    after it has made the file anew, without the messages it has removed, it subtracts those again:
    its file is then ours with that line at the end

    an empty file gets a change for its first line; a file that doesn't end with a line end gets it
    into its last line; a first line that it doesn't understand is lost when the file is made anew;
    numbers overflow. So none of these is made here, and test_quota.py says what we do of them
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierpop3d.quota import LONG
from tests.conftest import DEADLINE, needs
from tests.courierpop3d.conftest import Box, Talk

ORIGINAL = "/usr/lib/courier/courier/courierpop3d"


class Mailbox(Box):
    """A Maildir with a maildirsize, and what removals make of that."""

    def fill(self, messages: dict[str, int], size: bytes, age: float) -> None:
        for name, octets in messages.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            self.put(name, b"x" * octets)
        self.put("maildirsize", size)
        then = time.time() - age
        os.utime(self.path / "maildirsize", (then, then))

    def state(self) -> tuple[int, bytes]:
        """Which file maildirsize is, and what is in it."""
        size = self.path / "maildirsize"
        return size.stat().st_ino, size.read_bytes()

    def copy(self) -> Mailbox:
        copied = Mailbox(self.home.parent / "copy")
        shutil.copytree(self.path, copied.path, copy_function=shutil.copy2, dirs_exist_ok=True)
        return copied

    def original(self, numbers: list[int]) -> list[str]:
        """Remove these messages with Debian's program; what it logs of it."""
        self.own()
        script = "".join(f"DELE {number}\r\n" for number in numbers) + "QUIT\r\n"
        user = Box.as_owner()
        run = subprocess.run(
            [ORIGINAL, "./Maildir"],
            input=script.encode(),
            capture_output=True,
            cwd=self.home,
            env={"AUTHENTICATED": "joe"},
            timeout=DEADLINE,
            check=True,
            **user,
        )
        assert run.stdout.endswith(b"+OK Bye-bye.\r\n")
        return [line for line in run.stderr.decode("latin-1").splitlines() if "LOG" not in line]

    def ours(self, numbers: list[int]) -> None:
        os.chdir(self.path)
        session = Talk()
        for number in numbers:
            session.say(f"DELE {number}")
        assert session.say("QUIT") == b"+OK Bye-bye.\r\n"


@pytest.fixture(scope="module")
def public():
    """A directory that every user may enter."""
    needs(ORIGINAL)
    with tempfile.TemporaryDirectory(prefix="courierpop3-test-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def both(public: Path, messages: dict[str, int], size: bytes, numbers: list[int], age: float):
    """What maildirsize is before, after the original, and after us; and whether it is a new one."""
    with tempfile.TemporaryDirectory(dir=public) as directory:
        os.chmod(directory, 0o755)
        theirs = Mailbox(Path(directory) / "home")
        theirs.fill(messages, size, age)
        mine = theirs.copy()
        before, again = theirs.state(), mine.state()
        log = theirs.original(numbers)
        mine.ours(numbers)
        after, copied = theirs.state(), mine.state()
        os.chdir(public)
        anew = before[0] != after[0]
        assert (again[0] != copied[0]) is anew, (after, copied)
        return after[1], copied[1], anew, log


FOLDERS = ["cur"] * 6 + ["new", ".A/cur", ".A/new", ".Trash/cur", ".Trash.B/new", "A/cur"]
SIZES = ["", "", "", ",S=17", ",S=0", ",S=", ",S=100,W=105", ",S=1,S=5", ",S=7x", ",W=9"]
FLAGS = ["", ":2,", ":2,", ":2,S", ":2,S", ":2,T", ":2,RST", ":2,sT", ":2,S,S=9", ":1,T", ":T"]


@st.composite
def mailboxes(draw) -> dict[str, int]:
    """Paths of messages, with the sizes of the files."""
    messages = {}
    for number in range(draw(st.integers(2, 8))):
        folder, size, flags = (draw(st.sampled_from(some)) for some in (FOLDERS, SIZES, FLAGS))
        name = f"{folder}/{number}.m{size}" + ("" if folder == "new" else flags)
        messages[name] = draw(st.sampled_from([1, 17, 60, 0]))
    return messages


LIMITS = st.integers(0, 200) | st.integers(0, 10**9)
BEFORE = st.sampled_from(["", "", "-", " ", "0", "x"])
LIMIT = st.builds("{}{}{}".format, BEFORE, LIMITS, st.sampled_from("SC"))
QUOTAS = st.lists(LIMIT, max_size=3).map(",".join)
BLANKS = st.sampled_from([" ", "           ", "\t", " \r\v "])
OCTETS = st.integers(-20, 200)
CHANGES = st.builds("{0}{1}{0}{2}".format, BLANKS, OCTETS, st.integers(-1, 9))
JUNK = st.text("x-+ 17\t", max_size=12)
SHORT = st.lists(CHANGES | JUNK, min_size=1, max_size=4)
LINES = st.one_of(SHORT, SHORT.map(lambda lines: lines * (LONG // len("".join(lines) + "\n") + 1)))


@settings(max_examples=150)
@given(
    messages=mailboxes(),
    quota=QUOTAS,
    lines=LINES,
    numbers=st.sampled_from([[1], [2], [1, 2], [1, 2, 3], [2, 4], [9]]),
    age=st.sampled_from([0.0, 600.0, 1000.0]),
)
def test_maildirsize_is_the_same_to_the_octet(public, messages, quota, lines, numbers, age):
    size = "".join(f"{line}\n" for line in [quota, *lines]).encode()
    theirs, mine, anew, _ = both(public, messages, size, numbers, age)
    if anew:
        *rest, change = theirs.splitlines(keepends=True)
        assert len(rest) == 2 and change.split()[1].startswith(b"-")
        theirs = b"".join(rest)
    assert mine == theirs


MESSAGE = {"cur/1.a:2,": 17, "cur/2.b:2,": 17}


@pytest.mark.parametrize("octets, anew", [(5118, False), (5119, False), (5120, True), (5121, True)])
def test_both_think_the_same_file_too_long(public, octets, anew):
    size = b"1000S\n".ljust(octets - 1) + b"\n"
    assert both(public, MESSAGE, size, [1], 0)[2] is anew


@pytest.mark.parametrize("quota", [b"1000", b"1000s", b"5X,7Y", b"1000S,3X"])
def test_both_warn_of_the_same_quotas(public, capfd, quota):
    theirs, mine, anew, log = both(public, MESSAGE, quota + b"\n17 1\n", [1], 0)
    assert theirs == mine and not anew
    assert {line + ", user=joe" for line in log} == set(capfd.readouterr().err.splitlines())
