"""state - which verbs there are after the login, and what CAPA says, as tables

RFC 1939 sections 5 and 6, RFC 2449 section 5, RFC 6856 section 2. A verb that is not in the table
is answered like an unknown one. `CAPABILITIES` is what Courier lists, in its order (reference
auth.md 1.5), less what is not served: the STLS line is the caller's.
"""

from __future__ import annotations

from pop3proto.replies import err, listing, ok

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

TOO_EARLY = b"[LOGIN-DELAY] Logins must be at least %d seconds apart."  # RFC 2449 section 8.1.1
IN_USE = b"[IN-USE] Another session has the mailbox open."  # RFC 2449 section 8.1.2

LANGUAGES = (b"en English", b"i-default Default language")
CHOSEN = {b"en": b"en", b"i-default": b"i-default", b"*": b"en"}


def capabilities(
    *,
    sasl: bytes = b"",
    response_codes: bool = False,
    auth_codes: bool = False,
    login_delay: int = 0,
) -> tuple[bytes, ...]:
    """What CAPA lists, in both states (2449-06).

    sasl: mechanisms, with spaces between them. response_codes: replies may begin with a response
    code (2449-11). auth_codes: with those of RFC 3206. login_delay: seconds that are insisted on
    (2449-14); without, there is Courier's line, which means nothing.
    """
    *tags, implementation = CAPABILITIES
    if login_delay:
        tags[tags.index(b"LOGIN-DELAY 10")] = b"LOGIN-DELAY %d" % login_delay
    if sasl:
        tags.insert(0, b"SASL " + sasl)
    if response_codes or auth_codes or login_delay:
        tags.append(b"RESP-CODES")
    if auth_codes:
        tags.append(b"AUTH-RESP-CODE")
    return (*tags, implementation)


def language(argument: bytes) -> bytes:
    """The reply to LANG (RFC 6856 section 3): the list, or the choice, compared exactly."""
    if not argument:
        return listing(ok(b"Language listing follows:"), LANGUAGES)
    tag = CHOSEN.get(argument)
    return ok(tag + b" King's English") if tag else err(b"Language not available.")
