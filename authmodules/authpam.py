"""authpam - let PAM decide whether the user may log in

The PAM service is the request's (`pop3`, so /etc/pam.d/pop3, or what AUTHSERVICE<port> says); it
must have a file of its own. PAM_RHOST is the client's address. Password and account check both
count (CVE-30). A session is opened before the service and closed after it: this process stays for
that, as root, while a child becomes the user and goes on with the chain; its exit status is passed
on (reference auth.md 2.2, chain-protocol.md 6).

Of who has proved an identity by a certificate PAM isn't asked for authentication, but for all the
rest, as sshd does it for a key: the account check, and the session.

Uses python-pam, whose import costs more than a session: couriertcpd loads it once, before forking.
PAM itself runs in the process of one connection only.
"""

from __future__ import annotations

import os
import pwd
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    byref,
    c_char_p,
    c_int,
    c_uint,
    c_void_p,
    cast,
    memmove,
    sizeof,
)

import pam
from pam.__internals import PamAuthenticator, PamConv, PamResponse, conv_func

from authmodules.passwd import everybody, passwd_entry, system_account
from courierchain import authmodule, log, passwords
from courierchain.account import Account, Session
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

SERVICES = ("/etc/pam.d", "/usr/lib/pam.d")

WRONG_LOGIN = (pam.PAM_AUTH_ERR, pam.PAM_USER_UNKNOWN)  # not worth a log line of their own
TROUBLE = (  # PAM could not find out; anything else is a refusal
    pam.PAM_ABORT,
    pam.PAM_AUTHINFO_UNAVAIL,
    pam.PAM_BUF_ERR,
    pam.PAM_MODULE_UNKNOWN,
    pam.PAM_OPEN_ERR,
    pam.PAM_SERVICE_ERR,
    pam.PAM_SYMBOL_ERR,
    pam.PAM_SYSTEM_ERR,
)

# The next module may know the user, and courierpop3login delays a refusal of them all: PAM's own
# delay would only tell which names are in passwd (CVE-07). pam_fail_delay(3)
PAM_FAIL_DELAY = 10
NO_DELAY = CFUNCTYPE(None, c_int, c_uint, c_void_p)(lambda *_: None)

_kept: dict[str, CDLL] = {}
_kept_for: set[bytes] = set()  # services
_usual: tuple[object, ...] = ()  # of this process

PamAuthenticator()  # the first one looks for the libraries, in another process


@auth_module
def authpam(request: Request, settings: Settings) -> Account:
    if request.external is not None:
        user, secret, proved = request.external, b"", True
    elif request.login is not None:
        (user, secret), proved = request.login, False
    else:
        raise Rejected
    service = os.fsdecode(request.service)
    if not has_service(service):
        raise TemporaryFailure(f"PAM has no service {service!r}: create /etc/pam.d/{service}")
    entry = passwd_entry(user)
    if entry is None:
        if not proved:
            passwords.verify(secret, None)  # so that an unknown user is not a faster answer
        raise Rejected
    peer = os.fsencode(settings.text("TCPREMOTEIP"))
    conversation = Conversation(user, secret, peer, proved=proved)
    return system_account(entry, conversation.login(request.service, entry))


authpam.lists(everybody)


