r"""Conversations before the login, played without descriptors and against the program.

Of tests/transcripts those with a line `given login`. The lines are those of
courierpop3d/test_pop3d_transcripts.py, and

    given NAME=VALUE         an environment variable, from here on
    then record: WORD...     the lines of the record that is handed on, and the end of the session
    again                    another session begins
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from courierchain.settings import Settings
from courierpop3login.main import authorization
from tests.conftest import BIN, DEADLINE

PLACE = Path(__file__).parent.parent / "transcripts"
GREETING = b"+OK Hello there.\r\n"


def lines_of(path: Path) -> list[str]:
    text = path.read_text("latin-1").encode("latin-1").decode("unicode_escape").split("\n")
    return [line for line in text if line and not line.startswith("#")]


TRANSCRIPTS = {
    path.stem: path for path in sorted(PLACE.glob("*.pop3")) if "given login" in lines_of(path)
}


class Session:
    """env, exchanges of what the client sends with the reply, and the record that comes of it."""

    def __init__(self, env: dict[str, str]):
        self.env = dict(env)
        self.exchanges: list[tuple[bytes, bytes]] = []
        self.record: bytes | None = None


def sessions_of(path: Path) -> list[Session]:
    sessions = [Session({})]
    for line in lines_of(path):
        now = sessions[-1]
        if line.startswith("given ") and "=" in line:
            name, _, value = line.removeprefix("given ").partition("=")
            now.env[name] = value
        elif line.startswith("C: "):
            now.exchanges.append((line[3:].encode("latin-1") + b"\r\n", b""))
        elif line.startswith("S: "):
            command, reply = now.exchanges.pop()
            now.exchanges.append((command, reply + line[3:].encode("latin-1") + b"\r\n"))
        elif line.startswith("then record:"):
            words = line.removeprefix("then record: ").split(" ")
            now.record = "".join(word + "\n" for word in [*words, ""]).encode("latin-1")
        elif line == "again":
            sessions.append(Session(now.env))
        elif line != "given login":
            raise ValueError(line)
    return sessions


@pytest.fixture(params=TRANSCRIPTS)
def sessions(request) -> list[Session]:
    return sessions_of(TRANSCRIPTS[request.param])


def test_transcript_without_descriptors(sessions):
    for session in sessions:
        env = {"UTF8": "0", **session.env}
        client = authorization(["courierpop3login", "/bin/true"], env, Settings(env))
        for command, reply in session.exchanges:
            assert client.obey(command[:-1]) == reply, command
        assert client.request == session.record


def test_transcript_with_the_program(sessions, script, public):
    dump = script("dump", f"#!/bin/sh\ncat <&3 >{public}/record\n")
    for session in sessions:
        near, far = socket.socketpair()
        near.settimeout(DEADLINE)
        env = {"PATH": os.environ["PATH"], **session.env}
        with (
            near,
            subprocess.Popen(
                [BIN / "courierpop3login", dump, "./Maildir"],
                stdin=far,
                stdout=far,
                stderr=subprocess.DEVNULL,
                env=env,
            ) as program,
        ):
            far.close()
            replies = near.makefile("rb")
            assert replies.readline() == GREETING
            for command, reply in session.exchanges:
                near.sendall(command)
                got = b"".join(replies.readline() for _ in range(reply.count(b"\n")))
                assert got == reply, command
            near.shutdown(socket.SHUT_WR)
            assert replies.read() == b""
            program.wait(DEADLINE)
        if session.record is not None:
            assert (public / "record").read_bytes() == session.record
            (public / "record").unlink()
        else:
            assert not (public / "record").exists()


def test_there_are_transcripts_and_every_session_expects_something():
    assert len(TRANSCRIPTS) > 2
    for path in TRANSCRIPTS.values():
        for session in sessions_of(path):
            assert session.record or any(reply for _, reply in session.exchanges)
