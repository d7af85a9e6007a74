"""client - the client's side of TLS: for proxies, and to look at a server from a shell

    couriertls -host=mail.example -port=110 -protocol=pop3 -verify=mail.example

-verify=DOMAIN demands a certificate for DOMAIN (subjectAltName, RFC 9525) from one of
TLS_TRUSTCERTS; without it and without TLS_VERIFYPEER every certificate will do. Reference:
couriertcpd.md 12.1.
"""

from __future__ import annotations

import os
import ssl
from select import POLLIN, poll
from socket import create_connection, gaierror, getaddrinfo, socket
from time import monotonic

from courierchain.refusal import Refused
from couriertls import certificates
from couriertls.failure import Failure, failure, timeout
from couriertls.options import Options
from couriertls.settings import Settings

LONGEST_LINE = 8192  # octets
CONNECT_LIMIT = 60.0  # seconds, for each address
PIECE = 65536


def context(settings: Settings, options: Options) -> ssl.SSLContext:
    """Raises Refused."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    if options.verify:
        if not settings.trusted:
            raise Refused("TLS_TRUSTCERTS=: TLS_TRUSTCERTS not set; -verify needs authorities")
        settings.verify = "REQUIREPEER"
    elif settings.verify == "PEER":
        settings.verify = "REQUIREPEER"  # a server always has a certificate
    certificates.adapt(made, settings)
    made.check_hostname = bool(options.verify)
    if settings.certificate:
        certificates.load_pair(made, settings, "", settings.warnings)
    if settings.alpn:
        made.set_alpn_protocols(settings.alpn)
    return made


def connect(host: str, port: str) -> socket:
    """Raises Failure."""
    try:
        getaddrinfo(host, port)
    except (gaierror, UnicodeError) as why:
        raise Failure(f"{host}: not found.") from why
    try:
        service = getaddrinfo(host, port)[0][4][1]
        return create_connection((host, int(service)), CONNECT_LIMIT)
    except OSError as why:
        raise Failure(f"connect: {why.strerror or 'timed out'}") from why


def ask_for_tls(network: socket, protocol: str, limit: float) -> None:
    """Read the greeting, and say that TLS is to begin. Raises Failure.

    Nothing behind the last reply is read: it would be plain text in the place of a handshake, and
    fails as one (CVE-2011-0411).
    """
    deadline = monotonic() + limit
    commands = {
        "pop3": [(b"", b"+OK"), (b"STLS\r\n", b"+OK")],
        "imap": [(b"", b"* "), (b"a STARTTLS\r\n", b"a OK")],
        "smtp": [(b"", b"220"), (b"EHLO localhost\r\n", b"250"), (b"STARTTLS\r\n", b"220")],
    }
    try:
        for command, expected in commands[protocol]:
            network.sendall(command)
            line = reply(network, protocol, bool(command), deadline)
            if not line.upper().startswith(expected.upper()):
                raise Failure(os.fsdecode(line.rstrip(b"\r\n")) or "no reply")
    except OSError as why:
        raise failure("connect", why) from why


def reply(network: socket, protocol: str, is_tagged: bool, deadline: float) -> bytes:
    """The last line of a greeting or a reply. Raises OSError and Failure."""
    while True:
        line = receive_line(network, deadline)
        goes_on = line[3:4] == b"-" if protocol == "smtp" else line.startswith(b"* ") and is_tagged
        if not goes_on:
            return line


def receive_line(network: socket, deadline: float) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE:
        network.settimeout(max(0.001, deadline - monotonic()))
        try:
            octet = network.recv(1)
        except TimeoutError as why:
            raise timeout("connect") from why
        if not octet:
            raise Failure("the server has closed the connection")
        line += octet
    return line


def carry(end: socket) -> None:
    """Carry descriptor 0 to `end`, and what comes from there to descriptor 1, until that ends.

    At the end of descriptor 0 there is still an answer to come.
    """
    ready = poll()
    ready.register(end, POLLIN)
    ready.register(0, POLLIN)
    while True:
        for descriptor, _ in ready.poll():
            data = os.read(descriptor, PIECE)
            if descriptor != 0 and not data:
                os._exit(0)
            if descriptor != 0:
                write(1, data)
            elif data:
                end.sendall(data)
            else:
                ready.unregister(0)


def write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