class Conversation:
    """One user's dialogue with PAM, by an authenticator of python-pam.

    Between pam_start and pam_authenticate it sets what python-pam has no parameter for: PAM_RHOST,
    a conversation that lives as long as the session does, and no delay after a failure.

    proved: there is nothing left to authenticate
    """

    __slots__ = ("user", "secret", "proved", "peer", "pam", "callback")

    def __init__(self, user: bytes, secret: bytes, peer: bytes, *, proved: bool):
        self.user = user
        self.secret = secret
        self.proved = proved
        self.peer = c_char_p(peer)
        self.pam = PamAuthenticator()
        self.callback = PamConv(conv_func(self.converse), None)

    def login(self, service: bytes, entry: pwd.struct_passwd) -> PamSession | None:
        """Authenticate, check the account, open the session, if there is to be one.

        Raises Rejected, TemporaryFailure.
        """
        authenticate = self.pam.pam_authenticate

        def prepared(handle, flags):  # type: ignore[no-untyped-def]
            self.pam.pam_set_item(handle, pam.PAM_RHOST, self.peer)
            self.pam.pam_set_item(handle, pam.PAM_CONV, cast(byref(self.callback), c_void_p))
            self.pam.pam_set_item(handle, PAM_FAIL_DELAY, cast(NO_DELAY, c_void_p))
            return pam.PAM_SUCCESS if self.proved else authenticate(handle, flags)

        self.pam.pam_authenticate = prepared
        done = self.pam.authenticate(
            self.user, self.secret, service, call_end=False, resetcreds=False
        )
        if done and not authmodule.opens_sessions:
            keep_modules(service)
            self.pam.end()
            return None
        before = usual_state() if authmodule.deliver else None
        if done and self.pam.open_session() == pam.PAM_SUCCESS:
            self.secret = b""
            if authmodule.deliver:
                keep_modules(service)
            return PamSession(self, changes=before is not None and before != process_state())
        code, reason = self.pam.code, self.pam.reason
        self.pam.end()
        if code in TROUBLE:
            raise TemporaryFailure(f"PAM service {os.fsdecode(service)}: {reason}")
        if code not in WRONG_LOGIN:
            log.info(f"authpam: user={log.safe(entry.pw_name)} refused: {reason}")
        raise Rejected

    def converse(self, count, messages, responses, _):  # type: ignore[no-untyped-def]
        """pam_conv(3): the userid for a prompt with echo, the password for one without."""
        answers = responses[0] = cast(
            self.pam.calloc(count, sizeof(PamResponse)), POINTER(PamResponse)
        )
        for index in range(count):
            message = messages[index].contents
            if message.msg_style == pam.PAM_PROMPT_ECHO_OFF:
                answers[index].resp = self._for_pam(self.secret)
            elif message.msg_style == pam.PAM_PROMPT_ECHO_ON:
                answers[index].resp = self._for_pam(self.user)
            elif message.msg_style in (pam.PAM_ERROR_MSG, pam.PAM_TEXT_INFO):
                log.info(f"authpam: {os.fsdecode(message.msg or b'')}")
            else:
                return pam.PAM_CONV_ERR
        return pam.PAM_SUCCESS

    def _for_pam(self, text: bytes) -> int:
        """The address of a copy that PAM will free."""
        copy: int = self.pam.calloc(len(text) + 1, 1)
        memmove(copy, text, len(text))
        return copy


class PamSession(Session):
    __slots__ = ("_pam", "_conversation")

    def __init__(self, conversation: Conversation, *, changes: bool):
        super().__init__(changes=changes)
        self._pam = conversation.pam
        self._conversation = conversation  # PAM calls it back until the end

    def close(self) -> None:
        self._pam.close_session()
        self._pam.end()

    def forget(self) -> None:
        self._pam.code = pam.PAM_DATA_SILENT  # a copy ends: nothing outside of it is undone
        self._pam.end()


def usual_state() -> tuple[object, ...]:
    """The state before any session: whoever has had one that changed it serves no other."""
    global _usual
    _usual = _usual or process_state()
    return _usual


def process_state() -> tuple[object, ...]:
    """What a session's modules may change in the process for the service to find: pam_limits,
    pam_umask, pam_namespace, pam_group and the like."""
    umask = os.umask(0o077)
    os.umask(umask)
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")]
    with open("/proc/self/limits", "rb", buffering=0) as limits:
        return umask, spaces, limits.read(8192), os.getgroups(), os.getcwd(), os.getpriority(0, 0)


def keep_modules(service: bytes) -> None:
    """Keep the modules of a PAM service mapped in a process that will run them again: loading costs
    the most. To look for them costs too, so that is done once."""
    if service in _kept_for:
        return
    _kept_for.add(service)
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "/security/pam_" in line}
    for path in paths - _kept.keys():
        _kept[path] = CDLL(path)


def has_service(name: str) -> bool:
    if "/" in name or name in ("", ".", ".."):
        return False
    return any(os.path.exists(f"{folder}/{name}") for folder in SERVICES)
