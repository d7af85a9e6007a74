"""passwords - is this the secret that the stored form was made from?

    verify(secret, stored)    True or False, whatever the bytes; it never raises

Stored forms (auth.md Part 3), the names in braces in any case:

    {MD5} {SHA} {SHA256} {SHA512}    base64 of the digest; {MD5RAW} in lower hex
    {SSHA}                           base64 of SHA-1 and its salt of exactly 4 octets
    {SCRAM-SHA-1} {SCRAM-SHA-256}    what SCRAM needs of the secret, see `scram`
    DES  $1$  $2b$  $6$  $y$ ...     crypt(3) of libcrypt, also behind {CRYPT}
    $argon2id$  $pbkdf2-sha256$ ...  passlib or libpass with argon2-cffi, imported when met; also
                                     behind {CRYPT}, {ARGON2I} or {ARGON2ID}

Anything else never matches: no plain text, no other name in braces, no `$` kind outside KINDS. Nor
does an empty secret (CVE-09), one over 511 octets, or one with a NUL, where crypt(3) would cut.

A refusal that cost nothing (unknown user, locked or broken entry, wrong secret for a quick digest)
takes the time of DUMMY, so that time does not tell names apart (CVE-07). Sites whose hashes cost
more than `$6$` set DUMMY, or the argument, to a stored form of their own kind.

A process that has begun so (see `verified`) computes a form of KINDS, which are the slow ones, once
in a while only, where the secret is right.
"""

from __future__ import annotations

import ctypes
from _operator import _compare_digest as same  # operator's and hmac's, in constant time
from binascii import a2b_base64, b2a_base64, hexlify

from courierchain import log, verified

DUMMY = b"$6$nobody.is.known."  # 5000 rounds, what chpasswd and most tables use
MAX_SECRET = 511  # crypt(3)'s CRYPT_MAX_PASSPHRASE_SIZE
MAX_STORED = 1024  # crypt(3) makes at most 384, argon2 about 250

# What the parameters behind a prefix may ask for at most, so that one bad entry can't burn an hour
# or all memory: some seconds, and 1 GiB. Numbers bound the decimal numbers that come first; octets
# bound crypt's own digits (`./0-9A-Za-z`, in the order of ASCII) place by place.
Bound = tuple[int, ...] | bytes

KINDS: tuple[tuple[tuple[bytes, ...], str, Bound], ...] = (  # the first prefix that fits decides
    ((b"$2a$", b"$2b$", b"$2x$", b"$2y$"), "crypt", (16,)),
    ((b"$5$rounds=", b"$6$rounds="), "crypt", (5_000_000,)),
    ((b"$sha1$", b"$md5,rounds=", b"$md5$rounds="), "crypt", (1_000_000,)),
    ((b"$5$", b"$6$", b"$md5$"), "crypt", ()),
    ((b"$y$", b"$gy$"), "crypt", b"jFT$"),  # crypt_gensalt(3)'s highest; `$`: no more parameters
    ((b"$7$",), "crypt", b"GU..../...."),  # N, r, p
    ((b"$argon2i$v=19$m=", b"$argon2d$v=19$m="), "argon2", (1 << 20, 10, 64)),
    ((b"$argon2id$v=19$m=",), "argon2", (1 << 20, 10, 64)),  # KiB, passes, lanes
    ((b"$pbkdf2$",), "pbkdf2_sha1", (5_000_000,)),
    ((b"$pbkdf2-sha256$",), "pbkdf2_sha256", (5_000_000,)),
    ((b"$pbkdf2-sha512$",), "pbkdf2_sha512", (5_000_000,)),
    ((b"pbkdf2_sha256$",), "django_pbkdf2_sha256", (5_000_000,)),
    ((b"$scrypt$ln=",), "scrypt", (17, 16, 4)),
    ((b"$P$", b"$H$"), "phpass", b"I"),
    ((b"$apr1$",), "apr_md5_crypt", ()),
)
QUICK = (b"$1$", b"$3$")  # crypt(3)'s too, as is DES: all that has no `$`
DIGESTS = {
    b"MD5": lambda secret, _: base64(digest("md5", secret)),
    b"MD5RAW": lambda secret, _: hexlify(digest("md5", secret)),
    b"SHA": lambda secret, _: base64(digest("sha1", secret)),
    b"SHA256": lambda secret, _: base64(digest("sha256", secret)),
    b"SHA512": lambda secret, _: base64(digest("sha512", secret)),
    b"SSHA": lambda secret, value: salted_sha1(secret, a2b_base64(value)),
}
CONTAINERS = {b"CRYPT": b"", b"ARGON2I": b"$argon2i$", b"ARGON2ID": b"$argon2id$"}
DIGITS_ONLY = bytes(octet if octet in b"0123456789" else ord(" ") for octet in range(256))


