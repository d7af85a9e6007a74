"""cache - accounts that were found a short while ago, so that no module is asked again

authcachelife   seconds that an answer may be told again, counted from its question (0: never)
authcachesize   accounts that there is room for (1000)

One table serves all processes: a piece of memory that the listening one makes before it forks them,
and makes anew whenever it reads its configuration (SIGHUP). A changed password of which authdaemond
hears (PASSWD) empties it; of another change nobody hears for `authcachelife` seconds.

Remembered is who was found with a password (AUTH of type login) or without (PRE), for the same
service, module and client address. Not remembered: that somebody was not found, or not right; the
other ways to prove who one is, in which no two questions are the same; answers over ANSWER octets.

What is remembered has no password in it, and no hash that would help elsewhere: a question is known
by its BLAKE2b with a key that is drawn for each table, and is only in these processes' memory. That
hash says which place of the table is the question's; who is there makes room. A place is

    seal (32)   expiry (8)   length (4)   answer

where the seal is a hash, with the same key, of question, table's state, expiry and answer. So it
fits nobody else's question, nothing older than the last change of a password, and nothing that two
processes have written at once: there are no locks.
"""

from __future__ import annotations

import os
import struct
from _operator import _compare_digest as same
from collections.abc import Callable
from hashlib import blake2b
from mmap import mmap
from time import monotonic

from authdaemond.question import Question
from courierchain.authsocket import FAIL

Answer = Callable[[Question], bytes]

STATE = 8  # octets in front of the places, drawn anew when all of them shall be void
HEAD = struct.Struct("=32sdI")
ANSWER = 980  # octets
PLACE = HEAD.size + ANSWER
SECRET = b"\nPASSWD2=%s\n"


class Cache:
    """life: seconds. size: answers."""

    __slots__ = ("_life", "_size", "_key", "_table")

    def __init__(self, life: int, size: int):
        self._life = life
        self._size = size
        self._key = os.urandom(32)
        self._table = mmap(-1, STATE + size * PLACE)  # shared with the processes forked later

    def before(self, answer: Answer) -> Answer:
        """Answers from the table, or as `answer` does."""

        def reply(question: Question) -> bytes:
            if question.verb == b"PASSWD":
                try:
                    return answer(question)
                finally:
                    self.forget()
            if not is_remembered(question):
                return answer(question)
            return self._find(question) or self._learn(question, answer)

        return reply

    def forget(self) -> None:
        """Make all answers void, those too that are only being asked for."""
        self._table[:STATE] = os.urandom(STATE)

    def _find(self, question: Question) -> bytes:
        """Empty if there is none."""
        name = self._name(question)
        begin = self._place(name)
        place = self._table[begin : begin + PLACE]
        seal, expiry, length = HEAD.unpack_from(place)
        answer = place[HEAD.size : HEAD.size + length]
        if not same(seal, self._seal(name, self._table[:STATE], expiry, answer)):
            return b""
        return with_secret(answer, question) if monotonic() < expiry else b""

    def _learn(self, question: Question, ask: Answer) -> bytes:
        state, expiry = self._table[:STATE], monotonic() + self._life
        answer = ask(question)
        kept = without_secret(answer, question)
        if answer != FAIL and len(kept) <= ANSWER:
            name = self._name(question)
            head = HEAD.pack(self._seal(name, state, expiry, kept), expiry, len(kept))
            begin = self._place(name)
            self._table[begin : begin + len(head) + len(kept)] = head + kept
        return answer

    def _name(self, question: Question) -> bytes:
        assert question.request
        parts = (os.fsencode(question.module), os.fsencode(question.ip), question.request.raw)
        return self._hash(*parts)

    def _place(self, name: bytes) -> int:
        return STATE + int.from_bytes(name[:8], "big") % self._size * PLACE

    def _seal(self, name: bytes, state: bytes, expiry: float, answer: bytes) -> bytes:
        return self._hash(name, state, struct.pack("=d", expiry), answer)

    def _hash(self, *parts: bytes) -> bytes:
        lengths = b" ".join(b"%d" % len(part) for part in parts)
        return blake2b(b"\n".join((lengths, *parts)), key=self._key, digest_size=32).digest()


def is_remembered(question: Question) -> bool:
    request = question.request
    return request is not None and bool(request.login or request.external)


def without_secret(answer: bytes, question: Question) -> bytes:
    """The answer without the password that it tells again."""
    return answer.replace(SECRET % secret(question), SECRET % b"", 1)


def with_secret(answer: bytes, question: Question) -> bytes:
    return answer.replace(SECRET % b"", SECRET % secret(question), 1)


def secret(question: Question) -> bytes:
    login = question.request.login if question.request else None
    return login[1] if login else b""
