"""courierpop3login - read userid and password, then become the first authentication module

    courierpop3login MODULE... courierpop3d MAILDIR
    courierpop3login courierpop3d MAILDIR              the module is authdaemon
    courierpop3login -front ...                        for a listener: see `front`

Talks POP3 on descriptors 0 and 1 until there is a complete login, by USER and PASS or by AUTH, puts
it on descriptor 3 as

    service LF login LF userid LF password LF LF

or another record of `courierchain.authtypes`, and becomes argv[1] with the rest of argv (reference
chain-protocol.md 2, 3, 5). Not one byte behind the LF that ends the login is read: what a client
sends ahead reaches the mail server (2449-08).

When nobody accepts, the last program becomes this one again, by AUTHUSER and AUTHARGVn: it logs,
waits, says `-ERR Login failed.` and takes the next attempt, until AUTHEXPIRE.

Reads      TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALPORT, AUTHSERVICE<port>, AUTHUSER, AUTHARGC,
           AUTHEXPIRE, POP3_TLS, POP3_TLS_REQUIRED, TLS_CONNECTED_PROTOCOL, what `stls` and `sasl`
           read, COURIER_THROTTLE (see `throttle`), and the settings DEFDOMAIN, DOMAINSEP,
           POP3_LOGIN_TIMEOUT, POP3_FAILURE_DELAY, POP3_LOGIN_DELAY, POP3_RESPONSE_CODES,
           POP3_DIALECT (see `cyrus`)
Sets       AUTHUSER, AUTHARGC, AUTHARGV0..., AUTHEXPIRE, AUTHENTICATED (empty), UTF8,
           COURIER_LOGIN_USER (the userid last tried, fit for a log line),
           COURIER_LOGIN_METHOD (by which mechanism; empty: USER and PASS),
           COURIER_SASL (the mechanisms announced),
           COURIER_LOGIN_FAILURE, COURIER_LOGIN_CHALLENGE (why it didn't succeed: `failure`; empty
           while nobody has said), COURIER_LOGIN_DIALOGUE (see `dialogue`)
Exits      0 after QUIT; 1 when the client has gone, time is up, or the chain can't be started
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic, sleep, time

from courierchain import (
    authtypes,
    failure,
    front,
    handover,
    log,
    netstrings,
    parking,
    relay,
    request,
)
from courierchain.client import Client, Gone, TimedOut
from courierchain.handover import AuthFailure, CannotBecome
from courierchain.parking import Parked
from courierchain.settings import Settings
from courierpop3login import sasl, stls, throttle
from courierpop3login.mechanisms import oauth
from courierpop3login.session import Authorization
from pop3proto import state
from pop3proto.commands import LineReader


def main(argv: list[str], env: dict[str, str]) -> int:
    known = parking.take()
    if known is not None:
        return go_on(argv, env, known)
    heard = front.take()
    if heard is not None:
        return go_on_behind_front(argv, env, heard)
    if argv[1:2] == ["-front"]:
        return handover.load("courierpop3login.front:main")(argv, env)
    if not has_login_path(argv, env):
        return 1
    if len(argv) < 2:
        raise AuthFailure
    again = is_again(env)
    is_modern = authtypes.asks_authdaemond(argv[1:])
    argv, env = begin(argv, env)
    settings = Settings(env)
    try:
        delay = settings.seconds("POP3_FAILURE_DELAY")
        budget = settings.seconds("POP3_LOGIN_TIMEOUT")
        session = authorization(argv, env, settings)
        if again and env.get(authtypes.DIALOGUE):
            from courierchain import dialogue  # here: costs what most logins don't need

            dialogue.end_unanswered(env)
    except ValueError as why:
        log.err(f"{argv[0]}: {why}")
        os.write(1, failure.permanent(env))
        return 1
    where = address(env)
    if again:
        # Before anything can end this process: who times the last try to fail behind the deadline
        # must not escape the ban script.
        log.info(session.refused_line(env, f"{tried(env)}{where}"))
        if is_modern and (trouble := failure.trouble(env)):
            os.write(1, trouble)
            return 1
        if failure.counts(env):
            throttle.failed(env, env.get("COURIER_LOGIN_USER", ""))
        if env.get(failure.VARIABLE) != failure.ABORTED:
            if goes_back(session, delay, env):
                return 0
            sleep(delay)
    deadline = monotonic() + time_left(env, budget)
    if monotonic() >= deadline:
        return 1
    if not again:
        log.debug(f"Connection, {where}")
        if "TLS_CONNECTED_PROTOCOL" in env:
            say(session.secured_line(env))
    first = session.refused(env) if again else session.greeting
    if again and (told := oauth.challenge(env)):
        first = session.tell(told, first)
    env.update({failure.VARIABLE: "", failure.CHALLENGE: ""})
    return serve(session, first, deadline, argv, env)


def is_again(env: dict[str, str]) -> bool:
    """Whether this program has been here before, and nobody has accepted the login."""
    return env.get("AUTHARGC", "0")[:1] not in ("", "0")


def begin(argv: list[str], env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The whole chain, and the environment of what follows."""
    first = not is_again(env)
    env = remembering(argv, env)
    if first:
        env["UTF8"] = "0"
        if "TLS_CONNECTED_PROTOCOL" in env:  # a couriertls has started us, and says no more
            env.update(POP3_TLS="1", POP3_STARTTLS="NO", POP3_TLS_REQUIRED="0")
    return [argv[0], *authtypes.complete(argv[1:])], env


