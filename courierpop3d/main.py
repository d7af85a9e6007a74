"""courierpop3d - the Courier POP3 server

    courierpop3d [MAILDIR]

Serves one Maildir to the client on descriptors 0 and 1, as the user it belongs to, with the current
directory at the user's home. Serves nobody who hasn't logged in: descriptor 3 holds a record that
says `authenticated` and the same name as AUTHENTICATED; or descriptor 3 is closed or empty and
AUTHENTICATED is set, as other people's modules leave it. Anything else makes it become the login
program again (AUTHUSER, AUTHARGC, AUTHARGV0...), which answers the client.

Reads      MAILDIR, else the argument, else ./Maildir: the Maildir
           AUTHENTICATED, AUTHADDR, TCPREMOTEIP, TCPREMOTEPORT, POP3_TLS, POP3_LOG_DELETIONS
           OPTIONS: disablepop3, disableinsecurepop3; mailhost: with POP3_PROXY on, an account that
           somebody else's module has let in, and whose mailbox is not here, is refused
           COURIER_SASL: what CAPA said of SASL before the login
           POP3_RESPONSE_CODES: see failure
           POP3_DIALECT: see cyrus
           POP3_TELEMETRY, POP3_TELEMETRY_NAME: see telemetry
           POP3_FOLDER: a folder of the Maildir++, levels with dots between them
           POP3_EXCLUSIVE: 1 refuses a mailbox that another session with this setting has open
           POP3_LOGIN_DELAY: seconds that have to pass between two logins; see lastlogin
           POP3_UNICODE: stored sends Unicode messages as they are to any client
           POP3_FIRST_UIDL, POP3_DOVECOT_UIDL_FORMAT: see firstids
           UTF8: 0 if the client hasn't said UTF8 yet; MIME_UNICODE_MESSAGE_TYPE
           POP3_IDLE_TIMEOUT, POP3_SEND_TIMEOUT, POP3_LOGINEXEC_TIMEOUT, in seconds
           in the Maildir: loginexec, tmp/, new/, cur/, courierpop3dsizelist, courierpop3dindex,
           maildirsize
Writes     cur/ (mail taken in from new/, flags, removals), tmp/, courierpop3dsizelist,
           courierpop3dindex, maildirsize;
           one line of log at login and one at the end
Exits      0 after QUIT, time-out and disconnection; also, as Courier, when the home is locked or
           there is no cur/. 1 for other refusals, and after a message that couldn't be read to its
           end
"""

from __future__ import annotations

import os
from collections.abc import Callable
from stat import S_ISVTX
from time import monotonic, time

from courierchain import failure, handover, log, mailhost, options, parking, request
from courierchain.client import Client, Gone, TimedOut
from courierchain.parking import Parked
from courierchain.request import BadRequest
from courierchain.settings import Settings
from courierpop3d import (
    firstids,
    index,
    lastlogin,
    loginexec,
    maildir,
    parked,
    sizelist,
    snapshot,
    telemetry,
)
from courierpop3d.journal import Journal
from courierpop3d.lock import DirectoryLock
from courierpop3d.maildrop import Maildrop
from courierpop3d.message import Messages
from courierpop3d.session import Transaction
from courierpop3d.visit import Visit
from courierpop3d.wrapper import Wrapper
from pop3proto import state
from pop3proto.replies import err

REFUSAL_TIME = 10.0  # seconds to take the reply of a session that isn't going to be
IN_USE_TIME = 2.0  # seconds for a session that has just said goodbye to be over


maildir.keep_memory()


class NotValidated(Exception):
    """Nobody has logged in; the text is one of `failure`, or empty where nobody knows why."""


class Refused(Exception):
    """There is no session: what the client is told, and the exit status.

    code: what stands in front of the text where replies may have codes (RFC 3206)
    """

    def __init__(self, text: bytes, status: int, code: bytes = failure.SYS_PERM):
        super().__init__(text)
        self.text = text
        self.status = status
        self.code = code


def main(argv: list[str], env: dict[str, str]) -> int:
    started = monotonic()
    known = parking.take()
    if known is None:
        try:
            refuse_strangers(env)
        except NotValidated as why:
            handover.start_over(env, str(why))
    try:
        client = Client(REFUSAL_TIME)
    except Gone:
        return 1
    try:
        if known is None:
            return serve(client, argv, env, started)
        return go_on(client, argv, env, known)
    except Parked:
        return 0
    except Refused as refusal:
        try:
            client.send(err(failure.coded(refusal.code, refusal.text, env)))
            client.discard_input()
        except (Gone, TimedOut):
            pass
        return refusal.status
    finally:
        client.detach()


