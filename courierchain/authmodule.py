"""authmodule - the frame that every authentication module runs in

A module is one function: it takes the request and the environment's settings, and returns the
Account, or raises Rejected or TemporaryFailure. The frame does the rest (chain-protocol.md 4 to 8):

    argv            the module, then the next program and its arguments
    descriptor 3    the request, read to its end
    AUTHENTICATED   set: an earlier module has accepted; become the next program at once

    Account            become the user, set the environment, answer on descriptor 3, become argv[1];
                       or courierpop3proxy with the request, if the mailbox is on another host
    Rejected           put the same bytes on descriptor 3 again, become argv[1]
    Proved             put the identity on descriptor 3, as `external`, become argv[1]
    Refused            go back to the login program: no other module is asked (see `proof`)
    TemporaryFailure   log why, and go back to the login program: no other module is asked
    PermanentFailure   the same, and the client is not told to try again

Exits 1 with AUTHFAILURE on descriptor 2 when there is no request, so no chain.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_BLOCK, SIG_DFL, SIG_UNBLOCK, SIGTERM, pthread_sigmask, signal
from collections.abc import Callable, Iterable

from courierchain import failure, handover, log, mailhost, programs, request
from courierchain.account import Account, Session, Unusable, become_user, enter_home
from courierchain.authtypes import DIALOGUE, EXTERNAL
from courierchain.handover import AuthFailure, CannotBecome
from courierchain.request import BadRequest, Request
from courierchain.settings import Settings


class Rejected(Exception):
    """Not this module's user, or not the right secret: the next module is asked.

    challenge: a JSON text that tells a client with a token what is wrong with it: failure.CHALLENGE
    """

    challenge = ""


class Proved(Rejected):
    """The secret is right, and whose account that is, is for the next modules to say. Whoever
    doesn't know of this kind of answer takes it for no."""

    def __init__(self, identity: bytes):
        super().__init__()
        self.identity = identity


class Refused(Rejected):
    """Not the right secret, and the client can't be asked for it again; why: of `failure`."""

    def __init__(self, why: str):
        super().__init__(why)
        self.why = why


class TemporaryFailure(Exception):
    """The module can't tell; the text says why, and what an administrator can do."""


class PermanentFailure(TemporaryFailure):
    """And it can't until the administrator has done it."""


class Unchangeable(Exception):
    """A module that changes passwords can't change this one; the text says why, or what can."""


Everybody = Callable[[Settings], Iterable[Account]]  # raises TemporaryFailure
Change = Callable[[Request, bytes, Settings], None]  # raises Rejected, TemporaryFailure, and
#                                                      Unchangeable
Rehash = Callable[[Request, bytes, Settings], None]  # raises Rejected, TemporaryFailure
Verify = Callable[[Request, Settings], Account]
Deliver = Callable[[str, Account, bytes, list[str], dict[str, str]], bool]

# Where the listener keeps processes of users, this takes an accepted session to one of them, and
# returns True: at once, or when it is over if the account has a session to be closed then. Else the
# service goes on in the process that it began in. See couriertcpd.worker.
deliver: Deliver | None = None

# Whether an account is asked for in order to be served. authdaemond only tells others about it.
opens_sessions = True


