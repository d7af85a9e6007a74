"""stls - TLS on a connection that has begun without it (RFC 2595 section 4)

The connection goes to the TLS relay, and one end of a socketpair comes in its place on descriptors
0 and 1. The relay is that of the listener (`courierchain.relay`); without one, the program that
COURIERTLS names is started for this connection alone, as Courier does it (reference couriertcpd.md
12.6), detached, as USER where we are root.

What the client has sent behind STLS is still in the kernel, and the relay takes it for the begin of
the handshake, which then fails: it is never obeyed (CVE-20, 2595-06).

Reads      POP3_STARTTLS: begins with y or Y; COURIERTLS, couriertls if it isn't set; TLS_CERTFILE
Sets       POP3_STARTTLS=NO, POP3_TLS_REQUIRED=0, POP3_TLS=1, TLS_CONNECTED_PROTOCOL and
           TLS_BINDING_... (from a relay), TLS_SUBJECT_... of a client certificate
"""

from __future__ import annotations

import os
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal
from _socket import AF_UNIX, SOCK_SEQPACKET, SOCK_STREAM, socket, socketpair
from select import POLLIN, poll
from time import monotonic

from courierchain import log, programs, relay

USER = "courier"
CONNECTED = "TLS_CONNECTED_PROTOCOL"
LARGEST = 65536  # octets of what couriertls says of a certificate
NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.")

Environment = dict[str, str]


class Failed(Exception):
    """There is no TLS, and the connection is of no more use. Without a text it has been logged."""


def is_usable(env: Environment, has_relay: bool) -> bool:
    """Whether STLS may be announced, as far as the settings go."""
    if env.get("POP3_STARTTLS", "")[:1] not in ("y", "Y") or not env.get("TLS_CERTFILE"):
        return False
    return has_relay or program(env) is not None


def program(env: Environment) -> str | None:
    return programs.locate(env.get("COURIERTLS") or "couriertls", env)


def start(env: Environment, limit: float) -> Environment:
    """Have the client on descriptors 0 and 1 without the TLS that it speaks from now on; what
    changes in the environment. Waits up to `limit` seconds. Raises Failed.
    """
    deadline = monotonic() + limit
    try:
        ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
        try:
            learned = shake_hands(env, theirs.fileno(), deadline)
            for descriptor in (0, 1):
                os.dup2(ours.fileno(), descriptor)
        finally:
            theirs.close()
            ours.close()
    except OSError as why:
        raise Failed(why.strerror) from why
    return {**learned, "POP3_STARTTLS": "NO", "POP3_TLS_REQUIRED": "0", "POP3_TLS": "1"}


def shake_hands(env: Environment, plain: int, deadline: float) -> Environment:
    """plain: the end of the one who does it. Raises OSError and Failed."""
    try:
        return ask(env, plain, deadline)
    except OSError:  # there is no relay, or none any more
        return run(env, plain, deadline)


def ask(env: Environment, plain: int, deadline: float) -> Environment:
    """Let the listener's relay do it. Raises OSError if it isn't there, and Failed."""
    if relay.channel is None:
        raise OSError
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
    try:
        relay.ask(relay.channel, b"", env, 0, plain, theirs.fileno())
        theirs.close()
        wait(ours.fileno(), deadline)
        answer = relay.answered(received(ours))
    except relay.BadMessage as why:
        raise Failed("the TLS relay has gone") from why
    finally:
        theirs.close()
        ours.close()
    if not answer.connected:
        raise Failed
    return answer.variables


def received(reply: socket) -> bytes:
    """The relay's answer; nothing if it has gone."""
    try:
        return reply.recv(relay.LARGEST)
    except OSError:
        return b""


def run(env: Environment, plain: int, deadline: float) -> Environment:
    """Let a process of COURIERTLS do it. Raises OSError and Failed."""
    path = program(env)
    if path is None:
        raise Failed("COURIERTLS: no such program")
    pipes: list[int] = []
    try:
        pipes += os.pipe()
        pipes += os.pipe()
        status, status_end, text, text_end = pipes
        detach(path, env, (plain, status_end, text_end))
        for end in (status_end, text_end):
            pipes.remove(end)
            os.close(end)
        failure = read_all(status, deadline)
        if failure:
            raise Failed(failure.rstrip("\n"))
        return subject(read_all(text, deadline))
    finally:
        for end in pipes:
            os.close(end)


def detach(path: str, env: Environment, descriptors: tuple[int, int, int]) -> None:
    """Start couriertls as nobody's child; nothing of it is left for the programs behind us. Raises
    OSError if there is no process to be had."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            plain, status, text = descriptors
            options = [f"-statusfd={status}", f"-printx509={text}", f"-localfd={plain}"]
            for ignored in (SIGPIPE, SIGXFSZ):  # by Python
                signal(ignored, SIG_DFL)
            become_user()
            os.execve(path, [path, *options, "-tcpd", "-server"], env)
    except Exception as why:
        log.err(f"{path}: {why}")
    finally:
        os._exit(1)


def become_user() -> None:
    if os.geteuid() == 0:
        from courierchain.daemon import change_user

        change_user(USER)


def subject(text: str) -> Environment:
    """TLS_SUBJECT_... of the first Subject in what couriertls says of a certificate, and
    TLS_CONNECTED_PROTOCOL."""
    found = {}
    pairs = dict(line.split(": ", 1) for line in text.split("\n")[-4:] if ": " in line)
    if {"Version", "Bits", "Cipher"} <= pairs.keys():
        found[CONNECTED] = "{Version},{Bits}bits,{Cipher}".format(**pairs)
    _, begin, lines = text.partition("Subject:\n")
    for line in lines.split("\n") if begin else ():
        if not line.startswith("   "):
            break
        name, _, value = line.strip().partition("=")
        if name and set(name.upper()) <= NAME:
            found[f"TLS_SUBJECT_{name.upper()}"] = value
    return found


def read_all(pipe: int, deadline: float) -> str:
    """What comes until the end. Raises Failed."""
    octets = b""
    while len(octets) < LARGEST:
        wait(pipe, deadline)
        piece = os.read(pipe, LARGEST)
        if not piece:
            break
        octets += piece
    return os.fsdecode(octets)


def wait(descriptor: int, deadline: float) -> None:
    ready = poll()
    ready.register(descriptor, POLLIN)
    if not ready.poll(max(0, deadline - monotonic()) * 1000):
        raise Failed("no handshake in time")
