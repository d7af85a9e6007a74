r"""Conversations with pop3d on its standard input and output: tests/transcripts/cyrus.

    # comment
    given KEY: VALUE            an option of imapd.conf, from here on
    given maildir: PATH...      messages that say `Subject: NAME`, a blank line, `Line 1`, `Line 2`
    given file PATH: TEXT       a file in configdirectory
    C: line                     the client sends this, and CRLF
    S: line                     the server sends this, and CRLF; `*` at the end is anything
    then closed                 and then nothing more
    then cur: NAME...           what is in cur/ when the client has gone
    again                       the client goes, and comes anew

PASSWORD stands for john's. \r, \t, \x20 and so on are as in Python.
"""

from __future__ import annotations

from pathlib import Path

import pytest

PLACE = Path(__file__).parent.parent / "transcripts" / "cyrus"
TRANSCRIPTS = sorted(PLACE.glob("*.pop3"))
MESSAGE = "Subject: {}\n\nLine 1\nLine 2\n"


def lines_of(path: Path) -> list[str]:
    text = path.read_text("latin-1").encode("latin-1").decode("unicode_escape").split("\n")
    return [line for line in text if line and not line.startswith("#")]


class Play:
    """One transcript; a session begins with the first line that needs it."""

    def __init__(self, cyrus):
        self.cyrus = cyrus
        self.options = ""
        self.session = None

    def line(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "given":
            self.given(rest)
        elif word == "again":
            self.leave()
        elif word == "then":
            self.then(rest)
        else:
            self.talk(word, rest)

    def given(self, rest: str) -> None:
        name, _, value = rest.partition(": ")
        if name == "maildir":
            for path in value.split():
                target = self.cyrus.john.maildir / path
                for folder in ("new", "cur", "tmp"):
                    (target.parent.parent / folder).mkdir(parents=True, exist_ok=True)
                target.write_text(MESSAGE.format(target.name.split(":")[0]))
            self.cyrus.john.own()
        elif name.startswith("file "):
            (self.cyrus.directory / name.removeprefix("file ")).write_text(value + "\n")
        else:
            self.options += f"{name}: {value}\n"
            self.cyrus.configure(self.options)

    def talk(self, word: str, rest: str) -> None:
        self.session = self.session or self.cyrus.start()
        rest = rest.replace("PASSWORD", self.cyrus.john.password)
        if word == "C:":
            self.session.send(rest.encode("latin-1") + b"\r\n")
            return
        assert word == "S:", word
        said = self.session.line().decode("latin-1")
        if rest.endswith("*"):
            assert said.startswith(rest[:-1]) and said.endswith("\r\n"), (said, rest)
        else:
            assert said == rest + "\r\n"

    def then(self, rest: str) -> None:
        if rest == "closed":
            assert self.session.rest() == b""
            return
        name, _, value = rest.partition(":")
        assert name == "cur"
        self.leave()
        assert self.cyrus.john.files() == sorted(value.split())

    def leave(self) -> None:
        if self.session:
            self.session.close()
            self.session.end()
            self.session = None


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_conversation(path, cyrus):
    play = Play(cyrus)
    for line in lines_of(path):
        play.line(line)
    play.leave()
