"""authsocket - the conversation with an authdaemond, for both of its ends

One connection carries one request and its answer (reference auth.md 2.9):

    TCPREMOTEIP=<ip> LF                    in front of a request, or not: for the modules

    PRE <module> <service> <userid> LF     the account, nothing to prove; module `.`: any of them
    AUTH <n> LF <n octets>                 service LF authtype LF authdata LF, or without that LF
    PASSWD <service> TAB <userid> TAB <old> TAB <new> LF
    ENUMERATE LF                           all accounts

    USERNAME= UID= GID= HOME= ADDRESS= NAME= MAILDIR= QUOTA= PASSWD= PASSWD2= OPTIONS=, each in a
                                           line of its own if there is something to say, and a
                                           line `.`: to PRE, or AUTH with the right secret
    FAIL LF                                no such user, or a wrong secret
    OK LF                                  the password is changed
    nothing, or half of it                 nobody can say now

Sockets are those of `_socket`: see `client`.
"""

from __future__ import annotations

import struct
from _socket import AF_UNIX, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket
from select import POLLIN, poll
from time import monotonic

from courierchain.request import BadRequest
from courierchain.settings import Settings

FAIL = b"FAIL\n"
OK = b"OK\n"
END = b".\n"
REMOTE = b"TCPREMOTEIP"
LARGEST_ANSWER = 65536  # octets about one account
PIECE = 65536

Fields = dict[bytes, bytes]


class NoAnswer(Exception):
    """The daemon can't be reached, is too slow, or has answered what is no answer."""


def about(ip: str) -> bytes:
    """The line in front of a request that says who the client is."""
    plain = ip.isascii() and ip.isprintable()
    return b"%s=%s\n" % (REMOTE, ip.encode()) if plain else b""


def pre(service: bytes, user: bytes, module: bytes = b".") -> bytes:
    """Raises BadRequest for what can't be written in one line."""
    words = (module, service)
    if not is_line(user) or not all(is_line(word) and b" " not in word for word in words):
        raise BadRequest("an empty field, a blank, a line end or NUL in it")
    return b"PRE %s %s %s\n" % (module, service, user)


def is_line(text: bytes) -> bool:
    return text != b"" and b"\n" not in text and b"\0" not in text


def auth(service: bytes, authtype: bytes, authdata: bytes) -> bytes:
    record = b"\n".join((service, authtype, authdata)) + b"\n"
    return b"AUTH %d\n%s" % (len(record), record)


def passwd(service: bytes, user: bytes, old: bytes, new: bytes) -> bytes:
    """Raises BadRequest for what can't be written in one line."""
    words = (service, user, old, new)
    if any(min(word, default=0) < 0x20 for word in words):
        raise BadRequest("an empty field, or a control character in it")
    return b"PASSWD %s\n" % b"\t".join(words)


def ask(
    request: bytes, settings: Settings, largest: int = LARGEST_ANSWER, seconds: int = 0
) -> bytes:
    """The answer, as it is. Raises NoAnswer, and ValueError for a setting that makes no sense.

    Nothing takes longer than TIMEOUT_SOCK seconds to connect, TIMEOUT_WRITE for each write, and
    TIMEOUT_READ, or `seconds`, for all of the answer.
    """
    path = settings.text("AUTHDAEMON_SOCKET")
    limits = [settings.seconds(f"TIMEOUT_{part}") for part in ("SOCK", "WRITE", "READ")]
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        # With settimeout a daemon whose queue is full would be given up at once.
        limit_sending(connection, limits[0])
        connection.connect(path)
        limit_sending(connection, limits[1])
        connection.sendall(request)
        return receive(connection, seconds or limits[2], largest)
    except BlockingIOError as why:
        raise NoAnswer(f"{path}: no answer in time") from why
    except (OSError, ValueError) as why:
        reason = why.strerror if isinstance(why, OSError) else str(why)
        raise NoAnswer(f"{path}: {reason} (is authdaemond running?)") from why
    finally:
        connection.close()


def limit_sending(connection: socket, seconds: int) -> None:
    connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, struct.pack("ll", max(seconds, 1), 0))


def receive(connection: socket, seconds: float, largest: int) -> bytes:
    """All that comes until the other end closes. Raises NoAnswer and OSError."""
    readable = poll()
    readable.register(connection, POLLIN)
    deadline = monotonic() + seconds
    answer = b""
    while len(answer) <= largest:
        if not readable.poll(max(0, (deadline - monotonic()) * 1000)):
            raise NoAnswer("authdaemond: no answer in time")
        part = connection.recv(PIECE)
        if not part:
            return answer
        answer += part
    raise NoAnswer(f"authdaemond: an answer of over {largest} octets")


def fields(answer: bytes) -> Fields | None:
    """The fields of an answer about an account; None for FAIL. Raises NoAnswer."""
    if answer == FAIL:
        return None
    *lines, end, nothing = (b"\n" + answer).split(b"\n")
    if end != b"." or nothing or not all(b"=" in line for line in lines[1:]) or b"\0" in answer:
        raise NoAnswer("authdaemond: " + ("not a whole answer" if answer else "no answer"))
    pairs = (line.partition(b"=") for line in lines[1:])
    return {name: value for name, _, value in pairs}
