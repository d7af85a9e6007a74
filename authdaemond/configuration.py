"""configuration - the file authdaemonrc

    NAME=VALUE, NAME="VALUE"    one on a line; what is behind a # doesn't count

authmodulelist    the modules, in the order in which they are asked
daemons           requests answered at a time (5)
authdaemonvar     the directory of the socket (/run/courier/authdaemon)
DEFAULTOPTIONS    options of every account that has none of the same name
authcachelife     seconds that an account is remembered (0: not at all); see `cache`
authcachesize     accounts that are remembered (1000)
LOGGEROPTS        options of courierlogger, for `authdaemond start`

All of them are in the modules' environment, so AUTHUSERDB_FILE and its like may stand there too
(reference auth.md 2.9). A line without `=` makes the whole file invalid.
"""

from __future__ import annotations

from courierchain.refusal import Refused, refusal

FILE = "/etc/courier/authdaemonrc"
DIRECTORY = "/run/courier/authdaemon"
DAEMONS = 5
MOST_DAEMONS = 1000
LONGEST_LIFE = 3600
CACHE_SIZE = 1000
LARGEST_CACHE = 100_000


class Configuration:
    """modules: names. daemons: how many requests at a time. values: the whole file.

    cache: seconds that accounts are remembered, and how many.
    """

    __slots__ = ("file", "modules", "daemons", "directory", "default_options", "values", "cache")

    def __init__(self, file: str, values: dict[str, str]):
        """Raises Refused."""
        self.file = file
        self.values = values
        self.modules = values.get("authmodulelist", "").split()
        self.directory = values.get("authdaemonvar") or DIRECTORY
        self.default_options = values.get("DEFAULTOPTIONS", "")
        self.daemons = self._number("daemons", DAEMONS, 1, MOST_DAEMONS)
        self.cache = (
            self._number("authcachelife", 0, 0, LONGEST_LIFE),
            self._number("authcachesize", CACHE_SIZE, 1, LARGEST_CACHE),
        )
        if not self.modules:
            raise Refused(f'{file}: authmodulelist names no module (authmodulelist="authpam")')
        if not self.directory.startswith("/"):
            raise Refused(f"{file}: authdaemonvar={self.directory}: not a path from /")

    def _number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.values.get(name) or str(default)
        digits = text.isascii() and text.isdigit() and len(text) < 10
        if not (digits and least <= int(text) <= most):
            raise Refused(f"{self.file}: {name}={text}: not a number from {least} to {most}")
        return int(text)


def read(file: str) -> Configuration:
    """Raises Refused."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            return Configuration(file, parse(file, opened.read()))
    except OSError as why:
        raise refusal(file, why) from why


def parse(file: str, text: str) -> dict[str, str]:
    """The values of a file's text. Raises Refused."""
    values = {}
    for number, line in enumerate(text.split("\n"), 1):
        name, equals, value = (part.strip() for part in line.partition("#")[0].partition("="))
        if not (name or equals):
            continue
        if not (name and equals) or "\0" in line:
            raise Refused(f"{file} line {number}: not of the form NAME=VALUE")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[name] = value
    return values
