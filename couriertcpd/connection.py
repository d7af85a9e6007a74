"""connection - what a program finds when it starts for a client

    descriptors 0, 1   the client's socket; 2 the log, or with -stderr=socket the client too
    TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALIP, TCPLOCALPORT
    TCPREMOTEHOST, TCPLOCALHOST   without -nodnslookup, see `host_name`
    and what the access file has for the client, as far as it is none of these, see `access`

(reference couriertcpd.md 5, 8.1, 10). All of it runs in the child, so nobody waits for it but the
client whom it concerns.
"""

from __future__ import annotations

import os
from select import POLLIN, poll
from signal import SIGKILL
from socket import (
    AI_NUMERICHOST,
    EAI_AGAIN,
    NI_NAMEREQD,
    gaierror,
    getaddrinfo,
    getnameinfo,
)

LOOKUP_LIMIT = 15.0  # seconds for one address, both ways (F-NET-7)


def variables(remote: tuple[str, int], local: tuple[str, int], lookup: bool) -> dict[str, str]:
    found = {
        "TCPREMOTEIP": remote[0],
        "TCPREMOTEPORT": str(remote[1]),
        "TCPLOCALIP": local[0],
        "TCPLOCALPORT": str(local[1]),
    }
    if lookup:
        for name, (address, _) in (("TCPREMOTEHOST", remote), ("TCPLOCALHOST", local)):
            host = bounded_host_name(address)
            if host:
                found[name] = host
    return found


def host_name(address: str) -> str:
    """The name of an address if it leads back to the address, else empty; `softdnserr` if the DNS
    can't say just now."""
    address = address.removeprefix("::ffff:") if "." in address else address
    try:
        name = getnameinfo((address, 0), NI_NAMEREQD)[0]
        forward = {found[4][0] for found in getaddrinfo(name, None)}
        same = {found[4][0] for found in getaddrinfo(address, None, flags=AI_NUMERICHOST)}
        return name if forward & same else ""
    except gaierror as why:
        return "softdnserr" if why.errno == EAI_AGAIN else ""


def bounded_host_name(address: str) -> str:
    """`host_name` within LOOKUP_LIMIT: the resolver has no time limit of its own that holds."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, host_name(address).encode())
        os._exit(0)
    os.close(writer)
    poller = poll()
    poller.register(reader, POLLIN)
    answered = poller.poll(LOOKUP_LIMIT * 1000)
    name = os.read(reader, 1024).decode("ascii", "replace") if answered else "softdnserr"
    os.close(reader)
    os.kill(child, SIGKILL)
    os.waitpid(child, 0)
    return name
