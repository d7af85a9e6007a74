"""cram - CRAM-MD5 (RFC 2195), and CRAM-SHA1 and CRAM-SHA256 in its manner

The server begins, with `<32 hex digits@host>`: 24 of them are random, the others the time, so none
comes twice (2195-01). The client answers `userid SP hexdigest`. It is the modules that compare.
"""

from __future__ import annotations

import os
from binascii import hexlify
from time import time

from courierchain import cram
from courierpop3login.mechanisms import Attempt, Mechanism, Refused

HOST_CHARACTERS = frozenset(b"-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")


class Digest(Attempt):
    __slots__ = ("_answer",)

    def __init__(self, authtype: bytes, answer: cram.Answer):
        super().__init__(authtype, answer.user)
        self._answer = answer

    def lines(self, user: bytes) -> tuple[bytes, ...]:
        return cram.lines(self._answer, user)


class Cram(Mechanism):
    __slots__ = ("_authtype", "_challenge", "_begun")

    def __init__(self, authtype: bytes, challenge: bytes):
        self._authtype = authtype
        self._challenge = challenge
        self._begun = False

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if not self._begun:
            if response:  # nothing to be said before the challenge
                raise Refused
            self._begun = True
            return self._challenge
        answer = cram.answer(self._authtype, self._challenge, response or b"")
        if answer is None:
            raise Refused
        return Digest(self._authtype, answer)


def fresh_challenge() -> bytes:
    host = bytes(octet for octet in os.fsencode(os.uname().nodename) if octet in HOST_CHARACTERS)
    digits = hexlify(os.urandom(12)).upper() + b"%08X" % (int(time()) & 0xFFFFFFFF)
    return b"<%s@%s>" % (digits, host or b"localhost")
