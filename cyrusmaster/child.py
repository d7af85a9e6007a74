"""child - from a fork to a worker

A worker finds (reference cyrus-pop3d.md 2.1):

    3                     where it says what it does; all workers of a socket write there
    4                     the listening socket
    CYRUS_SERVICE         the service's name in cyrus.conf
    CYRUS_ID              which of the service's sockets it is, from 0
    CYRUS_ISDAEMON=1      for a daemon, which has neither 3 nor 4
    RLIMIT_NOFILE         soft: maxfds

and signals at their defaults. If the program can't be executed the child exits 71.
"""

from __future__ import annotations

import os
import resource
from signal import SIG_DFL, SIG_UNBLOCK, SIGPIPE, SIGXFSZ, pthread_sigmask, set_wakeup_fd, signal

from courierchain import handover, log
from cyrusmaster.services import Service

STATUS, LISTENING = 3, 4  # descriptors
SYSTEM = 71  # sysexits(3)

Environment = dict[str, str]


def environment(service: Service, number: int, env: Environment) -> Environment:
    """number: of the socket."""
    found = {**env, "CYRUS_SERVICE": service.name, "CYRUS_ID": str(number)}
    found.pop("CYRUS_ISDAEMON", None)
    return found if service.listen else {**found, "CYRUS_ISDAEMON": "1"}


def become(
    service: Service, env: Environment, caught: tuple[int, ...], descriptors: tuple[int, ...]
) -> None:
    """In the child. Never returns.

    caught: the signals that are blocked and have handlers. descriptors: of the status pipe and of
    the socket, both above 4; none for a daemon.
    """
    try:
        set_wakeup_fd(-1)
        for number in (*caught, SIGPIPE, SIGXFSZ):
            signal(number, SIG_DFL)
        pthread_sigmask(SIG_UNBLOCK, caught)
        for descriptor, wanted in zip(descriptors, (STATUS, LISTENING), strict=False):
            os.dup2(descriptor, wanted)
        os.closerange(STATUS + len(descriptors), handover.HIGHEST)
        limit(service.maxfds)
        os.execve(service.path, service.argv, env)
    except (OSError, ValueError) as why:
        reason = why.strerror if isinstance(why, OSError) else str(why)
        log.err(f"{service.name}: cannot execute {service.path}: {reason}")
    finally:
        os._exit(SYSTEM)


def limit(maxfds: int) -> None:
    """How many descriptors there may be; 0 leaves it."""
    if maxfds:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = maxfds if hard == resource.RLIM_INFINITY else min(maxfds, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
