"""settings - what couriertls reads in the environment

A row of TABLE is a name, its default and what it says; reference couriertcpd.md 12.3. Empty counts
as not set. What keeps TLS from working raises Refused with one line:

    SETTING=VALUE: what is wrong; what to do

and what doesn't is a line in `warnings`. The files that settings name are read by `certificates`.
"""

from __future__ import annotations

import os

from courierchain.refusal import Refused

TABLE = (
    # Courier's
    ("TLS_PROTOCOL", "", "the lowest version: TLSv1 TLSv1.1 TLSv1.2 (default) TLSv1.3, + and ++"),
    ("TLS_CIPHER_LIST", "", "OpenSSL's cipher string, for TLS 1.2 and lower"),
    ("TLS_CERTFILE", "", "certificate, then its chain; the key may be in it too"),
    ("TLS_PRIVATE_KEYFILE", "", "the key, if it isn't in TLS_CERTFILE"),
    ("TLS_DHPARAMS", "", "DH parameters, for DHE ciphers"),
    ("TLS_TRUSTCERTS", "", "authorities that clients' certificates may be from: file, directory"),
    ("TLS_VERIFYPEER", "NONE", "PEER: ask for a client's certificate; REQUIREPEER: insist on it"),
    ("TLS_ALPN", "", "protocols that may be agreed upon; words that begin with @ are ignored"),
    ("TLS_DEBUG", "", "not empty: a DEBUG line for each handshake"),
    ("TLS_CACHEFILE", "", "no effect: sessions are resumed by tickets"),
    ("TLS_CACHESIZE", "", "no effect"),
    ("TLS_INTCACHESIZE", "", "no effect"),
    ("TLS_TIMEOUT", "", "no effect: the lifetime of a ticket is OpenSSL's"),
    ("TLS_PRIORITY", "", "GnuTLS; no effect"),
    ("TLS_MIN_DH_BITS", "", "GnuTLS; no effect"),
    ("TLS_DHCERTFILE", "", "removed from Courier in 2013"),
    # ours
    ("TLS_HANDSHAKE_TIMEOUT", "30", "seconds that a handshake may take"),
    ("TLS_RELAYS", "", "processes that relay; default: one for each CPU, at most 4"),
)
DEFAULTS = {name: default for name, default, _ in TABLE}

VERSIONS = {
    **{"TLSv1": "TLSv1", "TLS1": "TLSv1", "TLSv1+": "TLSv1"},
    **{"TLSv1.1": "TLSv1_1", "TLSv1.1+": "TLSv1_1", "TLSv1.1++": "TLSv1_1"},
    **{"TLSv1.2": "TLSv1_2", "TLSv1.2+": "TLSv1_2", "TLSv1.2++": "TLSv1_2"},
    "TLSv1.3": "TLSv1_3",
}
OBSOLETE = ("TLSv1", "TLSv1_1")  # RFC 8996
NO_EFFECT = {
    "TLS_PRIORITY": "is GnuTLS's and has no effect here; use TLS_CIPHER_LIST and TLS_PROTOCOL",
    "TLS_MIN_DH_BITS": "is GnuTLS's and has no effect here; put a larger group into TLS_DHPARAMS",
    "TLS_DHCERTFILE": "is no longer read; put the key into TLS_CERTFILE or TLS_PRIVATE_KEYFILE",
}
VERIFY = {"N": "NONE", "P": "PEER", "R": "REQUIREPEER"}  # the first letter counts
MOST_RELAYS = 64
LONGEST_WAIT = 3600  # seconds


class Settings:
    """lowest: the name of an ssl.TLSVersion. verify: NONE, PEER or REQUIREPEER."""

    __slots__ = (
        *("lowest", "ciphers", "certificate", "key", "dh", "trusted", "verify", "alpn", "debug"),
        *("handshake_limit", "relays", "warnings"),
    )

    lowest: str
    ciphers: str
    certificate: str
    key: str
    dh: str
    trusted: str
    verify: str
    alpn: list[str]
    debug: bool
    handshake_limit: int  # seconds
    relays: int
    warnings: list[str]

    @property
    def is_obsolete(self) -> bool:
        """Whether versions are wanted that need weak signatures."""
        return self.lowest in OBSOLETE


def read(env: dict[str, str], *, server: bool = True) -> Settings:
    """Raises Refused."""
    given = {name: env.get(name) or default for name, default in DEFAULTS.items()}
    settings = Settings()
    settings.warnings = [
        f"{name}={given[name]}: {what}" for name, what in NO_EFFECT.items() if given[name]
    ]
    settings.lowest = _lowest(given["TLS_PROTOCOL"], settings.warnings)
    settings.ciphers = given["TLS_CIPHER_LIST"]
    settings.certificate = given["TLS_CERTFILE"]
    settings.key = given["TLS_PRIVATE_KEYFILE"]
    settings.dh = given["TLS_DHPARAMS"]
    settings.trusted = given["TLS_TRUSTCERTS"]
    settings.verify = _verify(given["TLS_VERIFYPEER"])
    settings.alpn = _alpn(given["TLS_ALPN"])
    settings.debug = bool(given["TLS_DEBUG"])
    settings.handshake_limit = _number(given, "TLS_HANDSHAKE_TIMEOUT", LONGEST_WAIT)
    given["TLS_RELAYS"] = given["TLS_RELAYS"] or str(min(4, len(os.sched_getaffinity(0))))
    settings.relays = _number(given, "TLS_RELAYS", MOST_RELAYS)
    if server and not settings.certificate:
        raise Refused("TLS_CERTFILE=: not set; name the file with the certificate and its key")
    if settings.verify != "NONE" and not settings.trusted:
        remedy = "name a file of certificates, or set TLS_VERIFYPEER=NONE"
        raise Refused(f"TLS_VERIFYPEER={settings.verify}: TLS_TRUSTCERTS not set; {remedy}")
    return settings


def _lowest(text: str, warnings: list[str]) -> str:
    version = VERSIONS.get(text, "TLSv1_2")
    if text and text not in VERSIONS:
        known = " ".join(VERSIONS)
        warnings.append(f"TLS_PROTOCOL={text}: unknown, so TLSv1.2 or later; use one of {known}")
    if version in OBSOLETE:
        warnings.append(
            f"TLS_PROTOCOL={text}: allows versions that RFC 8996 forbids, with weak signatures; "
            "leave it empty unless an old client needs them"
        )
    return version


def _verify(text: str) -> str:
    if text[0].upper() not in VERIFY:
        raise Refused(f"TLS_VERIFYPEER={text}: unknown; use NONE, PEER or REQUIREPEER")
    return VERIFY[text[0].upper()]


def _alpn(text: str) -> list[str]:
    """Raises Refused where a name is longer than the 255 octets that TLS has for it."""
    words = [word for word in text.replace(",", " ").split() if not word.startswith("@")]
    for word in words:
        if len(os.fsencode(word)) > 255 or not word.isascii():
            raise Refused(f"TLS_ALPN={text}: not names of protocols; use TLS_ALPN=pop3")
    return words


def _number(given: dict[str, str], name: str, highest: int) -> int:
    """Raises Refused."""
    text = given[name]
    plain = text.isascii() and text.isdigit() and len(text) < 9
    if not (plain and 1 <= int(text) <= highest):
        raise Refused(f"{name}={text}: not a number from 1 to {highest}; leave it out")
    return int(text)
