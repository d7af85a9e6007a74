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
talks with a server, and is killed when all of it takes longer than STEPS steps may. Where the
asking process keeps connections (courierchain.connections) that process stays, with its own to the
server: one to search, and one on which passwords are tried. Needs python-ldap.
"""

from __future__ import annotations

import marshal
import os
import struct
from _signal import SIGKILL
from _socket import AF_UNIX, SOCK_STREAM, socket, socketpair
from collections.abc import Callable
from select import POLLIN, poll
from time import monotonic

from authmodules.rcfile import RcFile
from courierchain import connections, handover
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
UNREACHABLE = (ldap.SERVER_DOWN, ldap.TIMEOUT, ldap.UNAVAILABLE, ldap.BUSY)
TIMEOUT = 5
STEPS = 3
PIECE = 65536
ANSWER, SEVERAL, TROUBLE, UNREACHED = range(4)  # what the process that has talked found out
LENGTH = struct.Struct("I")  # in front of what is told between the processes
UNCHECKED = (ldap.OPT_X_TLS_NEVER, ldap.OPT_X_TLS_ALLOW)


def escape(value: bytes) -> str:
    """A value for a filter, any octets, so that it is nothing but a value (RFC 4515 section 3)."""
    return "".join(chr(octet) if octet in PLAIN else f"\\{octet:02x}" for octet in value)


class Several(Exception):
    """More than one entry matches."""


class Directory:
    """One server. Everything raises TemporaryFailure for what is wrong with the settings, and
    ldap.LDAPError for what is wrong with the server."""

    __slots__ = ("_rc", "_connection", "_verifier", "_limit", "_uri")

    def __init__(self, uri: str, rc: RcFile, *, stays: bool):
        """Connect, and bind if that is wanted. `stays`: for more than one question."""
        self._uri = uri
        self._rc = rc
        self._limit = rc.number("LDAP_TIMEOUT") or TIMEOUT
        self._connection = self._connected()
        self._verifier = None if stays else self._connection
        if rc.number("LDAP_INITBIND"):
            self._bind(rc)

    def _connected(self) -> ldap.ldapobject.LDAPObject:
        uri, rc = self._uri, self._rc
        connection = ldap.initialize(uri)
        connection.timeout = self._limit
        for option, value in options(rc, self._limit):
            connection.set_option(option, value)
        if uri.startswith("ldaps") or rc.number("LDAP_TLS"):
            require_name(connection)
        if rc.number("LDAP_TLS") and not uri.startswith("ldaps"):
            connection.start_tls_s()
        return connection

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
        if self._verifier is None:
            self._verifier = self._connected()
        try:
            self._verifier.simple_bind_s(dn, secret)
            return True
        except NOT_THIS_PASSWORD:
            return False

    def replace(self, dn: str, attributes: Attributes) -> None:
        """Give the attributes of an entry these values."""
        changes = [(ldap.MOD_REPLACE, name, values) for name, values in attributes.items()]
        self._change(lambda: self._connection.modify_s(dn, changes), dn)

    def exchange(self, dn: str, attribute: str, old: bytes, new: bytes) -> bool:
        """Put a value in the place of another one; False if the entry hasn't that any more."""
        changes = [(ldap.MOD_DELETE, attribute, [old]), (ldap.MOD_ADD, attribute, [new])]
        try:
            self._change(lambda: self._connection.modify_s(dn, changes), dn)
        except TemporaryFailure as why:
            if isinstance(why.__cause__, ldap.NO_SUCH_ATTRIBUTE):
                return False
            raise
        return True

    def change_password(self, dn: str, old: bytes, new: bytes) -> None:
        """Let the server do it (RFC 3062)."""
        self._change(lambda: self._connection.passwd_s(dn, old, new), dn)

    def _change(self, change: Callable[[], object], dn: str) -> None:
        try:
            change()
        except UNREACHABLE:
            raise
        except ldap.LDAPError as why:
            raise TemporaryFailure(
                f"{self._uri}: cannot change the password of {dn}: {described(why)}"
            ) from why


Question = tuple[bytes, bytes]  # userid and password
Found = tuple[str, Attributes, bool]
Talk = Callable[[Directory, Question], Found]  # of marshal's types; may raise Several


class Unreached(Exception):
    """A server gives no answer; the text says why."""


