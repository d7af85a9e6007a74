"""newhash - make the stored form of a new password

    make(secret, policy, old)    the form, which passwords.verify() takes

policy is PASSWORD_SCHEME: empty, or a name and numbers for it, as in `bcrypt rounds=12`,
`argon2 memory_cost=65536 time_cost=3` (passlib's words). Names are

    argon2 bcrypt pbkdf2_sha256 pbkdf2_sha512 scrypt sha256_crypt sha512_crypt    passlib's
    yescrypt                          crypt(3)'s, which makes bcrypt and *_crypt too, where passlib
                                      isn't installed, or its bcrypt doesn't work with what is
    SCRAM-SHA-1 SCRAM-SHA-256         what SCRAM needs of a password; rounds: 4096 at least
    MD5 MD5RAW SHA SSHA SHA256 SHA512 and $1$    Courier's

Empty is Courier's rule (reference auth.md Part 3): the scheme of the old form if it is one of
Courier's, {SSHA} for any other old form, {SHA512} where there is none. {CRYPT} in front stays. A
form of SCRAM's has another of its kind: else nobody could log in by SCRAM any more.

passlib is imported here, and here alone to make something: no login waits for it.
"""

from __future__ import annotations

import ctypes
import os

from courierchain import passwords, scram
from courierchain.saslprep import NotPrepared

COURIER = (b"MD5", b"MD5RAW", b"SHA", b"SSHA", b"SHA256", b"SHA512")
MD5_CRYPT = b"$1$"
OTHERWISE, WITHOUT_HINT = "SSHA", "SHA512"
PASSLIB = ("argon2", "pbkdf2_sha256", "pbkdf2_sha512", "scrypt")
CRYPT = {  # crypt_gensalt(3)'s prefix, and what its count is where nobody says
    "bcrypt": (b"$2b$", 12),
    "sha256_crypt": (b"$5$", 0),
    "sha512_crypt": (b"$6$", 0),
    "yescrypt": (b"$y$", 0),
    "$1$": (MD5_CRYPT, 0),
}
SCRAM = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
BCRYPT_SEES = 72  # octets of a password
SALT = 4  # octets of Courier's {SSHA}


class CannotMake(Exception):
    """The text says why, and what can be done."""


class Unfit(CannotMake):
    """The password itself can't be used."""


def make(secret: bytes, policy: str = "", old: bytes | None = None) -> bytes:
    """Raises CannotMake."""
    check(secret)
    name, *words = policy.split() or [scheme_of(old)]
    stored = made(name, numbers(policy, words), secret)
    if stored.startswith(b"$") and (old or b"")[:7].upper() == b"{CRYPT}":
        stored = b"{CRYPT}" + stored
    if not passwords.verify(secret, stored):
        raise CannotMake(f"PASSWORD_SCHEME={policy}: nobody could log in with what comes of it")
    return stored


def check(secret: bytes) -> None:
    """Raises Unfit for what passwords.verify() never takes."""
    if not 0 < len(secret) <= passwords.MAX_SECRET or b"\0" in secret:
        raise Unfit(f"a password has 1 to {passwords.MAX_SECRET} octets, none of them NUL")


def scheme_of(old: bytes | None) -> str:
    """Courier's rule."""
    if not old:
        return WITHOUT_HINT
    for name, algorithm in SCRAM.items():
        secret = scram.stored_secret(old)
        if secret and secret.algorithm == algorithm:
            return name
    if old.startswith(MD5_CRYPT):
        return MD5_CRYPT.decode()
    brace = old[1:].partition(b"}")[0].upper() if old.startswith(b"{") else b""
    return brace.decode() if brace in COURIER else OTHERWISE


def numbers(policy: str, words: list[str]) -> dict[str, int]:
    found = {}
    for word in words:
        name, _, digits = word.partition("=")
        if not (name.isidentifier() and digits.isascii() and digits.isdigit() and len(digits) < 10):
            raise CannotMake(f"PASSWORD_SCHEME={policy}: {word}: not of the form NAME=NUMBER")
        found[name] = int(digits)
    return found


