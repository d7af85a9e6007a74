"""reuse - what a process does that serves one session after another, before and between them"""

from __future__ import annotations

import os


def enter_again() -> str:
    """The current directory, or `/` from now on if this user couldn't return to it."""
    try:
        directory = os.getcwd()
        os.chdir(directory)
    except OSError:
        directory = "/"
        os.chdir(directory)
    return directory


def take_over(client: int) -> None:
    """Put the client on descriptors 0 and 1, with nothing of its own left."""
    for descriptor in (0, 1):
        if client == descriptor:
            os.set_inheritable(descriptor, True)
        else:
            os.dup2(client, descriptor)
    if client > 1:
        os.close(client)
