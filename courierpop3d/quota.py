"""quota - maildirsize, the Maildir++ quota file, and what removals take off it

    10000000S,1000C              the quota: octets and messages; 0 or absent is no limit
            3412            2    octets and messages that came, or went if negative: a line a change
             -17           -1

The sums of the lines are what the mailbox holds. Courier's other programs, and other people's, add
to the same file when they deliver and remove mail (reference courierpop3d.md 7); here the messages
that QUIT removes are subtracted, in one line. Nothing is refused for a quota, and no maildirsize is
created.

A file that is long, has a negative sum or says that the mailbox is over quota is made anew from the
messages that are there. What has just been removed isn't among them, so it is not subtracted once
more, as Courier does. Nor does an empty file get a change for a first line.

There may be anything in a maildirsize: no more than LONG octets of it are read, and a first line
that is no quota is kept as it is. Whatever fails is one line of log and disturbs neither session
nor removals; it heals when the file is made anew.

Reads      MAILDIR_SKIP_SYMLINK_CHECKS, MAILDIR_TRASHQUOTA
           maildirfolder: its directory is a folder of the Maildir above
           maildirsize, new/ and cur/ of the Maildir and of its folders
Writes     maildirsize and tmp/ of the Maildir
"""

from __future__ import annotations

import os
from errno import EINVAL, ELOOP, ENOENT, ENOSPC
from stat import S_ISREG
from time import time

from courierchain.atol import DIGITS, atol
from courierchain.log import MAX_SHOWN
from courierchain.options import is_nonzero
from courierchain.settings import Settings
from courierpop3d.aside import Aside
from courierpop3d.journal import Journal, shown
from courierpop3d.maildir import base, close

FILE = b"/maildirsize"
LONG = 5120  # octets at which a file is made anew
FRESH = 15 * 60  # seconds that a file of one line is believed to be over quota
DEPTH = 5  # directories that can be, one in the other, a folder of the next

KINDS = (b"S", b"C")  # of limits: octets, messages
OTHERS = bytes(set(range(256)) - set(DIGITS))
FLAGS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# What isn't there, and what is closed to the user: nobody's mail, as Courier sees it.
UNCOUNTED = (FileNotFoundError, NotADirectoryError, PermissionError)


class Quota:
    """What one session takes off its mailbox."""

    __slots__ = ("_env", "_journal", "_mailbox", "_octets", "_count")

    def __init__(self, env: dict[str, str], journal: Journal):
        self._env = env
        self._journal = journal
        self._mailbox: Mailbox | None = None
        self._octets = 0
        self._count = 0

    def octets_of(self, name: bytes) -> int:
        """What a message in cur/ counts, 0 if nothing. To be asked before it is removed."""
        self._mailbox = self._mailbox or Mailbox(Settings(self._env))
        return self._mailbox.octets_of(name)

    def subtract(self, octets: int) -> None:
        """A message that counted so much is removed."""
        if octets:
            self._octets += octets
            self._count += 1

    def update(self) -> None:
        """Enter into maildirsize what has been subtracted."""
        if self._mailbox and self._count:
            try:
                self._mailbox.enter(-self._octets, -self._count, self._journal)
            except OSError as why:
                self._journal.err(f"cannot update maildirsize: {why.strerror}")


class Mailbox:
    """The Maildir that has the maildirsize: the session's, or one that this is a folder of."""

    __slots__ = ("_root", "_open_flags", "_trash_counts")

    def __init__(self, settings: Settings):
        self._root = find_root()
        self._open_flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK
        if not is_nonzero(settings.text("MAILDIR_SKIP_SYMLINK_CHECKS")):
            self._open_flags |= os.O_NOFOLLOW
        self._trash_counts = is_nonzero(settings.text("MAILDIR_TRASHQUOTA"))

    def octets_of(self, name: bytes) -> int:
        """What a message in the session's cur/ counts."""
        try:
            return size_of(b"cur", name) if self._root and self._counts(name) else 0
        except OSError:
            return 0  # nor can it be removed

    def _counts(self, name: bytes) -> bool:
        return not name.startswith(b".") and (self._trash_counts or not is_trashed(name))

    def enter(self, octets: int, count: int, journal: Journal) -> None:
        """Add a change to maildirsize, or make it anew as it is with the change. Raises OSError."""
        descriptor = self._open()
        if descriptor is None:
            return
        try:
            text = os.read(descriptor, LONG)
            if len(text) == LONG and b"\n" not in text:
                journal.warn("maildirsize has no quota in its first line, and is left alone")
            elif text:
                self._enter(descriptor, Sizes(text, journal), octets, count)
        finally:
            close(descriptor)

    def _open(self) -> int | None:
        """A descriptor of maildirsize; None if it has gone or is a symbolic link."""
        try:
            descriptor = os.open(self._root + FILE, self._open_flags)
        except OSError as why:
            if why.errno in (ENOENT, ELOOP):
                return None
            raise
        if not S_ISREG(os.fstat(descriptor).st_mode):
            close(descriptor)
            raise OSError(EINVAL, "Not a regular file")
        return descriptor

    def _enter(self, descriptor: int, sizes: Sizes, octets: int, count: int) -> None:
        status = os.fstat(descriptor)
        change = change_line(octets, count)
        if os.pread(descriptor, 1, status.st_size - 1) != b"\n":
            change = b"\n" + change  # a quota set with printf, a hand-made correction
        try:
            age = time() - status.st_mtime
            if sizes.are_doubtful(octets, count, age) and self._make_anew(sizes.quota):
                return
        except OSError:
            write(descriptor, change)
            raise
        write(descriptor, change)

    def _make_anew(self, quota: bytes) -> bool:
        """Replace maildirsize; False, and it stays, if mail came or went meanwhile.

        What others add to it between the last look and the rename is lost: so the format is.
        """
        before = self._folders()
        octets, count = self._totals(before)
        with Aside(self._root + name_aside()) as aside:
            aside.write(quota + b"\n" + change_line(octets, count))
            aside.sync()
            reliable = self._folders() == before
            if reliable:
                aside.replace(self._root + FILE, durable=False)
        return reliable

    def _folders(self) -> dict[bytes, int]:
        """Each new/ and cur/ that counts, and when mail last came to it or left it."""
        with os.scandir(self._root) as entries:
            folders = [entry.path for entry in entries if self._is_folder(entry)]
        times = {}
        for folder in (self._root, *folders):
            for path in (folder + b"/new", folder + b"/cur"):
                try:
                    times[path] = os.stat(path).st_mtime_ns
                except UNCOUNTED:
                    pass
        return times

    def _is_folder(self, entry: os.DirEntry[bytes]) -> bool:
        if not entry.name.startswith(b".") or entry.is_symlink():
            return False
        return self._trash_counts or entry.name != b".Trash"

    def _totals(self, folders: dict[bytes, int]) -> tuple[int, int]:
        octets = count = 0
        for folder in folders:
            try:
                names = os.listdir(folder)
            except UNCOUNTED:
                continue
            for name in filter(self._counts, names):
                try:
                    octets += size_of(folder, name)
                    count += 1
                except UNCOUNTED:
                    pass
        return octets, count


