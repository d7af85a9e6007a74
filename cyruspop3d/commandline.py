"""commandline - the options of `pop3d` (reference cyrus-pop3d.md 1)

    pop3d [-C FILE] [-U USES] [-T TIMEOUT] [-D] [-X] [-s] [-k] [-p SSF]

An option and its value are two words. Numbers are read as C's atoi reads them: what is none is 0.
"""

from __future__ import annotations

import os

from courierchain.atol import atol

USAGE = "usage: pop3d [-C <alt_config>] [-U uses] [-T timeout] [-D] [-s] [-k] [-p ssf]"
CONFIG = "/etc/imapd.conf"
LARGEST = 2**31 - 1


class Misused(Exception):
    """The text says how."""


class Arguments:
    """config: a path. uses: at least 1. timeout: seconds, 0 for none. ssf: of -p.

    debugs, is_tls, is_kerberos, on_stdin: -D, -s, -k, -X
    """

    __slots__ = (
        *("config", "uses", "timeout", "ssf", "debugs", "is_tls", "is_kerberos", "on_stdin"),
    )

    def __init__(self) -> None:
        self.config = CONFIG
        self.uses = 250
        self.timeout = 60
        self.ssf = 0
        self.debugs = self.is_tls = self.is_kerberos = self.on_stdin = False

    @property
    def patience(self) -> int:
        """Seconds that this process waits for its next connection; 0 for ever. Not the same in all
        processes, so that not all of them end at once."""
        if not self.timeout:
            return 0
        return self.timeout + int.from_bytes(os.urandom(4)) % self.timeout


FLAGS = {"-D": "debugs", "-X": "on_stdin", "-s": "is_tls", "-k": "is_kerberos"}
NUMBERS = {"-U": "uses", "-T": "timeout", "-p": "ssf"}


def parse(argv: list[str]) -> Arguments:
    """Raises Misused."""
    arguments = Arguments()
    words = iter(argv[1:])
    for word in words:
        option = word[:2]
        if option in FLAGS and word == option:
            setattr(arguments, FLAGS[option], True)
        elif option in NUMBERS or option == "-C":
            if word != option:
                raise Misused("options and arguments MUST be separated by whitespace")
            value = next(words, None)
            if value is None:
                raise Misused(f"{option} needs a value; {USAGE}")
            if option == "-C":
                arguments.config = value
            else:
                number = min(max(0, atol(os.fsencode(value))), LARGEST)
                setattr(arguments, NUMBERS[option], number)
        else:
            raise Misused(USAGE)
    arguments.uses = max(1, arguments.uses)
    return arguments
