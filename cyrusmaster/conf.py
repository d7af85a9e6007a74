"""conf - the grammar of cyrus.conf (reference cyrus-pop3d.md 4)

    SERVICES {
      pop3  cmd="pop3d -U 30" listen="pop3" prefork=2
    }

A section begins with its name and `{` on one line, and ends with a line `}`; names of sections are
taken in any case, and a section may come more than once. An entry is a name and `key=value` pairs,
on one line; names and keys have letters and digits. A value is quoted, and goes to the next quote,
or it ends with a blank. The first of a key counts. `#` begins a comment wherever it stands, in
quotes too. Unknown sections are passed over, up to the `}` that belongs to their `{`.

What is wrong raises BadConf, with file and line.
"""

from __future__ import annotations

import os

SECTIONS = ("START", "SERVICES", "EVENTS", "DAEMON")
BLANKS = " \t\r\v\f"
LONGEST_LINE = 4095  # octets
MOST_PAIRS = 64
LARGEST = 1024 * 1024  # octets of the file
ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")

Environment = dict[str, str]


class BadConf(Exception):
    """The text is one line: what is wrong, where, and what to do."""


class Entry:
    """A line of a section. place: file and line, for messages."""

    __slots__ = ("name", "values", "place")

    def __init__(self, name: str, values: dict[str, str], place: str):
        self.name = name
        self.values = values
        self.place = place

    def text(self, key: str, default: str = "") -> str:
        return self.values.get(key, default)

    def number(self, key: str, default: int) -> int:
        """What doesn't begin with a digit, or `-` and a digit, is the default."""
        text = self.values.get(key, "")
        sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
        length = 0
        while length < min(len(digits), 9) and digits[length] in "0123456789":
            length += 1
        return sign * int(digits[:length]) if length else default

    def is_on(self, key: str, default: bool = False) -> bool:
        """By the first letters: 0, n, of, f; 1, y, on, t. Others are the default."""
        text = self.values.get(key, "")
        if text.startswith(("0", "n", "of", "f")):
            return False
        return text.startswith(("1", "y", "on", "t")) or default


Sections = dict[str, list[Entry]]


def read(path: str, env: Environment) -> Sections:
    """The entries of each section that there can be. Raises BadConf."""
    prefix = env.get("CYRUS_PREFIX", "")
    if prefix and os.access(prefix + path, os.R_OK):
        path = prefix + path
    try:
        with open(path, "rb") as file:
            octets = file.read(LARGEST + 1)
    except OSError as why:
        raise BadConf(f"can't open configuration file {path}: {why.strerror}") from why
    if len(octets) > LARGEST:
        raise BadConf(f"{path}: over {LARGEST} octets, which is no cyrus.conf")
    return parse(os.fsdecode(octets), path)


def parse(text: str, path: str) -> Sections:
    """Raises BadConf."""
    found: Sections = {name: [] for name in SECTIONS}
    section, depth, opened = "", 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.partition("#")[0].strip(BLANKS)
        if len(os.fsencode(line)) > LONGEST_LINE:
            raise BadConf(f"{path}: over {LONGEST_LINE} octets on line {number}; make it shorter")
        if depth and section not in found:
            depth += line.count("{") - line.count("}")
        elif not line:
            continue
        elif not depth:
            section, depth, opened = heading(line, path, number), 1, number
        elif line.startswith("}"):
            if line != "}":
                raise BadConf(f"{path}: text after '}}' on line {number}; put it on its own line")
            depth = 0
        else:
            found[section].append(entry(line, path, number))
        if depth <= 0:
            section, depth = "", 0
    if depth:
        raise BadConf(f"{path}: section {section} of line {opened} has no end; write '}}'")
    return found


def heading(line: str, path: str, number: int) -> str:
    """The name of the section that begins, in capitals. Raises BadConf."""
    name, brace, rest = line.partition("{")
    name = name.strip(BLANKS)
    if not name or not brace or rest.strip(BLANKS):
        raise BadConf(f"{path}: no section begins on line {number}; write `NAME {{`")
    _check_name(name, path, number)
    return name.upper()


def entry(line: str, path: str, number: int) -> Entry:
    """Raises BadConf."""
    name, rest = _word(line)
    _check_name(name, path, number)
    values: dict[str, str] = {}
    pairs = 0
    while rest := rest.strip(BLANKS):
        key, equals, rest = rest.partition("=")
        key = key.rstrip(BLANKS)
        _check_name(key, path, number)
        if not equals:
            raise BadConf(f"{path}: no '=' after {key} on line {number}; write `{key}=value`")
        value, rest = _value(rest.lstrip(BLANKS), path, number)
        values.setdefault(key, value)
        pairs += 1
        if pairs > MOST_PAIRS:
            raise BadConf(f"{path}: over {MOST_PAIRS} values on line {number}; remove some")
    return Entry(name, values, f"{path} line {number}")


def _value(rest: str, path: str, number: int) -> tuple[str, str]:
    """The value that a text begins with, and what is behind it. Raises BadConf."""
    if not rest.startswith('"'):
        return _word(rest)
    value, quote, rest = rest[1:].partition('"')
    if not quote:
        raise BadConf(f'{path}: no quote ends the value on line {number}; write another `"`')
    return value, rest


def _word(text: str) -> tuple[str, str]:
    for at, character in enumerate(text):
        if character in BLANKS:
            return text[:at], text[at:]
    return text, ""


def _check_name(name: str, path: str, number: int) -> None:
    if not name:
        raise BadConf(f"{path}: no name before '=' on line {number}; write `key=value`")
    for character in name:
        if character not in ALPHANUMERIC:
            shown = character if character.isprintable() else repr(character)[1:-1]
            remedy = "a name has letters and digits"
            raise BadConf(f"{path}: bad character '{shown}' in name on line {number}; {remedy}")
