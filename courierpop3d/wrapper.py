"""wrapper - a Unicode message, wrapped up for a client that hasn't said UTF8

RFC 6856 section 7 leaves to the server what such a client gets; it gets what Courier gives it: a
message in ASCII that explains, and the real one as an attachment (reference courierpop3d.md 4.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

HEAD = b"""\
From: Mail Delivery Subsystem <postmaster>
Subject: Cannot display Unicode content
Mime-Version: 1.0
Content-Type: multipart/mixed; boundary="%(boundary)s"



--%(boundary)s
Content-Type: text/plain

This E-mail message was determined to be Unicode-formatted
but your E-mail reader does not support Unicode E-mail.

Please use an E-mail reader that supports POP3 with UTF-8
(see https://datatracker.ietf.org/doc/html/rfc6856).

This can also happen when the sender's E-mail program does not
correctly format the sent message.

The original message is included as a separate attachment
so that it can be downloaded manually.

--%(boundary)s
Content-Type: %(type)s

"""
TAIL = b"""
--%(boundary)s--
"""


class Wrapper:
    """boundary: not to be found in any message; media_type: of the attachment."""

    __slots__ = ("boundary", "_head", "_tail")

    def __init__(self, boundary: bytes, media_type: bytes):
        self.boundary = boundary
        parts = {b"boundary": boundary, b"type": media_type}
        self._head = HEAD % parts
        self._tail = TAIL % parts

    def wrap(self, stored: Iterable[bytes]) -> Iterator[bytes]:
        """The wrapped message with LF line ends, as if it were stored so."""
        yield self._head
        yield from stored
        yield self._tail
