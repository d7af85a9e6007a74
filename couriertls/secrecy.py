"""secrecy - keep what is in this process's memory from others

Private keys and sessions are there. A process that isn't dumpable leaves no core file, and other
processes of its user can't look into it (prctl(2), PR_SET_DUMPABLE).
"""

from __future__ import annotations

import ctypes
import sys

PR_SET_DUMPABLE = 4


def keep_secret() -> None:
    """Changing the user sets it anew: call this after, too."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    sys.unraisablehook = _ignore


def _ignore(_: object) -> None:
    """What Python prints of a name that a client has asked for, and that isn't ASCII."""
