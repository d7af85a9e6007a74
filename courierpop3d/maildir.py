"""maildir - the names, flags and files of a Maildir

The current directory is the Maildir. A message is a file in cur/, called

    BASE            or    BASE:2,FLAGS

BASE never changes and says who the message is; FLAGS change as the mail is read. Names are bytes
and may hold any byte but NUL and `/`. Names that begin with a dot are nobody's message.

Whatever is in a Maildir may have been put there by an enemy: only regular files count, symbolic
links are not followed, and nothing waits for the other end of a fifo (F-FILE-3).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EEXIST, EINVAL, ESTALE
from stat import S_ISREG

from courierchain.atol import atol
from courierpop3d.journal import Journal, shown

CHUNK = 262144  # octets read at a time
LONGEST_NAME = 255
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
STALE_TRIES = 4  # NFS: a file that was replaced just now is found at another try (F-FILE-12)
OLD = 48 * 3600  # seconds after which a file in tmp is not going to be delivered any more

Stamp = tuple[int, ...]

# C's `char` is signed where Courier's order of messages was made, so 0x80 sorts before NUL.
_SIGNED = bytes(octet ^ 0x80 for octet in range(256))

_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"000000000")


def keep_memory() -> None:
    """Let buffers of a CHUNK be used again, before anything is read.

    glibc returns memory of over 128 KiB to the system, which clears each page when it is wanted
    again: that takes longer than to fill it. Of what has once been as large it keeps some
    (mallopt(3), M_MMAP_THRESHOLD), in forked processes too.
    """
    bytes(2 * CHUNK)


def base(name: bytes) -> bytes:
    return name.partition(b":")[0]


def order(name: bytes) -> tuple[int, bytes]:
    """What messages are sorted by: the number in front, then the bytes with the NUL at their end
    (reference 2.4)."""
    return atol(name), (name + b"\0").translate(_SIGNED)


def in_order(names: list[bytes]) -> list[bytes]:
    """The names as messages are sorted; ten times as fast if they are what delivery agents make."""
    usual = [name[:11].translate(_DIGITS_AS_0) == b"0000000000." for name in names]
    if all(usual) and all(map(bytes.isascii, names)):
        return sorted(names)
    return sorted(names, key=order)


def with_flags(name: bytes) -> bytes:
    """The name in cur/ of what has this name in new/."""
    front, _, info = name.partition(b":")
    if info.startswith(b"2,") or len(front) + len(b":2,") > LONGEST_NAME:
        return name
    return front + b":2,"


def with_seen(name: bytes) -> bytes:
    """The name with the flag S, as the last one; unchanged if it has it or has no flags of ours."""
    front, colon, info = name.partition(b":")
    if not colon:
        return front + b":2,S"
    return name if b"S" in info or not info.startswith(b"2,") else name + b"S"


def scan(folder: bytes) -> list[bytes]:
    """The names of the messages in `folder`, in no order. Raises OSError."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if is_message(entry)]


def has_just(folder: bytes, names: list[bytes]) -> bool:
    """Whether these are the messages in `folder`, looked at one by one. Raises OSError."""
    missing = set(names)
    with os.scandir(folder) as entries:
        for entry in filter(is_message, entries):
            if entry.name not in missing:
                return False
            missing.remove(entry.name)
    return not missing


def is_message(entry: os.DirEntry[bytes]) -> bool:
    return not entry.name.startswith(b".") and entry.is_file(follow_symlinks=False)


def purge_tmp(now: float) -> None:
    """Remove from tmp/ what interrupted deliveries left there, and we ourselves (F-KILL-3)."""
    try:
        with os.scandir(b"tmp") as entries:
            for entry in entries:
                if not entry.name.startswith(b"."):
                    _remove_if_old(entry, now)
    except OSError:
        pass


def _remove_if_old(entry: os.DirEntry[bytes], now: float) -> None:
    try:
        if entry.stat(follow_symlinks=False).st_mtime < now - OLD:
            os.unlink(entry.path)
    except OSError:
        pass


def move_new_to_cur(journal: Journal) -> None:
    """Take in the mail that has come. What can't be moved is not seen in this session."""
    try:
        names = scan(b"new")
    except FileNotFoundError:
        return
    except OSError as why:
        journal.err(f"cannot read new: {why.strerror}")
        return
    for name in names:
        try:
            take_in(name)
        except FileNotFoundError:
            pass  # another session was faster
        except OSError as why:
            target = shown(with_flags(name))
            journal.err(f"rename(./new/{shown(name)},./cur/{target}) failed: {why.strerror}")
            if why.errno != EEXIST:
                return  # a read-only file system says no to all of them


def take_in(name: bytes) -> bytes:
    """Move a message from new/ to cur/; its name there. Raises OSError."""
    target = with_flags(name)
    _rename(b"new/" + name, b"cur/" + target)
    return target


def mark_seen(name: bytes) -> bytes:
    """Set the flag S; the new name, or the old one when that can't be."""
    target = with_seen(name)
    if target != name:
        try:
            _rename(b"cur/" + name, b"cur/" + target)
        except OSError:
            return name
    return target


def _rename(path: bytes, target: bytes) -> None:
    # rename(2) replaces silently, and there would be one message less.
    try:
        os.lstat(target)
    except FileNotFoundError:
        os.rename(path, target)
    else:
        raise FileExistsError(EEXIST, os.strerror(EEXIST))


def open_scanned(path: bytes) -> int:
    """A descriptor for reading a file that scan() has found to be a regular one. Raises OSError.

    What took its place since can't be opened so, or has nothing to read: to ask once more costs a
    large mailbox's first login a tenth of its time.
    """
    for _ in range(STALE_TRIES - 1):
        try:
            return os.open(path, READING)
        except OSError as why:
            if why.errno != ESTALE:
                raise
    return os.open(path, READING)


def open_regular(path: bytes) -> int:
    """A descriptor for reading the file at `path`, whatever there may be. Raises OSError."""
    descriptor = open_scanned(path)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        close(descriptor)
        raise OSError(EINVAL, "Not a regular file")
    return descriptor


def close(descriptor: int) -> None:
    """Close what has been read: nothing can be wrong with it any more."""
    try:
        os.close(descriptor)
    except OSError:
        pass


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file or directory does, or when another one is in its place."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def chunks(descriptor: int) -> Iterator[bytes]:
    """The octets of an open file. Raises OSError."""
    while chunk := os.read(descriptor, CHUNK):
        yield chunk
