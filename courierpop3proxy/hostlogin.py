"""hostlogin - a login at a mail host, from its name to the reply to PASS

POP3_PROXY_TLS      required: nothing but the greeting, STLS and its reply pass before a handshake
                    in which the host has shown a certificate for its name (port 995: nothing at
                    all). A certificate's names are those of subjectAltName, never its CN (9525-01)
                    no: nothing is encrypted, as with Courier
POP3_PROXY_CAFILE   who may have signed it: a file, or a directory with OpenSSL's hashes; else the
                    system's
POP3_PROXY_TIMEOUT  seconds for each step: a connection to one address, the handshake, a reply

The host may be anybody's (CVE-42): a reply is one line of bounded length within its time, with
nothing behind it; its text goes into the log masked, and to the client not at all.
"""

from __future__ import annotations

import os
import ssl
from select import POLLIN, POLLOUT
from socket import (
    IPPROTO_TCP,
    SHUT_WR,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_NODELAY,
    create_connection,
    getservbyname,
    socket,
)
from time import monotonic

from courierchain import log
from courierchain.client import Gone
from courierchain.settings import Settings
from pop3proto.commands import MAX_LINE

PORT = 110  # where the system knows no service pop3
TLS_PORT = 995  # TLS from the first byte (RFC 8314 section 3.2)
RECORD = 16384  # octets of a TLS record: a read of so many leaves none of it behind

# An -ERR that says nothing about the password (RFC 2449 section 8.1, RFC 3206 section 4)
TEMPORARY = (b"[SYS/TEMP]", b"[IN-USE]", b"[LOGIN-DELAY]")


# By POP3_PROXY_CAFILE. A resident program's is made before its process is forked.
_contexts: dict[str, ssl.SSLContext] = {}


class NoAnswer(Exception):
    """The host can't be asked, or gives no answer that is one; the text says why."""


class LoginRefused(Exception):
    """The host takes this userid or password for wrong; the text has its words."""


class Terms:
    """What all hosts are asked under. Raises ValueError for a setting that makes no sense."""

    __slots__ = ("tls", "timeout")

    def __init__(self, settings: Settings):
        required = settings.choice("POP3_PROXY_TLS", "required", "no") == "required"
        self.tls: ssl.SSLContext | None = None
        if required:
            trusted = settings.text("POP3_PROXY_CAFILE")
            if trusted not in _contexts:
                _contexts[trusted] = tls_context(trusted)
            self.tls = _contexts[trusted]
        self.timeout = settings.seconds("POP3_PROXY_TIMEOUT")


