"""configuration - the file authdaemonrc

    NAME=VALUE, NAME="VALUE"    one on a line; what is behind a # doesn't count

authmodulelist    the modules, in the order in which they are asked
daemons           requests answered at a time (5)
authdaemonvar     the directory of the socket (/run/courier/authdaemon)
DEFAULTOPTIONS    options of every account that has none of the same name
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


class Configuration:
    """modules: names. daemons: how many requests at a time. values: the whole file."""

    __slots__ = ("file", "modules", "daemons", "directory", "default_options", "values")

    def __init__(self, file: str, values: dict[str, str]):
        """Raises Refused."""
        self.file = file
        self.values = values
        self.modules = values.get("authmodulelist", "").split()
        self.directory = values.get("authdaemonvar") or DIRECTORY
        self.default_options = values.get("DEFAULTOPTIONS", "")
        daemons = values.get("daemons") or str(DAEMONS)
        if not (daemons.isascii() and daemons.isdigit() and 0 < int(daemons[:9]) <= MOST_DAEMONS):
            raise Refused(f"{file}: daemons={daemons}: not a number from 1 to {MOST_DAEMONS}")
        self.daemons = int(daemons)
        if not self.modules:
            raise Refused(f'{file}: authmodulelist names no module (authmodulelist="authpam")')
        if not self.directory.startswith("/"):
            raise Refused(f"{file}: authdaemonvar={self.directory}: not a path from /")


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
