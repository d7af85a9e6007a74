"""options - the command line of couriertls

    couriertls [options] [PROGRAM [ARG...]]

Options are as in courierchain.commandline; the last of several counts, and a flag is on if it is
there at all. What is wrong raises Refused with the line for descriptor 2; the exit status is then
1.
"""

from __future__ import annotations

from courierchain import commandline
from courierchain.refusal import Refused

FLAGS = {
    "server": "the server's side of TLS; without it the client's",
    "tcpd": "the network is descriptor 0; 1 is made a copy of 2",
    "relay": "ours: serve the requests that come on descriptor 0 (courierchain.relay)",
    "check": "ours: say what is wrong with the settings; exit 1 if that keeps us from starting",
}
DESCRIPTORS = {
    "remotefd": "the network",
    "localfd": "the clear text, both ways; no program is started",
    "statusfd": "takes the error message; closed when the handshake is over",
    "printx509": "takes the text about the certificate and the cipher",
}
TEXTS = {
    "host": "connect to this host",
    "port": "on this port, a number or a service's name",
    "verify": "the peer's certificate must be for this domain",
    "protocol": "say STLS, or what it is in this protocol, before the handshake",
    "user": "become this user once the program runs",
}
PROTOCOLS = ("imap", "pop3", "smtp")
HIGHEST = 65535  # number of a descriptor


class Options:
    """An attribute for each option, by its name, and PROGRAM with its arguments."""

    __slots__ = (*FLAGS, *DESCRIPTORS, *TEXTS, "argv0", "program")

    argv0: str
    program: list[str]  # empty: none is to be started
    server: bool
    tcpd: bool
    relay: bool
    check: bool
    remotefd: int | None
    localfd: int | None
    statusfd: int | None
    printx509: int | None
    host: str
    port: str
    verify: str
    protocol: str
    user: str


def parse(argv: list[str]) -> Options:
    """Read a command line; argv[0] is the name that messages begin with. Raises Refused."""
    pairs, program = commandline.scan(argv, (*FLAGS, *DESCRIPTORS, *TEXTS))
    given = dict(pairs)
    options = Options()
    options.argv0, options.program = argv[0], program
    for name in FLAGS:
        setattr(options, name, name in given)
    for name in TEXTS:
        setattr(options, name, given.get(name, ""))
    for name in DESCRIPTORS:
        setattr(options, name, _descriptor(argv[0], name, given.get(name)))
    if options.tcpd:
        options.remotefd = 0
    _check(options)
    return options


def _descriptor(argv0: str, name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= HIGHEST):
        raise Refused(f"{argv0}: -{name}={text}: not the number of a descriptor")
    return int(text)


def _check(options: Options) -> None:
    if options.protocol and options.protocol not in PROTOCOLS:
        raise Refused(f"--protocol={options.protocol} - unknown protocol.")
    if options.check:
        return
    if options.relay:
        if not options.server or options.program:
            raise Refused(f"{options.argv0}: -relay needs -server, and starts no program")
        return
    if options.remotefd is None and not (options.host and options.port):
        raise Refused(f"{options.argv0}: specify remote location.")
    if options.tcpd and options.localfd is None and not options.program:
        raise Refused(f"{options.argv0}: -tcpd needs a program to start, or -localfd")
