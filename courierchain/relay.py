"""relay - what a program says to the TLS relay, and what the relay answers

`couriertls -server -relay` speaks TLS on behalf of other programs, and waits for them on a UNIX
SOCK_SEQPACKET socket, its descriptor 0. One message is one request, one message is its answer:

    length ident [NAME=VALUE [NUL NAME=VALUE]...]      with it come two or three descriptors
        network    the connection to shake hands on: nobody else reads or writes it from then on
        plain      what the client sends and is sent, in the clear: one end of a UNIX stream
                   socketpair; the other end is the program's
        reply      where the answer goes, and is then closed; without it the channel takes it

    length ident `+` [NAME=VALUE [NUL NAME=VALUE]...]  the handshake is over, `plain` is in use
    length ident `-` TEXT                              it has failed; both are closed, the relay has
                                                       logged it

`length` is one octet. Ident is the asker's, and comes back as it was sent. VALUE is any octet but
NUL. A request has the variables of ASKED, as far as they are set; an answer TLS_CONNECTED_PROTOCOL,
TLS_BINDING_... and, with a client certificate, TLS_SUBJECT_... An answer comes within the relay's
limit for a handshake, or the channel, or `reply`, ends because the relay has gone.
"""

from __future__ import annotations

import os
from _socket import MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET, socket
from array import array
from errno import EINVAL, EMSGSIZE

from courierchain import handover
from courierchain.request import RECORD

LARGEST = 16384  # octets of a message
LONGEST_IDENT = 64  # octets
MOST_DESCRIPTORS = 3
ASKED = ("TCPREMOTEIP", "TCPLOCALIP")  # for the log; to choose a certificate by
CONNECTED, FAILED = b"+", b"-"

channel: socket | None = None  # to the relay of the listener that has started this process
_for_one_program = False


class BadMessage(ValueError):
    """A message that has not the form above."""


class Request:
    """A connection to shake hands on. The descriptors are whoever has the Request's to close."""

    __slots__ = ("ident", "env", "network", "plain", "reply")

    def __init__(
        self, ident: bytes, env: dict[str, str], network: int, plain: int, reply: int | None
    ):
        self.ident = ident
        self.env = env
        self.network = network
        self.plain = plain
        self.reply = reply


class Answer:
    """text: why it failed, without a line end. variables: what is to be in the environment."""

    __slots__ = ("ident", "connected", "text", "variables")

    def __init__(self, ident: bytes, connected: bool, text: str, variables: dict[str, str]):
        self.ident = ident
        self.connected = connected
        self.text = text
        self.variables = variables


def lend(listener_s: socket, descriptor: int, *, for_one_program: bool) -> None:
    """Have the listener's channel on `descriptor`, for `channel`; no program that is executed has
    it, and with `for_one_program` none but the first."""
    global channel, _for_one_program
    os.dup2(listener_s.detach(), descriptor, inheritable=False)
    channel = socket(fileno=descriptor)
    _for_one_program = for_one_program
    handover.keep(descriptor)


def lend_no_more() -> None:
    """The next program is the last one that has it."""
    global _for_one_program
    _for_one_program = True
    handover.keep(channel.fileno() if channel else RECORD)


def give_back() -> None:
    """To be called when nothing is to be asked any more."""
    global channel
    if channel and _for_one_program:
        channel.close()
        channel = None
        handover.keep(RECORD)


def ask(
    channel: socket,
    ident: bytes,
    env: dict[str, str],
    network: int,
    plain: int,
    reply: int | None = None,
) -> None:
    """Give a connection to the relay; our own copies of the descriptors are still to be closed.

    Of `env` only what ASKED names is sent. Raises OSError: BlockingIOError if the channel doesn't
    block and is full, BrokenPipeError or ConnectionResetError if the relay has gone.
    """
    variables = {name: env[name] for name in ASKED if env.get(name)}
    message = _sized(_named(ident) + _assignments(variables))
    descriptors = array("i", [network, plain] + ([] if reply is None else [reply]))
    channel.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, descriptors)], MSG_NOSIGNAL)


def asked(message: bytes, descriptors: list[int]) -> Request:
    """Raises BadMessage; the descriptors are then still to be closed."""
    ident, rest = _after_name(message)
    if not 2 <= len(descriptors) <= MOST_DESCRIPTORS:
        raise BadMessage(f"{len(descriptors)} descriptors")
    network, plain, *reply = descriptors
    return Request(ident, _variables(rest), network, plain, reply[0] if reply else None)


def answer(
    ident: bytes, connected: bool, text: str = "", variables: dict[str, str] | None = None
) -> bytes:
    """The message; a text too long for one is cut. Raises OSError if it is too large."""
    if connected:
        return _sized(_named(ident) + CONNECTED + _assignments(variables or {}))
    return (_named(ident) + FAILED + os.fsencode(text))[:LARGEST]


def answered(message: bytes) -> Answer:
    """Raises BadMessage; the empty message is none, but says that the relay has gone."""
    ident, rest = _after_name(message)
    outcome, rest = rest[:1], rest[1:]
    if outcome == CONNECTED:
        return Answer(ident, True, "", _variables(rest))
    if outcome == FAILED:
        return Answer(ident, False, os.fsdecode(rest), {})
    raise BadMessage("neither success nor failure")


def _named(ident: bytes) -> bytes:
    if len(ident) > LONGEST_IDENT:
        raise OSError(EMSGSIZE, f"an ident of {len(ident)} octets")
    return b"%c%s" % (len(ident), ident)


def _after_name(message: bytes) -> tuple[bytes, bytes]:
    """Ident, and what follows it."""
    if not message or message[0] > LONGEST_IDENT or len(message) <= message[0]:
        raise BadMessage("no ident")
    end = 1 + message[0]
    return message[1:end], message[end:]


def _assignments(variables: dict[str, str]) -> bytes:
    pairs = [f"{name}={value}" for name, value in variables.items()]
    if any("\0" in pair for pair in pairs):
        raise OSError(EINVAL, "a NUL in a variable")
    return os.fsencode("\0".join(pairs))


def _variables(octets: bytes) -> dict[str, str]:
    found = {}
    for pair in os.fsdecode(octets).split("\0") if octets else ():
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise BadMessage("a variable without a name")
        found[name] = value
    return found


def _sized(message: bytes) -> bytes:
    if len(message) > LARGEST:
        raise OSError(EMSGSIZE, os.strerror(EMSGSIZE))
    return message
