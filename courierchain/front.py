"""front - what a listener and its front say to each other

`courierpop3login -front` holds, in one process without rights, the connections of clients that have
not logged in yet. Its descriptor 0 is a UNIX SOCK_SEQPACKET socket to the listener (couriertcpd
-front). One message is one octet, which says what it is, a number, which says about which
connection, a blank, and the rest. To the front:

    HOLD       a new connection, a descriptor; the rest is the client's address and port and the
               other variables of its session, see `ends`
    AGAIN      a connection whose login was refused, a descriptor; the rest are netstrings: that of
               HOLD, and a Return. The reply is to be given after the delay
    SECURED    after STLS: the connection inside TLS, a descriptor; the rest as with HOLD
    LOST       after STLS: the handshake has failed, and the connection is closed

and to the listener:

    LOGIN      the client has sent a login, a descriptor: the connection; the rest is a Login
    PLAIN      let a login program of its own serve this one, a descriptor; nothing has been said
    STLS       make a handshake, a descriptor
    OVER       the client has gone, quit, or had no more time; the connection is closed

The front may tell the listener what a client could tell a login program, and nothing else: who that
client is, which variables its session has, what its certificate says, the listener knows by itself.

In a process that goes on where the front has ended, couriertcpd calls the login program by
`go_on`, and the program finds the Login by `take`. Where a refused login may go back to the front,
`give_back` is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from courierchain import handover, netstrings

HOLD, AGAIN, SECURED, LOST = b"+", b"<", b"s", b"x"
LOGIN, PLAIN, STLS, OVER = b">", b"p", b"t", b"."
LONGEST = 16384  # octets of a message: a Login with the largest request and userid, and room
DIGITS = 18  # of a number

Environment = dict[str, str]

_login: bytes | None = None

# Set by couriertcpd.worker: takes a Return, and returns True if the front has the connection back.
give_back: Callable[[bytes], bool] | None = None


class Login:
    """A login that a client has sent to the front. Octets, but for the first two.

    expire   when the client's time is up, in seconds since 1970: AUTHEXPIRE
    utf8     whether it has said UTF8
    user, method, request    as courierpop3login.session has them; no request is an empty one
    """

    __slots__ = ("expire", "utf8", "user", "method", "request")

    def __init__(self, expire: int, utf8: bool, user: bytes, method: bytes, request: bytes):
        self.expire = expire
        self.utf8 = utf8
        self.user = user
        self.method = method
        self.request = request

    def encode(self) -> bytes:
        return netstrings.encode(
            (b"%d" % self.expire, b"%d" % self.utf8, self.user, self.method, self.request)
        )

    @classmethod
    def decode(cls, data: bytes) -> Login:
        """Raises ValueError."""
        expire, utf8, user, method, request = netstrings.decode(data)
        return cls(number(expire), utf8 == b"1", user, method, request)


class Return:
    """A client whose login was refused. expire and utf8 as in Login; reply: what it is to hear."""

    __slots__ = ("expire", "utf8", "reply")

    def __init__(self, expire: int, utf8: bool, reply: bytes):
        self.expire = expire
        self.utf8 = utf8
        self.reply = reply

    def encode(self) -> bytes:
        return netstrings.encode((b"%d" % self.expire, b"%d" % self.utf8, self.reply))

    @classmethod
    def decode(cls, data: bytes) -> Return:
        """Raises ValueError."""
        expire, utf8, reply = netstrings.decode(data)
        return cls(number(expire), utf8 == b"1", reply)


def message(kind: bytes, connection: int, rest: bytes = b"") -> bytes:
    return b"%b%d %b" % (kind, connection, rest)


def parsed(data: bytes) -> tuple[bytes, int, bytes]:
    """What `message` was given. Raises ValueError."""
    head, _, rest = data.partition(b" ")
    return head[:1], number(head[1:]), rest


def number(digits: bytes) -> int:
    """Raises ValueError."""
    if not digits.isdigit() or len(digits) > DIGITS:
        raise ValueError("not a number")
    return int(digits)


def ends(address: str, port: int, variables: Environment) -> bytes:
    """The rest of a HOLD. variables: without those of the client's address and port. What follows
    these two is the same octets for sessions with the same variables."""
    pairs = [f"{name}={value}" for name, value in variables.items()]
    return os.fsencode("\0".join((address, str(port), *pairs)))


def again(ends: bytes, returned: bytes) -> bytes:
    """The rest of an AGAIN."""
    return netstrings.encode((ends, returned))


def split_ends(rest: bytes) -> tuple[str, str, bytes]:
    """Address, port, and what `variables` reads. Raises ValueError."""
    address, port, *others = rest.split(b"\0", 2)
    return os.fsdecode(address), os.fsdecode(port), others[0] if others else b""


def variables(others: bytes) -> Environment:
    pairs = (pair.partition("=") for pair in os.fsdecode(others).split("\0")) if others else ()
    return {name: value for name, _, value in pairs}


def go_on(argv: list[str], env: Environment, login: bytes) -> int:
    """Call the login program with a login that the front has heard; the exit status of the last
    program of the chain. Raises KeyError if the login program isn't resident."""
    global _login
    main = handover.loaded(argv[0])
    _login = login
    return handover.run(main, argv, env)


def take() -> bytes | None:
    """The Login, if a front has heard one."""
    global _login
    login, _login = _login, None
    return login
