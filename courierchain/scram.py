"""scram - SCRAM-SHA-1 (RFC 5802) and SCRAM-SHA-256 (RFC 7677): messages and keys, no descriptors

    C: n,,n=user,r=NONCE                        client-first-message; `n,,` is the gs2 header
    S: r=NONCEMORE,s=SALT,i=ROUNDS              Exchange.server_first
    C: c=CBIND-INPUT,r=NONCEMORE,p=PROOF        Exchange.answer() takes it and gives
    S: v=SIGNATURE

The first message is in the record on descriptor 3 (reference chain-protocol.md 2; `authtypes`):

    service LF scram-sha-256 LF userid LF client-first-message-bare LF cbind-input LF LF

userid is what the modules look up, prepared and with DEFDOMAIN, as in a `login` record. The message
is without its gs2 header. cbind-input is that header and, for a mechanism of the -PLUS kind, what
TLS has shown of itself (RFC 5802 section 6): all that `c=` has to say, so nobody behind the login
program needs to know of TLS. The last two are in base64.

A Secret is made of a stored form, or of a password that is stored in clear. Forms are those of RFC
5803 (PostgreSQL's too) and of Dovecot; all numbers but the rounds are in base64:

    SCRAM-SHA-256$ROUNDS:SALT$STOREDKEY:SERVERKEY
    {SCRAM-SHA-256}ROUNDS,SALT,STOREDKEY,SERVERKEY

STOREDKEY doesn't let anybody in who steals it; SERVERKEY lets him pose as the server.
"""

from __future__ import annotations

from _operator import _compare_digest as same  # in constant time (CVE-43)
from binascii import Error, a2b_base64, b2a_base64

from courierchain.authtypes import SCRAM
from courierchain.request import Request
from courierchain.saslprep import NotPrepared, prepared

ALGORITHMS = dict(zip(SCRAM, ("sha1", "sha256"), strict=True))
OCTETS = {"sha1": 20, "sha256": 32}  # of a digest
LEAST_ROUNDS = 4096  # RFC 5802 section 5.1, RFC 7677 section 4
MOST_ROUNDS = 5_000_000  # as passwords bounds its kinds: some seconds
SALT = 16  # octets of those that are made here, and by most who store one
NONCE = 18  # octets that are added to the client's
PRINTABLE = frozenset(range(0x21, 0x7F)) - {ord(",")}  # of a nonce
SEPARATORS = bytes.maketrans(b"$:,", b"   ")  # in stored forms


class Malformed(Exception):
    """A message that isn't what the grammar allows."""


class Wrong(Exception):
    """A message of one who hasn't the secret, or not on this connection."""


class Question:
    """What a record holds: see above."""

    __slots__ = ("algorithm", "user", "first", "binding")

    def __init__(self, algorithm: str, user: bytes, first: bytes, binding: bytes):
        self.algorithm = algorithm
        self.user = user
        self.first = first
        self.binding = binding

    @property
    def nonce(self) -> bytes:
        """The client's. Raises Malformed."""
        return nonce_of(self.first)


def asked(request: Request) -> Question | None:
    """The question in a record; None if it is a record of another kind, or a broken one."""
    if request.authtype not in ALGORITHMS or len(request.fields) != 3:
        return None
    user, *texts = request.fields
    try:
        first, binding = map(octets_of, texts)
        nonce_of(first)
    except Malformed:
        return None
    return Question(ALGORITHMS[request.authtype], user, first, binding) if user else None


def name_of(first: bytes) -> bytes:
    """The userid in a client-first-message-bare, as it came. Raises Malformed."""
    text = first.split(b",")[0]
    name = text[2:].replace(b"=2C", b",").replace(b"=3D", b"=")
    if text[:2] != b"n=" or text.count(b"=") != 1 + text.count(b"=2C") + text.count(b"=3D"):
        raise Malformed
    return name


def nonce_of(first: bytes) -> bytes:
    """The nonce in a client-first-message-bare. Raises Malformed, also for an extension that one
    has to understand: none is known."""
    attributes = first.split(b",")
    if len(attributes) < 2 or attributes[0][:2] != b"n=" or attributes[1][:2] != b"r=":
        raise Malformed
    nonce = attributes[1][2:]
    if not nonce or not PRINTABLE.issuperset(nonce):
        raise Malformed
    return nonce


class Secret:
    """What a server keeps of a password. algorithm: one of OCTETS."""

    __slots__ = ("algorithm", "rounds", "salt", "stored_key", "server_key")

    def __init__(
        self, algorithm: str, rounds: int, salt: bytes, stored_key: bytes, server_key: bytes
    ):
        self.algorithm = algorithm
        self.rounds = rounds
        self.salt = salt
        self.stored_key = stored_key
        self.server_key = server_key