def made(name: str, options: dict[str, int], secret: bytes) -> bytes:
    if name.encode() in COURIER and not options:
        return of_courier(name.encode(), secret)
    if name in SCRAM:
        return of_scram(name, options, secret)
    if name not in PASSLIB and name not in CRYPT:
        known = ", ".join([*PASSLIB, *CRYPT, *SCRAM, *(known.decode() for known in COURIER)])
        raise CannotMake(f"PASSWORD_SCHEME={name}: not one of {known}")
    if name == "bcrypt" and len(secret) > BCRYPT_SEES:
        raise Unfit(f"bcrypt: a password has {BCRYPT_SEES} octets at most")
    return by_crypt(name, options, secret) if name in CRYPT else by_passlib(name, options, secret)


def of_courier(name: bytes, secret: bytes) -> bytes:
    if name == b"SSHA":
        value = passwords.salted_sha1(secret, bytes(20) + os.urandom(SALT))
    else:
        value = passwords.DIGESTS[name](secret, b"")
    return b"{%s}%s" % (name, value)


def of_scram(name: str, options: dict[str, int], secret: bytes) -> bytes:
    """A form for SCRAM. Raises CannotMake."""
    rounds = options.get("rounds", scram.LEAST_ROUNDS)
    if set(options) - {"rounds"} or not scram.LEAST_ROUNDS <= rounds <= scram.MOST_ROUNDS:
        bounds = f"rounds={scram.LEAST_ROUNDS} to {scram.MOST_ROUNDS}"
        raise CannotMake(f"{name}: it has {bounds}, and no other option")
    try:
        salt = os.urandom(scram.SALT)
        return scram.form(scram.secret_of(SCRAM[name], secret, salt, rounds))
    except NotPrepared as why:
        raise Unfit(f"{name}: a password has no characters that SASLprep forbids") from why


def by_passlib(name: str, options: dict[str, int], secret: bytes) -> bytes:
    try:
        import logging

        import passlib.hash

        logging.getLogger("passlib").setLevel(logging.ERROR)  # it warns of versions it can do with
        kind = getattr(passlib.hash, name)
        return kind.using(**options).hash(secret).encode()
    except (ImportError, AttributeError, RuntimeError) as why:  # RuntimeError: MissingBackendError
        needs = "passlib and argon2-cffi" if name == "argon2" else "passlib"
        raise CannotMake(f"{name}: {type(why).__name__} (install {needs})") from why
    except (TypeError, ValueError) as why:
        # Only the name of the error: nobody promises that its text is free of the secret.
        raise CannotMake(f"{name}: passlib says {type(why).__name__} to {options}") from why


def by_crypt(name: str, options: dict[str, int], secret: bytes) -> bytes:
    if name not in ("$1$", "yescrypt"):
        try:
            return by_passlib(name, options, secret)
        except CannotMake:
            pass  # 1.7.4 is older than bcrypt 5, and can't do with it
    prefix, count = CRYPT[name]
    rounds = options.get("rounds", count)
    stored = passwords.crypt(secret, gensalt(name, prefix, rounds))
    if stored is None or set(options) - {"rounds"}:
        raise CannotMake(f"{name}: crypt(3) can't make it with {options}")
    return stored


def gensalt(name: str, prefix: bytes, rounds: int) -> bytes:
    try:
        function = passwords.libcrypt.crypt_gensalt
    except AttributeError as why:
        raise CannotMake(f"{name}: no crypt_gensalt(3) here (install libxcrypt)") from why
    function.argtypes = (ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int)
    function.restype = ctypes.c_char_p
    setting: bytes | None = function(prefix, rounds, None, 0)
    if setting is None or setting.startswith(b"*"):
        raise CannotMake(f"{name}: crypt_gensalt(3) does not know it, or not with {rounds} rounds")
    return setting
