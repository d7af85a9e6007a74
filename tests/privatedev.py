"""A /dev/log for the programs under test, and for no other: in a mount namespace of their own."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.conftest import DEADLINE, needs, needs_root

PRIVATE_DEV = """\
mount -t tmpfs none {private} && cd {private} && touch null zero full random urandom tty &&
for node in *; do mount --bind /dev/$node $node || exit 1; done &&
ln -s {socket} log && mount --rbind {private} /dev && cd "$OLDPWD" && exec "$@"
"""


class PrivateDev:
    """`private` is an empty directory, `socket` what is to be /dev/log. Skips the test where there
    can't be one."""

    def __init__(self, private: Path, socket: Path):
        needs_root()
        needs("unshare")
        probe = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", private],
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        if probe.returncode:
            pytest.skip("no mount namespaces here")
        self._script = PRIVATE_DEV.format(private=private, socket=socket)

    def behind(self, *argv: str) -> list[str]:
        """The command that runs `argv` so."""
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", self._script, "sh", *argv]


class Collector:
    """Takes all that comes on a socket of datagrams, so that nobody who logs has to wait."""

    def __init__(self, path: Path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._lines: list[str] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while message := self._socket.recv(8192):
            self._lines.append(message.rstrip(b"\0\n").decode("latin-1"))

    def lines(self) -> list[str]:
        return list(self._lines)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
