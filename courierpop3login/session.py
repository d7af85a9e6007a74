"""session - the AUTHORIZATION state, without descriptors or clock

Lines go in, replies come out, until a complete login attempt is there or the client quits. Texts
are Courier's (reference auth.md 1.3). Nothing here knows whether a user exists.
"""

from __future__ import annotations

from courierchain.request import BadRequest, encode
from pop3proto import state
from pop3proto.commands import BadLine, Command, parse
from pop3proto.replies import err, listing, ok

GREETING = ok(b"Hello there.")
LOGIN_FAILED = err(b"Login failed.")
INVALID = err(b"Invalid command.")


class Authorization:
    """Reads commands until one of these is set:

    quit      by QUIT
    request   the record for the modules, by PASS; or None for a login that can't be anybody's,
              because it has control bytes in it (chain-protocol.md 12.2): `user` is set in both

    starts_tls  by STLS: the session is over with its reply, and another one begins inside TLS

    tls_required: passwords are refused, and USER isn't announced, before TLS.
    stls: STLS is announced and taken.
    defdomain, domainsep: see `with_domain`.
    """

    __slots__ = (
        *("quit", "starts_tls", "user", "request", "utf8"),
        *(
            "_service",
            "_named",
            "_tls_required",
            "_stls",
            "_defdomain",
            "_domainsep",
            "_capabilities",
        ),
    )

    def __init__(
        self,
        *,
        service: bytes = b"pop3",
        tls_required: bool = False,
        stls: bool = False,
        defdomain: bytes = b"",
        domainsep: bytes = b"",
        utf8: bool = False,
        capabilities: tuple[bytes, ...] = state.CAPABILITIES,
    ):
        self.quit = False
        self.starts_tls = False
        self.user = b""
        self.request: bytes | None = None
        self.utf8 = utf8
        self._service = service
        self._named = b""
        self._tls_required = tls_required
        self._stls = stls
        self._defdomain = defdomain
        self._domainsep = domainsep
        self._capabilities = capabilities

    @property
    def is_over(self) -> bool:
        return self.quit or self.starts_tls or self.user != b""

    def obey(self, line: bytes | None) -> bytes:
        """The reply to one line; empty for a PASS that the stages behind will answer."""
        try:
            command = parse(line)
        except BadLine:
            return INVALID
        answer = self._ANSWERS.get(command.verb)
        return answer(self, command) if answer else INVALID

    def _answer_user(self, command: Command) -> bytes:
        if self._tls_required:
            return err(b"TLS required to log in.")
        if not command.argument:
            return INVALID
        self._named = command.argument
        return ok(b"Password required.")

    def _answer_pass(self, command: Command) -> bytes:
        if not self._named or not command.argument:
            return err(b"USER/PASS required.")
        user = with_domain(self._named, self._defdomain, self._domainsep)
        try:
            if not has_control(user) and not has_control(command.argument):
                self.request = encode(self._service, b"login", user, command.argument)
        except BadRequest:
            return err(b"Userid and password are too long.")
        self.user = user
        return b""

    def _answer_capa(self, command: Command) -> bytes:
        refused = b"USER" if self._tls_required else None  # 2449-04
        tags = [b"STLS"] if self._stls else []
        tags += (tag for tag in self._capabilities if tag != refused)
        return listing(ok(b"Here's what I can do:"), tags)

    def _answer_stls(self, command: Command) -> bytes:
        if not self._stls:
            return err(b"TLS support not available.")
        if command.argument:
            return INVALID
        self.starts_tls = True
        return ok(b"Begin SSL/TLS negotiation now.")

    def _answer_utf8(self, command: Command) -> bytes:
        self.utf8 = True
        return ok(b"UTF8 enabled")

    def _answer_lang(self, command: Command) -> bytes:
        return state.language(command.argument)

    def _answer_quit(self, command: Command) -> bytes:
        self.quit = True
        return ok(b"Better luck next time.")

    _ANSWERS = {
        b"USER": _answer_user,
        b"PASS": _answer_pass,
        b"CAPA": _answer_capa,
        b"STLS": _answer_stls,
        b"UTF8": _answer_utf8,
        b"LANG": _answer_lang,
        b"QUIT": _answer_quit,
    }


def with_domain(user: bytes, defdomain: bytes, domainsep: bytes) -> bytes:
    """Append DEFDOMAIN, which brings its separator, to a userid that has no domain (auth.md 1.6).

    A userid has one if it holds DEFDOMAIN's first character, or any character of DOMAINSEP if that
    is set.
    """
    if not defdomain or any(separator in user for separator in domainsep or defdomain[:1]):
        return user
    return user + defdomain


def has_control(text: bytes) -> bool:
    return min(text) < 0x20
