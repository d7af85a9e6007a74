"""shutdown - the file by which an administrator of Cyrus turns everybody away

`msg/shutdown` in the directory CYRUS_CONFIGDIRECTORY. While it is there, its first line is what
clients are told (reference cyrus-pop3d.md 5.9).
"""

from __future__ import annotations

import os

LONGEST = 400  # octets that are told


def message(directory: str) -> bytes:
    """The line, fit for a reply; empty if nobody is to be turned away."""
    if not directory:
        return b""
    try:
        descriptor = os.open(f"{directory}/msg/shutdown", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        line = os.read(descriptor, LONGEST).partition(b"\n")[0].strip().lstrip(b"[")
    except OSError:
        line = b""
    finally:
        os.close(descriptor)
    return bytes(octet for octet in line if octet >= 0x20) or b"System is shutting down"