def stored_secret(stored: bytes) -> Secret | None:
    """The Secret of a stored form; None if it is no such form, or a broken one (CVE-49)."""
    if stored.startswith(b"{"):
        name, _, rest = stored[1:].partition(b"}")
    else:
        name, _, rest = stored.partition(b"$")
    algorithm = ALGORITHMS.get(name.lower())
    rounds, *texts = rest.translate(SEPARATORS).split(b" ")
    if algorithm is None or len(texts) != 3 or not (rounds.isdigit() and len(rounds) < 10):
        return None
    try:
        salt, stored_key, server_key = map(octets_of, texts)
    except Malformed:
        return None
    if not salt or {len(stored_key), len(server_key)} != {OCTETS[algorithm]}:
        return None
    if not 0 < int(rounds) <= MOST_ROUNDS:
        return None
    return Secret(algorithm, int(rounds), salt, stored_key, server_key)


def secret_of(algorithm: str, password: bytes, salt: bytes, rounds: int) -> Secret:
    """The Secret of a password in clear. Raises NotPrepared."""
    from hashlib import pbkdf2_hmac

    salted = pbkdf2_hmac(algorithm, prepared(password), salt, rounds)
    client_key = hmac(algorithm, salted, b"Client Key")
    server_key = hmac(algorithm, salted, b"Server Key")
    return Secret(algorithm, rounds, salt, digest(algorithm, client_key), server_key)


def form(secret: Secret) -> bytes:
    """The stored form, as RFC 5803 spells it."""
    name = next(name for name, algorithm in ALGORITHMS.items() if algorithm == secret.algorithm)
    begin = b"%s$%d:%s" % (name.upper(), secret.rounds, base64(secret.salt))
    return b"%s$%s:%s" % (begin, base64(secret.stored_key), base64(secret.server_key))


def in_braces(form: bytes) -> bytes:
    """A form of RFC 5803 as Dovecot spells it, where a `:` or `$` would be in the way."""
    name, _, rest = form.partition(b"$")
    return b"{%s}%s" % (name, rest.translate(SEPARATORS).replace(b" ", b","))


def is_password(password: bytes, stored: bytes) -> bool | None:
    """Whether a stored form was made from a password; None for a form that is broken."""
    there = stored_secret(stored)
    if there is None:
        return None
    try:
        made = secret_of(there.algorithm, password, there.salt, there.rounds)
    except NotPrepared:
        return None
    return same(made.stored_key, there.stored_key)


class Exchange:
    """One dialogue, from the server's first message on. nonce: octets that never come again."""

    __slots__ = ("_question", "_secret", "_nonce", "server_first")

    def __init__(self, question: Question, secret: Secret, nonce: bytes):
        """Raises Malformed."""
        self._question = question
        self._secret = secret
        self._nonce = question.nonce + base64(nonce)
        salt = base64(secret.salt)
        self.server_first = b"r=%s,s=%s,i=%d" % (self._nonce, salt, secret.rounds)

    def answer(self, final: bytes) -> bytes:
        """The server's last message, to the client's. Raises Malformed and Wrong."""
        before, comma, proof = final.rpartition(b",p=")
        attributes = before.split(b",")
        if not comma or len(attributes) < 2 or attributes[0][:2] != b"c=":
            raise Malformed
        binding, proof = octets_of(attributes[0][2:]), octets_of(proof)
        algorithm, secret = self._secret.algorithm, self._secret
        if attributes[1][:2] != b"r=" or len(proof) != OCTETS[algorithm]:
            raise Malformed
        messages = b",".join((self._question.first, self.server_first, before))
        signature = hmac(algorithm, secret.stored_key, messages)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        is_same = (
            same(digest(algorithm, client_key), secret.stored_key),
            same(binding, self._question.binding),
            same(attributes[1][2:], self._nonce),
        )
        if not all(is_same):
            raise Wrong
        return b"v=" + base64(hmac(algorithm, secret.server_key, messages))


def hmac(algorithm: str, key: bytes, message: bytes) -> bytes:
    from hmac import digest  # here: costs what most sessions never need

    return digest(key, message, algorithm)


def digest(algorithm: str, octets: bytes) -> bytes:
    import hashlib

    return hashlib.new(algorithm, octets, usedforsecurity=False).digest()


def base64(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False)


def octets_of(text: bytes) -> bytes:
    """Base64 and nothing else in it. Raises Malformed."""
    try:
        if len(text) % 4:
            raise Malformed
        return a2b_base64(text, strict_mode=True)
    except Error as why:
        raise Malformed from why
