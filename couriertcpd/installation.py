"""installation - load the chain at start, and say what would fail later

Looks at the command line once: which programs are ours and can be kept resident, which are missing,
and whether a user's process will be able to read what it may have to start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from stat import S_IXOTH

from courierchain import authtypes, handover, mailhost, programs


class Missing(Exception):
    """A program of the chain that isn't there, or can't be loaded."""


def load_chain(argv: list[str], env: dict[str, str]) -> list[str]:
    """Load the programs of ours in PROGRAM ARGUMENT...; argv with the whole path of PROGRAM.

    Raises Missing.
    """
    expected = True  # the first is a program, and so is what stands behind one that hands over
    for word in with_authdaemon(argv, env):
        path = programs.locate(word, env) if expected or "/" not in word else None
        if path is None and expected:
            raise Missing(f"{word}: {reason(word)} (looked in {places(word, env)})")
        expected = path is not None and hands_over(path)
        try:
            if path and not is_relay(path):
                handover.preload(path)
        except ImportError as why:
            raise Missing(f"{word}: cannot be loaded: {why}") from why
    handover.load_rehash(env)
    if mailhost.is_proxy(env):
        load_proxy(env)
    return [programs.locate(argv[0], env) or argv[0], *argv[1:]]


def with_authdaemon(argv: list[str], env: dict[str, str]) -> Iterator[str]:
    """The words of argv, and what our login program will put between itself and a server."""
    for index, word in enumerate(argv, 1):
        yield word
        rest = argv[index:]
        if rest and authtypes.asks_authdaemond(rest) and is_login(programs.locate(word, env) or ""):
            yield authtypes.complete(rest)[0]


def load_proxy(env: dict[str, str]) -> None:
    """Load what a module becomes for an account that is elsewhere, and who certifies mail hosts:
    that takes longer than a session. Raises Missing."""
    path = programs.locate(mailhost.PROXY, env)
    if path is None:
        raise Missing(f"{mailhost.PROXY}: {reason(mailhost.PROXY)} (POP3_PROXY is on)")
    try:
        if handover.preload(path):
            handover.load("courierpop3proxy.main:prepare")([path], env)
    except (ImportError, ValueError) as why:
        raise Missing(f"{mailhost.PROXY}: {why}") from why


def is_login(path: str) -> bool:
    """Whether the program is our courierpop3login, which begins with nobody logged in."""
    return (programs.entry_of(path) or "").startswith("courierpop3login.")


def is_relay(path: str) -> bool:
    """Whether the program is our couriertls. It is never loaded: `ssl` is too much for a fork."""
    return (programs.entry_of(path) or "").startswith("couriertls.")


def hands_over(path: str) -> bool:
    """Whether the program is one of ours whose first argument is the next program."""
    entry = programs.entry_of(path) or ""
    return entry.startswith(("courierpop3login.", "authmodules."))


def reason(word: str) -> str:
    there = "/" in word and os.path.exists(word)
    return "Permission denied: not executable" if there else "No such file or directory"


def places(word: str, env: dict[str, str]) -> str:
    return os.getcwd() if "/" in word else f"{programs.directory} and PATH={env['PATH']}"


def closed_to_users() -> str | None:
    """A directory that keeps other users from this Python or from our modules; None if there is
    none.

    What has been loaded goes on to work; a program executed after the login would not start.
    """
    for path in (sys.executable, sys.prefix, handover.__file__):
        parent = os.path.realpath(path)
        while parent != "/":
            parent = os.path.dirname(parent)
            if not os.stat(parent).st_mode & S_IXOTH:
                return parent
    return None