def go_on_behind_front(argv: list[str], env: dict[str, str], heard: bytes) -> int:
    """Do what this program does with a login, if a client could have sent it here."""
    argv, env = begin(argv, env)
    settings = Settings(env)
    try:
        login = front.Login.decode(heard)
        session = authorization(argv, env, settings)
        session.claim(login)
    except ValueError as why:
        log.err(f"{argv[0]}: a login that nobody can have sent: {why}, {address(env)}")
        return 1
    latest = int(time()) + settings.seconds("POP3_LOGIN_TIMEOUT")
    env["AUTHEXPIRE"] = str(min(login.expire, latest))
    env.update({failure.VARIABLE: "", failure.CHALLENGE: ""})
    return hand_on(session, argv, env)


def goes_back(session: Authorization, delay: int, env: dict[str, str]) -> bool:
    """Whether a front has taken back the client of a refused login. One that has no time left for
    an answer ends here; so does one that is to be told what is wrong with its token."""
    expire = env.get("AUTHEXPIRE", "")
    if front.give_back is None or oauth.challenge(env):
        return False
    if not expire.isdigit() or int(expire[:12]) - time() <= delay:
        return False
    refused = front.Return(int(expire[:12]), session.utf8, session.refused(env))
    return front.give_back(refused.encode())


def go_on(argv: list[str], env: dict[str, str], known: bytes) -> int:
    """What is left of a session that was parked. Raises ValueError if this is none."""
    milliseconds, state_of_session = netstrings.decode(known)
    session = authorization(argv, env, Settings(env))
    session.resume(state_of_session)
    return serve(session, b"", int(milliseconds) / 1000, argv, env)


def serve(
    session: Authorization, first: bytes, deadline: float, argv: list[str], env: dict[str, str]
) -> int:
    """One session, beginning with what is to be said first. The deadline is on the monotonic
    clock."""
    settings = Settings(env)
    report = FailedAuth(address(env), settings.seconds("POP3_FAILURE_DELAY"))

    def park() -> None:
        known = netstrings.encode((b"%d" % int(deadline * 1000), session.state))
        parking.park(argv, env, known, deadline)

    try:
        converse(session, first, deadline, report, park)
        if session.starts_tls:
            env.update(stls.start(env, deadline - monotonic()), UTF8="0")
            session = authorization(argv, env, settings)
            say(session.secured_line(env))
            converse(session, b"", deadline, report, park)
    except Parked:
        return 0
    except stls.Failed as why:
        if why.args:
            log.info(f"STLS failed: {why}, {address(env)}")
        say(session.last_line(address(env)))
        log.debug(f"Disconnected, {address(env)}")
        return 1
    except (Gone, TimedOut):
        say(session.last_line(address(env)))
        log.debug(f"Disconnected, {address(env)}")
        return 1
    if session.quit:
        say(session.last_line(address(env)))
        log.debug(f"Disconnected, {address(env)}")
        return 0
    return hand_on(session, argv, env)


def say(line: str) -> None:
    if line:
        log.info(line)


class FailedAuth:
    """What an AUTH that ends without an attempt costs: a line of log, and a delay (auth.md 1.6).

    where: the client, in log lines. delay: seconds.
    """

    __slots__ = ("_where", "_delay")

    def __init__(self, where: str, delay: int):
        self._where = where
        self._delay = delay

    def __call__(self, session: Authorization, deadline: float) -> None:
        say(session.failed_line(self._where))
        if session.is_slow:
            sleep(max(0, min(self._delay, deadline - monotonic())))


def converse(
    session: Authorization,
    first: bytes,
    deadline: float,
    failed_auth: FailedAuth,
    park: Callable[[], None],
) -> None:
    """Say `first`, then obey the client until it has quit, sent a login, or is to speak TLS.

    Raises Gone, TimedOut at the deadline, and Parked.
    """
    client = Client(send_limit=max(0, deadline - monotonic()))
    try:
        reader = LineReader()
        client.send(first)
        while not session.is_over:
            idle = session.is_between_commands and reader.is_empty
            if idle and parking.is_due(client, deadline):
                park()
            reader.limit = session.limit
            for line in reader.feed(client.receive_line(deadline - monotonic())):
                reply = session.obey(line)
                if session.failed:
                    failed_auth(session, deadline)
                client.send(reply)
        if session.quit:
            client.discard_input()
    finally:
        client.detach()


