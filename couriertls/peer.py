"""peer - what a finished handshake tells about the other side

    TLS_CONNECTED_PROTOCOL   VERSION,NNNbits,CIPHER, as OpenSSL calls them
    TLS_SUBJECT_NAME         an attribute of the subject, NAME its short name in capitals; only of a
                             certificate that TLS_TRUSTCERTS vouches for (8314-08)

and the text of -printx509. What goes into the environment or into lines of a text must not hold
what ends a string or a line there: a control character makes a certificate Unusable (CVE-50).
Reference couriertcpd.md 12.5, 12.6.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from time import gmtime, strftime
from typing import Any

UNKNOWN = "(unknown)"
LONGEST_NAME = 50  # characters
LONGEST = 1023  # octets of NAME=VALUE
PREFIX = "TLS_SUBJECT_"
PROTOCOL = "TLS_CONNECTED_PROTOCOL"

# Python has OpenSSL's long names; one that isn't here stays as it is, or is a dotted number.
SHORT = {
    **{"countryName": "C", "stateOrProvinceName": "ST", "localityName": "L"},
    **{"organizationName": "O", "organizationalUnitName": "OU", "commonName": "CN"},
    **{"userId": "UID", "domainComponent": "DC", "surname": "SN", "givenName": "GN"},
    **{"streetAddress": "street", "rfc822Mailbox": "mail"},
}


class Unusable(ValueError):
    """A client's certificate that nothing can be made of."""


def attributes(certificate: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Short names and values of the subject. Raises Unusable."""
    for block in (certificate or {}).get("subject", ()):
        for name, value in block:
            yield checked(SHORT.get(name, name)), checked(value)


def checked(text: str) -> str:
    """Raises Unusable."""
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
        raise Unusable("Invalid peer certificate: a control character in it")
    return text


def certificate_of(tls: ssl.SSLSocket) -> dict[str, Any] | None:
    """None without one, and empty if nobody has verified it. Raises Unusable."""
    try:
        return tls.getpeercert()
    except ValueError as why:  # UnicodeDecodeError too
        raise Unusable("Invalid peer certificate: not to be decoded") from why


def variables(tls: ssl.SSLSocket) -> dict[str, str]:
    """What belongs into the environment. Raises Unusable."""
    version, bits, cipher = parameters(tls)
    found = {PROTOCOL: f"{version},{bits}bits,{cipher}"}
    for name, value in attributes(certificate_of(tls)):
        variable = PREFIX + name.upper()[:LONGEST_NAME]
        if "=" in variable:
            raise Unusable("Invalid peer certificate: not the name of an attribute")
        room = LONGEST - len(variable.encode()) - 1
        found[variable] = value.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore")
    return found


def parameters(tls: ssl.SSLSocket) -> tuple[str, int, str]:
    cipher, _, bits = tls.cipher() or (UNKNOWN, "", 0)
    return tls.version() or UNKNOWN, bits, cipher


def text(tls: ssl.SSLSocket) -> str:
    """What -printx509 prints. Times are UTC. Raises Unusable."""
    lines = []
    certificate = certificate_of(tls)
    if certificate:
        lines += [
            "Subject:",
            *(f"   {name}={value}" for name, value in attributes(certificate)),
            "",
        ]
        for kind, name in certificate.get("subjectAltName", ()):
            if kind == "DNS":
                lines.append(f"Subject-Alt-Name-DNS: {checked(name)}")
        lines.append(f"Not-Before: {date(certificate['notBefore'])}")
        lines.append(f"Not-After: {date(certificate['notAfter'])}")
    version, bits, cipher = parameters(tls)
    lines += [f"Version: {version}", f"Bits: {bits}", f"Cipher: {cipher}"]
    return "\n".join(lines) + "\n"


def date(openssl: str) -> str:
    return strftime("%Y-%m-%d %H:%M:%S", gmtime(ssl.cert_time_to_seconds(openssl)))
