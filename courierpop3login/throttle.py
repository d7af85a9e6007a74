"""throttle - ask the listener whether a login may be checked, and tell it of one that failed

COURIER_THROTTLE is the name of the listener's socket, in the abstract namespace, if it counts
failed logins; unset, nothing here does anything. Messages are datagrams, words with blanks between:

    try ADDRESS LIMIT USERID       answered with `yes` or `no`
    failed ADDRESS LIMIT USERID

ADDRESS is TCPREMOTEIP, LIMIT is MAXFAILSPERIP or `-`, USERID is fit for a log line. A listener that
has gone, or says nothing for PATIENCE seconds, keeps nobody from the mailbox.
"""

from __future__ import annotations

PATIENCE = 1.0  # seconds


def allowed(env: dict[str, str], user: str) -> bool:
    """Whether the login may be checked."""
    return tell(env, "try", user, answered=True) != b"no"


def failed(env: dict[str, str], user: str) -> None:
    tell(env, "failed", user)


def tell(env: dict[str, str], kind: str, user: str, *, answered: bool = False) -> bytes:
    """The listener's answer; empty if there is none."""
    name = env.get("COURIER_THROTTLE")
    if not name:
        return b""
    from _socket import AF_UNIX, SOCK_DGRAM, socket  # what `socket` adds costs more than this

    limit = env.get("MAXFAILSPERIP", "")
    message = f"{kind} {env.get('TCPREMOTEIP', '')} {limit if limit.isdigit() else '-'} {user}"
    try:
        channel = socket(AF_UNIX, SOCK_DGRAM)
        try:
            channel.settimeout(PATIENCE)
            channel.bind(b"")  # to a name that the kernel chooses, for the answer
            channel.connect(f"\0{name}")  # nobody else's answer is heard
            channel.send(message.encode("ascii", "replace"))
            return channel.recv(16) if answered else b""
        finally:
            channel.close()
    except OSError:
        return b""
