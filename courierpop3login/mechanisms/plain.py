"""plain - the mechanisms in which the client sends its password: PLAIN and LOGIN

    PLAIN (RFC 4616)   authzid NUL userid NUL password
    LOGIN              userid, then password, each for a prompt; the userid may come with AUTH

Both become a record of type `login`, as USER and PASS do.
"""

from __future__ import annotations

from courierchain.authtypes import LOGIN
from courierpop3login.mechanisms import Attempt, Malformed, Mechanism

USERNAME = b"Username:"
PASSWORD = b"Password:"


class Password(Attempt):
    __slots__ = ("_password",)

    def __init__(self, user: bytes, password: bytes, acts_for: bytes = b""):
        super().__init__(LOGIN, user, acts_for=acts_for)
        self._password = password

    def lines(self, user: bytes) -> tuple[bytes, ...]:
        return user, self._password


class Plain(Mechanism):
    __slots__ = ()

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if response is None:
            return b""
        acts_for, *rest = response.split(b"\0")
        if len(rest) != 2 or not all(rest):  # 4616-01
            raise Malformed
        user, password = rest
        return Password(user, password, acts_for)


class Login(Mechanism):
    __slots__ = ("_user",)

    def __init__(self) -> None:
        self._user = b""

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if response is None:
            return USERNAME
        if not response:
            raise Malformed
        if self._user:
            return Password(self._user, response)
        self._user = response
        return PASSWORD
