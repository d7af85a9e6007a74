"""known - the names that mean something in pop3d and pop3d-ssl

Any other variable is legal: it is in the environment of every session. But it may be a name that
somebody has mistyped, so `courierctl configtest` tells of it.
"""

from __future__ import annotations

import difflib
import re

from courierchain.settings import DEFAULTS

COURIER = """
    PIDFILE MAXDAEMONS MAXPERIP POP3AUTH POP3AUTH_ORIG POP3AUTH_TLS POP3AUTH_TLS_ORIG POP3_PROXY
    PROXY_HOSTNAME PORT ADDRESS TCPDOPTS LOGGEROPTS DEFDOMAIN DOMAINSEP POP3DSTART
    POP3_LOG_DELETIONS AUTH_MKHOMEDIR_SKEL MAILDIRPATH MIME_UNICODE_MESSAGE_TYPE
    SSLPORT SSLADDRESS SSLPIDFILE SSLLOGGEROPTS POP3DSSLSTART POP3_STARTTLS POP3_TLS_REQUIRED
    COURIERTLS TLS_PRIORITY TLS_PROTOCOL TLS_STARTTLS_PROTOCOL TLS_CIPHER_LIST TLS_MIN_DH_BITS
    TLS_TIMEOUT TLS_CERTFILE TLS_PRIVATE_KEYFILE TLS_DHPARAMS TLS_TRUSTCERTS TLS_VERIFYPEER
    TLS_EXTERNAL TLS_CACHEFILE TLS_CACHESIZE TLS_INTCACHESIZE TLS_ALPN TLS_DEBUG
    AUTHMODULES AUTHMODULES_ORIG MAXCPERIP BLOCK MAILDIRQUOTA DEBUG_LOGIN COURIER_COLDEXEC
    MAXFAILSPERIP TLS_HANDSHAKE_TIMEOUT TLS_RELAYS
""".split()

# Of the system, for programs in general.
SYSTEM = "PATH SHELL HOME TMPDIR TZ LANG LANGUAGE IFS OPTIND PPID PS1 PS2 PS4".split()

NAMES = {*COURIER, *SYSTEM, *DEFAULTS}
FAMILIES = re.compile(r"AUTHSERVICE\d+|LC_\w+")

RETIRED = {  # and what takes its place (couriertcpd.md 12.3)
    "TLS_DHCERTFILE": "TLS_DHPARAMS names the parameters, mkdhparams makes them",
    "TLS_PEERCERTS": "TLS_TRUSTCERTS has taken its place",
    "TLS_PEERCERTDIR": "TLS_TRUSTCERTS has taken its place; it may be a directory",
    "TLS_OURCACERT": "TLS_TRUSTCERTS has taken its place",
    "TLS_TIMEOUT": "no release of Courier has obeyed it; take it out",
}


def remark(name: str) -> str | None:
    """What is to be said of a setting of this name; None of one that we know."""
    if name in RETIRED:
        return f"has no effect: {RETIRED[name]}"
    if name in NAMES or FAMILIES.fullmatch(name):
        return None
    close = difflib.get_close_matches(name.upper(), sorted(NAMES - set(SYSTEM)), 1, cutoff=0.8)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"not a setting that we know; passed on to every session{hint}"
