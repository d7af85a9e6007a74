"""wholefile - the octets of an open file, by one call of read(2) if it has the size that it had"""

from __future__ import annotations

import os

CHUNK = 262144  # octets read at a time of what has come beyond it


def read(descriptor: int, size: int) -> bytes:
    """From here to the end; `size` octets are expected. Raises OSError."""
    octets = os.read(descriptor, size + 1)
    if len(octets) == size:
        return octets
    parts = [octets]
    while octets:
        octets = os.read(descriptor, CHUNK)
        parts.append(octets)
    return b"".join(parts)
