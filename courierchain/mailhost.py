"""mailhost - on which hosts an account's mailbox is (reference auth.md 1.9)

POP3_PROXY      not 0: a session of an account that has a mailhost is passed on to it
OPTIONS         of the account. Each `mailhost=HOST` in it names one, the first is asked first;
                HOST:PORT and [ADDRESS]:PORT are ours
PROXY_HOSTNAME  what we are called there, letter for letter; else what the system calls itself

An account that has us among its hosts has its mailbox here.
"""

from __future__ import annotations

import os

from courierchain import options
from courierchain.settings import Settings

PROXY = "courierpop3proxy"  # the program

# How the proxy exits, as sysexits.h has it, when it has said nothing to the client:
UNREACHED = 75  # EX_TEMPFAIL: no host could be asked, or could say
REFUSED = 77  # EX_NOPERM: no host takes the login


def is_proxy(env: dict[str, str]) -> bool:
    return options.is_nonzero(Settings(env).text("POP3_PROXY"))


def hosts(env: dict[str, str]) -> list[str]:
    """The account's, in the order in which they are to be asked."""
    return [host for host in options.values("mailhost", env) if host]


def is_elsewhere(env: dict[str, str]) -> bool:
    """Whether the mailbox is to be had from another host only."""
    if not is_proxy(env):
        return False
    there = hosts(env)
    own = Settings(env).text("PROXY_HOSTNAME") or os.uname().nodename
    return bool(there) and own not in there
