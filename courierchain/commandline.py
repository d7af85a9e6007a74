"""commandline - options as Courier's programs are given them

    program [-name] [-name=value]... [-] ARG...

One dash, the whole name and, after `=`, the value. The first argument without a dash ends the
options, so does a lone `-` (reference couriertcpd.md 2.1, 12.1).
"""

from __future__ import annotations

from collections.abc import Collection

from courierchain.refusal import Refused


def scan(argv: list[str], known: Collection[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options given, name and value, in their order, and the arguments after them; argv[0] is
    the name that messages begin with. Raises Refused for a name that isn't `known`."""
    given = []
    rest = argv[1:]
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "-":
            break
        name, _, value = word[1:].partition("=")
        if name not in known:
            raise Refused(f"{argv[0]}: Invalid option: {word}")
        given.append((name, value))
    return given, rest
