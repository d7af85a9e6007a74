"""binding - what ties a login to this TLS connection, for SCRAM's -PLUS mechanisms (RFC 5056)

    TLS_BINDING_EXPORTER           tls-exporter (RFC 9266), of TLS 1.3
    TLS_BINDING_SERVER_END_POINT   tls-server-end-point (RFC 5929 section 4): which certificate
    TLS_BINDING_UNIQUE             tls-unique (RFC 5929 section 3), of TLS 1.2; not of a session
                                   resumed, where two connections may have the same (RFC 7627)

in hexadecimal digits, for the environment of the programs behind us.

Python's ssl has no exporters (RFC 8446 section 7.5), but it can log the secret that they are made
of. The log is a nameless file in this process's memory, from which each step of a handshake takes
what it has written: so a secret is that of the connection whose step it was. Each context has the
log open by a descriptor of its own, so `log_keys` is called after fork, in the process that relays.
"""

from __future__ import annotations

import os
import ssl

from couriertls.validity import element, first_certificate

PREFIX = "TLS_BINDING_"
EXPORTER_SECRET = b"EXPORTER_SECRET "
LABEL = b"EXPORTER-Channel-Binding"
OCTETS = 32
LARGEST_LOG = 65536  # octets of one step
MOST_CONTEXTS = 1000  # for a descriptor each

RSA, ECDSA, SHA2 = (
    bytes.fromhex(oid) for oid in ("2a864886f70d0101", "2a8648ce3d04", "6086480165030402")
)
PSS = RSA + b"\x0a"
HASHES = {  # of signatures; those of MD5 and SHA-1 count as SHA-256 (RFC 5929 section 4.1)
    **{RSA + b"\x04": "sha256", RSA + b"\x05": "sha256", ECDSA + b"\x01": "sha256"},
    **{RSA + b"\x0b": "sha256", RSA + b"\x0c": "sha384", RSA + b"\x0d": "sha512"},
    **{RSA + b"\x0e": "sha224", ECDSA + b"\x03\x01": "sha224", ECDSA + b"\x03\x02": "sha256"},
    **{ECDSA + b"\x03\x03": "sha384", ECDSA + b"\x03\x04": "sha512"},
    **{SHA2 + b"\x01": "sha256", SHA2 + b"\x02": "sha384", SHA2 + b"\x03": "sha512"},
    SHA2 + b"\x04": "sha224",
}

_log: int | None = None  # its descriptor


class ServerContext(ssl.SSLContext):
    """end_point: the data of tls-server-end-point; empty if the certificate has none."""

    end_point = b""


def variables(tls: ssl.SSLSocket, secret: bytes) -> dict[str, str]:
    """What belongs into the environment. secret: what the handshake has logged, or empty."""
    if not tls.server_side:
        return {}
    found = {"SERVER_END_POINT": getattr(tls.context, "end_point", b"")}
    cipher = (tls.cipher() or ("",))[0]
    if tls.version() == "TLSv1.3" and secret:
        found["EXPORTER"] = exported(secret, "sha384" if cipher.endswith("SHA384") else "sha256")
    elif tls.version() == "TLSv1.2" and not tls.session_reused:
        found["UNIQUE"] = tls.get_channel_binding("tls-unique") or b""
    return {PREFIX + name: data.hex() for name, data in found.items() if data}


def log_keys(contexts: list[ssl.SSLContext]) -> int:
    """Have handshakes with these contexts logged; how many descriptors that has taken."""
    global _log
    if len(contexts) > MOST_CONTEXTS:
        return 0
    try:
        if _log is None:
            _log = os.memfd_create("keys", os.MFD_CLOEXEC)
        for context in contexts:
            context.keylog_filename = f"/proc/self/fd/{_log}"
    except OSError:  # no /proc: there is no tls-exporter then
        return 0
    return len(contexts) + 1


def logged_secret() -> bytes:
    """What the last step of a handshake has logged, if it is a secret for exporters."""
    if _log is None:
        return b""
    text = os.pread(_log, LARGEST_LOG, 0)
    if not text:
        return b""
    os.ftruncate(_log, 0)
    for line in text.split(b"\n"):
        if line.startswith(EXPORTER_SECRET):
            return bytes.fromhex(line.rpartition(b" ")[2].decode())
    return b""


def exported(secret: bytes, algorithm: str) -> bytes:
    """The data of tls-exporter (RFC 8446 section 7.5, RFC 9266 section 2)."""
    import hashlib

    empty = hashlib.new(algorithm).digest()
    derived = expanded(secret, LABEL, empty, len(empty), algorithm)
    return expanded(derived, b"exporter", empty, OCTETS, algorithm)


def expanded(secret: bytes, label: bytes, context: bytes, size: int, algorithm: str) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1), for no more than one block."""
    import hmac

    name = b"tls13 " + label
    info = b"%b%c%b%c%b" % (size.to_bytes(2, "big"), len(name), name, len(context), context)
    return hmac.digest(secret, info + b"\x01", algorithm)[:size]


def end_point(pem: bytes) -> bytes:
    """The data of tls-server-end-point for the first certificate of a text; empty where its
    signature has no hash (Ed25519), or one that isn't known here."""
    import hashlib

    try:
        der = first_certificate(pem)
        _, certificate, _ = element(der)
        _, algorithm, _ = element(element(certificate)[2])
        _, oid, parameters = element(algorithm)
        name = of_pss(parameters) if oid == PSS else HASHES.get(oid)
    except (ValueError, IndexError):
        return b""
    return hashlib.new(name, der).digest() if name else b""


def of_pss(parameters: bytes) -> str | None:
    """The hash of RSASSA-PSS; without parameters it is SHA-1 (RFC 4055 section 3.1)."""
    _, fields, _ = element(parameters)
    if not fields or fields[0] != 0xA0:
        return "sha256"
    _, hashing, _ = element(element(fields)[1])
    return HASHES.get(element(hashing)[1], "sha256")
