"""config - reads imapd.conf

One `key: value` a line. A key has letters, digits, `-` and `_`, in any case; blanks around the
value are not part of it, a `#` in it is. A line whose first character but blanks is `#` says
nothing; a backslash at the end joins the next line. `@include: FILE` reads another file, each once.
(reference cyrus-pop3d.md 6)

`SERVICE_key` beats `key` for the service of that name, wherever either stands. An option may be
there once at each of the two levels. Keys that nobody knows are taken silently: the file is also
other programs'. What is wrong raises BadConfig with the file and the line.
"""

from __future__ import annotations

import os

from cyruspop3d import values
from cyruspop3d.options import ALIASES, KINDS, TABLE

KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
BLANKS = " \t\r\v\f"
LARGEST = 4 * 1024 * 1024  # octets of one file

Environment = dict[str, str]


class BadConfig(Exception):
    """The text is one line: what is wrong, where, and what to do."""


class Config:
    """The options as one service sees them: `config.text("servername")`.

    ignored: names of options of POP3's that are set, and have no effect here
    chain: the options `courier_NAME`, by NAME in upper case
    """

    __slots__ = ("_found", "_service", "path", "ignored", "chain")

    def __init__(self, path: str, found: dict[str, tuple[str, str]], service: str):
        self.path = path
        self._found = found
        self._service = service.lower()
        self._check()
        self.ignored = [name for name, row in TABLE.items() if not row.works and self._place(name)]
        prefix = "courier_"
        keys = [key.removeprefix(f"{self._service}_") for key in found]
        names = {key for key in keys if key.startswith(prefix)}
        self.chain = {name.removeprefix(prefix).upper(): self._value(name) for name in names}

    def _place(self, name: str) -> tuple[str, str] | None:
        """The value that is given, and where."""
        for known in (name, *ALIASES.get(name, ())):
            for key in (f"{self._service}_{known}", known):
                if key in self._found:
                    return self._found[key]
        return None

    def _value(self, name: str) -> str:
        place = self._place(name)
        value = place[0] if place else TABLE[name].default if name in TABLE else ""
        if value.startswith("{configdirectory}") and name != "configdirectory":
            return self._value("configdirectory") + value.removeprefix("{configdirectory}")
        return value

    def is_set(self, name: str) -> bool:
        return self._place(name) is not None

    def text(self, name: str) -> str:
        return self._value(name)

    def number(self, name: str) -> int:
        """Of an option that is an integer or a duration, which is in seconds."""
        return int(KINDS[TABLE[name].kind](self._value(name)))

    def is_on(self, name: str) -> bool:
        return values.switch(self._value(name))

    def choice(self, name: str) -> str:
        return values.choice(self._value(name), TABLE[name].choices)

    def _check(self) -> None:
        """Raises BadConfig for a value of the wrong type, and what must be there and isn't."""
        for name, row in TABLE.items():
            place = self._place(name)
            if place is None:
                continue
            value, where = place
            try:
                if row.choices:
                    values.choice(value, row.choices)
                elif row.kind in KINDS:
                    KINDS[row.kind](value)
            except ValueError as why:
                raise BadConfig(f"{where}: {name}: {why}") from why
        if not self._value("configdirectory").startswith("/"):
            remedy = "set it to the directory that holds log/, proc/, socket/ and msg/"
            raise BadConfig(f"{self.path}: no configdirectory, an absolute path; {remedy}")


def read(path: str, service: str, env: Environment) -> Config:
    """Raises BadConfig."""
    prefix = env.get("CYRUS_PREFIX", "")
    if prefix and os.access(prefix + path, os.R_OK):
        path = prefix + path
    found: dict[str, tuple[str, str]] = {}
    read_into(found, path, set())
    return Config(path, found, service)


def read_into(found: dict[str, tuple[str, str]], path: str, seen: set[str]) -> None:
    """Add a file's options: key to value, and the place for messages. Raises BadConfig."""
    real = os.path.realpath(path)
    if real in seen:
        raise BadConfig(f"{path}: included twice; name each file once")
    seen.add(real)
    for number, key, value in entries(load(path), path):
        where = f"{path} line {number}"
        if key == "@include":
            read_into(found, value, seen)
        elif key in found:
            raise BadConfig(f"{where}: {key}: was set in {found[key][1]}; remove one of the two")
        else:
            found[key] = value, where


def load(path: str) -> str:
    try:
        with open(path, "rb") as file:
            octets = file.read(LARGEST + 1)
    except OSError as why:
        raise BadConfig(f"can't open configuration file {path}: {why.strerror}") from why
    if len(octets) > LARGEST:
        raise BadConfig(f"{path}: over {LARGEST} octets, which is no imapd.conf")
    return os.fsdecode(octets)


def entries(text: str, path: str) -> list[tuple[int, str, str]]:
    """Number of the line, key in lower case, and value of each option. Raises BadConfig."""
    found = []
    for number, line in joined_lines(text):
        line = line.strip(BLANKS)
        if not line or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        key, value = key.strip(BLANKS).lower(), value.strip(BLANKS)
        if not colon or not (key == "@include" or (key and KEY_CHARACTERS.issuperset(key))):
            remedy = "write `option: value`"
            raise BadConfig(f"{path}: invalid option name on line {number}; {remedy}")
        if not value:
            remedy = "give it a value, or remove the line"
            raise BadConfig(f"{path}: empty option value on line {number}; {remedy}")
        if "\0" in value:
            raise BadConfig(f"{path}: NUL in the value on line {number}; remove it")
        found.append((number, key, value))
    return found


def joined_lines(text: str) -> list[tuple[int, str]]:
    """Lines with the number of their first one, where backslashes have joined several."""
    lines: list[tuple[int, str]] = []
    goes_on = False
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        piece = line.removesuffix("\\")
        if goes_on:
            lines[-1] = lines[-1][0], lines[-1][1] + piece
        else:
            lines.append((number, piece))
        goes_on = piece != line
    return lines