def refuse_strangers(env: dict[str, str]) -> None:
    """Serve only whom descriptor 3 and AUTHENTICATED together show. Closes descriptor 3.

    Raises NotValidated.
    """
    user = os.fsencode(env.get("AUTHENTICATED", ""))
    try:
        raw = request.take()
        record = request.parse(raw) if raw else None
    except BadRequest as why:
        log.err(f"courierpop3d: descriptor 3: {why}")
        raise NotValidated(failure.TEMPORARY) from why
    if record is None:
        if not user:
            raise NotValidated
    elif record.authtype != request.AUTHENTICATED:
        raise NotValidated(failure.REJECTED)  # a question that nobody has answered
    elif record.authdata != user or not user:
        raise NotValidated(failure.TEMPORARY)


def serve(client: Client, argv: list[str], env: dict[str, str], started: float) -> int:
    """One session. Raises Refused, Parked."""
    settings = Settings(env)
    journal = journal_of(env)
    try:
        journal.begin()
        idle_limit = time_limits(client, settings)
        client.hurry()
        enter_mailbox(argv, env, journal)
        lock = lock_mailbox(settings, journal)
        try:
            session = log_in(env, settings, journal)
            client.tap = None if session.quit else telemetry.begin(env)
            visit = Visit(session, client, idle_limit, started=started)
            if not lock.is_taken and session.can_be_parked and client.tap is None:
                visit.park = parker(argv, env)
            event = visit.converse(session.greeting)
            index.save(session.messages)
        finally:
            lock.release()
    except ValueError as why:
        journal.err(str(why))
        raise Refused(failure.lasting(env), 1) from why
    except Refused as why:
        journal.refused(why.text)
        raise
    visit.log_end(event, journal)
    return session.statuses.get(event, session.other_status)


def journal_of(env: dict[str, str]) -> Journal:
    if env.get("POP3_DIALECT") == "cyrus":
        from courierpop3d.cyrusjournal import CyrusJournal

        return CyrusJournal(env)
    return Journal(env)


def go_on(client: Client, argv: list[str], env: dict[str, str], known: bytes) -> int:
    """What is left of a session that was parked. Raises Refused, Parked."""
    settings = Settings(env)
    journal = Journal(env)
    parcel = parked.Parcel(known)
    session = transaction(parcel.messages, parcel.boundary, env, settings, journal)
    visit = Visit(session, client, time_limits(client, settings), started=parcel.started)
    parcel.resume(visit)
    visit.park = parker(argv, env)
    try:
        parcel.enter_place()
    except OSError as why:
        journal.err(f"cannot enter the Maildir again: {why.strerror}")
        visit.log_end("DISCONNECTED", journal)
        raise Refused(failure.PASSING, 1, failure.SYS_TEMP) from why
    event = visit.converse(b"")
    index.save(session.messages)
    visit.log_end(event, journal)
    return session.statuses.get(event, session.other_status)


def parker(argv: list[str], env: dict[str, str]) -> Callable[[Visit], None]:
    def park(visit: Visit) -> None:
        try:
            parking.park(argv, env, parked.pack(visit), visit.deadline)
        except OSError:
            pass  # the Maildir is not where it was: here it is open still

    return park


def time_limits(client: Client, settings: Settings) -> int:
    """Sets the client's, and gives the one for a command. Raises ValueError."""
    client.send_limit = settings.seconds("POP3_SEND_TIMEOUT")
    return settings.seconds("POP3_IDLE_TIMEOUT")


def enter_mailbox(argv: list[str], env: dict[str, str], journal: Journal) -> None:
    """The first half of what comes before `+OK logged in.`, in Courier's order. Raises Refused."""
    refuse_root(journal)
    refuse_elsewhere(env, journal)
    refuse_locked_home(journal)
    enter_maildir(env.get("MAILDIR") or (argv[1] if len(argv) > 1 else "./Maildir"))
    if folder := env.get("POP3_FOLDER"):
        enter_folder(folder)


def log_in(env: dict[str, str], settings: Settings, journal: Journal) -> Transaction:
    """The second half. Raises Refused, and ValueError for a setting that makes no sense."""
    loginexec.run(env, settings.seconds("POP3_LOGINEXEC_TIMEOUT"), journal)
    refuse_disabled(env, journal)
    settings.choice("POP3_UNICODE", "wrapped", "stored")
    now = int(time())
    refuse_early(now, settings.seconds("POP3_LOGIN_DELAY"), journal)
    journal.login()
    messages = read_maildir(now, journal, env)
    return transaction(messages, b"=_%d-%d" % (os.getpid(), now), env, settings, journal)


