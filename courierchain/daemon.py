"""daemon - from a command to a daemon and back, and to lesser rights

    running = detach(pidfile, "couriertcpd")       from here on in the daemon, which has the lock
    ... bind the ports ...
    running.ready()                                writes the pid file; the command exits 0
    change_group("courier"); change_user("courier"); to_null()

FILE        pid and LF, mode 0666 less the umask; for others to read, nothing here does
FILE.lock   locked (fcntl, whole file) for as long as the daemon runs, mode 0600; the only witness
            of whether one runs, and of which process that is. Never removed, nor is FILE

The command that was typed waits for the daemon's word. It exits 0 once that listens, or 1 with a
line on descriptor 2: that of AlreadyRunning, else `ll_daemon_start: ...` below what the daemon
itself has complained of.

stop and restart signal the process that the kernel names as the owner of the lock, whatever FILE
says: a pid that another program has by now is never signalled (F-PID-2). An fcntl lock is not
inherited by fork, and is gone as soon as its process closes any descriptor of the file: so it is
taken last, and nothing else in the daemon may open it. Reference: couriertcpd.md 4, 10.3.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import struct
import termios
from collections.abc import Sequence
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGKILL, SIGTERM, signal
from time import monotonic, sleep

from courierchain import handover, log
from courierchain.refusal import Refused, refusal

INHERITED = 3  # the first descriptor that a daemon has no use for
PARKED = 10  # above what a shell gives names to; under 64 the kernel's table stays a small one
READY = b"\n"
KILL_AFTER = 10.0  # seconds between SIGTERM and SIGKILL, and from one SIGKILL to the next
LOOK_AGAIN = 0.02  # seconds between two looks at a lock
FLOCK = "hhqqi"  # struct flock: type, whence, start, length, pid


class AlreadyRunning(Refused):
    """The lock is another process's. pid: the owner's, 0 or less if it cannot be seen from here."""

    def __init__(self, lockfile: str, pid: int):
        who = f"pid {pid}, " if pid > 0 else ""
        super().__init__(f"already running ({who}{lockfile} is locked)")
        self.pid = pid


class Daemon:
    """This process, detached, with the lock. The descriptors close with it."""

    __slots__ = ("pidfile", "lock", "_starter")

    def __init__(self, pidfile: str, lock: int, starter: int):
        self.pidfile = pidfile
        self.lock = lock
        self._starter = starter

    def ready(self) -> None:
        """Write the pid file and let the command that was typed exit 0. Raises Refused."""
        write_pid(self.pidfile)
        _tell(self._starter, READY)


def detach(
    pidfile: str, program: str, *, once_is_enough: bool = False, keep: Sequence[int] = ()
) -> Daemon:
    """Go on as a daemon; the command that was typed never returns from here.

    If another one runs already, the command ends with that complaint of `program`, or, with
    `once_is_enough`, as if it were this one.

    Descriptors over 2 are closed, but those of `keep`. The session stays, the process group is a
    new one without a terminal. Raises Refused, in the daemon, if the lock file cannot be had.
    """
    lowest = INHERITED
    for descriptor in sorted(keep):
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, handover.HIGHEST)
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(_outcome(reader))
    if os.fork():
        os._exit(0)
    os.close(reader)
    starter = park(writer)
    leave_terminal()
    try:
        lock = acquire(pidfile)
    except AlreadyRunning as why:
        _tell(starter, READY if once_is_enough else os.fsencode(f"{program}: {why}"))
        os._exit(1)
    return Daemon(pidfile, lock, starter)


def _tell(starter: int, word: bytes) -> None:
    try:
        os.write(starter, word)
    except BrokenPipeError:
        pass  # somebody ended the command; the daemon was wanted all the same
    os.close(starter)


def _outcome(reader: int) -> int:
    """The exit status of the command, which is the daemon's first word; silence is a bad one."""
    word = os.read(reader, 8192)
    if word == READY:
        return 0
    log.plain(os.fsdecode(word) or f"ll_daemon_start: {os.strerror(errno.EAGAIN)}")
    return 1


def acquire(pidfile: str) -> int:
    """Lock FILE.lock for this very process, to its end; the descriptor.

    Raises AlreadyRunning, and Refused if there can't be such a file.
    """
    lock = park(_open_lock(pidfile))
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as why:
        holder = lock_holder(lock) or 0
        os.close(lock)
        raise AlreadyRunning(f"{pidfile}.lock", holder) from why
    except OSError as why:
        os.close(lock)
        raise refusal(f"{pidfile}.lock", why) from why
    return lock


def _open_lock(pidfile: str) -> int:
    # A file that can't be opened stays where it is: it may be the lock of a running daemon.
    try:
        return os.open(f"{pidfile}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as why:
        raise refusal(f"{pidfile}.lock", why) from why


def lock_holder(lock: int) -> int | None:
    """The pid of the process that has the file locked, None if no other process than this has.

    0 or less is a process that has no pid here: in another container or on another machine.
    """
    wanted = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found = struct.unpack(FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, wanted))
    return None if found[0] == fcntl.F_UNLCK else found[4]


