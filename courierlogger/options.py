"""options - the command line of courierlogger

    courierlogger NAME
    courierlogger [OPTION...] [PROGRAM [ARGUMENT...]]

An option is one dash, its whole name and, after `=`, its value, which is not empty; the last of
several counts. The first argument without a dash is PROGRAM. What is wrong raises Refused, with
Courier's words (reference couriertcpd.md 13.1).
"""

from __future__ import annotations

import os

from courierchain.refusal import Refused
from courierchain.syslog import FACILITIES

USAGE = """\
Usage: courierlogger [-name=name] [-pid=pidfile] [-facility=type]
       [-start|-stop|-restart] [cmd [args...]]"""

FLAGS = ("droproot", "respawn", "start", "stop", "restart")
VALUES = ("name", "pid", "facility", "user", "group", "file", "stderr")


class Options:
    """An attribute for each option, by its name: True or False, or a text that may be empty."""

    __slots__ = (*FLAGS, *VALUES, "program", "first_only")

    droproot: bool
    respawn: bool
    start: bool
    stop: bool
    restart: bool
    name: str
    pid: str
    facility: str
    user: str
    group: str
    file: str
    stderr: str
    program: list[str]  # with its arguments; empty if lines come on descriptor 0
    first_only: bool  # of a line over 511 octets the rest is dropped

    def __init__(self) -> None:
        for flag in FLAGS:
            setattr(self, flag, False)
        for value in VALUES:
            setattr(self, value, "")
        self.facility = "mail"
        self.program = []
        self.first_only = False


def parse(argv: list[str]) -> Options:
    """Raises Refused. With -stop and -restart only -pid is looked at."""
    options = Options()
    words = argv[1:]
    if not words:
        raise Refused(USAGE)
    if len(words) == 1 and not words[0].startswith("-"):
        options.name, options.first_only = words[0], True
        return options
    while words and words[0].startswith("-"):
        _take(words.pop(0), options)
    options.program = words
    if words and not options.name:
        options.name = os.path.basename(words[0])
    _check(options)
    return options


def _take(word: str, options: Options) -> None:
    name, equals, value = word[1:].partition("=")
    if name in FLAGS and not equals:
        setattr(options, name, True)
    elif name == "facility" and value not in FACILITIES:
        raise Refused(f"Unknown facility name '{value}'")
    elif name in VALUES and value and (name != "stderr" or value == "journal"):
        setattr(options, name, value)
    else:
        raise Refused(f"Unknown option '{word}'")


def _check(options: Options) -> None:
    if (options.start or options.stop or options.restart) and not options.pid:
        raise Refused("-pid argument required")
    if options.stop or options.restart:
        return
    if not options.name:
        raise Refused("-name option required for standalone logger")
    if options.pid and not options.program:
        raise Refused("-start must be followed by a command to execute")