class Sizes:
    """What a maildirsize says. `quota` is its first line as the next file is to have it."""

    __slots__ = ("quota", "_limits", "_lines", "_octets", "_count", "_is_long")

    def __init__(self, text: bytes, journal: Journal):
        first, *lines = text.removesuffix(b"\n").split(b"\n")
        self.quota, self._limits = parse_quota(first, journal)
        self._lines = len(lines)
        self._octets = self._count = 0
        for octets, count in map(parse_change, lines):
            self._octets += octets
            self._count += count
        self._is_long = len(text) == LONG

    def are_doubtful(self, octets: int, count: int, age: float) -> bool:
        """Whether the file should be made anew when this is added to it; `age` in seconds."""
        if self._is_long or self._octets < 0 or self._count < 0:
            return True
        return self._is_over(octets, count) and not (self._lines == 1 and age < FRESH)

    def _is_over(self, octets: int, count: int) -> bool:
        max_octets, max_count = (self._limits.get(kind, 0) for kind in KINDS)
        return 0 < max_octets < self._octets + octets or 0 < max_count < self._count + count


def parse_quota(text: bytes, journal: Journal) -> tuple[bytes, dict[bytes, int]]:
    """A quota as Courier writes it, or the text as it is if more or less is in it; its limits."""
    limits = {}
    rest = text.lstrip(OTHERS)
    while rest:
        end = rest.lstrip(DIGITS)
        limits[end[:1]] = atol(rest)
        rest = end.lstrip(OTHERS)
    if limits.keys() - KINDS:
        journal.warn(f"quota string '{shown(text[:MAX_SHOWN])}' not parseable")
    elif limits:
        text = b",".join([b"%d%s" % (limits[kind], kind) for kind in KINDS if limits.get(kind)])
    return text, limits


def parse_change(line: bytes) -> tuple[int, int]:
    """The octets and the messages of a line; nothing if it isn't two numbers."""
    behind = without_number(line)
    if behind is None or without_number(behind) is None:
        return 0, 0
    return atol(line), atol(behind)


def without_number(text: bytes) -> bytes | None:
    """What follows the number in front of `text`, blanks and a sign allowed; None without one."""
    text = text.lstrip()
    digits = text[1:] if text.startswith((b"+", b"-")) else text
    return digits.lstrip(DIGITS) if digits[:1].isdigit() else None


def change_line(octets: int, count: int) -> bytes:
    return b"%12d %12d\n" % (octets, count)


def write(descriptor: int, text: bytes) -> None:
    """Write in one piece, so that lines of several writers don't mix. Raises OSError."""
    if os.write(descriptor, text) < len(text):
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def name_aside() -> bytes:
    host = os.uname().nodename.replace("/", "_")
    return os.fsencode(f"/tmp/{int(time())}.{os.getpid()}_NeWmAiLdIrSiZe.{host}")


def size_of(folder: bytes, name: bytes) -> int:
    """What a message counts: the size that its name tells, or else the file's. Raises OSError."""
    _, mark, size = base(name).rpartition(b",S=")
    if not mark:
        return os.stat(folder + b"/" + name).st_size
    return atol(size) if size[:1].isdigit() else 0


def is_trashed(name: bytes) -> bool:
    flags = name.partition(b":2,")[2]
    return b"T" in flags[: len(flags) - len(flags.lstrip(FLAGS))]


def find_root() -> bytes:
    """The way to the Maildir with the quota; empty if there is no maildirsize."""
    root = b"."
    for _ in range(DEPTH):
        if not os.path.exists(root + b"/maildirfolder"):
            return root if os.path.lexists(root + FILE) else b""
        root += b"/.."
    return b""
