"""throttle - refuse who has failed to log in too often, before a process or a password is spent

    -maxfailsperip=N     *ours*: failed logins from one address (IPv6: one /64); the next connection
                         is told so and closed
    -maxfailsperuser=N   *ours*: failed logins as one userid, whoever it was; the next login is
                         refused unchecked, and looks like one with a wrong password
    -failswindow=S       *ours*: they count for S seconds from the first one, see `failures`
    MAXFAILSPERIP        replaces -maxfailsperip; of a record of the access file, or of the
                         listener's own environment. 0: no limit, for a web mail server

The login program knows who fails. COURIER_THROTTLE in its environment is the name of a datagram
socket of ours (abstract, so without the NUL in front), where it sends words with blanks between:

    try ADDRESS LIMIT USERID       may this login be checked? Answered with `yes` or `no`
    failed ADDRESS LIMIT USERID    it was, and nobody accepted it

LIMIT is its MAXFAILSPERIP, or `-`. Only who has our own uid is listened to: programs that have
become a user are not. The login program waits a second for an answer, then goes on. Logins that are
checked at the same moment may exceed a limit: by no more than there are connections.

    ALERT: Too many failed logins from ::ffff:192.0.2.1     each of them at most once a minute
    ALERT: Too many failed logins as john
"""

from __future__ import annotations

import os
import socket
import struct
from socket import AF_INET6, AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, SOL_SOCKET, inet_ntop, inet_pton

from courierchain import log
from couriertcpd.arrival import Variables
from couriertcpd.failures import Failures
from couriertcpd.listen import MAPPED
from couriertcpd.options import Options

THROTTLE = "COURIER_THROTTLE"
LIMIT = "MAXFAILSPERIP"
TOO_MANY_FAILURES = b"-ERR Too many failed logins, please try again later.\r\n"
LONGEST = 1024  # octets of a message
BATCH = 50  # messages read in a row
DIGITS = 9
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of the sender
NETWORK = 8  # octets of an IPv6 address that one client has to itself


class Throttle:
    """perip, peruser: failed logins, or 0 for any number. seconds: for which they count.

    env: what every session starts from.
    """

    __slots__ = ("name", "socket", "_perip", "_peruser", "_env", "_addresses", "_users")

    def __init__(self, perip: int, peruser: int, seconds: int, env: dict[str, str]):
        self._perip = perip
        self._peruser = peruser
        self._env = env
        self._addresses = Failures(seconds)
        self._users = Failures(seconds)
        self.name = f"courier-throttle-{os.urandom(16).hex()}"
        self.socket = socket.socket(AF_UNIX, SOCK_DGRAM)
        self.socket.setsockopt(SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(f"\0{self.name}")

    @classmethod
    def of(cls, options: Options, env: dict[str, str]) -> Throttle | None:
        """The one that a command line asks for, if it does."""
        if not options.maxfailsperip and not options.maxfailsperuser:
            return None
        return cls(options.maxfailsperip, options.maxfailsperuser, options.failswindow, env)

    def refuses(self, address: bytes, variables: Variables) -> bool:
        """Whether a connection from 16 octets of address is to be refused."""
        limit = variables.get(LIMIT, self._env.get(LIMIT, ""))
        key = network(address)
        if not self._addresses.over(key, self._limit(limit)):
            return False
        if self._addresses.worth_a_line(key):
            log.line("ALERT", f"Too many failed logins from {inet_ntop(AF_INET6, address)}")
        return True

    def _limit(self, text: str) -> int:
        plain = text.isascii() and text.isdigit() and len(text) <= DIGITS
        return int(text) if plain else self._perip

    def heard(self) -> None:
        """The socket is readable: take what is there."""
        space = socket.CMSG_SPACE(CREDENTIALS.size)
        for _ in range(BATCH):
            try:
                message, controls, _, sender = self.socket.recvmsg(LONGEST, space, MSG_DONTWAIT)
            except OSError:
                return
            if is_ours(controls):
                self._obey(message, sender)

    def _obey(self, message: bytes, sender: bytes | None) -> None:
        try:
            kind, remote, limit, user = message.decode("ascii").split(" ")
            address = inet_pton(AF_INET6, remote)
        except (ValueError, OSError):
            return  # not our login program's
        key = user.lower()  # many user databases don't tell John from john
        if kind == "failed":
            self._addresses.add(network(address))
            if key:  # a token needn't come with a userid
                self._users.add(key)
        elif kind == "try" and sender:
            refused = self.refuses(address, {} if limit == "-" else {LIMIT: limit})
            refused = self._refuses_user(key) or refused
            try:
                self.socket.sendto(b"no" if refused else b"yes", MSG_DONTWAIT, sender)
            except OSError:
                pass  # it has not waited

    def _refuses_user(self, key: str) -> bool:
        if not self._users.over(key, self._peruser):
            return False
        if self._users.worth_a_line(key):
            log.line("ALERT", f"Too many failed logins as {key}")
        return True


def is_ours(controls: list[tuple[int, int, bytes]]) -> bool:
    """Whether the kernel says that a message comes from a process with our uid."""
    for level, kind, data in controls:
        if (level, kind) == (SOL_SOCKET, socket.SCM_CREDENTIALS):
            return CREDENTIALS.unpack(data)[1] == os.geteuid()
    return False


def network(address: bytes) -> bytes:
    """What counts as one client: an IPv4 address, a /64 of IPv6."""
    return address if address.startswith(MAPPED) else address[:NETWORK]
