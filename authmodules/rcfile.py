"""rcfile - one of Courier's files for a database, such as authmysqlrc; and authoauthrc of ours

    NAME blanks value      value may go on in the next line, behind a `\\` at the end of this one
    # a comment

Blanks in front and at the end don't count, and the first line of a name does (reference auth.md
2.7). A file without a line that begins with `##NAME: MARKER:` is not whole, and is refused. So is a
name that nobody knows, where Courier would go on without what was meant; and a file that others may
write, or read if it holds a secret. A change counts at once: a process that answers one question
after another (courierchain.connections) looks each time whether there was one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from stat import S_IROTH, S_IWOTH
from time import time

from courierchain import connections
from courierchain.authmodule import TemporaryFailure

MARKER = "##NAME: MARKER:"
BLANKS = " \t\r\f\v"
SHORT_AGO = 1.0  # seconds; file systems count in steps of up to some milliseconds


class RcFile(connections.Connection):
    """What the file says: value and line number of each name. Kept and dropped as connections are:
    there may be a password in it."""

    __slots__ = ("path", "_lines")

    def __init__(self, path: str, lines: dict[str, tuple[int, str]]):
        self.path = path
        self._lines = lines

    def __eq__(self, other: object) -> bool:
        """Whether the other one says the same, on the same lines."""
        if self is other:
            return True
        return isinstance(other, RcFile) and (self.path, self._lines) == (other.path, other._lines)

    __hash__ = None  # type: ignore[assignment]

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        """There is nothing to be closed."""

    abandon = close

    def text(self, name: str, default: str = "") -> str:
        """The value of a name; the default if it has none, or an empty one."""
        return self._lines.get(name, (0, ""))[1] or default

    def needed(self, name: str) -> str:
        """Raises TemporaryFailure if there is no value."""
        if not self.text(name):
            raise TemporaryFailure(f"{self.place(name)} is not set (add a line {name} VALUE)")
        return self.text(name)

    def number(self, name: str) -> int:
        """0 without a value. Raises TemporaryFailure for what isn't a number of a C int."""
        text = self.text(name, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) < 2**31):
            raise TemporaryFailure(f"{self.place(name)}: {text!r} is not a number (write digits)")
        return int(text)

    def place(self, name: str) -> str:
        """Where a name stands, for a message: `FILE line 12: NAME`."""
        if name in self._lines:
            return f"{self.path} line {self._lines[name][0]}: {name}"
        return f"{self.path}: {name}"


def read(path: str, names: Iterable[str], *, has_secret: bool = True) -> RcFile:
    """Read the file; `names` are those that it may have. Raises TemporaryFailure."""
    rc: RcFile = connections.ask(
        path,
        version(path),
        lambda: parsed(path, contents(path, S_IWOTH | (S_IROTH if has_secret else 0)), names),
        lambda rc: rc,
    )
    return rc


def version(path: str) -> object:
    """Changes with the file, its owner and its mode; is never the same twice if the last change is
    so short ago that the file's times may not show the next one."""
    try:
        there = os.stat(path)
    except OSError:
        return object()
    if time() - max(there.st_mtime, there.st_ctime) < SHORT_AGO:
        return object()
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def parsed(path: str, content: str, names: Iterable[str]) -> RcFile:
    """Raises TemporaryFailure."""
    if not any(line.startswith(MARKER) for line in content.split("\n")):
        raise TemporaryFailure(
            f"{path}: no line {MARKER} in it, so it is not whole (put {MARKER}0 at its end)"
        )
    lines: dict[str, tuple[int, str]] = {}
    for number, name, value in settings(content):
        if name not in names:
            raise TemporaryFailure(
                f"{path} line {number}: {name[:64]}: no such setting ({remedy(name, names)})"
            )
        lines.setdefault(name, (number, value))
    return RcFile(path, lines)


def contents(path: str, closed: int) -> str:
    """The text of a file that has none of the mode bits `closed`. Raises TemporaryFailure."""
    try:
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_mode & closed:
                raise TemporaryFailure(f"{path} is open to everybody (chmod o= {path})")
            return os.fsdecode(file.read())
    except OSError as why:
        raise TemporaryFailure(
            f"cannot read {path}: {why.strerror} (it must be there, for uid {os.geteuid()} to read)"
        ) from why


def settings(content: str) -> Iterator[tuple[int, str, str]]:
    """Number of the first line, name and value of each setting."""
    begin, whole = 0, ""
    for number, line in enumerate(content.split("\n"), 1):
        line = line.rstrip(BLANKS)
        if not whole:
            begin, line = number, line.lstrip(BLANKS)
            if not line or line.startswith("#"):
                continue
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield begin, *name_and_value(whole)
            whole = ""
    if whole:
        yield begin, *name_and_value(whole)


def name_and_value(line: str) -> tuple[str, str]:
    name, _, value = line.replace("\t", " ").partition(" ")
    return name, line[len(name) :].strip(BLANKS)


def remedy(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # here: costs much, and only a mistake needs it

    near = get_close_matches(name, list(names), 1)
    return f"{near[0]} is meant?" if near else "remove the line"