def write_pid(pidfile: str) -> None:
    """Replace the pid file, were it a link, by one with our pid. Raises Refused."""
    try:
        if os.path.lexists(pidfile):
            os.unlink(pidfile)
        file = os.open(pidfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(file, b"%d\n" % os.getpid())
        os.close(file)
    except OSError as why:
        raise refusal(pidfile, why) from why


def stop(pidfile: str, program: str, patience: float = KILL_AFTER) -> int:
    """End the daemon with SIGTERM, after `patience` seconds with SIGKILL, and wait for that.

    The exit status: 0, also if none runs; 1, and a line of `program`, if it is not ours to end.
    Raises Refused if there can't be a lock file.
    """
    held = _held_lock(pidfile)
    if held is None:
        return 0
    lock, pid = held
    number = SIGTERM
    while lock_holder(lock) == pid:
        if not _signal(pidfile, program, pid, number):
            return 1
        _wait_for_release(lock, pid, patience)
        number = SIGKILL
    return 0


def restart(pidfile: str, program: str) -> int:
    """Send the daemon SIGHUP. Exit status and exception are those of `stop`."""
    held = _held_lock(pidfile)
    return 0 if held is None or _signal(pidfile, program, held[1], SIGHUP) else 1


def holder(pidfile: str) -> int | None:
    """The pid of the daemon; None if none runs. Raises Refused if there can't be a lock file."""
    held = _held_lock(pidfile)
    if held is None:
        return None
    os.close(held[0])
    return held[1]


def children(pid: int) -> list[int]:
    """The processes that all threads of one have begun; none if it has gone."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        return []
    return found


def _held_lock(pidfile: str) -> tuple[int, int] | None:
    """The lock file's descriptor and its owner; None if no daemon runs. Raises Refused."""
    lock = _open_lock(pidfile)
    pid = lock_holder(lock)
    return None if pid is None else (lock, pid)


def _signal(pidfile: str, program: str, pid: int, number: int) -> bool:
    """Signal the owner of a lock, as was found just now; False, and a line, if that can't be."""
    if pid <= 0:
        log.plain(f"{program}: cannot see the process that has locked {pidfile}.lock")
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # gone meanwhile
    except OSError as why:
        log.plain(f"kill: {why.strerror}")
        return False
    return True


def _wait_for_release(lock: int, pid: int, seconds: float) -> None:
    deadline = monotonic() + seconds
    while lock_holder(lock) == pid and monotonic() < deadline:
        sleep(LOOK_AGAIN)


def leave_terminal() -> None:
    """Have a process group of our own, and no controlling terminal."""
    try:
        os.setpgid(0, 0)
    except PermissionError:
        pass  # the leader of a session has its group already
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return  # there is none
    hangup = signal(SIGHUP, SIG_IGN)  # the kernel sends it to the leader of a session
    fcntl.ioctl(terminal, termios.TIOCNOTTY)
    signal(SIGHUP, hangup or SIG_DFL)
    os.close(terminal)


def to_null(descriptors: tuple[int, ...] = (0, 1, 2)) -> None:
    """These descriptors read nothing and write nowhere."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    if null not in descriptors:
        os.close(null)


def park(descriptor: int) -> int:
    """Move a long-lived descriptor out of the way of 3, where the chain's record goes.

    It gets closed on exec. The old number is closed: park before locking.
    """
    parked = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, PARKED)
    os.close(descriptor)
    return parked


def change_group(name: str) -> None:
    """Become the group of this name or, all digits, number, and no other. Raises Refused."""
    gid = group_id(name)
    _set_groups(gid, [gid])


def group_id(name: str) -> int:
    """Raises Refused if there is no such group; a number is taken as it is."""
    try:
        return int(name) if _is_number(name) else grp.getgrnam(name).gr_gid
    except KeyError as why:
        raise Refused(f"Group not found: {name}") from why


def change_user(name: str, *, keep_group: bool = False) -> None:
    """Become the user of this name or, all digits, number; there is no way back.

    A name brings its groups; with `keep_group` (after change_group) the present one stays the
    main one, as it does with a number. Raises Refused.
    """
    uid, gid = user_ids(name)
    if keep_group:
        gid = os.getgid()
    groups = [gid] if _is_number(name) else os.getgrouplist(name, gid)
    _set_groups(gid, groups)
    try:
        os.setuid(uid)
    except (OSError, OverflowError) as why:
        raise _not_permitted("setuid", why) from why
    if os.getresuid() != (uid, uid, uid):
        raise Refused(f"setuid: still have uids {os.getresuid()}")


def user_ids(name: str) -> tuple[int, int]:
    """uid and main gid; a number has our gid. Raises Refused if there is no such user."""
    if _is_number(name):
        return int(name), os.getgid()
    try:
        entry = pwd.getpwnam(name)
    except KeyError as why:
        raise Refused("getpwnam: Success") from why  # Courier's words
    return entry.pw_uid, entry.pw_gid


def _set_groups(gid: int, groups: list[int]) -> None:
    """Change the main group and, with root's rights, all of them."""
    try:
        os.setgid(gid)
        if os.geteuid() == 0:
            os.setgroups(groups)
    except (OSError, OverflowError) as why:
        raise _not_permitted("setgid", why) from why
    if os.getresgid() != (gid, gid, gid):
        raise Refused(f"setgid: still have gids {os.getresgid()}")


def _not_permitted(what: str, why: Exception) -> Refused:
    return refusal(what, why) if isinstance(why, OSError) else Refused(f"{what}: {why}")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()
