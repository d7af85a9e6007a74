"""jwtkeys - check a token that is a JWT, by keys in a file

    OAUTH_KEYS         a file with a JWK or a JWK Set (RFC 7517), or a public key in PEM; read at
                       each login, so whatever fetches keys may replace it. With secrets (`oct`) in
                       it, nobody else may read it
    OAUTH_ALGORITHMS   those that are taken, by name: RS256 ES256
    OAUTH_ISSUER, OAUTH_AUDIENCE    have to be set

Each key is used for the algorithms of its own kind, and a token's header only chooses among those
named here: so no public key is taken for a secret, and `none` is nothing (RFC 8725 section 3.1). A
token has to expire, and one that demands something (`crit`) isn't understood (RFC 7515 section
4.1.11).

Needs PyJWT and cryptography.
"""

from __future__ import annotations

import json
from stat import S_IROTH, S_IWOTH
from typing import Any

from authmodules.claims import Claims, Wrong
from authmodules.rcfile import RcFile, contents
from courierchain.authmodule import TemporaryFailure

try:
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
except ImportError as why:
    raise ImportError(f"{why} (pip install 'PyJWT[crypto]'; Debian: python3-jwt)") from why

SECRET_SIZES = {"HS256": 32, "HS384": 48, "HS512": 64}  # octets, the least (RFC 7518 section 3.2)
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
RSA_BITS = 2048  # the least (RFC 7518 section 3.3)
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = (*SECRET_SIZES, *RSA, *CURVES.values(), "EdDSA")


class Key:
    """kid: its name, or None. algorithms: those that it may be used for."""

    __slots__ = ("kid", "algorithms", "key")

    def __init__(self, kid: object, algorithms: tuple[str, ...], key: Any):
        self.kid = kid
        self.algorithms = algorithms
        self.key = key

    def may_have_signed(self, kid: object, algorithm: str) -> bool:
        return algorithm in self.algorithms and (None in (kid, self.kid) or kid == self.kid)


def claimed(token: bytes, rc: RcFile) -> Claims:
    """What the token claims, which has been signed by one of the keys. Raises Wrong."""
    for name in ("OAUTH_ISSUER", "OAUTH_AUDIENCE"):
        rc.needed(name)
    algorithms, keys = named(rc), read(rc)
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in algorithms:
            raise Wrong("its algorithm is none of OAUTH_ALGORITHMS")
        if "crit" in header:
            raise Wrong("it demands what isn't known here (crit)")
        claims = json.loads(payload(token, header.get("kid"), algorithm, keys))
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Wrong("it is no JWT") from None
    if not isinstance(claims, dict) or "exp" not in claims:
        raise Wrong("it has no exp")
    return claims


def payload(token: bytes, kid: object, algorithm: str, keys: list[Key]) -> bytes:
    for key in keys:
        if key.may_have_signed(kid, algorithm):
            try:
                return jwt.PyJWS().decode(token, key.key, algorithms=[algorithm])
            except jwt.InvalidSignatureError:
                pass
    raise Wrong("no key of OAUTH_KEYS has signed it")


def named(rc: RcFile) -> list[str]:
    """OAUTH_ALGORITHMS. Raises TemporaryFailure."""
    algorithms = rc.needed("OAUTH_ALGORITHMS").split()
    for name in algorithms:
        if name not in ALGORITHMS:
            raise TemporaryFailure(
                f"{rc.place('OAUTH_ALGORITHMS')}: {name!r} is not one of {' '.join(ALGORITHMS)}"
            )
    return algorithms


def read(rc: RcFile) -> list[Key]:
    """The keys of OAUTH_KEYS. Raises TemporaryFailure."""
    path = rc.text("OAUTH_KEYS")
    text = contents(path, S_IWOTH)
    try:
        if "-----BEGIN " in text:
            key = load_pem_public_key(text.encode())
            return [Key(None, of_kind(key), key)]
        parsed = json.loads(text)
        found = [of_jwk(item) for item in parsed.get("keys", [parsed])]
    except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as why:
        raise TemporaryFailure(
            f"{path}: no public keys: {why} (it must be a JWK Set, or a public key in PEM)"
        ) from why
    if any(set(key.algorithms) & SECRET_SIZES.keys() for key in found):
        contents(path, S_IROTH)
    keys = [key for key in found if key.algorithms]
    if not keys:
        raise TemporaryFailure(f"{path}: no key in it that checks signatures")
    return keys


def of_jwk(item: dict[str, str]) -> Key:
    """A key of a JWK Set; without algorithms if it is for something else. Raises ValueError and
    what PyJWT raises."""
    if item.get("use", "sig") != "sig" or item["kty"] not in ("RSA", "EC", "OKP", "oct"):
        return Key(None, (), None)
    if "d" in item:
        raise ValueError("one is private")
    try:
        key = jwt.PyJWK(item, algorithm="HS256" if item["kty"] == "oct" else None).key
    except jwt.PyJWKError:
        return Key(None, (), None)  # of an algorithm that PyJWT doesn't know
    algorithms = of_kind(key)
    if "alg" in item:
        algorithms = tuple(name for name in algorithms if name == item["alg"])
    return Key(item.get("kid"), algorithms, key)


def of_kind(key: object) -> tuple[str, ...]:
    """The algorithms that a key is for. Raises ValueError for one that is too weak."""
    if isinstance(key, bytes):
        found = tuple(name for name, size in SECRET_SIZES.items() if len(key) >= size)
        if not found:
            raise ValueError(f"a secret has less than {SECRET_SIZES['HS256']} octets")
        return found
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS:
            raise ValueError(f"an RSA key has less than {RSA_BITS} bits")
        return RSA
    if isinstance(key, ec.EllipticCurvePublicKey):
        return (CURVES[key.curve.name],) if key.curve.name in CURVES else ()
    return ("EdDSA",) if isinstance(key, ed25519.Ed25519PublicKey) else ()
