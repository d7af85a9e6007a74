"""message - the messages of one session, and what the client is told of each

They are kept by columns: a hundred thousand objects would take 25 MB and a tenth of a second at
every login. A `Message` is one row of the columns, made when somebody asks for it.
"""

from __future__ import annotations

from array import array

from courierchain import netstrings
from courierpop3d.maildir import base

# In an id made of a file's name these stand as +XX (reference courierpop3d.md 3.2).
_ESCAPED = {
    octet: b"+%02X" % octet for octet in range(256) if not 0x21 <= octet <= 0x7E or octet in b"'\"+"
}

PLAIN, UNICODE, UNKNOWN = range(3)  # whether a header holds bytes over 0x7F
BATCH = 10_000

# name, size, number, validity, kind, given id: what the list says of one message
Entry = tuple[bytes, int, int, int, int, bytes]


class Messages:
    """The messages in order. `messages[0]` is the first, a view of the columns.

    names        of the files in cur/
    sizes        octets that RETR sends; 0 if not known
    numbers, validities    the halves of the unique id. With no number, the name is the id
    unicode      PLAIN, UNICODE, or UNKNOWN: nobody has looked into the headers
    given        by row: ids that are neither made of numbers nor of the name
    stamps       of cur/ and of the list, if these messages are all that they hold
    """

    __slots__ = ("names", "sizes", "numbers", "validities", "unicode", "given", "stamps")

    def __init__(self, names: list[bytes]):
        self.names = names
        nothing = bytes(8 * len(names))
        self.sizes = array("Q", nothing)
        self.numbers = array("Q", nothing)
        self.validities = array("Q", nothing)
        self.unicode = bytearray(len(names))
        self.given: dict[int, bytes] = {}
        self.stamps: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Message:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return Message(self, row)

    @property
    def octets(self) -> int:
        """Octets of all messages."""
        return sum(self.sizes)

    def uidl(self, row: int) -> bytes:
        """The unique id of a message.

        Ids made of names stay as they are, though longer than the 70 octets of RFC 1939: with
        another id a client fetches the message once more.
        """
        if row in self.given:
            return self.given[row]
        number, validity = self.numbers[row], self.validities[row]
        if number:
            return b"UID%d-%d" % (number, validity) if validity else b"UID%d" % number
        return escaped(self.names[row])

    def size_lines(self) -> bytes:
        """The lines of LIST for all messages, with their line ends."""
        return b"".join([self._size_lines(rows) for rows in self.batches()])

    def uidl_lines(self) -> bytes:
        """The lines of UIDL for all messages, with their line ends."""
        usual = not (self.given or 0 in self.numbers or 0 in self.validities)
        lines = self._numbered_lines if usual else self._uidl_lines
        return b"".join([lines(rows) for rows in self.batches()])

    def batches(self) -> list[range]:
        """All rows, so many at a time as may be worked on at once in little memory."""
        rows = range(len(self))
        return [rows[start : start + BATCH] for start in range(0, len(self), BATCH)]

    def _size_lines(self, rows: range) -> bytes:
        sizes = self.sizes[rows.start : rows.stop]
        return b"".join([b"%d %d\r\n" % line for line in enumerate(sizes, rows.start + 1)])

    def _uidl_lines(self, rows: range) -> bytes:
        return b"".join([b"%d %s\r\n" % (row + 1, self.uidl(row)) for row in rows])

    def _numbered_lines(self, rows: range) -> bytes:
        numbers = self.numbers[rows.start : rows.stop]
        ids = zip(rows, numbers, self.validities[rows.start : rows.stop], strict=True)
        return b"".join([b"%d UID%d-%d\r\n" % (row + 1, n, v) for row, n, v in ids])

    def columns(self) -> list[bytes]:
        """What `from_columns` makes the same messages of."""
        given = [text for row in self.given for text in (b"%d" % row, self.given[row])]
        columns = [b"/".join(self.names), bytes(self.unicode)]
        columns += [column.tobytes() for column in (self.sizes, self.numbers, self.validities)]
        return [*columns, netstrings.encode(given), netstrings.numbers(self.stamps)]

    @classmethod
    def from_columns(cls, columns: list[bytes]) -> Messages:
        """Raises ValueError."""
        joined, unicode, *numbers, given, stamps = columns
        names = joined.split(b"/") if unicode else []
        messages = cls(names)
        lengths = {len(column) for column in (*numbers, bytes(8 * len(names)))}
        if len(names) != len(unicode) or len(numbers) != 3 or len(lengths) != 1:
            raise ValueError("columns of different lengths")
        messages.unicode = bytearray(unicode)
        for column, octets in enumerate(numbers):
            setattr(messages, ("sizes", "numbers", "validities")[column], array("Q", octets))
        ids = netstrings.decode(given)
        messages.given = dict(zip(map(int, ids[::2]), ids[1::2], strict=True))
        messages.stamps = tuple(map(int, stamps.split()))
        return messages

    def put(self, row: int, entry: Entry) -> None:
        """Take all but the name from an entry."""
        _, self.sizes[row], self.numbers[row], self.validities[row], self.unicode[row], uidl = entry
        if uidl:
            self.given[row] = uidl

    def entry(self, row: int) -> Entry:
        numbers = self.sizes[row], self.numbers[row], self.validities[row], self.unicode[row]
        return self.names[row], *numbers, self.given.get(row, b"")

    def picked(self, rows: list[int]) -> Messages:
        """Some of the messages, in the order of `rows`."""
        some = Messages([self.names[row] for row in rows])
        for to, row in enumerate(rows):
            some.put(to, self.entry(row))
        return some


class Message:
    """One of the messages. Two views of one row are equal; `name` may be set."""

    __slots__ = ("_messages", "row")

    def __init__(self, messages: Messages, row: int):
        self._messages = messages
        self.row = row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self.row == other.row

    def __hash__(self) -> int:
        return self.row

    @property
    def name(self) -> bytes:
        return self._messages.names[self.row]

    @name.setter
    def name(self, name: bytes) -> None:
        self._messages.names[self.row] = name

    @property
    def path(self) -> bytes:
        return b"cur/" + self.name

    @property
    def size(self) -> int:
        return self._messages.sizes[self.row]

    @property
    def uidl(self) -> bytes:
        return self._messages.uidl(self.row)

    @property
    def unicode(self) -> int:
        return self._messages.unicode[self.row]

    @unicode.setter
    def unicode(self, unicode: int) -> None:
        self._messages.unicode[self.row] = unicode


def escaped(name: bytes) -> bytes:
    """A file's name up to the colon as a unique id."""
    return b"".join([_ESCAPED.get(octet) or bytes((octet,)) for octet in base(name)])
