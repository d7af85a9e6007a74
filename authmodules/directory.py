"""directory - a conversation with an LDAP server, as Courier's authldaprc describes it

    LDAP_URI                     servers, tried in turn; ldap://, ldaps:// or ldapi://
    LDAP_TLS                     1: StartTLS before anything is said
    LDAP_INITBIND                1: bind as LDAP_BINDDN with LDAP_BINDPW before searching
    LDAP_TIMEOUT                 seconds for a step, such as a search (5)
    LDAP_PROTOCOL_VERSION, LDAP_DEREF

A server has to show a certificate for its name, in subjectAltName, from an authority that libldap
knows: ldap.conf(5), or LDAPTLS_CACERT in the environment of the listener. Referrals are not
followed: they would take passwords to servers that nobody has named.

libldap has no time limit for a TLS handshake, nor for looking up a name. So a process of its own
talks with a server, and is killed when all of it takes longer than STEPS steps may. Needs
python-ldap.
"""

from __future__ import annotations

import marshal
import os
from _signal import SIGKILL
from collections.abc import Callable
from select import POLLIN, poll
from time import monotonic

from authmodules.rcfile import RcFile
from courierchain import handover
from courierchain.authmodule import TemporaryFailure

try:
    import ldap
except ImportError as why:
    raise ImportError(f"{why} (pip install python-ldap; Debian: python3-ldap)") from why

Attributes = dict[str, list[bytes]]  # names in lower case
Entry = tuple[str, Attributes]

PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.-_")
DEREF = {
    "never": ldap.DEREF_NEVER,
    "searching": ldap.DEREF_SEARCHING,
    "finding": ldap.DEREF_FINDING,
    "always": ldap.DEREF_ALWAYS,
}
NOT_TO_BE_SEARCHED = (ldap.FILTER_ERROR, ldap.NO_SUCH_OBJECT, ldap.INVALID_DN_SYNTAX, ValueError)
NOT_THIS_PASSWORD = (ldap.INVALID_CREDENTIALS, ldap.INAPPROPRIATE_AUTH)
TIMEOUT = 5
STEPS = 3
PIECE = 65536
ANSWER, TROUBLE, UNREACHED = range(3)  # what the process that has talked found out
UNCHECKED = (ldap.OPT_X_TLS_NEVER, ldap.OPT_X_TLS_ALLOW)


def escape(value: bytes) -> str:
    """A value for a filter, any octets, so that it is nothing but a value (RFC 4515 section 3)."""
    return "".join(chr(octet) if octet in PLAIN else f"\\{octet:02x}" for octet in value)


class Directory:
    """One server. Everything raises TemporaryFailure for what is wrong with the settings, and
    ldap.LDAPError for what is wrong with the server."""

    __slots__ = ("_connection", "_limit", "_uri")

    def __init__(self, uri: str, rc: RcFile):
        """Connect, and bind if that is wanted."""
        self._uri = uri
        self._limit = rc.number("LDAP_TIMEOUT") or TIMEOUT
        self._connection = connection = ldap.initialize(uri)
        connection.timeout = self._limit
        for option, value in options(rc, self._limit):
            connection.set_option(option, value)
        if uri.startswith("ldaps") or rc.number("LDAP_TLS"):
            require_name(connection)
        if rc.number("LDAP_TLS") and not uri.startswith("ldaps"):
            connection.start_tls_s()
        if rc.number("LDAP_INITBIND"):
            self._bind(rc)

    def _bind(self, rc: RcFile) -> None:
        dn, secret = rc.needed("LDAP_BINDDN"), rc.needed("LDAP_BINDPW")
        try:
            self._connection.simple_bind_s(dn, secret.encode("utf-8", "surrogateescape"))
        except NOT_THIS_PASSWORD as why:
            raise TemporaryFailure(
                f"cannot bind to {self._uri} as {dn}: {described(why)}"
                f" (check {rc.place('LDAP_BINDPW')})"
            ) from why

    def find(self, base: str, pattern: str, attributes: list[str]) -> list[Entry]:
        """The entries below `base` that match: none, one, or two for any number."""
        try:
            found = self._connection.search_ext_s(
                base, ldap.SCOPE_SUBTREE, pattern, attributes, timeout=self._limit, sizelimit=2
            )
        except ldap.SIZELIMIT_EXCEEDED:
            return [("", {}), ("", {})]
        except NOT_TO_BE_SEARCHED as why:
            raise TemporaryFailure(
                f"{self._uri}: cannot search {base!r}: {described(why)}"
            ) from why
        return [
            (dn, {name.lower(): values for name, values in values_of.items()})
            for dn, values_of in found
            if dn is not None  # a referral
        ]

    def is_password(self, dn: str, secret: bytes) -> bool:
        """Whether one can bind so. Never with an empty password, which is a bind as nobody, and
        succeeds (RFC 4513 section 5.1.2; CVE-09)."""
        if not dn or not secret:
            return False
        try:
            self._connection.simple_bind_s(dn, secret)
            return True
        except NOT_THIS_PASSWORD:
            return False


