"""external - EXTERNAL (RFC 4422 appendix A): TLS has shown who the client is

The client names the identity of its certificate, or nobody. Whether an account has that name is for
the modules to say; there is no password.
"""

from __future__ import annotations

from courierchain.authtypes import EXTERNAL
from courierpop3login.mechanisms import Attempt, Mechanism, Refused


class Identity(Attempt):
    __slots__ = ()

    def __init__(self, identity: bytes):
        super().__init__(EXTERNAL, identity, takes_domain=False)

    def lines(self, user: bytes) -> tuple[bytes, ...]:
        return (user,)


class External(Mechanism):
    __slots__ = ("_identity",)

    def __init__(self, identity: bytes):
        self._identity = identity

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if response is None:
            return b""
        if response not in (b"", self._identity):
            raise Refused
        return Identity(self._identity)