def verify(secret: bytes, stored: bytes | None, dummy: bytes | None = None) -> bool:
    """Say whether `stored` was made from `secret`; None is the stored form of an unknown user."""
    if 0 < len(secret) <= MAX_SECRET and b"\0" not in secret and stored:
        answer = check(secret, stored)
        if answer is not None:
            return answer
    check(secret[:MAX_SECRET], dummy or DUMMY)
    return False


def is_locked(stored: bytes | None) -> bool:
    """Whether an administrator has locked the password, as `usermod -L` does (shadow(5)).

    For who logs in without one: verify() needs no asking.
    """
    return stored is not None and stored.startswith(b"!")


def check(secret: bytes, stored: bytes) -> bool | None:
    """True or False at the price of the stored form; None is False that cost next to nothing."""
    if len(stored) > MAX_STORED or b"\0" in stored:
        return None
    if stored[:11].upper().lstrip(b"{").startswith(b"SCRAM-SHA-"):
        from courierchain import scram  # here: where it is met

        return scram.is_password(secret, stored)
    if stored.startswith(b"{"):
        name, _, value = stored[1:].partition(b"}")
        name = name.upper()
        if name in DIGESTS:
            return digest_matches(name, secret, value) or None
        if name not in CONTAINERS or not value.startswith(CONTAINERS[name]):
            return None
        stored = value
    if stored.startswith(QUICK):
        return crypt_matches(secret, stored) or None
    for prefixes, scheme, bound in KINDS:
        for prefix in filter(stored.startswith, prefixes):
            if not within(bound, stored[len(prefix) :]):
                return None
            return slow_matches(scheme, secret, stored)
    if stored.startswith(b"$"):
        return None
    return crypt_matches(secret, stored) or None  # DES of 2**24 rounds, its most: 3 s


def within(bound: Bound, parameters: bytes) -> bool:
    """Say whether the parameters ask for no more than `bound`."""
    if isinstance(bound, bytes):
        return all(place <= most for place, most in zip(parameters, bound, strict=False))
    numbers = parameters.translate(DIGITS_ONLY).split()[: len(bound)]
    return not bound or (
        # A sign or a blank in front would be read by strtoul in an old libcrypt, but not here.
        parameters[:1].isdigit()
        and len(numbers) == len(bound)
        and all(len(n) < 10 and int(n) <= most for n, most in zip(numbers, bound, strict=True))
    )


def digest_matches(name: bytes, secret: bytes, value: bytes) -> bool:
    try:
        return same(DIGESTS[name](secret, value), value)
    except ValueError:  # not base64, or not of the right length
        return False


def digest(algorithm: str, octets: bytes) -> bytes:
    import hashlib  # here: costs what most sites never need

    return hashlib.new(algorithm, octets, usedforsecurity=False).digest()


def base64(octets: bytes) -> bytes:
    return b2a_base64(octets, newline=False)


def salted_sha1(secret: bytes, stored: bytes) -> bytes:
    salt = stored[20:]
    if len(salt) != 4:
        raise ValueError("Courier's {SSHA} has a salt of 4 octets, no more and no less")
    return base64(digest("sha1", secret + salt) + salt)


def slow_matches(scheme: str, secret: bytes, stored: bytes) -> bool | None:
    if verified.knows(secret, stored):
        return True
    if scheme == "crypt":
        right = crypt_matches(secret, stored)
    else:
        right = passlib_matches(scheme, secret, stored)
    if right:
        verified.learn(secret, stored)
    return right


def passlib_matches(scheme: str, secret: bytes, stored: bytes) -> bool | None:
    try:
        import passlib.hash

        return bool(getattr(passlib.hash, scheme).verify(secret, stored))
    except (ImportError, RuntimeError) as why:  # RuntimeError: passlib.exc.MissingBackendError
        # Only the name of the error: nobody promises that its text is free of the secret.
        reason = type(why).__name__
        log.err(f"passwords: cannot check {scheme}: {reason} (install passlib and argon2-cffi)")
        return None
    except Exception:  # a broken hash: ValueError, but also TypeError and IndexError
        return None


def crypt_matches(secret: bytes, stored: bytes) -> bool | None:
    result = crypt(secret, stored)
    return None if result is None else same(result, stored)


def crypt(secret: bytes, setting: bytes) -> bytes | None:
    """crypt(3); None for a setting that it can't use, which it says by NULL or `*0`, `*1`."""
    result: bytes | None = libcrypt.crypt(secret, setting)
    return None if not result or result.startswith(b"*") else result


def load_libcrypt() -> ctypes.PyDLL:
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            # PyDLL keeps the interpreter's lock: crypt's result is in a static buffer.
            library = ctypes.PyDLL(name)
            library.crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
            library.crypt.restype = ctypes.c_char_p
            return library
        except (OSError, AttributeError):
            continue
    raise ImportError("passwords: cannot load libcrypt.so.1 or libcrypt.so.2 (install libxcrypt)")


libcrypt = load_libcrypt()  # at import, so that it is mapped before any fork
