"""claims - what a token says of itself, and whether that is enough

    exp, nbf, iat    it is valid now, OAUTH_LEEWAY seconds more or less (30; at most 300)
    iss              is OAUTH_ISSUER
    aud              has one of OAUTH_AUDIENCE's words
    scope, or scp    has all of OAUTH_SCOPE's words
    OAUTH_USER_CLAIM whose it is (sub). With `email`, not one that is said to be unverified

(RFC 7519 section 4.1, RFC 7662 section 2.2, RFC 9068 section 2.2.) A claim that a setting asks for
has to be there. No IO here.
"""

from __future__ import annotations

from time import time

from authmodules.rcfile import RcFile
from courierchain.authmodule import TemporaryFailure

LEEWAY, LONGEST_LEEWAY = 30, 300  # seconds
LONGEST_USER = 1024  # octets

Claims = dict[str, object]


class Wrong(Exception):
    """The token is refused; the text says why, and has nothing in it that the client chose.

    status: as RFC 6750 section 3.1 calls it
    """

    def __init__(self, why: str, status: str = "invalid_token"):
        super().__init__(why)
        self.status = status


def check(claims: Claims, rc: RcFile) -> str:
    """Whose the token is. Raises Wrong, and TemporaryFailure for the settings."""
    leeway = rc.number("OAUTH_LEEWAY") if rc.text("OAUTH_LEEWAY") else LEEWAY
    if leeway > LONGEST_LEEWAY:
        raise TemporaryFailure(f"{rc.place('OAUTH_LEEWAY')}: over {LONGEST_LEEWAY} seconds")
    check_time(claims, leeway)
    issuer, audience = rc.text("OAUTH_ISSUER"), rc.text("OAUTH_AUDIENCE").split()
    if issuer and claims.get("iss") != issuer:
        raise Wrong("iss is not OAUTH_ISSUER")
    if audience and not set(audience) & set(words(claims.get("aud"), separator=None)):
        raise Wrong("aud has nothing of OAUTH_AUDIENCE")
    granted = words(claims.get("scope", claims.get("scp")), separator=" ")
    if not set(granted).issuperset(rc.text("OAUTH_SCOPE").split()):
        raise Wrong("it lacks some of OAUTH_SCOPE", "insufficient_scope")
    return owner(claims, rc.text("OAUTH_USER_CLAIM", "sub"))


def check_time(claims: Claims, leeway: int) -> None:
    now = time()
    # Each so that what is no number, NaN for one, is refused.
    if "exp" in claims and not now - leeway < moment(claims["exp"]):
        raise Wrong("it has expired")
    for name in ("nbf", "iat"):
        if name in claims and not moment(claims[name]) <= now + leeway:
            raise Wrong(f"it is not valid yet ({name})")


def moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong("a time in it is no number")
    return value


def words(value: object, separator: str | None) -> list[str]:
    """A claim that is a list of words, or a text; with a separator, a text of words."""
    if isinstance(value, str):
        return value.split(separator) if separator else [value]
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def owner(claims: Claims, name: str) -> str:
    user = claims.get(name)
    if not isinstance(user, str) or not user:
        raise Wrong("it has no text in OAUTH_USER_CLAIM")
    if name == "email" and claims.get("email_verified", True) is not True:
        raise Wrong("its email is not verified")
    try:
        size = len(user.encode())
    except UnicodeEncodeError:
        raise Wrong("its userid is no text") from None
    if size > LONGEST_USER or any(character < " " or character == "\x7f" for character in user):
        raise Wrong("its userid has control characters, or is too long")
    return user
