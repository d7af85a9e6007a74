"""scram - the client's first message of SCRAM-SHA-1 and SCRAM-SHA-256 (RFC 5802, 7677), and -PLUS

    n,,n=user,r=nonce                  no channel binding
    y,,n=user,r=nonce                  the client could, and thinks that we can't
    p=tls-exporter,,n=user,r=nonce     the mechanism is one of the -PLUS kind

Between the commas may be `a=` and an authorization name. The rest of the dialogue is for the module
that knows the userid: `courierchain.scram` says what is passed on.
"""

from __future__ import annotations

from courierchain import saslprep, scram
from courierpop3login.mechanisms import Attempt, Malformed, Mechanism, Refused


class FirstMessage(Attempt):
    __slots__ = ("_first", "_binding")

    def __init__(self, authtype: bytes, user: bytes, acts_for: bytes, first: bytes, binding: bytes):
        super().__init__(authtype, user, acts_for=acts_for)
        self._first = first
        self._binding = binding

    def lines(self, user: bytes) -> tuple[bytes, ...]:
        return user, scram.base64(self._first), scram.base64(self._binding)


class Scram(Mechanism):
    """bindings: those that may be named, with their data; none for a mechanism without -PLUS.

    announces_plus: who could bind had the choice, so that a `y` is somebody's forgery (section 6)
    """

    __slots__ = ("_authtype", "_bindings", "_announces_plus")

    def __init__(self, authtype: bytes, bindings: dict[bytes, bytes], announces_plus: bool):
        self._authtype = authtype
        self._bindings = bindings
        self._announces_plus = announces_plus

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if response is None:
            return b""
        flag, comma, rest = response.partition(b",")
        acts_for, second_comma, first = rest.partition(b",")
        if not (comma and second_comma):
            raise Malformed
        try:
            user = name(scram.name_of(first))
            scram.nonce_of(first)
            acting = name(scram.name_of(b"n" + acts_for[1:])) if acts_for else b""
        except (scram.Malformed, saslprep.NotPrepared) as why:
            raise Malformed from why
        if acts_for[:1] not in (b"", b"a"):
            raise Malformed
        binding = b"%s,%s,%s" % (flag, acts_for, self._binding(flag))
        return FirstMessage(self._authtype, user, acting, first, binding)

    def _binding(self, flag: bytes) -> bytes:
        """What TLS has shown, if the client wants to bind. Raises Malformed and Refused."""
        if flag[:2] == b"p=":
            if flag[2:] not in self._bindings:
                raise Refused
            return self._bindings[flag[2:]]
        if flag not in (b"n", b"y"):
            raise Malformed
        if self._bindings or (flag == b"y" and self._announces_plus):
            raise Refused
        return b""


def name(text: bytes) -> bytes:
    """A name as it is looked up. Raises saslprep.NotPrepared."""
    ready = saslprep.prepared(text)
    if not ready:
        raise saslprep.NotPrepared("empty")
    return ready
