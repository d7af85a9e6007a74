"""validity - when the first certificate of a PEM text expires

Python's ssl tells this of a peer's certificate, and not of our own. RFC 5280, 4.1:

    Certificate     SEQUENCE { tbsCertificate, ... }
    tbsCertificate  SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer, validity }
    validity        SEQUENCE { notBefore, notAfter }    each UTCTime or GeneralizedTime
"""

from __future__ import annotations

import ssl
from calendar import timegm

VERSION, UTC_TIME = 0xA0, 0x17
BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
BEFORE_VALIDITY = 3  # serialNumber, signature, issuer


def not_after(pem: bytes) -> int | None:
    """Seconds since 1970; None if it isn't to be found."""
    try:
        _, certificate, _ = element(first_certificate(pem))
        _, fields, _ = element(certificate)
        kind, _, behind = element(fields)
        fields = behind if kind == VERSION else fields
        for _ in range(BEFORE_VALIDITY):
            fields = element(fields)[2]
        _, validity, _ = element(fields)
        kind, text, _ = element(element(validity)[2])
        return seconds(kind, text)
    except (ValueError, IndexError):
        return None


def first_certificate(pem: bytes) -> bytes:
    """Its DER form. Raises ValueError."""
    _, begin, rest = pem.partition(BEGIN)
    return ssl.PEM_cert_to_DER_cert((begin + rest.partition(END)[0] + END).decode("ascii"))


def element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what is behind it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + length], der[start + length :]


def seconds(kind: int, text: bytes) -> int:
    """Of YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ; years from 50 on are of the last century."""
    if kind == UTC_TIME:
        text = (b"19" if text[:2] >= b"50" else b"20") + text
    year, *parts = int(text[:4]), *(int(text[at : at + 2]) for at in range(4, 14, 2))
    month, day, hour, minute, second = parts
    return timegm((year, month, day, hour, minute, second))