class AuthModule:
    """A module's function in the frame; called like any program, with argv and environment.

    everybody: the module's other function, which lists all its accounts, or None: see `lists`
    change: the one that gives the user of a login request another password, or None: see `changes`
    rehash: the one that puts another hash of the same password in the place of one: see `rehashes`
    """

    __slots__ = ("name", "verify", "everybody", "change", "rehash")

    def __init__(self, verify: Verify):
        self.name = verify.__name__
        self.verify = verify
        self.everybody: Everybody | None = None
        self.change: Change | None = None
        self.rehash: Rehash | None = None

    def lists(self, everybody: Everybody) -> Everybody:
        """Decorator: names the function that lists all accounts."""
        self.everybody = everybody
        return everybody

    def changes(self, change: Change) -> Change:
        """Decorator: names the function that changes a password, if the old one is right."""
        self.change = change
        return change

    def rehashes(self, rehash: Rehash) -> Rehash:
        """Decorator: names the function that replaces the hash which the password of a login
        request was compared with (Account.stored), if that is still there."""
        self.rehash = rehash
        return rehash

    def __call__(self, argv: list[str], env: dict[str, str]) -> int:
        if len(argv) < 2:
            raise AuthFailure
        if env.get("AUTHENTICATED"):
            handover.become(argv[1:], env, record=True)
        try:
            raw = request.take()
            if not raw:
                raise AuthFailure
            question = request.parse(raw)
            account, following = self._ask(question, argv[1], env)
        except (TemporaryFailure, BadRequest, Unusable) as why:
            log.err(f"{self.name}: {why}")
            lasts = isinstance(why, (Unusable, PermanentFailure))
            handover.start_over(env, failure.PERMANENT if lasts else failure.TEMPORARY)
        except Refused as refused:
            handover.start_over({**env, DIALOGUE: ""}, refused.why)
        except Proved as proof:
            proved = request.encode(question.service, EXTERNAL, proof.identity)
            self._pass_on(proved, argv[1:], env)
        except Rejected as no:
            if no.challenge:
                env = {**env, failure.CHALLENGE: no.challenge}
            self._pass_on(raw, argv[1:], env)
        self.renew(question, account, env)
        env = {**env, DIALOGUE: ""}
        told = {**env, **account.environment()}
        if mailhost.is_elsewhere(told):
            return self._pass_to_proxy(account, question, told, env)
        if mailhost.is_proxy(env) and not mailhost.hosts(told):
            address = log.safe(account.address)
            log.warn(f"proxy enabled, but no proxy host defined for {address}")
        if skeleton := env.get("AUTH_MKHOMEDIR_SKEL"):
            from courierchain.skeleton import make_home

            make_home(account, skeleton)
        return self._accept(account, question.service, [following, *argv[2:]], told)

    def ask(self, question: Request, env: dict[str, str]) -> Account:
        """What the module says. Raises Rejected, TemporaryFailure, BadRequest and Unusable."""
        if question.authtype == request.AUTHENTICATED:
            raise BadRequest("an answer on descriptor 3, but AUTHENTICATED is not set")
        try:
            account = self.verify(question, Settings(env))
        except (Rejected, TemporaryFailure):
            raise
        except Exception as why:  # a module's fault is nobody's wrong password
            raise TemporaryFailure(f"internal error: {handover.where(why)}") from why
        try:
            account.check()
        except Unusable:
            close_session(account)
            raise
        return account

    def renew(self, question: Request, account: Account, env: dict[str, str]) -> None:
        """Have the hash of a password that was right replaced, if the site wants that. Raises
        nothing, and waits for nothing."""
        if self.rehash and account.stored and question.login and env.get("PASSWORD_REHASH"):
            from courierchain import rehash  # here: most sites don't

            rehash.begin(self.name, self.rehash, question, account.stored, Settings(env))

    def _ask(self, question: Request, following: str, env: dict[str, str]) -> tuple[Account, str]:
        """The account, and the path of the program that is to serve it: looked up while the
        current directory is still the administrator's."""
        account = self.ask(question, env)
        path = programs.locate(following, env)
        if path is None:
            close_session(account)
            raise TemporaryFailure(f"{following}: No such file or directory")
        return account, path

    def _pass_on(self, raw: bytes, argv: list[str], env: dict[str, str]) -> None:
        try:
            request.pass_on(raw)
            handover.become(argv, env, record=True)
        except (OSError, CannotBecome) as why:
            log.err(f"{self.name}: {why}")
            handover.start_over(env, failure.TEMPORARY)

    def _accept(
        self, account: Account, service: bytes, argv: list[str], env: dict[str, str]
    ) -> int:
        delivered = deliver is not None and deliver(self.name, account, service, argv, env)
        if account.session is None:
            return 0 if delivered else going_on(self.name, account, service)(argv, env)
        status = 0
        if not delivered:
            status = run_within(account.session, going_on(self.name, account, service), argv, env)
        account.session.close()
        return status

    def _pass_to_proxy(
        self, account: Account, question: Request, told: dict[str, str], env: dict[str, str]
    ) -> int:
        """Let courierpop3proxy serve the account. This process stays, and is root as before: after
        a refusal the client may try again."""
        status = mailhost.REFUSED
        if question.login:
            proxy = passing_on(self.name, account, question)
            status = run_within(account.session, proxy, [mailhost.PROXY], told)
        else:
            log.warn(f"proxy enabled, but no password for {log.safe(account.address)}")
        close_session(account)
        if status == mailhost.REFUSED:
            handover.start_over(env)
        if status == mailhost.UNREACHED:
            os.write(1, failure.temporary(env))
        return status

    def run(self) -> None:
        """Run as a program of its own: for modules that are not part of this distribution."""
        programs.directory = programs.directory or os.path.dirname(os.environ.get("AUTHUSER", ""))
        os._exit(handover.run(self, sys.argv, dict(os.environ)))


