"""hostname - the name of an address, if it leads back there (reference couriertcpd.md 8.1)

By the system's resolver: /etc/hosts, the DNS, whatever nsswitch.conf says. It may take as long as
that resolver does, so it is called in a thread of `resolver` only.
"""

from __future__ import annotations

from socket import (
    AI_NUMERICHOST,
    EAI_AGAIN,
    NI_NAMEREQD,
    gaierror,
    getaddrinfo,
    getnameinfo,
)

from couriertcpd.dnslists import is_host_name

UNDECIDED = "softdnserr"


def host_name(address: str) -> str:
    """The name; empty if there is none, or it doesn't lead back; UNDECIDED if the DNS can't say
    just now."""
    address = address.removeprefix("::ffff:") if "." in address else address
    try:
        name = getnameinfo((address, 0), NI_NAMEREQD)[0]
        if not is_host_name(name):
            return ""
        # As bytes: Python would translate a text, and may fail.
        forward = {found[4][0] for found in getaddrinfo(name.encode("ascii"), None)}
        same = {found[4][0] for found in getaddrinfo(address, None, flags=AI_NUMERICHOST)}
        return name if forward & same else ""
    except gaierror as why:
        return UNDECIDED if why.errno == EAI_AGAIN else ""
    except UnicodeError:  # the C library's answer isn't even text
        return ""
