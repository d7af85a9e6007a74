"""firstids - the unique ids of new messages, and those of a Maildir that had no list before

    POP3_FIRST_UIDL=number      UIDn-v, as Courier's present server
                   =filename    the file's name, as qmail-pop3d and Courier before 5.0
                   =dovecot     what Dovecot has shown, by its dovecot-uidlist; number for the rest

It is looked at once in a mailbox's life, when a list is made where there was none. Mail that comes
later gets numbers in any case.
"""

from __future__ import annotations

from courierchain.settings import Settings
from courierpop3d import dovecot
from courierpop3d.maildir import base
from courierpop3d.message import Messages
from courierpop3d.sizelist import DIGITS, SizeList, is_legal


class Unusable(Exception):
    """The first ids can't be made as the administrator wants them; the text says why."""


def give(messages: Messages, rows: list[int], listed: SizeList, env: dict[str, str]) -> None:
    """Give ids to the messages in `rows`. Raises Unusable."""
    if listed.is_first and rows:
        try:
            form = Settings(env).choice("POP3_FIRST_UIDL", *_FORMS)
            _FORMS[form](messages, rows, listed, env)
        except (OSError, ValueError) as why:
            raise Unusable(str(why)) from why
    else:
        _number(messages, rows, listed, env)


def _number(messages: Messages, rows: list[int], listed: SizeList, env: dict[str, str]) -> None:
    for number, row in enumerate(rows, listed.next_number):
        messages.numbers[row] = number
        messages.validities[row] = listed.validity
    listed.next_number += len(rows)


def _name(messages: Messages, rows: list[int], listed: SizeList, env: dict[str, str]) -> None:
    """Numbers are passed over, as Courier 4 did, so that they are never given to other mail."""
    ids: set[bytes] = set()
    for number, row in enumerate(rows, listed.next_number):
        name = base(messages.names[row])
        messages.numbers[row] = 0 if name and name not in ids else number
        messages.validities[row] = listed.validity
        ids.add(name)
    listed.next_number += len(rows)


def _take_over(messages: Messages, rows: list[int], listed: SizeList, env: dict[str, str]) -> None:
    known = dovecot.ids(Settings(env).text("POP3_DOVECOT_UIDL_FORMAT"))
    taken: set[bytes] = set()
    others = []
    for row in rows:
        uidl = known.get(base(messages.names[row]), b"")
        if is_legal(uidl) and uidl not in taken:
            taken.add(uidl)
            _express(uidl, messages, row, listed)
        else:
            others.append(row)
    _number(messages, others, listed, env)


def _express(uidl: bytes, messages: Messages, row: int, listed: SizeList) -> None:
    """Write an id as the list does, which Courier reads too if it was Courier's once."""
    number, validity = 0, listed.validity
    halves = uidl.removeprefix(b"UID").split(b"-")
    if b"".join(halves).isdigit() and len(halves) <= 2 and max(map(len, halves)) <= DIGITS:
        number, validity = int(halves[0]), int(halves[1]) if halves[1:] else 0
    messages.numbers[row], messages.validities[row] = number, validity
    if messages.uidl(row) != uidl:
        messages.numbers[row], messages.validities[row] = listed.next_number, listed.validity
        messages.given[row] = uidl
    if messages.validities[row] == listed.validity:
        listed.next_number = max(listed.next_number, messages.numbers[row] + 1)


_FORMS = {"number": _number, "filename": _name, "dovecot": _take_over}