def close_session(account: Account) -> None:
    if account.session:
        account.session.close()


def run_within(
    session: Session | None, main: handover.Main, argv: list[str], env: dict[str, str]
) -> int:
    """Run the rest of the chain in a child, while this process keeps the session; its status."""
    handover.spend()
    pthread_sigmask(SIG_BLOCK, [SIGTERM])
    child = os.fork()
    if child == 0:
        pthread_sigmask(SIG_UNBLOCK, [SIGTERM])
        if session:
            session.forget()
        handover.keep(request.RECORD)  # what a worker keeps is not for the user
        os._exit(handover.run(main, argv, env))
    return outlive(child)


def outlive(child: int) -> int:
    """Wait for the end of the service, a child; its status. SIGTERM may be blocked until here."""
    # Told to end, the service ends first: the session is closed after it.
    signal(SIGTERM, lambda *_: os.kill(child, SIGTERM))
    pthread_sigmask(SIG_UNBLOCK, [SIGTERM])
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its pid stays its own until then
    signal(SIGTERM, SIG_DFL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 255


def going_on(name: str, account: Account, service: bytes) -> handover.Main:
    """What comes after the acceptance: become the user, answer on descriptor 3, become argv[0]."""

    def go_on(argv: list[str], env: dict[str, str]) -> int:
        try:
            become_user(account)
            enter_home(account)
            answer = request.encode(service, request.AUTHENTICATED, os.fsencode(account.user))
            request.pass_on(answer)
            handover.become(argv, env, record=True)
        except (Unusable, BadRequest, CannotBecome, OSError) as why:
            # Too late for the login program, which needs root: the client gets its answer here.
            log.err(f"{name}: user={log.safe(account.user)}: {why}")
            os.write(1, failure.temporary(env))
        return 1

    return go_on


def passing_on(name: str, account: Account, question: Request) -> handover.Main:
    """Become the user, put the request on descriptor 3 again, become the proxy. The user's home is
    where the mailbox is: not here."""

    def pass_on(argv: list[str], env: dict[str, str]) -> int:
        try:
            become_user(account)
            os.chdir("/")
            request.pass_on(question.raw)
            handover.become(argv, env, record=True)
        except (Unusable, CannotBecome, OSError) as why:
            log.err(f"{name}: user={log.safe(account.user)}: {why}")
        return mailhost.UNREACHED

    return pass_on


def auth_module(verify: Verify) -> AuthModule:
    """Decorator: puts a module's function into the frame."""
    return AuthModule(verify)
