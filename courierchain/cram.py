"""cram - was a challenge answered by one who has the secret?

CRAM-MD5 (RFC 2195) and its siblings with SHA-1 and SHA-256: the client sends its userid, a space
and HMAC(secret, challenge) in hex. On descriptor 3 challenge and response travel in base64, as they
do on the wire (reference chain-protocol.md 2):

    service LF cram-md5 LF challenge LF response LF LF

APOP (RFC 1939 section 7) travels the same way, as `apop`: the challenge is the greeting's, the
digest MD5 of challenge and secret. Only who keeps the secret itself can compare: its state is the
secret, in hex.

Who keeps no clear password keeps a *state*, as Courier's userdb does: what HMAC's outer hash, and
then its inner one, have come to after the block that the secret makes, in hex (auth.md 2.3). It is
as good as the secret to whoever steals it.

    verify(answer, state)            True or False, whatever the bytes; it never raises
    state_of(algorithm, secret)      the state to store, or to give verify() for a clear password

An empty secret never matches (CVE-09). Digests are compared in constant time (CVE-43).
"""

from __future__ import annotations

from _operator import _compare_digest as same
from binascii import Error, a2b_base64, b2a_base64, hexlify, unhexlify

from courierchain.authtypes import APOP, CRAM
from courierchain.request import Request

ALGORITHMS = {authtype: authtype[5:].decode() for authtype in CRAM}  # md5, sha1, sha256
ALGORITHMS[APOP] = "apop"
DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "apop": 32}  # of a digest in hex
HEX = frozenset(b"0123456789abcdef")


class Answer:
    """What a client said: the digest in lower hex, of as many digits as the algorithm makes."""

    __slots__ = ("algorithm", "user", "challenge", "digest")

    def __init__(self, algorithm: str, user: bytes, challenge: bytes, digest: bytes):
        self.algorithm = algorithm
        self.user = user
        self.challenge = challenge
        self.digest = digest


def answer(authtype: bytes, challenge: bytes, response: bytes) -> Answer | None:
    """An answer from what was decoded; None if it can't be one.

    The last space separates, so a userid may have spaces. Hex digits are taken in either case.
    """
    algorithm = ALGORITHMS[authtype]
    user, _, digest = response.rpartition(b" ")
    digest = digest.lower()
    if not user or len(digest) != DIGITS[algorithm] or not HEX.issuperset(digest):
        return None
    return Answer(algorithm, user, challenge, digest)


def asked(request: Request) -> Answer | None:
    """The answer in a record; None if it is a record of another kind, or a broken one."""
    if request.authtype not in ALGORITHMS or len(request.fields) != 2:
        return None
    try:
        challenge, response = (a2b_base64(field, strict_mode=True) for field in request.fields)
    except Error:
        return None
    return answer(request.authtype, challenge, response)


def lines(answer: Answer, user: bytes) -> tuple[bytes, bytes]:
    """The two lines of a record, with the userid as the modules shall see it."""
    return base64(answer.challenge), base64(user + b" " + answer.digest)


def base64(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False)


def verify(answer: Answer, state: bytes | None) -> bool:
    """Say whether `state` was made from the client's secret; None is an unknown user's, over which
    it takes as long."""
    from courierchain.hashblocks import ALGORITHMS, BLOCK

    if answer.algorithm == "apop":
        return verify_apop(answer, state)
    algorithm = ALGORITHMS[answer.algorithm]
    empty = state_of(answer.algorithm, b"")
    try:
        octets = unhexlify(state or empty)
    except (Error, ValueError):
        octets = b""
    if len(octets) != 2 * algorithm.octets:
        octets = unhexlify(empty)
    outer = algorithm.state(octets[: algorithm.octets])
    inner = algorithm.state(octets[algorithm.octets :])
    digest = algorithm.digest(inner, BLOCK, answer.challenge)
    digest = algorithm.digest(outer, BLOCK, digest)
    return same(hexlify(digest), answer.digest) and not same(hexlify(octets), empty)


def verify_apop(answer: Answer, state: bytes | None) -> bool:
    from courierchain.hashblocks import ALGORITHMS

    try:
        secret = unhexlify(state or b"")
    except (Error, ValueError):
        secret = b""
    md5 = ALGORITHMS["md5"]
    digest = md5.digest(md5.start, 0, answer.challenge + secret)
    return same(hexlify(digest), answer.digest) and secret != b""


def state_of(algorithm: str, secret: bytes) -> bytes:
    """HMAC's two states after the secret, outer one first, in lower hex (RFC 2104 section 4); of
    APOP the secret, in hex."""
    from courierchain.hashblocks import ALGORITHMS, BLOCK

    if algorithm == "apop":
        return hexlify(secret)
    function = ALGORITHMS[algorithm]
    if len(secret) > BLOCK:
        secret = function.digest(function.start, 0, secret)
    key = secret.ljust(BLOCK, b"\0")
    states = (
        function.update(function.start, bytes(octet ^ pad for octet in key)) for pad in (0x5C, 0x36)
    )
    return b"".join(hexlify(function.octets_of(state)) for state in states)
