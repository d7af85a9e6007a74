"""cyruslines - what Cyrus's pop3d logs, in its words: POP3_DIALECT=cyrus

    login: HOST USER[+FOLDER] MECHANISM[+TLS] User logged in SESSIONID=<ID>
    badlogin: HOST plaintext (USER) [SASL(-13): authentication failure: checkpass failed]
    badlogin: HOST plaintext (USER) invalid user
    badlogin: HOST MECHANISM (USER) [SASL(-13): authentication failure: checkpass failed]
    badlogin: HOST MECHANISM (-notset-) [bad protocol / cancel]
    badlogin: HOST APOP (CHALLENGE) SASL(-13): authentication failure: USER
    badlogin: HOST anonymous login refused
    starttls: TLSv1.3 with cipher NAME (BITS/BITS bits new) no authentication
    counts: retr=<N> top=<N> dele=<N>
    USAGE USER user: SECONDS sys: SECONDS
    Expunged N messages from MAILBOX

(reference cyrus-pop3d.md 5.10, the form of 3.6). HOST is `NAME [IP]`, or `[IP]` if nobody has
looked the name up, or `[local]`. A text of the client's has dots for what could forge a field.

On purpose otherwise: whether the user or the password was wrong is not told, as no module says; and
a login by AUTH is refused in the words of one by PASS, with its user, so that who reads these lines
to ban clients (fail2ban's cyrus-imap) finds it too.
"""

from __future__ import annotations

import os
from binascii import hexlify
from time import time

from courierchain import failure, log
from courierchain.cyrus import Options
from courierchain.options import is_encrypted

Environment = dict[str, str]

NOTICES = (b"login:", b"badlogin:", b"counts:", b"USAGE ", b"starttls:", b"Expunged ")
NO_COUNTS = "counts: retr=<0> top=<0> dele=<0>"
REASONS = {
    failure.TEMPORARY: "SASL(-1): generic failure",
    failure.PERMANENT: "SASL(-1): generic failure",
    failure.LOCKED: "SASL(-13): authentication failure: too many failures",
}


def client(env: Environment) -> str:
    ip = env.get("TCPREMOTEIP")
    if not ip:
        return "[local]"
    name = env.get("TCPREMOTEHOST", "")
    return f"{log.safe(name)} [{log.safe(ip)}]" if name else f"[{log.safe(ip)}]"


def session_id(env: Environment) -> str:
    """The id of the session that begins here; the same again for this environment."""
    if "CYRUS_SESSIONID" not in env:
        base = env.get("CYRUS_SYSLOG_PREFIX") or Options(env).text("SERVERNAME")
        numbers = (int(time()), os.getpid(), 1, int(hexlify(os.urandom(8)), 16))
        env["CYRUS_SESSIONID"] = "{}-{}-{}-{}-{}".format(base, *numbers)
    return env["CYRUS_SESSIONID"]


def login(env: Environment) -> str:
    user = log.safe(env.get("AUTHENTICATED", ""))
    if folder := env.get("POP3_FOLDER"):
        levels = folder.replace(".", "/") if Options(env).is_on("UNIXHIERARCHYSEP") else folder
        user += f"+{log.safe(levels)}"
    how = (env.get("COURIER_LOGIN_METHOD") or "plaintext") + "+TLS" * is_encrypted(env)
    return f"login: {client(env)} {user} {how} User logged in SESSIONID=<{session_id(env)}>"


def refused(env: Environment) -> str:
    """A login that has come back."""
    reason = REASONS.get(env.get(failure.VARIABLE, ""), "SASL(-13): authentication failure")
    method = env.get("COURIER_LOGIN_METHOD")
    if method == "APOP":
        return refused_apop(env, f"{reason}: {log.safe(env.get('COURIER_LOGIN_USER', ''))}")
    user = env.get("COURIER_LOGIN_USER", "")
    return f"badlogin: {client(env)} {method or 'plaintext'} ({user}) [{reason}: checkpass failed]"


def invalid_user(env: Environment, name: bytes) -> str:
    return f"badlogin: {client(env)} plaintext ({log.safe(name)}) invalid user"


def refused_apop(env: Environment, reason: str) -> str:
    return f"badlogin: {client(env)} APOP ({env.get('CYRUS_CHALLENGE', '')}) {reason}"


def no_anonymous(env: Environment) -> str:
    return f"badlogin: {client(env)} anonymous login refused"


def refused_dialogue(env: Environment, method: bytes, reason: str) -> str:
    return f"badlogin: {client(env)} {log.safe(method)} (-notset-) [{reason}]"


def starttls(protocol: str) -> str:
    """protocol: what TLS_CONNECTED_PROTOCOL says."""
    version, bits, cipher = (protocol.split(",") + ["", ""])[:3]
    size = bits.removesuffix("bits")
    text = f"{version} with cipher {cipher} ({size}/{size} bits new)"
    return f"starttls: {text} no authentication"


def counts(*, retr: int, top: int, dele: int) -> str:
    return f"counts: retr=<{retr}> top=<{top}> dele=<{dele}>"


def usage(env: Environment) -> str:
    """What this process has used."""
    from resource import RUSAGE_SELF, getrusage

    used = getrusage(RUSAGE_SELF)
    user = log.safe(env.get("AUTHENTICATED", ""))
    return f"USAGE {user} user: {used.ru_utime:.6f} sys: {used.ru_stime:.6f}"


def expunged(env: Environment, number: int) -> str:
    return f"Expunged {number} messages from {mailbox(env)}"


def mailbox(env: Environment) -> str:
    """The session's, by its name in Cyrus: `user.joe`, and its folders below that."""
    user, at, domain = env.get("AUTHENTICATED", "").partition("@")
    name = f"user.{user.replace('.', '^')}"
    if folder := env.get("POP3_FOLDER"):
        name += f".{folder}"
    return log.safe(f"{domain}!{name}" if at else name)
