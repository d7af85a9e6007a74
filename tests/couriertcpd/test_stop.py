"""couriertcpd -stop and -restart, where no daemon can be found (courierchain/test_daemon has the
rest)."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import BIN, DEADLINE


@pytest.mark.parametrize("command", ["-stop", "-restart"])
def test_without_a_directory_for_the_lock_that_is_said_and_no_failure(command, tmp_path):
    lost = tmp_path / "nowhere" / "pid"
    done = subprocess.run(
        [BIN / "couriertcpd", f"-pid={lost}", command],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, f"{lost}.lock: No such file or directory\n")
