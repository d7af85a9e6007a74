"""cyrus - the AUTHORIZATION state as Cyrus's pop3d speaks it: POP3_DIALECT=cyrus

Texts, the order of capabilities and what is allowed when: reference cyrus-pop3d.md 5.1 to 5.7. On
purpose otherwise: what was said before STLS is forgotten, and a handshake that fails ends the
connection. APOP is there where a module is known to take it.

Reads      what courierchain.cyrus lists; COURIER_LOGIN_METHOD; POP3_TLS
           AUTHARGC, AUTHARGVn: the chain, for APOP
Sets       CYRUS_CHALLENGE: the greeting's, for APOP; it stays for the connection
           POP3_FOLDER: the folder that the userid asked for, dots between its levels; or empty
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import time

from courierchain import cram, cyruslines, failure, shutdown
from courierchain.authtypes import APOP, Chain, complete
from courierchain.cyrus import Options
from courierchain.options import is_encrypted
from courierpop3login.mechanisms import Attempt, Malformed, Mechanism, decode
from courierpop3login.mechanisms.cram import Digest
from courierpop3login.mechanisms.plain import Password
from courierpop3login.session import Authorization
from pop3proto import cyrus
from pop3proto.replies import err, listing, ok

LONGEST_USER = 80  # octets
REFUSED = frozenset(b"%&*/:?\x7f")  # in a userid, with control and 8-bit octets

ANONYMOUS = b"anonymous"
INVALID_LOGIN = err(b"[AUTH] Invalid login")
INVALID_USER = err(b"[AUTH] Invalid user")
UNDER_LAYER = b"[AUTH] %s command only available under a layer"
CANCELED = err(b"[AUTH] Client canceled authentication")
SASL_FAILED = err(b"[AUTH] authenticating: authentication failure")
SASL_MALFORMED = err(b"[AUTH] authenticating: bad protocol / cancel")
NO_MECHANISM = err(b"[AUTH] authenticating: no mechanism available")


class InvalidUser(Exception):
    """No mailbox can have this name."""


class CyrusAuthorization(Authorization):
    __slots__ = (
        "_greeting",
        "_env",
        "_options",
        "_lists_user",
        "_is_encrypted",
        "_reason",
        "_challenge",
    )

    def begin(self, env: dict[str, str]) -> None:
        self._env = env
        self._reason = ""
        self._options = Options(env)
        self._is_encrypted = is_encrypted(env)
        allows = self._is_encrypted or self._options.is_on("ALLOWPLAINTEXT")
        self._lists_user = allows and not self._tls_required
        self._challenge = self._challenged()
        self._greeting = self._greet()
        env["POP3_FOLDER"] = ""

    @property
    def greeting(self) -> bytes:
        return self._greeting

    def refused_line(self, env: dict[str, str], tried: str) -> str:
        return cyruslines.refused(env)

    def failed_line(self, where: str) -> str:
        return self._reason

    def last_line(self, where: str) -> str:
        return cyruslines.NO_COUNTS

    def secured_line(self, env: dict[str, str]) -> str:
        protocol = env.get("TLS_CONNECTED_PROTOCOL")
        return cyruslines.starttls(protocol) if protocol else ""

    @property
    def is_between_commands(self) -> bool:
        return False  # what USER has asked for is in the environment too: it can't be parked

    def _challenged(self) -> bytes:
        """The challenge for APOP, the same for the whole connection; empty if there is none."""
        if "CYRUS_CHALLENGE" not in self._env:
            challenge = ""
            if self._options.is_on("ALLOWAPOP") and not self._tls_required and self._takes_apop():
                name = self._options.text("SERVERNAME")
                challenge = f"<{int.from_bytes(os.urandom(8))}.{int(time())}@{name}>"
            self._env["CYRUS_CHALLENGE"] = challenge
        return os.fsencode(self._env["CYRUS_CHALLENGE"])

    def _takes_apop(self) -> bool:
        """Whether a module of ours does. Of others' nobody knows; few did."""
        words = [self._env[f"AUTHARGV{at}"] for at in range(1, int(self._env["AUTHARGC"]))]
        return APOP in Chain(complete(words), self._env).taken

    def _greet(self) -> bytes:
        words = {"on": ("SERVERNAME", "VERSION"), "min": ("SERVERNAME",)}
        shown = [
            self._options.text(name) for name in words.get(self._options.text("SERVERINFO"), ())
        ]
        shown.append("server ready " + os.fsdecode(self._challenge))
        greeting = ok(os.fsencode(" ".join(filter(None, shown))))
        text = shutdown.message(self._options.text("CONFIGDIRECTORY"))
        if not text:
            return greeting
        self.quit = True
        return greeting + err(failure.SYS_TEMP + text)

    @staticmethod
    def refused(env: dict[str, str]) -> bytes:
        """The reply to a login that has come back."""
        if env.get(failure.VARIABLE) in (failure.TEMPORARY, failure.PERMANENT):
            return failure.refused(env)
        if env.get(failure.VARIABLE) == failure.ABORTED:
            return SASL_MALFORMED
        return SASL_FAILED if env.get("COURIER_LOGIN_METHOD") else INVALID_LOGIN

    def obey(self, line: bytes | None) -> bytes:
        self.failed, self.is_slow = b"", False
        if self._verdict:
            return self._give_verdict()
        reply = self._answer(line)
        text = shutdown.message(self._options.text("CONFIGDIRECTORY"))
        if self._dialogue or self.is_over or not text:
            return reply
        self.quit = True
        return reply + err(failure.SYS_TEMP + text)

    def _answer(self, line: bytes | None) -> bytes:
        try:
            if self._dialogue:
                return self._go_on(self._dialogue, line)
            verb, argument = cyrus.parse(line)
            is_off = {b"STLS": not self._knows_stls, b"APOP": not self._challenge}
            if verb not in self._VERBS or is_off.get(verb):
                raise cyrus.Mistake(cyrus.UNRECOGNIZED)
            return self._VERBS[verb](self, argument)
        except cyrus.Mistake as mistake:
            return mistake.reply

    @property
    def _knows_stls(self) -> bool:
        return self._stls or self._is_encrypted

    def _say_user(self, argument: bytes | None) -> bytes:
        name = cyrus.needed(argument)
        if not self._lists_user:
            return err(UNDER_LAYER % b"USER")
        if self._named:
            return err(b"[AUTH] Must give PASS command")
        try:
            self._canonical(name)
        except InvalidUser:
            self.failed, self._reason = name, cyruslines.invalid_user(self._env, name)
            return INVALID_USER
        self._named = name
        return ok(b"Name is a valid mailbox")

    def _say_pass(self, argument: bytes | None) -> bytes:
        password = cyrus.needed(argument)
        if not self._named:
            return err(b"[AUTH] Must give USER command")
        if self._named.lower() == ANONYMOUS:  # whom no module knows; the name stays, as in Cyrus
            self.failed, self._reason = ANONYMOUS, cyruslines.no_anonymous(self._env)
            return INVALID_LOGIN
        name, self._named = self._named, b""
        return self._try(Password(name, password))

    def _say_apop(self, argument: bytes | None) -> bytes:
        said = cyrus.needed(argument)
        if self._named:
            return err(b"[AUTH] Must give PASS command")
        self.method = b"APOP"
        answer = cram.answer(APOP, self._challenge, said)
        if answer is None:
            return self._fail(SASL_MALFORMED, is_slow=True)
        try:
            return self._try(Digest(APOP, answer))
        except InvalidUser:
            return self._refuse()

    def _say_auth(self, argument: bytes | None) -> bytes:
        if self._tls_required:
            return err(UNDER_LAYER % b"AUTH")
        if argument is None:
            return listing(ok(b"List of supported mechanisms follows"), self._offer.taken)
        name, _, initial = argument.replace(b"\t", b" ").partition(b" ")
        self.method = name
        dialogue = self._offer.begin(name.upper())
        if dialogue is None:
            return self._fail(NO_MECHANISM, is_slow=True)
        initial = initial.lstrip(cyrus.SPACE)
        if not initial:
            return self._say(dialogue, None)
        return self._go_on(dialogue, b"" if initial == b"=" else initial)

    def _go_on(self, dialogue: Mechanism, line: bytes | None) -> bytes:
        if line is not None and line.removesuffix(b"\r") == b"*":
            return self._fail(CANCELED)
        try:
            if line is None:
                raise Malformed
            return self._say(dialogue, decode(line.removesuffix(b"\r")))
        except (Malformed, InvalidUser):
            return self._fail(SASL_MALFORMED, is_slow=True)

    def _refuse(self) -> bytes:
        return self._fail(SASL_FAILED, is_slow=True)

    def _fail(self, reply: bytes, *, is_slow: bool = False) -> bytes:
        reason = os.fsdecode(reply).rpartition(": ")[2].strip()
        if reply == CANCELED:
            self._reason = ""
        elif self.method == b"APOP":
            code = "SASL(-5)" if reply == SASL_MALFORMED else "SASL(-13)"
            self._reason = cyruslines.refused_apop(self._env, f"{code}: {reason}: Bad Digest")
        else:
            self._reason = cyruslines.refused_dialogue(self._env, self.method, reason)
        return super()._fail(reply, is_slow=is_slow)

    def _try(self, attempt: Attempt) -> bytes:
        user, self._env["POP3_FOLDER"] = self._canonical(attempt.user)
        if attempt.acts_for == attempt.user:
            attempt.acts_for = b""
        attempt.user = user
        return super()._try(attempt)

    def _canonical(self, name: bytes) -> tuple[bytes, str]:
        """The userid for the modules, and the folder that it asks for. Raises InvalidUser."""
        folder = b""
        local, at, domain = name, b"", b""
        if self._options.text("VIRTDOMAINS") in ("userid", "on"):
            where = max(name.rfind(b"@"), name.rfind(b"%"))
            if where >= 0:
                local, at, domain = name[:where], b"@", name[where + 1 :]
        if self._options.is_on("POPSUBFOLDERS"):
            local, plus, folder = local.partition(b"+")
            if plus and not folder:
                raise InvalidUser
        if domain and domain.lower() == os.fsencode(self._options.text("DEFAULTDOMAIN")).lower():
            at = domain = b""
        user = local + at + domain
        if self._options.is_on("USERNAME_TOLOWER"):
            user = user.lower()
        is_bad = any(octet < 0x20 or octet > 0x7E or octet in REFUSED for octet in user)
        dotted = not self._options.is_on("UNIXHIERARCHYSEP") and b"." in local
        if is_bad or dotted or not local or len(user) > LONGEST_USER:
            raise InvalidUser
        return user, self._folder(folder)

    def _folder(self, name: bytes) -> str:
        """A folder below INBOX by its name in a Maildir++. Raises InvalidUser."""
        if not name:
            return ""
        levels = name.split(b"/" if self._options.is_on("UNIXHIERARCHYSEP") else b".")
        if not all(levels) or any(octet in b"/.\0" for level in levels for octet in level):
            raise InvalidUser
        return os.fsdecode(b".".join(levels))

    def _say_capa(self, argument: bytes | None) -> bytes:
        cyrus.none(argument)
        tags = [b"SASL " + self._offer.announced] if self._offer.announced else []
        if self._stls:
            tags.append(b"STLS")
        tags += cyrus.capabilities(
            self._options.number("POPEXPIRETIME"), self._options.number("POPMINPOLL")
        )
        if self._lists_user:
            tags.append(b"USER")
        if self._options.text("SERVERINFO") == "on":
            tags.append(b"IMPLEMENTATION " + os.fsencode(self._options.text("VERSION")))
        return listing(cyrus.CAPABLE, tags)

    def _say_stls(self, argument: bytes | None) -> bytes:
        cyrus.none(argument)
        if not self._stls:
            return err(b"Already successfully executed STLS")
        self.starts_tls = True
        return ok(b"Begin TLS negotiation now")

    def _say_quit(self, argument: bytes | None) -> bytes:
        cyrus.none(argument)
        self.quit = True
        return ok()

    _VERBS: dict[bytes, Callable[..., bytes]] = {
        b"USER": _say_user,
        b"PASS": _say_pass,
        b"APOP": _say_apop,
        b"AUTH": _say_auth,
        b"CAPA": _say_capa,
        b"STLS": _say_stls,
        b"QUIT": _say_quit,
    }