def tls_context(trusted: str) -> ssl.SSLContext:
    """Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    try:
        if not trusted:
            context.set_default_verify_paths()
        elif os.path.isdir(trusted):
            context.load_verify_locations(capath=trusted)
        else:
            context.load_verify_locations(cafile=trusted)
    except OSError as why:
        raise ValueError(f"POP3_PROXY_CAFILE={trusted}: {reason(why)}") from why
    return context


class MailHost:
    """A connection to a mail host. After `log_in` it is one end of a relay: it doesn't block then.

    readable, writable: the descriptor, and what to poll it for before `read_some`, `write_some`
    """

    __slots__ = ("_terms", "_socket", "readable", "writable")

    def __init__(self, terms: Terms):
        self._terms = terms
        self._socket: socket | None = None
        self.readable = self.writable = (-1, 0)

    def connect(self, name: str) -> None:
        """Reach HOST or HOST:PORT, on any of its addresses; greeting and TLS. Raises NoAnswer."""
        host, port = endpoint(name)
        try:
            address = (in_dns(host), port)
            self._socket = create_connection(address, self._terms.timeout)  # type: ignore[arg-type]
            self._socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
            self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except (OSError, UnicodeError) as why:
            raise NoAnswer(f"cannot connect: {reason(why)}") from why
        if self._terms.tls and port == TLS_PORT:
            self._handshake(self._terms.tls, host)
        self._expect_ok("greeting", self._reply())
        if self._terms.tls and port != TLS_PORT:
            self._expect_ok("STLS", self._ask(b"STLS"))
            self._handshake(self._terms.tls, host)

    def log_in(self, user: bytes, password: bytes, *, utf8: bool) -> None:
        """Raises NoAnswer and LoginRefused."""
        if not (is_clean(user) and is_clean(password)):
            raise LoginRefused("not sent: control characters in userid or password")
        if utf8:
            self._expect_ok("UTF8", self._ask(b"UTF8"))
        for verb, argument in ((b"USER", user), (b"PASS", password)):
            line = self._ask(verb + b" " + argument)
            refused = line.startswith(b"-ERR") and not is_temporary(line)
            try:
                self._expect_ok(verb.decode(), line.replace(password, b"..."))
            except NoAnswer as why:
                if refused:
                    raise LoginRefused(str(why)) from why
                raise
        self._become_an_end()

    def _become_an_end(self) -> None:
        assert self._socket
        self._socket.setblocking(False)
        self.readable = (self._socket.fileno(), POLLIN)
        self.writable = (self._socket.fileno(), POLLOUT)

    def _handshake(self, context: ssl.SSLContext, host: str) -> None:
        assert self._socket
        self._socket.settimeout(self._terms.timeout)
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=in_dns(host))
        except (OSError, ValueError) as why:
            raise NoAnswer(f"TLS: {reason(why)}") from why

    def _ask(self, command: bytes) -> bytes:
        assert self._socket
        self._socket.settimeout(self._terms.timeout)
        try:
            self._socket.sendall(command + b"\r\n")
        except OSError as why:
            raise NoAnswer(reason(why)) from why
        return self._reply()

    def _reply(self) -> bytes:
        """A line, without its end."""
        assert self._socket
        received = b""
        deadline = monotonic() + self._terms.timeout
        while b"\n" not in received:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise NoAnswer(f"no reply within {self._terms.timeout} s")
            self._socket.settimeout(remaining)
            try:
                data = self._socket.recv(RECORD)
            except OSError as why:
                raise NoAnswer(reason(why)) from why
            if not data:
                raise NoAnswer("has closed the connection")
            received += data
            if len(received) > MAX_LINE:
                raise NoAnswer(f"a reply of over {MAX_LINE} octets")
        if not received.endswith(b"\n") or received.count(b"\n") > 1:
            raise NoAnswer("sends more than it was asked for")
        return received.rstrip(b"\r\n")

    @staticmethod
    def _expect_ok(what: str, line: bytes) -> None:
        if not line.startswith(b"+OK"):
            raise NoAnswer(f"{what}: {log.safe(line)}")

    def read_some(self, size: int) -> bytes:
        """Raises BlockingIOError, and Gone at the end."""
        assert self._socket
        number = self._socket.fileno()
        self.readable = (number, POLLIN)
        try:
            data = self._socket.recv(size)
        except ssl.SSLWantReadError as why:
            raise BlockingIOError from why
        except ssl.SSLWantWriteError as why:
            self.readable = (number, POLLOUT)
            raise BlockingIOError from why
        except BlockingIOError:
            raise
        except OSError as why:
            raise Gone from why
        if not data:
            raise Gone
        return data

    def write_some(self, data: memoryview) -> int:
        """Octets written. Raises BlockingIOError and Gone."""
        assert self._socket
        number = self._socket.fileno()
        self.writable = (number, POLLOUT)
        try:
            return self._socket.send(data)
        except ssl.SSLWantWriteError as why:
            raise BlockingIOError from why
        except ssl.SSLWantReadError as why:
            self.writable = (number, POLLIN)
            raise BlockingIOError from why
        except BlockingIOError:
            raise
        except OSError as why:
            raise Gone from why

    def finish(self) -> None:
        """Nothing more is going to be written; what is under way to us may still be read."""
        assert self._socket
        try:
            # That of SSLSocket forgets the TLS session, which the last replies come through.
            socket.shutdown(self._socket, SHUT_WR)
        except OSError:
            pass  # it has gone

    def close(self) -> None:
        if self._socket:
            self._socket.close()


def endpoint(name: str) -> tuple[str, int]:
    """Host and port of HOST, HOST:PORT, ADDRESS, [ADDRESS] or [ADDRESS]:PORT. Raises NoAnswer."""
    if name.startswith("["):
        host, bracket, rest = name[1:].partition("]")
    elif name.count(":") == 1:
        host, bracket, rest = name.partition(":")[0], "]", name[name.index(":") :]
    else:
        host, bracket, rest = name, "]", ""
    digits = rest.removeprefix(":")
    if not (host and bracket and (not rest or (rest[0] == ":" and is_port(digits)))):
        raise NoAnswer("mailhost is not HOST, HOST:PORT or [ADDRESS]:PORT")
    return host, int(digits) if digits else default_port()


def in_dns(host: str) -> bytes:
    """The name as the DNS and certificates have it. Left to themselves `socket` and `ssl` load the
    rules of IDNA for every name, which takes longer than all else. Raises UnicodeError."""
    return host.encode("ascii" if host.isascii() else "idna")


def is_port(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536


def default_port() -> int:
    try:
        return getservbyname("pop3", "tcp")
    except OSError:
        return PORT


def is_clean(text: bytes) -> bool:
    """Whether it can't be more than one argument of one line."""
    return text != b"" and min(text) >= 0x20 and b"\x7f" not in text


def is_temporary(line: bytes) -> bool:
    return line[len(b"-ERR") :].lstrip().upper().startswith(TEMPORARY)


def reason(why: Exception) -> str:
    """What to say of a failure; the texts of the system and of OpenSSL, never of the host."""
    if isinstance(why, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {why.verify_message}"
    if isinstance(why, ssl.SSLError):
        return why.reason or "the handshake was broken off"
    if isinstance(why, OSError):
        return why.strerror or "timed out"
    return "not a name that a host can have"