def ask(rc: RcFile, talk: Talk, question: Question, *, once: bool = False) -> Found:
    """What `talk` finds out from the first server that can tell; it must depend on `rc` alone, but
    for what is asked only `once`, on a connection of its own.

    Raises Several, and TemporaryFailure.
    """
    failures = []
    for uri in rc.needed("LDAP_URI").replace(",", " ").split():
        try:
            kind, found = (asked_once if once else asked)(uri, rc, talk, question)
        except Unreached as why:
            failures.append(f"{uri}: {why}")
            continue
        if kind == SEVERAL:
            raise Several
        dn, entry, bound = found
        return dn, entry, bound
    raise TemporaryFailure(f"no answer from {'; '.join(failures)} (check {rc.place('LDAP_URI')})")


def asked(uri: str, rc: RcFile, talk: Talk, question: Question) -> tuple[int, Found]:
    """Raises Unreached and TemporaryFailure."""
    outcome: tuple[int, Found] = connections.ask(
        "authldap",
        rc,
        lambda: Speaker(uri, rc, talk, stays=connections.allowed),
        lambda speaker: speaker.ask(question),
    )
    return outcome


def asked_once(uri: str, rc: RcFile, talk: Talk, question: Question) -> tuple[int, Found]:
    """Raises Unreached and TemporaryFailure."""
    speaker = Speaker(uri, rc, talk, stays=False)
    try:
        return speaker.ask(question)
    except connections.Gone as why:
        raise why.failure from why
    finally:
        speaker.close()


class Speaker(connections.Connection):
    """The process that talks with a server, and the socket to it."""

    __slots__ = ("_channel", "_process", "_limit")

    def __init__(self, uri: str, rc: RcFile, talk: Talk, *, stays: bool):
        self._limit = (rc.number("LDAP_TIMEOUT") or TIMEOUT) * STEPS
        self._channel, its_end = socketpair(AF_UNIX, SOCK_STREAM)
        self._process = os.fork()
        if self._process == 0:
            try:
                connections.drop()
                os.dup2(its_end.fileno(), 0)
                for descriptor in (1, 2):  # the client, and perhaps again
                    os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
                os.closerange(3, handover.HIGHEST)
                speak(socket(fileno=0), uri, rc, talk, stays=stays)
            finally:
                os._exit(0)
        its_end.close()

    def ask(self, question: Question) -> tuple[int, Found]:
        """ANSWER or SEVERAL, and what was found. Raises TemporaryFailure, and Gone."""
        deadline = monotonic() + self._limit
        try:
            tell(self._channel, marshal.dumps(question))
            kind, found = marshal.loads(heard(self._channel, deadline))
        except TimeoutError:
            kind, found = UNREACHED, f"not within {self._limit} seconds"
        except (OSError, EOFError):
            kind, found = UNREACHED, "the process that asks it has died"
        if kind == UNREACHED:
            raise connections.Gone(Unreached(found))
        if kind == TROUBLE:
            raise TemporaryFailure(found)
        return kind, found

    def descriptors(self) -> tuple[int, ...]:
        return (self._channel.fileno(),)

    def close(self) -> None:
        self._channel.close()
        os.kill(self._process, SIGKILL)
        os.waitpid(self._process, 0)

    def abandon(self) -> None:
        self._channel.close()


def speak(channel: socket, uri: str, rc: RcFile, talk: Talk, *, stays: bool) -> None:
    """Answer questions until nobody is left to ask, or the server is none."""
    server = None
    outcome: tuple[int, object]
    while question := heard(channel):
        try:
            server = server or Directory(uri, rc, stays=stays)
            outcome = ANSWER, talk(server, marshal.loads(question))
        except Several:
            outcome = SEVERAL, ("", {}, False)
        except TemporaryFailure as why:
            outcome = TROUBLE, str(why)
        except ldap.LDAPError as why:
            outcome = UNREACHED, described(why)
        except Exception as why:
            outcome = TROUBLE, f"internal error: {handover.where(why)}"
        tell(channel, marshal.dumps(outcome))


def tell(channel: socket, text: bytes) -> None:
    channel.sendall(LENGTH.pack(len(text)) + text)


def heard(channel: socket, deadline: float | None = None) -> bytes:
    """What the other process tells. Raises TimeoutError, and EOFError if it has ended."""
    readable = poll()
    readable.register(channel, POLLIN)
    text = b""
    while len(text) < LENGTH.size or len(text) < LENGTH.size + LENGTH.unpack_from(text)[0]:
        left = None if deadline is None else max(0, (deadline - monotonic()) * 1000)
        if not readable.poll(left):
            raise TimeoutError
        part = channel.recv(PIECE)
        if not part:
            raise EOFError
        text += part
    return text[LENGTH.size :]


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
