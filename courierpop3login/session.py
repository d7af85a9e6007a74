"""session - the AUTHORIZATION state, without descriptors or clock

Lines go in, replies come out, until a complete login attempt is there or the client quits. A line
is a command, or, while a SASL dialogue is under way (RFC 5034), the client's response in it. Texts
are Courier's (reference auth.md 1.3, 1.6). Nothing here knows whether a user exists.
"""

from __future__ import annotations

from courierchain import failure, log, netstrings
from courierchain.authtypes import EXTERNAL, LOGIN, OAUTHBEARER
from courierchain.failure import AUTH
from courierchain.front import Login
from courierchain.request import BadRequest, encode
from courierchain.request import parse as parse_request
from courierpop3login.mechanisms import Attempt, Malformed, Mechanism, Refused, decode
from courierpop3login.mechanisms.plain import Password
from courierpop3login.sasl import Offer
from pop3proto import state
from pop3proto.commands import MAX_LINE, MAX_RESPONSE, BadLine, Command, parse
from pop3proto.replies import challenge, err, listing, ok

GREETING = ok(b"Hello there.")
INVALID = err(b"Invalid command.")
TLS_REQUIRED = err(b"TLS required to log in.")
TOO_LONG = b"Userid and %s are too long."
ABORTED = err(b"Authentication aborted.")
FAILED = b"Authentication failed."


