"""sasl - which SASL mechanisms are announced, and which are taken

POP3AUTH lists them, POP3AUTH_TLS those inside TLS (empty: the same). Of the list is left what
works now (5034-01): what is built here, what a module of the chain takes (`authtypes`), and nothing
before TLS where TLS is required.

OAUTHBEARER and XOAUTH2 send what is as good as a password, and are there inside TLS alone
(7628-01).

EXTERNAL needs no place in the list: it is there when TLS has shown a certificate, TLS_EXTERNAL
names a field of its subject, TLS_SUBJECT_<FIELD> says who that is, and a module is known to take
it; in the list it is for modules of others that take it.

Only what is announced is taken, but with POP3_AUTH_LAX=1: then the list is announced as it is, and
all that is built is taken, as in Courier.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from courierchain.authtypes import CRAM, EXTERNAL, LOGIN, OAUTHBEARER, SCRAM, Chain
from courierchain.settings import Settings
from courierpop3login.mechanisms import Mechanism
from courierpop3login.mechanisms.cram import Cram, fresh_challenge
from courierpop3login.mechanisms.external import External
from courierpop3login.mechanisms.oauth import Bearer, XOAuth2
from courierpop3login.mechanisms.plain import Login, Plain

MD5, SHA1, SHA256 = CRAM
SCRAM_SHA1, SCRAM_SHA256 = SCRAM
PLUS = b"-PLUS"
BINDINGS = (b"tls-exporter", b"tls-server-end-point", b"tls-unique")
BINDING = "TLS_BINDING_"  # begins the names of what couriertls says of them, in hex

# name: the authtype of its record, and how a dialogue begins, from what is offered.
TABLE: dict[bytes, tuple[bytes, Callable[[Offer], Mechanism]]] = {
    b"PLAIN": (LOGIN, lambda offer: Plain()),
    b"LOGIN": (LOGIN, lambda offer: Login()),
    b"CRAM-MD5": (MD5, lambda offer: Cram(MD5, fresh_challenge())),
    b"CRAM-SHA1": (SHA1, lambda offer: Cram(SHA1, fresh_challenge())),
    b"CRAM-SHA256": (SHA256, lambda offer: Cram(SHA256, fresh_challenge())),
    b"EXTERNAL": (EXTERNAL, lambda offer: External(offer.identity)),
    b"OAUTHBEARER": (OAUTHBEARER, lambda offer: Bearer()),
    b"XOAUTH2": (OAUTHBEARER, lambda offer: XOAuth2()),
    b"SCRAM-SHA-1": (SCRAM_SHA1, lambda offer: offer.scram(SCRAM_SHA1)),
    b"SCRAM-SHA-1-PLUS": (SCRAM_SHA1, lambda offer: offer.scram(SCRAM_SHA1, plus=True)),
    b"SCRAM-SHA-256": (SCRAM_SHA256, lambda offer: offer.scram(SCRAM_SHA256)),
    b"SCRAM-SHA-256-PLUS": (SCRAM_SHA256, lambda offer: offer.scram(SCRAM_SHA256, plus=True)),
}
INSIDE_TLS = (b"OAUTHBEARER", b"XOAUTH2")


class Offer:
    """announced: the mechanisms of CAPA's SASL line, with spaces between them; empty for no line.

    taken: those that AUTH takes. identity: whom a client certificate shows, or empty. bindings:
    what TLS has shown of itself, for the mechanisms of the -PLUS kind.
    """

    __slots__ = ("announced", "taken", "identity", "bindings")

    identity: bytes

    def __init__(
        self,
        announced: bytes = b"",
        taken: tuple[bytes, ...] = (),
        identity: bytes = b"",
        bindings: dict[bytes, bytes] | None = None,
    ):
        self.announced = announced
        self.taken = taken
        self.identity = identity
        self.bindings = bindings or {}

    def begin(self, name: bytes) -> Mechanism | None:
        """A new dialogue; None for a mechanism that isn't taken."""
        return TABLE[name][1](self) if name in self.taken else None

    def scram(self, authtype: bytes, *, plus: bool = False) -> Mechanism:
        from courierpop3login.mechanisms.scram import Scram  # here: costs what few logins need

        announces_plus = any(name.endswith(PLUS) for name in self.announced.split())
        return Scram(authtype, self.bindings if plus else {}, announces_plus)

    def authtype(self, name: bytes) -> bytes | None:
        """Of the records that a mechanism makes; None for one that isn't taken."""
        return TABLE[name][0] if name in self.taken else None


def offer(
    modules: list[str],
    env: dict[str, str],
    settings: Settings,
    *,
    encrypted: bool,
    tls_required: bool,
) -> Offer:
    """modules: what is behind the login program in its command line. Raises ValueError."""
    lax = settings.is_on("POP3_AUTH_LAX")
    listed = listed_mechanisms(settings, encrypted)
    identity = certified(env, settings) if encrypted else b""
    if tls_required or not (listed or identity or lax):
        return Offer()
    shown = bindings(env) if encrypted else {}
    needs: dict[bytes, object] = {b"EXTERNAL": identity, **dict.fromkeys(INSIDE_TLS, encrypted)}
    possible = [name for name in TABLE if needs.get(name, True)]
    possible = [name for name in possible if not name.endswith(PLUS) or shown]
    if lax:
        listed = [name for name in listed if encrypted or name not in INSIDE_TLS]
        if identity and b"EXTERNAL" not in listed:
            listed.append(b"EXTERNAL")
        return Offer(b" ".join(listed), tuple(possible), identity, shown)
    chain = Chain(modules, env)
    if EXTERNAL in chain.taken and b"EXTERNAL" not in listed:
        listed.append(b"EXTERNAL")
    works = tuple(name for name in listed if name in possible and chain.may_take(TABLE[name][0]))
    return Offer(b" ".join(works), works, identity, shown)


def listed_mechanisms(settings: Settings, encrypted: bool) -> list[bytes]:
    """The list in force, each name once, in upper case."""
    text = (encrypted and settings.text("POP3AUTH_TLS")) or settings.text("POP3AUTH")
    return list(dict.fromkeys(os.fsencode(text.upper()).split()))


def certified(env: dict[str, str], settings: Settings) -> bytes:
    """Whom the client certificate shows; empty if nobody, or no name that could be (CVE-50)."""
    field = settings.text("TLS_EXTERNAL").upper()
    name = os.fsencode(env.get(f"TLS_SUBJECT_{field}", "")) if field else b""
    return b"" if name and min(name) < 0x20 else name


def bindings(env: dict[str, str]) -> dict[bytes, bytes]:
    """What TLS has shown of itself, by the names of the kinds."""
    found = {}
    for kind in BINDINGS:
        variable = BINDING + kind.decode().removeprefix("tls-").replace("-", "_").upper()
        try:
            data = bytes.fromhex(env.get(variable, ""))
        except ValueError:
            continue
        if data:
            found[kind] = data
    return found
