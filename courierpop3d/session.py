"""session - the TRANSACTION and UPDATE states of RFC 1939, without descriptors or clock

Lines go in, replies come out: bytes, or an iterator of bytes where a reply may be large. Texts are
Courier's (reference courierpop3d.md 4). Message numbers never move (1939-21); QUIT says what has
been done, after it is done (1939-51, 1939-52).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from courierchain import netstrings
from courierpop3d.maildir import CHUNK
from courierpop3d.maildrop import Maildrop
from courierpop3d.message import PLAIN, UNICODE, UNKNOWN, Message
from courierpop3d.wrapper import Wrapper
from pop3proto import state
from pop3proto.commands import MAX_LINE, BadLine, BadNumber, Command, number, parse
from pop3proto.replies import END, Measure, err, listing, ok, stuff, top

GREETING = ok(b"logged in.")  # the reply to PASS
INVALID = err(b"Invalid command.")
NO_SUCH_MESSAGE = err(b"Invalid message number.")
GONE = err(b"Can't open the message file - it's gone!")
NOT_ALL_REMOVED = err(b"Some deleted messages not removed.")
CAPABLE = ok(b"Here's what I can do:")
LISTING = ok(b"POP3 clients that break here, they violate STD53.")

Reply = bytes | Iterator[bytes]


class NoSuchMessage(Exception):
    """No number, or not that of a message, or a deleted message's."""


class ReadyReply:
    """To the RETR that is expected next. `octets` of the message as it is stored."""

    __slots__ = ("position", "stamp", "reply", "octets")

    def __init__(self, position: int, stamp: tuple[int, ...], reply: bytes, octets: int):
        self.position = position
        self.stamp = stamp
        self.reply = reply
        self.octets = octets


