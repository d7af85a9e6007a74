"""state - which verbs are legal when, and what CAPA says, as tables

RFC 1939 sections 4 to 6, RFC 2449 section 5, RFC 6856 section 2. A verb that is not in the table of
the present state is answered like an unknown one. `CAPABILITIES` is what Courier lists, in its
order (reference auth.md 1.5), less what is not served: SASL and STLS lines are the caller's.
"""

from __future__ import annotations

from pop3proto.replies import err, listing, ok

AUTHORIZATION = frozenset((b"USER", b"PASS", b"CAPA", b"QUIT", b"UTF8", b"LANG"))

TRANSACTION = frozenset(
    (
        *(b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE", b"RSET", b"NOOP", b"QUIT"),
        *(b"CAPA", b"UTF8", b"LANG"),  # UTF8 after login: Outlook sends it there
    )
)

CAPABILITIES = (
    b"TOP",
    b"USER",
    b"LOGIN-DELAY 10",
    b"PIPELINING",
    b"UIDL",
    b"UTF8 USER",
    b"LANG",
    b"IMPLEMENTATION Courier Mail Server",
)

IN_USE = b"[IN-USE] Another session has the mailbox open."  # RFC 2449 section 8.1.2

LANGUAGES = (b"en English", b"i-default Default language")
CHOSEN = {b"en": b"en", b"i-default": b"i-default", b"*": b"en"}


def capabilities(*, response_codes: bool) -> tuple[bytes, ...]:
    """What CAPA lists where replies may begin with a response code, or may not (2449-11)."""
    *tags, implementation = CAPABILITIES
    return (*tags, b"RESP-CODES", implementation) if response_codes else CAPABILITIES


def language(argument: bytes) -> bytes:
    """The reply to LANG (RFC 6856 section 3): the list, or the choice, compared exactly."""
    if not argument:
        return listing(ok(b"Language listing follows:"), LANGUAGES)
    tag = CHOSEN.get(argument)
    return ok(tag + b" King's English") if tag else err(b"Language not available.")
