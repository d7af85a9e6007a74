"""One module alone, started as the chain starts it: what does it do with a request?"""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest

from tests.chain.test_record import stage
from tests.conftest import BIN, DEADLINE, wait_until

FOLLOWING = """#!/bin/sh
if [ "$AUTHENTICATED" ]; then
    echo ACCEPTED
    echo "UID=$(id -u)"; echo "GROUPS=$(id -G)"; echo "CWD=$(pwd)"; env
else
    cat <&3
fi
"""

NO_DELAY = {"POP3_FAILURE_DELAY": "0"}  # for chains

HOSTILE = {  # userids that must find nobody, and nobody's password
    "quotes": b"x' OR '1'='1",
    "wildcard": b"*",
    "filter": b"*)(uid=*",
    "backslash": b"john\\",
    "expansions": b"$(id)`id`${HOME}%{env:HOME}%u@user@",
    "path": b"../../etc/passwd",
    "fields": b"john:|=\tx",
    "carriage return": b"john\r",
    "controls": b"\x01\x1b[31m\x7f",
    "not utf-8": b"\xff\xfe\xc3(",
    "long": b"j" * 3000,
}


class Outcome:
    """How a module ended: `accepted`, `rejected` (the same bytes on descriptor 3) or `trouble`
    (back to the login program); what the next program found in its environment; the log."""

    def __init__(self, done, record: bytes):
        text = done.stdout.decode("latin-1")
        self.log = done.stderr.decode()
        self.status = done.returncode
        lines = text.splitlines()
        self.env = dict(line.split("=", 1) for line in lines if "=" in line)
        if done.stdout == record:
            self.word = "rejected"
        else:
            self.word = {"ACCEPTED": "accepted", "AGAIN": "trouble"}.get(lines[0], text)

    def __repr__(self) -> str:
        return f"{self.word}: {self.log or self.env}"


@pytest.fixture
def ask(script, environment):
    """ask(module, user, password, argument..., NAME=setting): the Outcome."""
    following = script("following", FOLLOWING)
    login = script("login", '#!/bin/sh\necho AGAIN\necho "WHY=$COURIER_LOGIN_FAILURE"\n')

    def ask(module: str, user="john", password="", *words, record: bytes = b"", **settings):
        user, password = (
            text.encode() if isinstance(text, str) else text for text in (user, password)
        )
        record = record or b"pop3\nlogin\n%s\n%s\n\n" % (user, password)
        env = {**environment, **{name: str(value) for name, value in settings.items()}}
        env |= {"AUTHUSER": login, "AUTHARGC": "1", "AUTHARGV0": login}
        return Outcome(stage(BIN / module, *words, following, record=record, env=env), record)

    return ask


def apop(secret: bytes, user: bytes = b"john", challenge: bytes = b"<1.2@host>") -> bytes:
    digest = hashlib.md5(challenge + secret).hexdigest().encode()
    lines = (b64encode(challenge), b64encode(user + b" " + digest))
    return b"pop\napop\n%s\n%s\n\n" % lines


def external(user: bytes) -> bytes:
    return b"pop3\nexternal\n%s\n\n" % user


class Daemon:
    """Our authdaemond with a configuration of its own; its processes answer one after another."""

    def __init__(self, directory: Path, settings: dict[str, str], env: dict[str, str]):
        self.directory = directory
        self.socket = directory / "run" / "socket"
        self.log = directory / "log"
        self.rc = directory / "authdaemonrc"
        self.configure(**settings)
        with self.log.open("ab") as log:
            argv = [BIN / "authdaemond", f"-rc={self.rc}"]
            self.process = subprocess.Popen(argv, stderr=log, env=env)
        wait_until(self.socket.exists, f"authdaemond answers: {self.log.read_text()}")

    def configure(self, **settings: str) -> None:
        settings = {"authdaemonvar": str(self.socket.parent), "daemons": "1", **settings}
        lines = [f'{name}="{value}"\n' for name, value in settings.items()]
        self.rc.write_text("".join(lines))

    def ask(self, question: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(self.socket))
            client.sendall(question)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def login(self, user: str, password: str) -> bytes:
        record = f"pop3\nlogin\n{user}\n{password}\n".encode()
        return self.ask(b"AUTH %d\n%s" % (len(record), record))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE)


@pytest.fixture
def authdaemond(environment):
    """authdaemond(NAME=setting): a running Daemon."""
    running: list[Daemon] = []

    def start(**settings) -> Daemon:
        directory = Path(tempfile.mkdtemp(prefix="courierpop3-daemon-", dir="/tmp"))
        settings = {name: str(value) for name, value in settings.items()}
        running.append(Daemon(directory, settings, environment))
        return running[-1]

    yield start
    for daemon in running:
        daemon.stop()
        shutil.rmtree(daemon.directory)
