"""courierpop3proxy - serve an account whose mailbox is on another host

    courierpop3proxy

An authentication module that has accepted such an account (POP3_PROXY, see courierchain.mailhost)
becomes this program instead of the next in the chain, as the account's user, with the request
still on descriptor 3: the password is there, and nowhere else. It asks the account's hosts one
after the other, logs in at the first that lets it, and copies bytes between client and host. What
the client has sent behind its PASS is still in the kernel, and reaches the host.

Reads      AUTHADDR, AUTHENTICATED: the userid there; TCPREMOTEIP, TCPREMOTEPORT, POP3_TLS
           OPTIONS: mailhost, disablepop3, disableinsecurepop3
           UTF8: not 0 if the client has said it before it logged in: the host is told
           the settings POP3_PROXY_TLS, POP3_PROXY_CAFILE: see hostlogin; POP3_PROXY_TIMEOUT,
           POP3_PROXY_IDLE_TIMEOUT, POP3_SEND_TIMEOUT, in seconds
Writes     one line of log at login and one at the end (see relay), and a WARN for each host that
           doesn't take the login
Exits      0 when the session is over; 1 when the account may not use POP3.
           With nothing said to the client, so that the module can: 75 (EX_TEMPFAIL) when no host
           could be asked or could say, 77 (EX_NOPERM) when a host refused, and none let us in
"""

from __future__ import annotations

import os
from time import monotonic

from courierchain import log, mailhost, options, request
from courierchain.client import Gone, TimedOut
from courierchain.handover import AuthFailure
from courierchain.request import BadRequest
from courierchain.settings import Settings
from courierpop3proxy.hostlogin import LoginRefused, MailHost, NoAnswer, Terms
from courierpop3proxy.relay import LocalClient, Relay
from pop3proto.replies import err, ok

CONNECTED = ok(b"Connected to proxy server.")


def main(argv: list[str], env: dict[str, str]) -> int:
    started = monotonic()
    password = password_of(env)
    if 0 in os.getresuid():
        log.err("courierpop3proxy: does not talk to the network as root (uid 0)")
        return mailhost.UNREACHED
    try:
        client = LocalClient(Settings(env).seconds("POP3_SEND_TIMEOUT"))
    except Gone:
        return 1
    try:
        refusal = options.refusal(env)
        if refusal:
            return refuse(client, refusal)
        idle_limit = Settings(env).seconds("POP3_PROXY_IDLE_TIMEOUT")
        host = log_in(env, password)
        stls = ", stls=1" if options.is_encrypted(env) else ""
        log.info(f"LOGIN, {log.session(env)}, protocol=POP3{stls}")
        relay = Relay(client, host, CONNECTED)
        event = relay.run(idle_limit)
        counts = f"rcvd={relay.received}, sent={relay.sent}, time={int(monotonic() - started)}"
        log.info(f"{event}, {log.session(env)}, {counts}{stls}")
        return 0
    except LoginRefused:
        return mailhost.REFUSED
    except NoAnswer:
        return mailhost.UNREACHED
    except ValueError as why:
        log.err(f"courierpop3proxy: {why}, {log.user(env)}")
        return mailhost.UNREACHED
    finally:
        client.detach()


def prepare(argv: list[str], env: dict[str, str]) -> int:
    """What all sessions have in common, in the process that will fork them. Raises ValueError."""
    Terms(Settings(env))
    return 0


def password_of(env: dict[str, str]) -> bytes:
    """What the client has typed. Closes descriptor 3. Raises AuthFailure outside a chain."""
    try:
        login = request.parse(request.take()).login
    except BadRequest as why:
        raise AuthFailure from why
    if login is None or not env.get("AUTHENTICATED"):
        raise AuthFailure
    return login[1]


def refuse(client: LocalClient, text: bytes) -> int:
    try:
        client.send(err(text))
        client.discard_input()
    except (Gone, TimedOut):
        pass
    return 1


def log_in(env: dict[str, str], password: bytes) -> MailHost:
    """The first of the account's hosts that lets the user in.

    Raises LoginRefused if none does and one has refused, NoAnswer if none could say, and
    ValueError for a setting that makes no sense.
    """
    terms = Terms(Settings(env))
    user = os.fsencode(env.get("AUTHADDR") or env["AUTHENTICATED"])
    outcome: Exception = NoAnswer("no mailhost")
    for name in mailhost.hosts(env):
        host = MailHost(terms)
        try:
            host.connect(name)
            host.log_in(user, password, utf8=options.has_said_utf8({"UTF8": "0", **env}))
            return host
        except (NoAnswer, LoginRefused) as why:
            host.close()
            log.warn(f"courierpop3proxy: {log.safe(name)}: {why}, {log.user(env)}")
            if not isinstance(outcome, LoginRefused):
                outcome = why
    raise outcome
