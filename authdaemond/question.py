"""question - what a client of the socket wants, from the octets that have come so far

The grammar is in courierchain.authsocket. Lines `NAME=value` in front of a request are metadata, of
which TCPREMOTEIP counts. A record is judged as one on descriptor 3 would be: one that is over-long,
or has a NUL, is nobody's login, and is no error either.
"""

from __future__ import annotations

import os

from courierchain import request
from courierchain.authsocket import REMOTE
from courierchain.authtypes import EXTERNAL, LOGIN
from courierchain.request import BadRequest, Request

LARGEST = 65536  # octets of a question, its metadata included
DIGITS = 6


class Question:
    """verb: PRE, AUTH, PASSWD or ENUMERATE. module: the only one to be asked, or empty.

    request: what the modules are asked; None if it can't be anybody's. ip: the client's, or empty.
    new: the password that PASSWD is about.
    """

    __slots__ = ("verb", "module", "request", "ip", "new")

    def __init__(
        self, verb: bytes, request: Request | None = None, module: str = "", new: bytes = b""
    ):
        self.verb = verb
        self.request = request
        self.module = module
        self.ip = ""
        self.new = new


def parse(octets: bytes) -> Question | None:
    """The question; None while it isn't whole. Raises BadRequest for what is none."""
    if len(octets) > LARGEST:
        raise BadRequest(f"over {LARGEST} octets")
    ip = b""
    while True:
        line, lf, octets = octets.partition(b"\n")
        if not lf:
            return None
        verb, _, argument = line.partition(b" ")
        ask = VERBS.get(verb)
        if ask:
            question = ask(argument, octets)
            if question:
                question.ip = os.fsdecode(ip)
            return question
        name, equals, value = line.partition(b"=")
        if not equals:
            raise BadRequest("not a request")
        if name == REMOTE:
            ip = value


def pre(argument: bytes, _: bytes) -> Question:
    words = argument.split(b" ", 2)
    if len(words) < 3:
        raise BadRequest("PRE wants module, service and userid")
    module, service, user = words
    return Question(
        b"PRE",
        record(b"\n".join((service, EXTERNAL, user, b""))) if service else None,
        "" if module == b"." else os.fsdecode(module),
    )


def auth(argument: bytes, octets: bytes) -> Question | None:
    if not argument.isdigit() or len(argument) > DIGITS:
        raise BadRequest("AUTH wants a number of octets")
    size = int(argument)
    if size > LARGEST:
        raise BadRequest(f"AUTH with over {LARGEST} octets")
    if len(octets) < size:
        return None
    asked = record(octets[:size])
    if asked and asked.authtype in (EXTERNAL, request.AUTHENTICATED):
        asked = None  # only PRE asks for an account without a proof
    return Question(b"AUTH", asked)


def passwd(argument: bytes, _: bytes) -> Question:
    """A control character, such as a TAB too many, makes it nobody's (reference auth.md 2.9)."""
    words = argument.split(b"\t")
    if len(words) != 4 or any(min(word, default=0) < 0x20 for word in words):
        return Question(b"PASSWD")
    service, user, old, new = words
    asked = record(b"\n".join((service, LOGIN, user, old, b"", b"")))
    return Question(b"PASSWD", asked, new=new)


def record(octets: bytes) -> Request | None:
    try:
        return request.parse(octets)
    except BadRequest:
        return None


VERBS = {
    b"PRE": pre,
    b"AUTH": auth,
    b"PASSWD": passwd,
    b"ENUMERATE": lambda argument, octets: Question(b"ENUMERATE"),
}
