"""message - one message of a session: where its file is, and what the client is told of it"""

from __future__ import annotations

import os

from courierpop3d.headers import eight_bit_headers
from courierpop3d.maildir import base, chunks, open_regular
from pop3proto.replies import Measure

# In an id made of a file's name these stand as +XX (reference courierpop3d.md 3.2).
_ESCAPED = {
    octet: b"+%02X" % octet for octet in range(256) if not 0x21 <= octet <= 0x7E or octet in b"'\"+"
}


class Message:
    """`number` and `validity` are the halves of the unique id; with no number, the name is the id.

    Only lists of old versions make ids of names. They stay as they are, though longer than the 70
    octets of RFC 1939: with another id a client fetches the message once more.

    size       octets that RETR sends; 0 if not known
    unicode    a header holds bytes over 0x7F
    """

    __slots__ = ("name", "size", "number", "validity", "unicode")

    def __init__(self, name: bytes, size: int, number: int, validity: int, unicode: bool):
        self.name = name
        self.size = size
        self.number = number
        self.validity = validity
        self.unicode = unicode

    @property
    def path(self) -> bytes:
        return b"cur/" + self.name

    @property
    def uidl(self) -> bytes:
        if self.number:
            if self.validity:
                return b"UID%d-%d" % (self.number, self.validity)
            return b"UID%d" % self.number
        return b"".join(_ESCAPED.get(octet) or bytes((octet,)) for octet in base(self.name))


class TemporaryMessage(Message):
    """A message whose id can't be kept: the id is made of its file, and is good for one session."""

    __slots__ = ("_status",)

    def __init__(self, name: bytes, size: int, unicode: bool, status: os.stat_result):
        super().__init__(name, size, 0, 0, unicode)
        self._status = status

    @property
    def uidl(self) -> bytes:
        status = self._status
        words = (int(status.st_mtime), status.st_dev, status.st_ino)
        return b"ENOMEM-%016X-%016X-%016X" % tuple(word & (2**64 - 1) for word in words)


def measure(path: bytes) -> tuple[int, bool]:
    """Size of the message in a file, and whether it is a Unicode message. Raises OSError."""
    descriptor = open_regular(path)
    try:
        octets = Measure()
        ascii_only = True
        for chunk in chunks(descriptor):
            octets.add(chunk)
            ascii_only = ascii_only and chunk.isascii()
        if ascii_only:
            return octets.total, False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return octets.total, eight_bit_headers(chunks(descriptor))
    finally:
        os.close(descriptor)
