"""gdbm - GDBM databases, replaced as a whole

    replace(records, aside, file)    write `aside`, in the directory of `file`, and rename it

A reader finds the old database or the new one, and after a loss of power too: data and name are on
the disk when replace() returns. Raises Refused, and leaves nothing of `aside`.
"""

from __future__ import annotations

import os

from courierchain.refusal import Refused, refusal

MODE = 0o664  # less the umask


def replace(records: dict[bytes, bytes], aside: str, file: str) -> None:
    try:
        write(records, aside)
        rename(aside, file)
    except Refused:
        remove(aside)
        raise


def write(records: dict[bytes, bytes], file: str, mode: int = MODE) -> None:
    """Raises Refused."""
    try:
        import _gdbm
    except ImportError as why:
        raise Refused(f"{file}: this Python cannot write GDBM (Debian: python3-gdbm)") from why
    try:
        with _gdbm.open(file, "nf", mode) as database:
            for key, value in records.items():
                database[key] = value
        synchronize(file)
    except (_gdbm.error, OSError) as why:
        raise Refused(f"Cannot create {file}: {why.strerror or why}") from why


def rename(aside: str, file: str) -> None:
    """Raises Refused."""
    try:
        os.rename(aside, file)
        synchronize(os.path.dirname(file) or ".")
    except OSError as why:
        raise refusal("rename", why) from why


def synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(aside: str) -> None:
    try:
        os.unlink(aside)
    except OSError:
        pass  # it was not made