Found = tuple[str, Attributes, bool]
Talk = Callable[[Directory], Found]  # what marshal can carry to the process that asks


def ask(rc: RcFile, talk: Talk) -> Found:
    """What `talk` has found out from the first server that could tell. Raises TemporaryFailure."""
    limit = (rc.number("LDAP_TIMEOUT") or TIMEOUT) * STEPS
    failures = []
    for uri in rc.needed("LDAP_URI").replace(",", " ").split():
        kind, found = marshal.loads(apart(limit, outcome, uri, rc, talk))
        if kind == ANSWER:
            dn, entry, bound = found
            return dn, entry, bound
        if kind == TROUBLE:
            raise TemporaryFailure(found)
        failures.append(f"{uri}: {found}")
    raise TemporaryFailure(f"no answer from {'; '.join(failures)} (check {rc.place('LDAP_URI')})")


def outcome(uri: str, rc: RcFile, talk: Talk) -> bytes:
    try:
        return marshal.dumps((ANSWER, talk(Directory(uri, rc))))
    except TemporaryFailure as why:
        return marshal.dumps((TROUBLE, str(why)))
    except ldap.LDAPError as why:
        return marshal.dumps((UNREACHED, described(why)))
    except Exception as why:
        return marshal.dumps((TROUBLE, f"internal error: {handover.where(why)}"))


def apart(limit: float, work: Callable[..., bytes], *arguments: object) -> bytes:
    """The result of `work`, in a process of its own; UNREACHED if that takes too long, or dies."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            rest = work(*arguments)
            while rest:
                rest = rest[os.write(writer, rest) :]
        finally:
            os._exit(0)
    os.close(writer)
    deadline = monotonic() + limit
    readable = poll()
    readable.register(reader, POLLIN)
    result = b""
    try:
        while readable.poll(max(0, (deadline - monotonic()) * 1000)):
            part = os.read(reader, PIECE)
            if not part:
                return result or marshal.dumps((UNREACHED, "the process that asks it has died"))
            result += part
        return marshal.dumps((UNREACHED, f"not within {limit} seconds"))
    finally:
        os.close(reader)
        os.kill(process, SIGKILL)
        os.waitpid(process, 0)


def options(rc: RcFile, limit: int) -> list[tuple[int, int | float]]:
    deref = rc.text("LDAP_DEREF", "never").lower()
    if deref not in DEREF:
        raise TemporaryFailure(f"{rc.place('LDAP_DEREF')}: not one of {', '.join(DEREF)}")
    version = rc.number("LDAP_PROTOCOL_VERSION") or 3
    if version not in (2, 3):
        raise TemporaryFailure(f"{rc.place('LDAP_PROTOCOL_VERSION')}: not 2 or 3")
    return [
        (ldap.OPT_PROTOCOL_VERSION, version),
        (ldap.OPT_DEREF, DEREF[deref]),
        (ldap.OPT_REFERRALS, 0),
        (ldap.OPT_RESTART, 1),
        (ldap.OPT_NETWORK_TIMEOUT, float(limit)),
        (ldap.OPT_TIMEOUT, float(limit)),
    ]


def require_name(connection: ldap.ldapobject.LDAPObject) -> None:
    """The common name is no name of a server (RFC 9525; libldap would take it)."""
    if connection.get_option(ldap.OPT_X_TLS_REQUIRE_CERT) not in UNCHECKED:
        connection.set_option(ldap.OPT_X_TLS_REQUIRE_SAN, ldap.OPT_X_TLS_DEMAND)


def described(why: Exception) -> str:
    """What libldap says, and what the server has said."""
    if isinstance(why, ldap.TIMEOUT):
        return "Timed out"
    told = why.args[0] if why.args and isinstance(why.args[0], dict) else {}
    texts = [str(told[key]) for key in ("desc", "info") if told.get(key)]
    return ": ".join(texts) or type(why).__name__
