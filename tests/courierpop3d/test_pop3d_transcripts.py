r"""Conversations of tests/transcripts, played without descriptors and against the program.

A transcript begins after the login. Its lines, in order:

    # comment
    given maildir: PATH...      messages that say `Subject: NAME`, a blank line, `Line 1`, `Line 2`
    given PATH:                 a file, whose lines follow behind `| `
    given NAME=VALUE            an environment variable
    C: line                     the client sends this, and CRLF
    S: line                     the server sends this, and CRLF, and nothing else before the next C:
    then cur: NAME...           what is in cur/ at last, after all sessions
    again                       the client goes without QUIT if it hasn't said it, and logs in anew

\r, \t, \x00 and so on stand for themselves as in Python. Without another list the next unique id is
UID1-200.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

PLACE = Path(__file__).parent.parent / "transcripts"
BOUNDARY = re.compile(rb"=_\d+-\d+")  # of a wrapped message: process and time
MESSAGE = "Subject: {}\n\nLine 1\nLine 2\n"


def lines_of(path: Path) -> list[str]:
    text = path.read_text("latin-1").encode("latin-1").decode("unicode_escape").split("\n")
    return [line for line in text if line and not line.startswith("#")]


def is_for_this_program(path: Path) -> bool:
    return any(line.startswith(("given maildir:", "given cur/")) for line in lines_of(path))


TRANSCRIPTS = {
    path.stem: path for path in sorted(PLACE.glob("*.pop3")) if is_for_this_program(path)
}


class Transcript:
    """sessions: of each, the exchanges: what the client sends, and the reply."""

    def __init__(self, path: Path):
        self.files = {"courierpop3dsizelist": "/3 1 200\n"}
        self.env: dict[str, str] = {}
        self.sessions: list[list[tuple[bytes, bytes]]] = [[]]
        self.cur: list[str] | None = None
        self._open = ""
        for line in lines_of(path):
            self._take(line)

    def _take(self, line: str) -> None:
        words = line.split()
        if line.startswith("given maildir:"):
            for place in words[2:]:
                self.files[place] = MESSAGE.format(Path(place).name)
        elif words[0] == "given" and line.endswith(":"):
            self._open = line.removeprefix("given ")[:-1]
            self.files[self._open] = ""
        elif words[0] == "given":
            name, _, value = words[1].partition("=")
            self.env[name] = value
        elif line.startswith("|"):
            self.files[self._open] += line[2:] + "\n"
        elif line.startswith("C: "):
            self.sessions[-1].append((line[3:].encode("latin-1") + b"\r\n", b""))
        elif line.startswith("S: "):
            command, reply = self.sessions[-1].pop()
            self.sessions[-1].append((command, reply + line[3:].encode("latin-1") + b"\r\n"))
        elif line.startswith("then cur:"):
            self.cur = words[2:]
        elif line == "again":
            self.sessions.append([])
        else:
            raise ValueError(line)

    def set_up(self, box) -> None:
        for name, text in self.files.items():
            box.put(name, text.encode("latin-1"))


@pytest.fixture(params=TRANSCRIPTS)
def transcript(request, box) -> Transcript:
    transcript = Transcript(TRANSCRIPTS[request.param])
    transcript.set_up(box)
    return transcript


def test_transcript_without_descriptors(box, talk, transcript):
    for exchanges in transcript.sessions:
        session = talk(utf8=transcript.env.get("UTF8") != "0")
        for command, reply in exchanges:
            assert session.say(command[:-1]) == reply, command
    if transcript.cur is not None:
        assert box.names() == transcript.cur


def test_transcript_with_the_program(box, program, transcript):
    for exchanges in transcript.sessions:
        server = program(**transcript.env)
        assert server.line() == b"+OK logged in.\r\n"
        for command, reply in exchanges:
            server.send(command)
            got = b"".join(server.line() for _ in range(reply.count(b"\n")))
            assert BOUNDARY.sub(b"=_1-200", got) == reply, command
        server.socket.shutdown(1)
        assert server.rest() == b""
        server.end()
    if transcript.cur is not None:
        assert box.names() == transcript.cur


def test_there_are_transcripts_and_every_one_expects_something():
    assert len(TRANSCRIPTS) > 10
    for path in TRANSCRIPTS.values():
        assert all(reply for session in Transcript(path).sessions for _, reply in session), path
        assert os.fsencode(path).isascii()
