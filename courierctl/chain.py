"""chain - start one module as the chain does, and see what becomes of it

The module, ours or anybody's, gets the request on descriptor 3, and a shell in the place of the
next program, which tells its ids, its directory and its environment; and in the place of the login
program another one. So a PAM session is opened and closed, and what the module logs is on
descriptor 2. The time is that of the module's program from its start to its end.
"""

from __future__ import annotations

import os
import subprocess
from time import monotonic

from courierchain import failure, programs, request
from courierchain.authsocket import Fields

PATIENCE = 60.0  # seconds
SHELL = "/bin/sh"
NEXT = 'exec 3<&-; id -u; id -g; pwd; printf "\\0"; exec env -0'
LOGIN = f'printf again:%s "${failure.VARIABLE}"'

ACCEPTED = "accepted"
REJECTED = "rejected"
TEMPORARY = "temporary failure"
PERMANENT = "permanent failure"


class Verdict:
    """answer: one of the above, or another text. seconds: how long it took.

    fields: of an account that was accepted, named as on the socket of authdaemond; or None
    """

    __slots__ = ("answer", "seconds", "fields")

    def __init__(self, answer: str, seconds: float, fields: Fields | None = None):
        self.answer = answer
        self.seconds = seconds
        self.fields = fields


def ask(module: str, record: bytes, env: dict[str, str]) -> Verdict:
    path = programs.locate(module, env)
    if path is None:
        return Verdict("no such program", 0)
    begin = monotonic()
    try:
        said = start([path, SHELL, "-c", NEXT], record, {**env, **login_program()})
    except (OSError, subprocess.TimeoutExpired) as why:
        return Verdict(f"no answer: {why}", monotonic() - begin)
    seconds = monotonic() - begin
    ids, nul, rest = said.partition(b"\0")
    if nul:
        told = dict(pair.partition(b"=")[::2] for pair in rest.split(b"\0"))
        if not told.get(b"AUTHENTICATED"):
            return Verdict(REJECTED, seconds)
        return Verdict(ACCEPTED, seconds, as_fields(ids, told))
    if said.startswith(b"again:"):
        lasts = said == b"again:" + failure.PERMANENT.encode()
        return Verdict(PERMANENT if lasts else TEMPORARY, seconds)
    shown = os.fsdecode(said.strip())
    return Verdict(f"no next program: {shown!r}" if shown else "no next program", seconds)


def start(argv: list[str], record: bytes, env: dict[str, str]) -> bytes:
    """What the program and its successors write. Raises OSError, subprocess.TimeoutExpired."""
    request.offer(record)
    try:
        return subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[request.RECORD],
            timeout=PATIENCE,
            check=False,
        ).stdout
    finally:
        request.close()


def login_program() -> dict[str, str]:
    """Where a module goes back to that can't tell; and that nobody has accepted before."""
    argv = (SHELL, "-c", LOGIN)
    words = {f"AUTHARGV{index}": word for index, word in enumerate(argv)}
    return {"AUTHUSER": SHELL, "AUTHARGC": str(len(argv)), "AUTHENTICATED": "", **words}


def as_fields(ids: bytes, told: dict[bytes, bytes]) -> Fields:
    uid, gid, home, *_ = ids.split(b"\n", 2)
    names = {b"ADDRESS": b"AUTHADDR", b"MAILDIR": b"MAILDIR"}
    names |= {b"QUOTA": b"MAILDIRQUOTA", b"OPTIONS": b"OPTIONS"}
    fields = {field: told.get(name, b"") for field, name in names.items()}
    fields[b"ADDRESS"] = fields[b"ADDRESS"] or told[b"AUTHENTICATED"]
    return {**fields, b"UID": uid, b"GID": gid, b"HOME": home.removesuffix(b"\n")}
