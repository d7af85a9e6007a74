"""commandline - the options of cyrusmaster (reference cyrus-pop3d.md 3.1)

    cyrusmaster [-M FILE] [-l BACKLOG] [-p FILE] [-d | -D] [-L FILE] [-v] [-V] [-C FILE] [-j N]

An option and its value are two words, or one. What is wrong raises Misused.
"""

from __future__ import annotations

USAGE = (
    "usage: cyrusmaster [-M cyrus.conf] [-l backlog] [-p pidfile] [-d | -D] [-L logfile] [-v] [-V]"
)
MOST_WAITING = 65535

FLAGS = {"d": "is_daemon", "D": "keeps_stdio", "V": "wants_version"}
TEXTS = {"M": "conf", "p": "pidfile", "L": "logfile"}
IGNORED = ("C", "j")  # with a value


class Misused(Exception):
    """The text says how."""


class Arguments:
    """conf: cyrus.conf. backlog: of listen(2). pidfile, logfile: a path or nothing.

    verbosity: how often there was -v. ignored: the options that have no effect here.
    """

    __slots__ = (
        *("conf", "backlog", "pidfile", "logfile", "verbosity", "ignored"),
        *("is_daemon", "keeps_stdio", "wants_version"),
    )

    def __init__(self) -> None:
        self.conf = "/etc/cyrus.conf"
        self.backlog = 32
        self.pidfile = self.logfile = ""
        self.verbosity = 0
        self.ignored: list[str] = []
        self.is_daemon = self.keeps_stdio = self.wants_version = False


def parse(argv: list[str]) -> Arguments:
    """Raises Misused."""
    found = Arguments()
    words = iter(argv[1:])
    for word in words:
        option, value = word[1:2], word[2:]
        if not word.startswith("-") or not option:
            raise Misused(f"{word!r}: no option; {USAGE}")
        if option in FLAGS and not value:
            setattr(found, FLAGS[option], True)
        elif option == "v" and not value.strip("v"):
            found.verbosity += 1 + len(value)
        elif option in TEXTS or option in IGNORED or option == "l":
            value = value or next(words, "")
            if not value:
                raise Misused(f"-{option} needs a value; {USAGE}")
            _take(found, option, value)
        else:
            raise Misused(f"{word!r}: no such option; {USAGE}")
    if found.is_daemon and found.keeps_stdio:
        raise Misused("-d and -D exclude each other; leave one of them out")
    return found


def _take(found: Arguments, option: str, value: str) -> None:
    if option in TEXTS:
        setattr(found, TEXTS[option], value)
    elif option == "l":
        if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MOST_WAITING):
            raise Misused(f"-l {value}: write a number from 1 to {MOST_WAITING}")
        found.backlog = int(value)
    else:
        found.ignored.append(f"-{option}")
