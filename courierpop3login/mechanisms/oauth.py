"""oauth - the mechanisms in which the client sends an OAuth access token

    OAUTHBEARER (RFC 7628)   n,a=USERID, ^A auth=Bearer TOKEN ^A ^A      other pairs are overlooked
    XOAUTH2                  user=USERID ^A auth=Bearer TOKEN ^A ^A      Google's, older

^A is the octet 1. Both become a record of type `oauthbearer`. With OAUTHBEARER the userid may be
missing: then whoever the token belongs to. One that is there has to be the token's: that is for the
module to say.

A token that nobody takes is refused by one more challenge, with a JSON text that tells why, and
only the client's response to that is answered with `-ERR` (7628-01).
"""

from __future__ import annotations

import os

from courierchain import failure
from courierchain.authtypes import OAUTHBEARER
from courierpop3login.mechanisms import Attempt, Malformed, Mechanism

SEPARATOR = b"\x01"
END = SEPARATOR * 2
TOKEN_CHARACTERS = frozenset(  # RFC 6750 section 2.1: b64token
    b"-._~+/=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
METHODS = ("OAUTHBEARER", "XOAUTH2")
INVALID_TOKEN = '{"status":"invalid_token"}'


class Token(Attempt):
    __slots__ = ("_token",)

    secret = b"token"

    def __init__(self, user: bytes, token: bytes):
        super().__init__(OAUTHBEARER, user, takes_domain=user != b"")
        self._token = token

    def lines(self, user: bytes) -> tuple[bytes, ...]:
        return user, self._token


class Bearer(Mechanism):
    __slots__ = ()

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if response is None:
            return b""
        header, _, rest = response.partition(SEPARATOR)
        flag, *words = header.split(b",")
        if flag not in (b"n", b"y") or len(words) != 2 or words[1]:  # RFC 5801 section 4
            raise Malformed
        return Token(authorization_name(words[0]), token(rest))


class XOAuth2(Mechanism):
    __slots__ = ()

    def respond(self, response: bytes | None) -> bytes | Attempt:
        if response is None:
            return b""
        name, _, rest = response.partition(SEPARATOR)
        if not name.startswith(b"user=") or name == b"user=":
            raise Malformed
        return Token(name.removeprefix(b"user="), token(rest))


def authorization_name(word: bytes) -> bytes:
    """The name of `a=NAME`, in which =2C is a comma and =3D is `=`. Raises Malformed."""
    if not word:
        return b""
    name = word.removeprefix(b"a=")
    pieces = name.replace(b"=2C", b",").split(b"=3D")
    if name == word or not name or any(b"=" in piece for piece in pieces):
        raise Malformed
    return b"=".join(pieces)


def token(pairs: bytes) -> bytes:
    """The token of the one pair `auth`, among others. Raises Malformed."""
    if not pairs.endswith(END):
        raise Malformed
    found = [pair.partition(b"=") for pair in pairs.removesuffix(END).split(SEPARATOR)]
    values = [value for key, _, value in found if key == b"auth"]
    if len(values) != 1:
        raise Malformed
    scheme, _, words = values[0].partition(b" ")
    sent = words.strip(b" ")
    if scheme.lower() != b"bearer" or not sent or not TOKEN_CHARACTERS.issuperset(sent):
        raise Malformed
    return sent


def challenge(env: dict[str, str]) -> bytes:
    """What a client is told whose token was refused; empty if it wasn't that."""
    if env.get("COURIER_LOGIN_METHOD") not in METHODS or failure.trouble(env):
        return b""
    return os.fsencode(env.get(failure.CHALLENGE) or INVALID_TOKEN)