def transaction(
    messages: Messages, boundary: bytes, env: dict[str, str], settings: Settings, journal: Journal
) -> Transaction:
    """Raises ValueError for a setting that makes no sense."""
    wrapper = Wrapper(boundary, os.fsencode(settings.text("MIME_UNICODE_MESSAGE_TYPE")))
    maildrop = Maildrop(messages, journal, env)
    if settings.choice("POP3_DIALECT", "courier", "cyrus") == "cyrus":
        from courierpop3d.cyrus import CyrusTransaction

        return CyrusTransaction(maildrop, wrapper, env, journal)
    as_stored = settings.choice("POP3_UNICODE", "wrapped", "stored") == "stored"
    utf8 = as_stored or options.has_said_utf8(env)
    capabilities = state.capabilities(
        sasl=os.fsencode(env.get("COURIER_SASL", "")),
        response_codes=settings.is_on("POP3_EXCLUSIVE"),
        auth_codes=settings.is_on("POP3_RESPONSE_CODES"),
        login_delay=settings.seconds("POP3_LOGIN_DELAY"),
    )
    return Transaction(maildrop, wrapper, utf8=utf8, capabilities=capabilities)


def refuse_root(journal: Journal) -> None:
    if 0 in os.getresuid():
        journal.err("courierpop3d: does not serve root (uid 0); give the account a uid of its own")
        raise Refused(b"Root has no mailbox here.", 1)


def refuse_elsewhere(env: dict[str, str], journal: Journal) -> None:
    """A module of somebody else's has accepted, and knows nothing of POP3_PROXY: an empty Maildir
    here would be taken for the mailbox."""
    if mailhost.is_elsewhere(env):
        host = log.safe(mailhost.hosts(env)[0])
        journal.err(f"the mailbox is on {host}, and the module that accepted doesn't pass it on")
        raise Refused(failure.lasting(env), 1)


def refuse_locked_home(journal: Journal) -> None:
    """An administrator locks a mailbox with chmod +t on the home directory (F-FILE-13)."""
    try:
        locked = os.stat(b".").st_mode & S_ISVTX
    except OSError:
        locked = True
    if locked:
        journal.locked()
        text = b"Your account is temporarily unavailable (+t bit set on home directory)."
        raise Refused(text, 0, failure.SYS_TEMP)


def enter_maildir(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as why:
        log.plain(f"chdir {log.safe(path)}: {why.strerror}")
        shown = bytes(octet for octet in os.fsencode(path) if 0x20 <= octet < 0x7F)
        raise Refused(b"chdir %s failed" % shown, 1) from why


def enter_folder(name: str) -> None:
    """Go from the Maildir to a folder of it. Raises Refused."""
    try:
        if "/" in name or not all(name.split(".")):
            raise FileNotFoundError
        os.chdir(f".{name}")
    except OSError as why:
        text = b"Unable to open maildrop: Mailbox does not exist"
        raise Refused(text, 1, failure.SYS_TEMP) from why


def lock_mailbox(settings: Settings, journal: Journal) -> DirectoryLock:
    """Keep other sessions out, if sessions are to be exclusive (1939-54). Raises Refused."""
    lock = DirectoryLock(b"cur", IN_USE_TIME)
    if settings.is_on("POP3_EXCLUSIVE"):
        try:
            lock.take()
        except TimeoutError as why:
            journal.in_use()
            raise Refused(state.IN_USE, 0, code=b"") from why
        except OSError:
            pass  # without cur/ there will be no session
    return lock


def refuse_disabled(env: dict[str, str], journal: Journal) -> None:
    if options.is_damaged(env):
        journal.err("OPTIONS holds control characters, and may hold a restriction")
    text = options.refusal(env)
    if text:
        raise Refused(text, 1, failure.AUTH)


def refuse_early(now: int, wait: int, journal: Journal) -> None:
    """Keep the time between two logins, and begin it anew with this one."""
    if lastlogin.is_too_early(now, wait):
        journal.too_early()
        raise Refused(state.TOO_EARLY % wait, 0, code=b"")
    if wait:
        lastlogin.store_login(now)


def read_maildir(now: int, journal: Journal, env: dict[str, str]) -> Messages:
    maildir.purge_tmp(now)
    maildir.move_new_to_cur(journal)
    try:
        return snapshot.take(now, journal, env)
    except snapshot.NoCur as why:
        log.plain(f'scancur opendir("cur"): {why}')
        raise Refused(b"Maildir invalid (no 'cur' directory)", 0) from why
    except sizelist.Unreadable as why:
        journal.err(f"cannot read courierpop3dsizelist: {why}")
        raise Refused(failure.PASSING, 1, failure.SYS_TEMP) from why
    except firstids.Unusable as why:
        raise ValueError(str(why)) from why
