"""A site: a directory with `pop3d` and `pop3d-ssl`, and courierctl for it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, DEADLINE, Client, free_port

TEMPLATES = Path(__file__).parents[2] / "courierctl" / "etc"
FAKE_PEM = "-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n"
PASSED_THROUGH = '#!/bin/sh\n# instead of couriertls: no TLS\nshift 3\nexec "$@"\n'


class Site:
    """Both instances on ports of their own, with the programs in `bin`: links to the installed
    ones, and a couriertls that does nothing but start the rest of its arguments."""

    def __init__(self, directory: Path, userdb: Path):
        self.directory = directory
        self.etc = directory / "etc"
        self.bin = directory / "bin"
        self.etc.mkdir()
        self.bin.mkdir()
        for program in BIN.iterdir():
            if program.name.startswith(("courier", "auth", "mk")):
                (self.bin / program.name).symlink_to(program)
        self.replace("couriertls", PASSED_THROUGH)
        pem = directory / "pop3d.pem"
        pem.write_text(FAKE_PEM)
        pem.chmod(0o600)
        self.log = directory / "log"
        self.pidfile = directory / "run" / "pop3d.pid"
        self.ssl_pidfile = directory / "run" / "pop3d-ssl.pid"
        self.port, self.ssl_port = free_port(), free_port()
        for name in ("pop3d", "pop3d-ssl"):
            (self.etc / name).write_text((TEMPLATES / name).read_text())
        self.set(
            PIDFILE=self.pidfile,
            ADDRESS="127.0.0.1",
            PORT=self.port,
            LOGGEROPTS=f"-name=pop3d -file={self.log}",
            AUTHMODULES="authuserdb",
            AUTHUSERDB_FILE=userdb,
            POP3_FAILURE_DELAY="1",
            POP3DSSLSTART=None,
        )
        self.set(
            "pop3d-ssl",
            SSLPIDFILE=self.ssl_pidfile,
            SSLADDRESS="127.0.0.1",
            SSLPORT=self.ssl_port,
            SSLLOGGEROPTS=f"-name=pop3d-ssl -file={self.log}",
            COURIERTLS=self.bin / "couriertls",
            TLS_CERTFILE=pem,
            TLS_CACHEFILE=None,
            POP3DSSLSTART="NO",
        )

    def replace(self, name: str, text: str) -> None:
        """Put a script in the place of one of our programs."""
        program = self.bin / name
        program.unlink(missing_ok=True)
        program.write_text(text)
        program.chmod(0o755)

    def set(self, file: str = "pop3d", **settings) -> None:
        """Give settings these values, in double quotes; None takes a setting out."""
        path = self.etc / file
        for name, value in settings.items():
            lines = path.read_text().splitlines()
            lines = [line for line in lines if not line.startswith(f"{name}=")]
            if value is not None:
                lines.append(f'{name}="{value}"')
            path.write_text("\n".join(lines) + "\n")

    def append(self, text: str, file: str = "pop3d") -> int:
        """Add a line; its number."""
        path = self.etc / file
        path.write_text(path.read_text() + text + "\n")
        return len(path.read_text().splitlines()) - text.count("\n")

    def ctl(self, *arguments: str, **how) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "courierctl"), "-C", str(self.etc), *arguments],
            capture_output=True,
            text=True,
            timeout=3 * DEADLINE,
            check=False,
            **{"env": {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}, **how},
        )

    def ok(self, *arguments: str) -> str:
        """What courierctl prints; it has nothing to complain of."""
        done = self.ctl(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """What courierctl complains of."""
        done = self.ctl(*arguments)
        assert done.returncode == 1, (done.stdout, done.stderr)
        return done.stderr

    def argv(self, instance: str = "pop3d") -> list[str]:
        """The command line, as configtest prints it, without the directory of the programs."""
        shown = self.ctl("configtest", instance).stdout.splitlines()
        (line,) = [line for line in shown if line.startswith(f"{instance}: ")]
        words = shlex.split(line.removeprefix(f"{instance}: "))
        return [word.removeprefix(f"{self.bin}/") for word in words]

    def client(self, port: int | None = None) -> Client:
        return Client(port or self.port)

    def pid(self, file: Path | None = None) -> int:
        return int((file or self.pidfile).read_text())

    def logger(self, *arguments: str) -> None:
        subprocess.run([str(BIN / "courierlogger"), *arguments], check=True, timeout=DEADLINE)


@pytest.fixture
def site(public, accounts):
    directory = public / "site"
    directory.mkdir()
    site = Site(directory, accounts.userdb)
    yield site
    for pidfile in (site.pidfile, site.ssl_pidfile):
        if os.path.exists(f"{pidfile}.lock"):
            site.logger(f"-pid={pidfile}", "-stop")