class Authorization:
    """Reads commands until one of these is set:

    quit      by QUIT
    request   the record for the modules, by PASS or AUTH; or None for a login that can't be
              anybody's, because it has control bytes in it (chain-protocol.md 12.2): `user` is set
              in both, and `method` is the SASL mechanism, or empty

    starts_tls  by STLS: the session is over with its reply, and another one begins inside TLS

    After each line:

    failed    the mechanism of an AUTH that this line has ended without an attempt, or empty
    is_slow   the reply is to a guess, and is not to be given at once

    tls_required: passwords are refused, and USER isn't announced, before TLS.
    stls: STLS is announced and taken.
    offer: the mechanisms that AUTH takes.
    has_codes: replies may begin with a code of RFC 3206.
    defdomain, domainsep: see `with_domain`.
    """

    __slots__ = (
        *("quit", "starts_tls", "user", "request", "method", "utf8", "failed", "is_slow"),
        *("_named", "_dialogue", "_service", "_tls_required", "_stls", "_offer", "_has_codes"),
        *("_verdict", "_defdomain", "_domainsep", "_capabilities"),
    )

    def __init__(
        self,
        *,
        service: bytes = b"pop3",
        tls_required: bool = False,
        stls: bool = False,
        offer: Offer | None = None,
        has_codes: bool = False,
        defdomain: bytes = b"",
        domainsep: bytes = b"",
        utf8: bool = False,
        capabilities: tuple[bytes, ...] = state.CAPABILITIES,
    ):
        self.quit = False
        self.starts_tls = False
        self.user = b""
        self.request: bytes | None = None
        self.method = b""
        self.utf8 = utf8
        self.failed = b""
        self.is_slow = False
        self._verdict = b""
        self._named = b""
        self._dialogue: Mechanism | None = None
        self._service = service
        self._tls_required = tls_required
        self._stls = stls
        self._offer = offer or Offer()
        self._has_codes = has_codes
        self._defdomain = defdomain
        self._domainsep = domainsep
        self._capabilities = capabilities

    def begin(self, env: dict[str, str]) -> None:
        """Take up what else a dialect reads in the environment."""

    @property
    def greeting(self) -> bytes:
        return GREETING

    @staticmethod
    def refused(env: dict[str, str]) -> bytes:
        """The reply to a login that has come back."""
        return failure.refused(env)

    def tell(self, text: bytes, verdict: bytes) -> bytes:
        """The challenge with which a login ends that has come back. The client's response to it,
        whatever that is, is answered with the verdict (RFC 7628 section 3.2.3)."""
        self._verdict = verdict
        return challenge(text)

    def refused_line(self, env: dict[str, str], tried: str) -> str:
        """What is logged of a login that has come back; `tried` says whose, and from where."""
        return f"LOGIN FAILED, {tried}"

    def failed_line(self, where: str) -> str:
        """What is logged when `failed` is set; `where` says from where."""
        return f"LOGIN FAILED, method={log.safe(self.failed)}, {where}"

    def last_line(self, where: str) -> str:
        """What is logged when the client has gone without a login; empty for nothing."""
        return f"LOGOUT, {where}" if self.quit else ""

    def secured_line(self, env: dict[str, str]) -> str:
        """What is logged inside TLS, before anything is said there; empty for nothing."""
        return ""

    @property
    def is_over(self) -> bool:
        return self.quit or self.starts_tls or self.user != b"" or self.request is not None

    @property
    def limit(self) -> int:
        """Octets that the next line may have, without its LF."""
        return MAX_LINE if self.is_between_commands else MAX_RESPONSE

    @property
    def is_between_commands(self) -> bool:
        return not (self._dialogue or self._verdict)

    @property
    def state(self) -> bytes:
        """What `resume` takes, between commands, when there is no password yet."""
        return netstrings.encode((self._named, b"%d" % self.utf8))

    def resume(self, state: bytes) -> None:
        """Take up what another session has left. Raises ValueError."""
        self._named, utf8 = netstrings.decode(state)
        self.utf8 = utf8 == b"1"

    def claim(self, login: Login) -> None:
        """Take up a login that another session like this one has heard, if it has: the request must
        be one that this one could have made. Raises ValueError."""
        if not (login.user or login.request) or self._tls_required:
            raise ValueError("nobody may log in")
        if login.request:
            self._check(login)
            self.request = login.request
        self.user, self.method, self.utf8 = login.user, login.method, login.utf8

    def _check(self, login: Login) -> None:
        """Raises ValueError."""
        try:
            question = parse_request(login.request)
        except BadRequest as why:
            raise ValueError(str(why)) from why
        authtype = self._offer.authtype(login.method) if login.method else LOGIN
        if question.service != self._service or question.authtype != authtype:
            raise ValueError("a request of another kind")
        if not login.user and authtype != OAUTHBEARER:
            raise ValueError("no userid")
        if any(octet < 0x20 for field in question.fields for octet in field):
            raise ValueError("a control character")
        if authtype == LOGIN and (question.login or (b"",))[0] != login.user:
            raise ValueError("another userid")
        if authtype == EXTERNAL and question.external != self._offer.identity:
            raise ValueError("an identity that no certificate shows")

    def obey(self, line: bytes | None) -> bytes:
        """The reply to one line; empty for a login that the stages behind will answer."""
        self.failed, self.is_slow = b"", False
        if self._verdict:
            return self._give_verdict()
        if self._dialogue:
            return self._go_on(self._dialogue, line)
        try:
            command = parse(line)
        except BadLine:
            return INVALID
        answer = self._ANSWERS.get(command.verb)
        return answer(self, command) if answer else INVALID

    def _give_verdict(self) -> bytes:
        verdict, self._verdict = self._verdict, b""
        return verdict

    def _answer_user(self, command: Command) -> bytes:
        if self._tls_required:
            return TLS_REQUIRED
        if not command.argument:
            return INVALID
        self._named = command.argument
        return ok(b"Password required.")

    def _answer_pass(self, command: Command) -> bytes:
        if not self._named or not command.argument:
            return err(b"USER/PASS required.")
        return self._try(Password(self._named, command.argument))

    def _answer_auth(self, command: Command) -> bytes:
        words = command.words
        if self._tls_required:
            return TLS_REQUIRED
        if not self._offer.taken or not 1 <= len(words) <= 2:  # 5034-14
            return INVALID
        self.method = words[0].upper()
        dialogue = self._offer.begin(self.method)
        if dialogue is None:
            return self._fail(err(FAILED), is_slow=True)
        if len(words) == 1:
            return self._say(dialogue, None)
        return self._go_on(dialogue, b"" if words[1] == b"=" else words[1])  # 5034-11

    def _go_on(self, dialogue: Mechanism, line: bytes | None) -> bytes:
        """The reply to a response. `*`, which cancels, isn't base64 either (5034-07)."""
        try:
            if line is None:
                raise Malformed
            return self._say(dialogue, decode(line.removesuffix(b"\r")))
        except Malformed:
            return self._fail(ABORTED)

    def _say(self, dialogue: Mechanism, response: bytes | None) -> bytes:
        """Raises Malformed."""
        try:
            said = dialogue.respond(response)
        except Refused:
            return self._refuse()
        if isinstance(said, Attempt):
            return self._try(said)
        self._dialogue = dialogue
        return challenge(said)

    def _try(self, attempt: Attempt) -> bytes:
        """Have the modules asked. An authorization name is honoured or refused (4616-02)."""
        user = attempt.user
        if attempt.takes_domain:
            user = with_domain(user, self._defdomain, self._domainsep)
        if attempt.acts_for not in (b"", attempt.user, user):
            return self._refuse()
        lines = attempt.lines(user)
        try:
            if not any(has_control(text) for text in (user, *lines)):
                self.request = encode(self._service, attempt.authtype, *lines)
        except BadRequest:
            return self._fail(err(TOO_LONG % attempt.secret))
        self.user = user
        self._dialogue = None
        return b""

    def _refuse(self) -> bytes:
        code = AUTH if self._has_codes else b""
        return self._fail(err(code + FAILED), is_slow=True)

    def _fail(self, reply: bytes, *, is_slow: bool = False) -> bytes:
        """The end of a dialogue, if it is one. Nothing of it is left (CVE-23)."""
        self._dialogue = None
        self.failed, self.method = self.method, b""
        self.is_slow = is_slow
        return reply

    def _answer_capa(self, command: Command) -> bytes:
        refused = b"USER" if self._tls_required else None  # 2449-04
        tags = [tag for tag in self._capabilities if tag != refused]
        if self._stls:
            tags.insert(tags[0].startswith(b"SASL "), b"STLS")
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
        b"AUTH": _answer_auth,
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
    return min(text, default=0x20) < 0x20
