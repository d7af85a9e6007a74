"""shell - ask /bin/sh what configuration files say

`pop3d` and `pop3d-ssl` are shell fragments, which Courier sources with `set -a` in an empty
environment. So do we: the shell alone knows what its quotes and expansions mean (reference
couriertcpd.md 14.1). What a command in a file prints on descriptor 1 goes to descriptor 2.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from shlex import quote

from courierchain.refusal import Refused

SHELL = "/bin/sh"
PATIENCE = 10.0  # seconds for all commands in the files together
OF_THE_SHELL = ("_", "SHLVL")  # variables that some shells make of their own accord

ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
COMPLAINTS = (
    re.compile(r"[^:]+: (?P<line>\d+): (?P<file>/.*?): (?P<text>.*)"),  # dash
    re.compile(r"(?P<file>/.*?): (?:line )?(?P<line>\d+): (?P<text>.*)"),  # dash -n, bash
)
OPEN_QUOTE = ("nterminated quoted string", "matching `\"'", "matching `''")


class Sourced:
    """What the files leave behind. words: a command line that was split in their environment."""

    __slots__ = ("environment", "words", "complaints")

    def __init__(self, environment: dict[str, str], words: list[str], complaints: list[str]):
        self.environment = environment
        self.words = words
        self.complaints = complaints  # of lines that the shell couldn't obey, and passed over


def source(files: list[str], base: dict[str, str], directory: str, command: str = "") -> Sourced:
    """Source the files in this order, with `base` as the environment, in `directory`.

    `command` is parsed by the same shell, behind them. Raises Refused if one of them stops it.
    """
    script = [
        "exec 9>&1 1>&2",
        "set -a",
        *(f". {quote(file)}" for file in files),
        "set +a",
        f"eval {quote('set -- ' + command)}",
        r"""printf '%s\0' "$#" "$@" >&9""",
        "exec /usr/bin/env -0 >&9",
    ]
    status, output, errors = _run([SHELL, "-c", "\n".join(script)], base, directory, files)
    complaints = [_located(line) for line in errors]
    fields = output.split("\0")[:-1]
    if status or not fields:
        located = [complaint for complaint in complaints if complaint.startswith(tuple(files))]
        ended = f"{' or '.join(files)}: the shell ends in there, status {status}"
        raise Refused(
            f"{located[-1] if status and located else ended}: "
            "take out what ends it (exit, ${NAME?...})"
        )
    count = int(fields[0])
    words, settings = fields[1 : 1 + count], fields[1 + count :]
    pairs = (setting.partition("=") for setting in settings)
    environment = {name: value for name, _, value in pairs if name not in OF_THE_SHELL}
    return Sourced(environment, words, complaints)


def check_syntax(file: str) -> None:
    """Raises Refused with file, line and setting if the shell cannot read the file to its end."""
    status, _, errors = _run([SHELL, "-n", file], {}, "/", [file])
    if status == 0 and not errors:
        return
    found = _match(errors[0]) if errors else None
    if found is None:
        raise Refused(f"{file}: {errors[0] if errors else f'sh -n: status {status}'}")
    if any(sign in found["text"] for sign in OPEN_QUOTE):
        number = _open_quote(file) or int(found["line"])
        raise Refused(f"{place(file, number)}: a quote is not closed")
    raise Refused(
        f"{place(file, int(found['line']))}: {found['text']} "
        "(a value with blanks or any of ( ) ; & | < > stands in quotes)"
    )


def place(file: str, number: int) -> str:
    """FILE line N: SETTING, for the setting whose assignment is there or was the last before."""
    found = None
    for line in lines(file)[:number]:
        found = ASSIGNMENT.match(line) or found
    return f"{file} line {number}" + (f": {found[1]}" if found else "")


def assigned_at(file: str, name: str) -> int | None:
    """The number of the last line that assigns to the setting; None if there is none."""
    numbers = [
        number
        for number, line in enumerate(lines(file), 1)
        if (found := ASSIGNMENT.match(line)) and found[1] == name
    ]
    return numbers[-1] if numbers else None


def lines(file: str) -> list[str]:
    with open(file, encoding="utf-8", errors="surrogateescape") as opened:
        return opened.read().splitlines()


def _open_quote(file: str) -> int | None:
    """The first assignment that opens a quote and does not close it: the shell itself says only
    where it ran out of text."""
    for number, line in enumerate(lines(file), 1):
        found = ASSIGNMENT.match(line)
        if found and bare(found[2])[1]:
            return number
    return None


def bare(value: str) -> tuple[str, str]:
    """What stands outside of quotes, up to a comment's # and with it; and the quote left open."""
    outside, mark, last = "", "", " "
    characters = iter(value)
    for character in characters:
        if character == "\\" and mark != "'":
            if next(characters, None) is None:
                return outside, character
        elif mark:
            mark = "" if character == mark else mark
        elif character in "\"'":
            mark = character
        elif character == "#" and last.isspace():
            return outside + character, ""
        elif character != "#":
            outside += character
        last = character
    return outside, mark


def _match(line: str) -> re.Match[str] | None:
    return next((found for form in COMPLAINTS if (found := form.fullmatch(line))), None)


def _located(line: str) -> str:
    """A complaint of the shell, with file and line in front."""
    found = _match(line)
    if found is None:
        return line
    text = found["text"]
    if text.endswith("not found"):
        text += " (no blanks around =, and quotes around a value with blanks)"
    return f"{found['file']} line {found['line']}: {text}"


def _run(
    argv: list[str], env: dict[str, str], directory: str, files: list[str]
) -> tuple[int, str, list[str]]:
    """Exit status, output, lines of descriptor 2. Raises Refused when it takes too long."""
    with subprocess.Popen(
        argv,
        env=env,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as why:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Refused(
                f"{' and '.join(files)}: not read within {PATIENCE:.0f} s "
                "(a command in there does not end)"
            ) from why
    return process.returncode, os.fsdecode(output), os.fsdecode(errors).splitlines()
