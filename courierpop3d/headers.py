"""headers - is there an 8-bit byte in a header of a message, or of one of its MIME parts?

Such a message is a Unicode message (RFC 6856 section 2), which only a client that said UTF8 may see
raw. Bodies don't matter. As in Courier, parts count in a message that has a Mime-Version, and a
message inside a message has headers too.

One pass, line by line in headers; in bodies only lines that begin with two hyphens are looked at.
No recursion and bounded memory, whatever a message is made of (CVE-12, CVE-46).
"""

from __future__ import annotations

from collections.abc import Iterable

LINE = 8192  # octets of a line, or of a header with its continuations, that are made sense of
DEPTH = 100  # parts within parts
MESSAGES = (b"message/rfc822", b"message/global")


def eight_bit_headers(chunks: Iterable[bytes]) -> bool:
    scan = Scan()
    for chunk in chunks:
        if scan.finds_8bit(chunk):
            return True
        if scan.over:
            break
    return False


class Scan:
    """Where in the structure of a message the octets seen so far have led.

    _field               the header field under way, unfolded
    _type, _boundary     what the header under way has told of its body
    _delimiters, _types  of the multiparts we are in, outermost first: the line before each part,
                         and the type of a part that doesn't tell
    _held                the beginning of a line whose end hasn't come yet
    """

    __slots__ = (
        *("_in_header", "_field", "_type", "_boundary"),
        *("_mime", "_delimiters", "_types", "_held"),
    )

    def __init__(self) -> None:
        self._mime = False
        self._delimiters: tuple[bytes, ...] = ()
        self._types: tuple[bytes, ...] = ()
        self._held = b""
        self._begin_header(b"")

    @property
    def over(self) -> bool:
        """There is no header any more in what is to come."""
        return not self._in_header and not self._delimiters

    def finds_8bit(self, chunk: bytes) -> bool:
        """Take the next octets; True as soon as a header holds an 8-bit one."""
        data = self._held + chunk
        position = 0
        while (end := data.find(b"\n", position)) >= 0:
            if self._in_header:
                line = data[position:end]
                if not line.isascii():
                    return True
                self._take_header_line(line[:LINE].removesuffix(b"\r"))
            elif data.startswith(b"--", position):
                self._take_delimiter(data[position : min(end, position + LINE)])
            else:
                following = data.find(b"\n--", position)
                end = following if following >= 0 else data.rfind(b"\n")
            position = end + 1
        self._held = data[position : position + LINE]
        return self._in_header and not data[position:].isascii()

    def _begin_header(self, default_type: bytes) -> None:
        self._in_header = True
        self._field = b""
        self._type = default_type
        self._boundary = b""

    def _take_header_line(self, line: bytes) -> None:
        if line.startswith((b" ", b"\t")):
            if len(self._field) < LINE:
                self._field += line
        elif not (line.startswith(b"--") and self._take_delimiter(line)):
            self._end_field()
            self._field = line
            if not line:
                self._end_header()

    def _end_field(self) -> None:
        name, _, value = self._field.partition(b":")
        name = name.strip().lower()
        if name == b"mime-version":
            self._mime = True
        elif name == b"content-type":
            kind, *parameters = value.split(b";")
            self._type = kind.strip().lower()
            for parameter in parameters:
                key, _, text = parameter.partition(b"=")
                if key.strip().lower() == b"boundary":
                    self._boundary = text.strip().strip(b'"').rstrip()

    def _end_header(self) -> None:
        self._in_header = False
        if not self._mime:
            return
        if self._type in MESSAGES:
            self._begin_header(b"")
        elif self._type.startswith(b"multipart/") and self._boundary:
            if len(self._delimiters) < DEPTH:
                self._delimiters += (b"--" + self._boundary,)
                self._types += (MESSAGES[0] if self._type == b"multipart/digest" else b"",)

    def _take_delimiter(self, line: bytes) -> bool:
        """Begin the part, or leave the multipart, that the line delimits; False if it is text.

        The line need only begin with the boundary (RFC 2046 section 5.1.1).
        """
        if not line.startswith(self._delimiters):
            return False
        delimiter = max(filter(line.startswith, self._delimiters), key=len)
        depth = self._delimiters.index(delimiter)
        if line.startswith(b"--", len(delimiter)):
            self._in_header = False
        else:
            self._begin_header(self._types[depth])
            depth += 1
        self._delimiters = self._delimiters[:depth]
        self._types = self._types[:depth]
        return True