def hand_on(session: Authorization, argv: list[str], env: dict[str, str]) -> int:
    """Become the first module, with the login on descriptor 3."""
    relay.give_back()
    env["UTF8"] = str(int(session.utf8))
    env["COURIER_LOGIN_USER"] = log.safe(session.user)
    env["COURIER_LOGIN_METHOD"] = log.safe(session.method)
    env[authtypes.DIALOGUE] = begun(session)
    try:
        if session.request is None:
            handover.start_over(env, failure.REJECTED)
        elif not throttle.allowed(env, env["COURIER_LOGIN_USER"]):
            handover.start_over(env, failure.LOCKED)
        else:
            request.pass_on(session.request)
            handover.become(argv[1:], env, record=True)
    except (CannotBecome, OSError) as why:
        log.err(f"{why}, {tried(env)}{address(env)}")
        os.write(1, failure.temporary(env))
    return 1


def begun(session: Authorization) -> str:
    """COURIER_LOGIN_DIALOGUE: see `dialogue`."""
    if session.request is None or not session.method.startswith(b"SCRAM-"):
        return ""
    from courierchain import dialogue

    return dialogue.begun(session.request)


def authorization(argv: list[str], env: dict[str, str], settings: Settings) -> Authorization:
    """Raises ValueError for a setting that makes no sense."""
    session = sessions(argv, env, settings, relay.channel is not None)(env["UTF8"] == "1")
    session.begin(env)
    return session


def sessions(
    argv: list[str], env: dict[str, str], settings: Settings, has_relay: bool
) -> Callable[[bool], Authorization]:
    """What makes sessions as the settings want them; it is told whether the client has said UTF8.
    Raises ValueError."""
    encrypted = number(env, "POP3_TLS") != 0
    tls_required = number(env, "POP3_TLS_REQUIRED") != 0 and not encrypted
    offer = sasl.offer(argv[1:], env, settings, encrypted=encrypted, tls_required=tls_required)
    env["COURIER_SASL"] = os.fsdecode(offer.announced)
    has_codes = settings.is_on("POP3_RESPONSE_CODES")
    service = os.fsencode(env.get("AUTHSERVICE" + env.get("TCPLOCALPORT", "")) or "pop3")
    kind = dialect(settings)
    takes_stls = not encrypted and stls.is_usable(env, has_relay)
    defdomain = os.fsencode(settings.text("DEFDOMAIN"))
    domainsep = os.fsencode(settings.text("DOMAINSEP"))
    capabilities = state.capabilities(
        sasl=offer.announced,
        response_codes=settings.is_on("POP3_EXCLUSIVE"),
        auth_codes=has_codes,
        login_delay=settings.seconds("POP3_LOGIN_DELAY"),
    )

    def begun(utf8: bool) -> Authorization:
        return kind(
            service=service,
            tls_required=tls_required,
            stls=takes_stls,
            offer=offer,
            has_codes=has_codes,
            defdomain=defdomain,
            domainsep=domainsep,
            utf8=utf8,
            capabilities=capabilities,
        )

    return begun


def dialect(settings: Settings) -> type[Authorization]:
    """Raises ValueError."""
    if settings.choice("POP3_DIALECT", "courier", "cyrus") == "courier":
        return Authorization
    from courierpop3login.cyrus import CyrusAuthorization

    return CyrusAuthorization


def has_login_path(argv: list[str], env: dict[str, str]) -> bool:
    """Whether the later stages will be able to start this program over (chain-protocol.md 5.2)."""
    if env.get("AUTHUSER", argv[0]).startswith("/"):
        return True
    log.plain(f"{argv[0]}: AUTHUSER is not initialized to a complete path")
    return False


def remembering(argv: list[str], env: dict[str, str]) -> dict[str, str]:
    """The environment with our argv in it, and with nobody authenticated."""
    env = {"UTF8": "0", **env, "AUTHENTICATED": "", "AUTHARGC": str(len(argv))}
    env.setdefault("AUTHUSER", argv[0])
    for index, word in enumerate(argv):
        env[f"AUTHARGV{index}"] = word
    return env


def time_left(env: dict[str, str], budget: int) -> float:
    """Seconds left of the login phase, at most `budget`; sets AUTHEXPIRE when it begins."""
    expire = env.get("AUTHEXPIRE", "")
    if not expire.isdigit():
        env["AUTHEXPIRE"] = str(int(time()) + budget)
        return budget
    return min(int(expire[:12]) - time(), budget)


def address(env: dict[str, str]) -> str:
    """The client, as it stands in every log line: ip and port (auth.md 1.8)."""
    ip = env.get("TCPREMOTEIP", "127.0.0.1")
    return f"ip=[{ip}], port=[{env.get('TCPREMOTEPORT', 'N/A')}]"


def tried(env: dict[str, str]) -> str:
    """The login last tried, as it stands in log lines: by USER, or by AUTH and its mechanism."""
    if method := env.get("COURIER_LOGIN_METHOD"):
        return f"method={method}, "
    user = env.get("COURIER_LOGIN_USER")
    return f"user={user}, " if user else ""


def number(env: dict[str, str], name: str) -> int:
    value = env.get(name, "")
    return int(value) if value.isdigit() else 0
