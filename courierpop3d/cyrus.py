"""cyrus - the TRANSACTION and UPDATE states as Cyrus's pop3d speaks them: POP3_DIALECT=cyrus

Only QUIT changes anything: deletions, flags and the time of the last login are of no effect when
the client just goes. Without CYRUS_POPUSEIMAPFLAGS no flag is set at all; with it, what RETR has
sent is Seen, and what other programs have marked Trashed is not shown. (reference cyrus-pop3d.md
5.3, 5.8)

Reads      what courierchain.cyrus lists; COURIER_SASL and POP3_TLS: what CAPA says after STLS
           in the Maildir: courierpop3dlastlogin, for CYRUS_POPMINPOLL: lastlogin
Writes     courierpop3dlastlogin, at QUIT
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from time import sleep, time

from courierchain import cyruslines, log, shutdown
from courierchain.cyrus import Options
from courierchain.options import is_encrypted
from courierchain.procfile import ProcFile, excess
from courierpop3d.journal import Journal
from courierpop3d.lastlogin import is_too_early, store_login
from courierpop3d.maildrop import Maildrop
from courierpop3d.message import Message, Messages
from courierpop3d.session import Reply, Transaction, in_pieces
from courierpop3d.wrapper import Wrapper
from pop3proto import cyrus
from pop3proto.replies import err, listing, ok, stuff, top

UNREADABLE = err(b"[SYS/PERM] Could not read message file")
READ_ONLY = err(b"[SYS/PERM] This connection is configured for read-only access")
FORMATS: dict[str, Callable[[int, int], bytes]] = {  # of validity and number
    "cyrus": lambda validity, number: b"%d.%d" % (validity, number),
    "uidonly": lambda validity, number: b"%d" % number,
    "courier": lambda validity, number: b"%d-%d" % (validity, number),
    "dovecot": lambda validity, number: b"%08x%08x" % (number, validity),
}


class CyrusTransaction(Transaction):
    """`greeting` is the reply to the login; `quit` is set at once if it is a refusal."""

    __slots__ = ("_env", "_options", "_uses_flags", "_uid", "_login", "_proc", "_journal")

    statuses = {"LOGOUT": 0}  # master starts a new process after sessions that end otherwise
    other_status = 1
    can_be_parked = False

    def __init__(self, maildrop: Maildrop, wrapper: Wrapper, env: dict[str, str], journal: Journal):
        self._env = env
        self._journal = journal
        self._options = Options(env)
        self._uses_flags = self._options.is_on("POPUSEIMAPFLAGS")
        if self._uses_flags:
            maildrop.messages = untrashed(maildrop.messages)
        super().__init__(maildrop, wrapper, utf8=True)  # Cyrus sends what is stored
        self.counts = {"retr": 0, "top": 0, "dele": 0}  # commands that did what they are for
        self._proc = ProcFile(env)
        self._uid = FORMATS[self._options.text("UIDL_FORMAT")]
        self._login = int(time())
        self.greeting = self._greeting()

    def _greeting(self) -> bytes:
        if not (is_encrypted(self._env) or self._env.get("COURIER_LOGIN_METHOD")):
            if pause := self._options.number("PLAINTEXTLOGINPAUSE"):
                sleep(pause)  # with 0 it would give away the processor
        if said := self._over_limits():
            self.quit = True
            return err(said)
        wait = self._options.number("POPMINPOLL")
        if is_too_early(self._login, wait):
            self.quit = True
            minutes = wait // 60
            plural = b"s" if minutes > 1 else b""
            text = b"[LOGIN-DELAY] Logins must be at least %d minute%s apart"
            return err(text % (minutes, plural))
        identity = os.fsencode(cyruslines.session_id(self._env))
        return ok(b"Mailbox locked and ready SESSIONID=<%s>" % identity)

    def _over_limits(self) -> bytes:
        """maxlogins_per_host and _per_user; empty if the session is within them."""
        try:
            found = excess(self._env)
        except OSError as why:
            self._journal.err(f"maxlogins: cannot count the sessions in proc/: {why.strerror}")
            return b""
        if not found:
            return b""
        self._journal.err(f"Too many open connections ({found})")
        return b"Too many open connections (%s)" % os.fsencode(found)

    @property
    def is_settled(self) -> bool:
        return True

    def settle(self) -> None:
        """Nothing before QUIT."""

    def obey(self, line: bytes | None) -> Reply:
        reply = self._answer(line)
        text = shutdown.message(self._options.text("CONFIGDIRECTORY"))
        if self.quit or not text:
            return reply
        self.quit = True
        last = err(b"[SYS/TEMP] " + text)
        return reply + last if isinstance(reply, bytes) else chain(reply, (last,))

    def _answer(self, line: bytes | None) -> Reply:
        try:
            verb, argument = cyrus.parse(line)
            say = self._VERBS.get(verb)
            if not say:
                return cyrus.UNRECOGNIZED
            self._proc.show(verb)
            return say(self, argument)
        except cyrus.Mistake as mistake:
            return mistake.reply
        except OSError:
            return UNREADABLE

    def _number(self, number: int) -> Message:
        """Raises Mistake."""
        if not 1 <= number <= len(self.messages) or number in self._deleted:
            raise cyrus.Mistake(cyrus.NO_SUCH_MESSAGE)
        return self.messages[number - 1]

    def _chosen(self, argument: bytes | None) -> tuple[int, Message]:
        """Raises Mistake."""
        number = cyrus.message_number(cyrus.needed(argument))
        return number, self._number(number)

    def _unique_id(self, message: Message) -> bytes:
        number, validity = self.messages.numbers[message.row], self.messages.validities[message.row]
        if message.row in self.messages.given or not number:
            return message.uidl
        return self._uid(validity, number) if validity else b"%d" % number

    def _say_stat(self, argument: bytes | None) -> Reply:
        cyrus.none(argument)
        return ok(b"%d %d" % (len(self.messages) - len(self._deleted), self._octets))

    def _say_list(self, argument: bytes | None) -> Reply:
        if argument is None:
            return self._listing(ok(b"scan listing follows"), self.messages.size_lines())
        number, message = self._chosen(argument)
        return ok(b"%d %d" % (number, message.size))

    def _say_uidl(self, argument: bytes | None) -> Reply:
        if argument is None:
            rows = range(len(self.messages))
            ids = [(row + 1, self._unique_id(self.messages[row])) for row in rows]
            lines = b"".join([b"%d %s\r\n" % line for line in ids])
            return self._listing(ok(b"unique-id listing follows"), lines)
        number, message = self._chosen(argument)
        return ok(b"%d %s" % (number, self._unique_id(message)))

    def _say_retr(self, argument: bytes | None) -> Reply:
        number, message = self._chosen(argument)
        content = self._content(message)
        self.counts["retr"] += 1
        return self._sent(number, message, in_pieces(ok(b"Message follows"), stuff(content)))

    def _sent(self, number: int, message: Message, reply: Iterator[bytes]) -> Iterator[bytes]:
        yield from reply
        self._taken[number] = message

    def _say_top(self, argument: bytes | None) -> Reply:
        number, lines = cyrus.top_numbers(cyrus.needed(argument))
        content = top(self._content(self._number(number)), lines)
        self.counts["top"] += 1
        return in_pieces(ok(b"Message follows"), stuff(content))

    def _say_dele(self, argument: bytes | None) -> Reply:
        number, message = self._chosen(argument)
        if self._options.is_on("READONLY"):
            return READ_ONLY
        self._deleted.add(number)
        self._octets -= message.size
        self.counts["dele"] += 1
        return ok(b"message deleted")

    def _say_noop(self, argument: bytes | None) -> Reply:
        cyrus.none(argument)
        return ok()

    def _say_rset(self, argument: bytes | None) -> Reply:
        cyrus.none(argument)
        self._undelete()
        self._taken.clear()
        return ok()

    def _say_capa(self, argument: bytes | None) -> Reply:
        cyrus.none(argument)
        sasl = os.fsencode(self._env.get("COURIER_SASL", ""))
        tags = [b"SASL " + sasl] if sasl and is_encrypted(self._env) else []
        days, delay = map(self._options.number, ("POPEXPIRETIME", "POPMINPOLL"))
        tags += cyrus.capabilities(days, delay)
        tags.append(b"IMPLEMENTATION " + os.fsencode(self._options.text("VERSION")))
        return listing(cyrus.CAPABLE, tags)

    def _say_quit(self, argument: bytes | None) -> Reply:
        cyrus.none(argument)
        self.quit = True
        marked = [self.messages[number - 1] for number in sorted(self._deleted)]
        if self._uses_flags:
            for number in self._taken.keys() - self._deleted:
                self._maildrop.mark_seen(self._taken[number])
        done = self._maildrop.remove(marked)
        if marked and done:
            log.info(cyruslines.expunged(self._env, len(marked)))
        wait = self._options.number("POPMINPOLL")
        if wait > 0:
            store_login(self._login, wait, self._options.number("POPPOLLPADDING"))
        return ok() if done else err(b"[SYS/PERM] Some deleted messages not removed")

    _VERBS: dict[bytes, Callable[..., Reply]] = {
        b"STAT": _say_stat,
        b"LIST": _say_list,
        b"UIDL": _say_uidl,
        b"RETR": _say_retr,
        b"TOP": _say_top,
        b"DELE": _say_dele,
        b"NOOP": _say_noop,
        b"RSET": _say_rset,
        b"CAPA": _say_capa,
        b"QUIT": _say_quit,
    }


def untrashed(messages: Messages) -> Messages:
    """Those without the flag T."""
    flags = [name.partition(b":2,")[2] for name in messages.names]
    rows = [row for row, letters in enumerate(flags) if b"T" not in letters]
    return messages if len(rows) == len(messages) else messages.picked(rows)
