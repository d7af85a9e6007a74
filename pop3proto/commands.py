"""commands - bytes from a client become lines, lines become commands

RFC 1939 section 3 gives the form: a keyword, in any case, and arguments, ended by CRLF. What
Courier takes beyond it is taken here too (reference courierpop3d.md 4.1, auth.md 1.2): a bare LF
ends a line; space, TAB and CR separate words, in any number, also in front.

Stricter than Courier, because the laxity hurts (conformance.md):

    a line over the limit is one error, its tail is never a command     ROB-09, CVE-02
    a NUL makes the line an error, it never cuts a name short                 CVE-06
    a last line without its LF is not obeyed                                  ROB-05
    message numbers are digits and nothing else                               1939-42
"""

from __future__ import annotations

MAX_LINE = 8191  # octets of one line without its LF; RFC 2449 section 4 demands 255
MAX_RESPONSE = 12288 + 1  # the same of a line of a SASL dialogue, with a CR (RFC 5034 section 4)
SEPARATORS = b" \t\r"
MAX_DIGITS = 40  # RFC 1939 section 3 allows arguments of 40; int() of a megabyte takes seconds


class BadLine(Exception):
    """A line that cannot be a command: over-long, or with a NUL in it."""


class BadNumber(Exception):
    """Not a decimal number of at most MAX_DIGITS digits."""


class Command:
    """One command: verb in upper case, and its argument as it came, after one separator."""

    __slots__ = ("verb", "argument")

    def __init__(self, verb: bytes, argument: bytes):
        self.verb = verb
        self.argument = argument

    @property
    def words(self) -> list[bytes]:
        spaced = self.argument.replace(b"\t", b" ").replace(b"\r", b" ")
        return [word for word in spaced.split(b" ") if word]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Command):
            return NotImplemented
        return (self.verb, self.argument) == (other.verb, other.argument)

    def __repr__(self) -> str:
        return f"Command({self.verb!r}, {self.argument!r})"


class LineReader:
    """Cuts what arrives into lines, however it arrives. Holds at most `limit` octets.

    limit: octets of a line without its LF; may be changed between two lines
    """

    __slots__ = ("limit", "_pending", "_overlong")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self.limit = limit
        self._pending = b""
        self._overlong = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a line has come yet."""
        return not (self._pending or self._overlong)

    def feed(self, data: bytes) -> list[bytes | None]:
        """Lines completed by `data`, without their LF; None stands for an over-long one."""
        if b"\n" not in data:
            self._hold(data)
            return []
        first, *others = data.split(b"\n")
        self._hold(first)
        lines: list[bytes | None] = [None if self._overlong else self._pending]
        lines += [line if len(line) <= self.limit else None for line in others[:-1]]
        self._pending, self._overlong = b"", False
        self._hold(others[-1])
        return lines

    def _hold(self, data: bytes) -> None:
        if self._overlong or len(self._pending) + len(data) > self.limit:
            self._pending, self._overlong = b"", True
        else:
            self._pending += data


def parse(line: bytes | None) -> Command:
    """The command in a line that LineReader gave. An empty line is a command with no verb.

    Raises BadLine.
    """
    if line is None or b"\0" in line:
        raise BadLine
    if line.endswith(b"\r"):
        line = line[:-1]
    line = line.lstrip(SEPARATORS)
    for position, octet in enumerate(line):
        if octet in SEPARATORS:
            return Command(line[:position].upper(), line[position + 1 :])
    return Command(line.upper(), b"")


def number(word: bytes) -> int:
    """The value of a decimal number. Raises BadNumber."""
    if not word.isdigit() or len(word) > MAX_DIGITS:
        raise BadNumber
    return int(word)
