"""checkpassword-courier - modules of the chain, for who wants a checkpassword program

    qmail-popup HOST checkpassword-courier MODULE... -- PROGRAM [ARGUMENT...]

Has checkpassword's interface: reads `userid NUL password NUL timestamp NUL` from descriptor 3, and
becomes PROGRAM as the user, in the user's home, with USER, HOME and SHELL set; or exits 1 (unknown
user, wrong password), 2 (called wrongly) or 111 (nobody can say now) (chain-protocol.md 14). The
modules are the chain's: ours, or anybody's. It comes up three times, told apart by its arguments:

    checkpassword-courier MODULE... -- PROGRAM    turns the record into a request, and becomes
                                                  MODULE... checkpassword-courier -- PROGRAM
    checkpassword-courier -- PROGRAM              behind the modules: has one of them accepted?
    checkpassword-courier                         in the place of a login program, to which a module
                                                  goes back that can't tell

The service is `pop3`, or what AUTHSERVICE<TCPLOCALPORT> says. A password that is an APOP digest is
a wrong one.
"""

from __future__ import annotations

import os

from courierchain import failure, handover, log, programs, request
from courierchain.authtypes import LOGIN
from courierchain.handover import CannotBecome
from courierchain.request import AUTHENTICATED, BadRequest

REJECTED, MISUSED, TROUBLE = 1, 2, 111
END = "--"


def main(argv: list[str], env: dict[str, str]) -> int:
    words = argv[1:]
    begun = env.get("AUTHARGC") == "1"
    if begun and not words:
        return came_back(env)
    if END not in words or words[-1] == END or (words[0] == END and not begun):
        log.plain("Usage: checkpassword-courier MODULE... -- PROGRAM [ARGUMENT...]")
        return MISUSED
    try:
        return serve(words[1:], env) if words[0] == END else ask(words, env)
    except BadRequest:
        return REJECTED  # a line end in it, or longer than any module takes
    except CannotBecome as why:
        log.err(f"checkpassword-courier: {why}")
        return TROUBLE


def ask(words: list[str], env: dict[str, str]) -> int:
    """Become the first module."""
    user, password, *_ = [*request.take().split(b"\0"), b"", b""]
    if not (user and password):
        return REJECTED
    own = f"{programs.directory}/checkpassword-courier"
    service = env.get(f"AUTHSERVICE{env.get('TCPLOCALPORT', '')}") or "pop3"
    request.offer(request.encode(os.fsencode(service), LOGIN, user, password))
    begun = {"AUTHUSER": own, "AUTHARGC": "1", "AUTHARGV0": own, "AUTHENTICATED": ""}
    end = words.index(END)
    handover.become([*words[:end], own, *words[end:]], {**env, **begun}, record=True)
    return TROUBLE


def serve(program: list[str], env: dict[str, str]) -> int:
    """Become the program if a module has accepted: descriptor 3 says so as it does to
    courierpop3d, or AUTHENTICATED alone does where a module has closed it."""
    user = env.get("AUTHENTICATED", "")
    raw = request.take()
    record = request.parse(raw) if raw else None
    if record and (record.authtype, record.authdata) != (AUTHENTICATED, os.fsencode(user)):
        return REJECTED
    if not user:
        return REJECTED
    shown = {"USER": user, "HOME": os.getcwd(), "SHELL": "/bin/sh"}
    handover.become(program, {**env, **shown})
    return TROUBLE


def came_back(env: dict[str, str]) -> int:
    request.close()
    why = env.get(failure.VARIABLE)
    return TROUBLE if why in (failure.TEMPORARY, failure.PERMANENT) else REJECTED