class Transaction:
    """`quit` is set by QUIT: then the session is over.

    messages     of the maildrop
    counts       stored octets sent by `top` and `retr`; octets of lines obeyed, `rcvd`
    uncounted    octets of replies that Courier doesn't count as sent
    capabilities what CAPA lists
    greeting     the reply to the login
    can_be_parked  whether another process could go on with it
    statuses     exit statuses by what ended the session, if not `other_status`
    """

    statuses = {"LOGOUT": 0, "DISCONNECTED": 0, "TIMEOUT": 0}
    other_status = 1
    can_be_parked = True

    __slots__ = (
        *("quit", "messages", "counts", "uncounted", "greeting"),
        *("_maildrop", "_octets", "_deleted", "_utf8", "_wrapper", "_capabilities"),
        *("_taken", "_last", "_ready"),
    )

    def __init__(
        self,
        maildrop: Maildrop,
        wrapper: Wrapper,
        *,
        utf8: bool,
        capabilities: tuple[bytes, ...] = state.CAPABILITIES,
    ):
        self.quit = False
        self.greeting = GREETING
        self.counts = {"top": 0, "retr": 0, "rcvd": 0}
        self.uncounted = 0
        self._maildrop = maildrop
        self.messages = maildrop.messages
        self._utf8 = utf8
        self._wrapper = wrapper
        self._capabilities = capabilities
        self._taken: dict[int, Message] = {}
        self._last = 0
        self._ready: ReadyReply | None = None
        self._undelete()

    def _undelete(self) -> None:
        self._deleted: set[int] = set()
        self._octets = self.messages.octets

    def columns(self) -> list[bytes]:
        """What `resume` needs to go on with the same messages, once all is settled."""
        numbers = (*self.counts.values(), self.uncounted, self._last, self._utf8)
        texts = map(netstrings.numbers, (numbers, sorted(self._deleted)))
        return [*texts, self._wrapper.boundary]

    def resume(self, columns: list[bytes]) -> None:
        """Take up what another session on these messages has left. Raises ValueError."""
        numbers, deleted, _ = columns
        *counts, self.uncounted, self._last, utf8 = map(int, numbers.split())
        self.counts = dict(zip(self.counts, counts, strict=True))
        self._utf8 = bool(utf8)
        self._deleted = set(map(int, deleted.split()))
        if not self._deleted <= set(range(1, len(self.messages) + 1)):
            raise ValueError("a mark on no message")
        self._octets -= sum([self.messages[position - 1].size for position in self._deleted])

    @property
    def is_settled(self) -> bool:
        return not self._taken

    def settle(self) -> None:
        """Set the flag Seen on what has been taken. To be called when the client pauses, and at the
        end: a program that fetches mail in a row, or deletes it, needn't wait for that."""
        for message in self._taken.values():
            self._maildrop.mark_seen(message)
        self._taken.clear()

    def obey(self, line: bytes | None) -> Reply:
        """The reply to one line. Raises Damaged, as does its iterator: then nothing may follow."""
        self.counts["rcvd"] += MAX_LINE if line is None else len(line) + 1
        try:
            command = parse(line)
            answer = self._ANSWERS.get(command.verb)
            return answer(self, command) if answer else INVALID
        except BadLine:
            return INVALID
        except NoSuchMessage:
            return NO_SUCH_MESSAGE
        except OSError:
            return GONE

    def _one(self, words: list[bytes]) -> tuple[int, Message]:
        """The message that the first word means, and its number. Raises NoSuchMessage."""
        try:
            position = number(words[0])
        except (IndexError, BadNumber):
            raise NoSuchMessage from None
        if not 1 <= position <= len(self.messages) or position in self._deleted:
            raise NoSuchMessage
        return position, self.messages[position - 1]

    def _listing(self, status: bytes, lines: bytes) -> bytes:
        """All lines but those of deleted messages."""
        if self._deleted:
            every = lines.splitlines(keepends=True)
            kept = [line for row, line in enumerate(every, 1) if row not in self._deleted]
            lines = b"".join(kept)
        return b"".join((status, lines, END))

    def _content(self, message: Message) -> Iterator[bytes]:
        """What RETR and TOP send, as it is stored or would be. Raises OSError."""
        stored = self._maildrop.read(message)
        return self._wrapper.wrap(stored) if self._is_wrapped(message) else stored

    def _is_wrapped(self, message: Message) -> bool:
        if self._utf8:
            return False
        if message.unicode == UNKNOWN:
            message.unicode = self._maildrop.kind(message)
        return message.unicode == UNICODE

    def _octets_of(self, message: Message) -> int:
        if not self._is_wrapped(message):
            return message.size
        octets = Measure()
        for chunk in self._content(message):
            octets.add(chunk)
        return octets.total

    def _counted(self, counter: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.counts[counter] += len(chunk)
            yield chunk

    def _uncounted(self, reply: bytes) -> bytes:
        self.uncounted += len(reply)
        return reply

    def _answer_stat(self, command: Command) -> Reply:
        return ok(b"%d %d" % (len(self.messages) - len(self._deleted), self._octets))

    def _answer_list(self, command: Command) -> Reply:
        if command.words:
            position, message = self._one(command.words)
            return ok(b"%d %d" % (position, message.size))
        return self._listing(LISTING, self.messages.size_lines())

    def _answer_uidl(self, command: Command) -> Reply:
        if command.words:
            position, message = self._one(command.words)
            return ok(b"%d %s" % (position, message.uidl))
        return self._listing(ok(), self.messages.uidl_lines())

    def _answer_retr(self, command: Command) -> Reply:
        position, message = self._one(command.words)
        ready, self._ready = self._ready, None
        if ready and ready.position == position and self._maildrop.holds(message, ready.stamp):
            self.counts["retr"] += ready.octets
            return self._retr(position, message, iter((ready.reply,)))
        status = ok(b"%d octets follow." % self._octets_of(message))
        content = self._counted("retr", self._content(message))
        return self._retr(position, message, in_pieces(status, stuff(content)))

    def _retr(self, position: int, message: Message, reply: Iterator[bytes]) -> Iterator[bytes]:
        yield from reply
        self._taken[position] = message  # only here: all of it has been taken
        if position == self._last + 1:
            self._prepare(position + 1)
        self._last = position

    def _prepare(self, position: int) -> None:
        """Make the reply to the next RETR while the client is busy with this one."""
        if position > len(self.messages) or position in self._deleted:
            return
        message = self.messages[position - 1]
        if not self._utf8 and message.unicode != PLAIN:
            return
        found = self._maildrop.read_ahead(message)
        if found:
            octets, stamp = found
            status = ok(b"%d octets follow." % message.size)
            reply = b"".join((status, *stuff((octets,)), END))
            self._ready = ReadyReply(position, stamp, reply, len(octets))

    def _answer_top(self, command: Command) -> Reply:
        words = command.words
        _, message = self._one(words)
        try:
            count = number(words[1])
        except (IndexError, BadNumber):
            return INVALID
        content = top(self._content(message), count)
        return in_pieces(ok(b"headers follow."), stuff(self._counted("top", content)))

    def _answer_dele(self, command: Command) -> Reply:
        position, message = self._one(command.words)
        self._deleted.add(position)
        self._octets -= message.size
        return ok(b"Deleted.")

    def _answer_rset(self, command: Command) -> Reply:
        self._undelete()
        return ok(b"Resurrected.")

    def _answer_noop(self, command: Command) -> Reply:
        return ok(b"Yup.")

    def _answer_capa(self, command: Command) -> Reply:
        return self._uncounted(listing(CAPABLE, self._capabilities))

    def _answer_lang(self, command: Command) -> Reply:
        return self._uncounted(state.language(command.argument))

    def _answer_utf8(self, command: Command) -> Reply:
        self._utf8 = True
        self._ready = None
        return ok(b"UTF8 enabled")

    def _answer_quit(self, command: Command) -> Reply:
        self.quit = True
        marked = [self.messages[position - 1] for position in sorted(self._deleted)]
        if self._maildrop.logs_removals:
            self.settle()  # the log has the names that Courier's server logs
        for position in self._deleted:
            self._taken.pop(position, None)
        return ok(b"Bye-bye.") if self._maildrop.remove(marked) else NOT_ALL_REMOVED

    _ANSWERS = {
        b"STAT": _answer_stat,
        b"LIST": _answer_list,
        b"UIDL": _answer_uidl,
        b"RETR": _answer_retr,
        b"TOP": _answer_top,
        b"DELE": _answer_dele,
        b"RSET": _answer_rset,
        b"NOOP": _answer_noop,
        b"QUIT": _answer_quit,
        b"CAPA": _answer_capa,
        b"UTF8": _answer_utf8,
        b"LANG": _answer_lang,
    }


def in_pieces(status: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    """A multi-line reply as it should leave: in one piece, or in pieces of at least a chunk."""
    held = status
    for piece in body:
        held += piece
        if len(held) >= CHUNK:
            yield held
            held = b""
    yield held + END
