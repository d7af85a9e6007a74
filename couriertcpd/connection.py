"""connection - what a program finds when it starts for a client

    descriptors 0, 1   the client's socket; 2 the log, or with -stderr=socket the client too
    TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALIP, TCPLOCALPORT
    and what the listener was told for the session, as far as it is none of these: by the access
    file (see `access`), and by the DNS (see `lookups`)

(reference couriertcpd.md 5, 10).
"""

from __future__ import annotations


def variables(remote: tuple[str, int], local: tuple[str, int]) -> dict[str, str]:
    return {
        "TCPREMOTEIP": remote[0],
        "TCPREMOTEPORT": str(remote[1]),
        "TCPLOCALIP": local[0],
        "TCPLOCALPORT": str(local[1]),
    }
