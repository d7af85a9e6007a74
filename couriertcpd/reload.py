"""reload - the listener executes itself anew, in place: new code and settings, nobody is dropped

    couriertcpd -pid=FILE -reload                                    the same command line
    couriertcpd -pid=FILE -reload [OPTION...] PORTS PROGRAM ...      this one, and this environment
    SIGUSR2                                                          the same command line

1. The command connects to `@couriertcpd/PID`, a socket of the listener's that only root, and who
   started the listener, may use. PID has FILE.lock, or is a child of who has it: courierlogger's.
2. The listener lets a child execute the new command line with -check in front. If that is not
   content, what it said is logged and told to the command, and everything goes on as before.
3. The workers are hung up on: who waits ends, who serves ends after the session. The listener then
   executes the new command line itself. Signals are blocked until it is ready for them.

Its pid and its children, so courierlogger's and systemd's view of it, stay; so do the working
directory, the ids (-user has given up root, and a port under 1024 can't be bound any more), -pid,
and the lock on FILE.lock, which an exec doesn't end. What else is to be known after it is in a file
in memory, whose descriptor the variable COURIERTCPD_RELOAD names, for one process, PID.DESCRIPTOR:

    lock DESCRIPTOR         on FILE.lock
    uid NUMBER              that of the first start
    asker DESCRIPTOR        the command's, who waits for our word
    socket DESCRIPTOR       one that listens
    session PID ADDRESS     a process that serves a connection, and goes on counting
    parked DESCRIPTOR,... REST    a session without a process, REST in hexadecimal digits
    front DESCRIPTOR NUMBER       the channel to a front, and the last number of a connection
    held NUMBER ADDRESS ENDS      a connection in the front above, ENDS in hexadecimal digits
    soft NUMBER             the limit of descriptors before -park has raised it

Clients who connect meanwhile wait in the kernel.
"""

from __future__ import annotations

import os
import signal
import struct
from socket import (
    AF_INET6,
    AF_UNIX,
    SO_PEERCRED,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    inet_ntop,
    inet_pton,
    recv_fds,
    send_fds,
    socket,
)
from time import monotonic, sleep

from courierchain import daemon, log
from courierchain.daemon import Daemon, park
from courierchain.refusal import Refused
from couriertcpd.systemd import carry_over

NAME = "couriertcpd"
VARIABLE = "COURIERTCPD_RELOAD"
BLOCKED = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
TRIAL_TIME = 30  # seconds for -check; it is killed then
COMMAND_TIME = 60.0  # seconds that the command waits for the outcome
START_TIME = 5.0  # seconds that a listener may take from its lock to its control socket
LOOK_AGAIN = 0.05  # seconds
PATIENCE = 1.0  # seconds for the command's message, which is there when it connects
LONGEST = 1 << 22  # octets of a command line with its environment
DONE = b"\n"

Sessions = list[tuple[int, bytes]]  # pid and address
ParkedSessions = list[tuple[list[int], bytes]]  # as parkinglot's Parked packs them
HeldByFronts = list[tuple[socket, int, list[tuple[int, bytes, bytes]]]]  # see couriertcpd.front
CommandLine = tuple[list[str], dict[str, str]]  # argv and environment


class Inheritance:
    """What a listener takes over from itself."""

    __slots__ = ("lock", "uid", "asker", "sockets", "sessions", "parked", "fronts", "soft")

    def __init__(self) -> None:
        self.lock: int | None = None
        self.uid = os.getuid()
        self.asker: socket | None = None
        self.sockets: list[socket] = []
        self.sessions: Sessions = []
        self.parked: ParkedSessions = []
        self.fronts: HeldByFronts = []
        self.soft: int | None = None


def inheritance(env: dict[str, str]) -> Inheritance | None:
    """What is there for this process, also if it is a trial; `env` forgets it."""
    pid, _, number = env.pop(VARIABLE, "").partition(".")
    if pid != str(os.getpid()):
        return None
    found = Inheritance()
    with open(int(number), "rb", buffering=0) as file:
        file.seek(0)
        text = file.read().decode()
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "session":
            child, _, address = value.partition(" ")
            found.sessions.append((int(child), inet_pton(AF_INET6, address)))
        elif name == "uid":
            found.uid = int(value)
        elif name == "soft":
            found.soft = int(value)
        elif name == "parked":
            descriptors, _, rest = value.partition(" ")
            numbers = [int(number) for number in descriptors.split(",")]
            for descriptor in numbers:
                os.set_inheritable(descriptor, False)
            found.parked.append((numbers, bytes.fromhex(rest)))
        elif name == "held":
            number, address, ends = value.split(" ")
            held = (int(number), inet_pton(AF_INET6, address), bytes.fromhex(ends))
            found.fronts[-1][2].append(held)
        elif name in ("lock", "asker", "socket", "front"):
            _take(found, name, value)
    return found


def _take(found: Inheritance, name: str, value: str) -> None:
    number, _, more = value.partition(" ")
    descriptor = int(number)
    os.set_inheritable(descriptor, False)
    if name == "lock":
        found.lock = descriptor  # stays as it is: to close a copy of it would be to unlock
    elif name == "asker":
        found.asker = socket(fileno=descriptor)
    elif name == "front":
        found.fronts.append((socket(fileno=descriptor), int(more), []))
    else:
        found.sockets.append(socket(fileno=descriptor))


class Reload:
    """The listener's part. argv and env are those of its start, running is its -pid.

    control: to be watched; `answer` is called when it is readable. None if there can't be one.
    soft: the limit of descriptors before it was raised, if it was.
    """

    __slots__ = (
        *("_argv", "_env", "_running", "_sockets", "_uid", "_asker"),
        *("_next", "_trial", "_output", "control", "_soft"),
    )

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        sockets: list[socket],
        running: Daemon | None,
        before: Inheritance | None,
        soft: int | None,
    ):
        self._argv = [os.path.abspath(argv[0]), *argv[1:]]
        self._env = env
        self._sockets = sockets
        self._running = running
        self._uid = before.uid if before else os.getuid()
        self._asker = before.asker if before else None
        self._next: CommandLine = (self._argv, env)
        self._trial: int | None = None
        self._output = -1
        self._soft = soft
        self.control: socket | None = None

    def open(self) -> None:
        """Make `control`, and tell who has asked for this reload, if any, that all is well."""
        fresh = socket(AF_UNIX, SOCK_SEQPACKET)
        control = socket(fileno=park(fresh.detach()))
        try:
            control.bind(_control_name(os.getpid()))
            control.listen(1)
            control.setblocking(False)
            self.control = control
        except OSError as why:
            control.close()
            log.warn(f"{NAME}: -reload can't reach this process: bind: {why.strerror}")
        self._tell(DONE)

    def answer(self) -> bool:
        """Hear a command; whether a trial has begun."""
        assert self.control
        try:
            asker = self.control.accept()[0]
        except OSError:
            return False
        uid = struct.unpack("3i", asker.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))[1]
        if uid not in (0, self._uid):
            _send(asker, b"only root and the user who started it may reload it")
            return False
        asker.settimeout(PATIENCE)
        try:
            _, descriptors, _, _ = recv_fds(asker, 1, 1)
        except OSError:
            descriptors = []
        if not descriptors:
            asker.close()
            return False
        if self._trial:
            os.close(descriptors[0])
            _send(asker, b"a reload is under way")
            return False
        try:
            command_line = _unpack(descriptors[0])
        except (OSError, ValueError):
            _send(asker, b"the message is none of couriertcpd's")
            return False
        self._asker = asker
        return self.begin(command_line)

    def begin(self, command: CommandLine | None = None) -> bool:
        """Begin a trial, of the present command line if there is no other; whether it has begun."""
        if self._trial:
            return False
        self._next = (self._argv, self._env)
        if command and command[0]:
            pid = self._running.pidfile if self._running else None
            self._next = (with_pid(command[0], pid), carry_over(self._env, command[1]))
        self._output = os.memfd_create("trial", os.MFD_CLOEXEC)
        try:
            self._trial = os.fork()
        except OSError as why:
            self._fail(f"fork: {why.strerror}")
            return False
        if self._trial == 0:
            self._become_trial()
        return True

    def _become_trial(self) -> None:
        """In the child: execute the new command line with -check."""
        try:
            for number in (*BLOCKED, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(self._output, 2)
            signal.alarm(TRIAL_TIME)
            argv, env = self._next
            file, _ = self._write_down([], [], [], asker=False)
            os.execve(argv[0], [argv[0], "-check", *argv[1:]], {**env, VARIABLE: file})
        except (OSError, ValueError) as why:
            log.plain(f"{self._next[0][0]}: {reason(why)}")
        finally:
            os._exit(1)

    def is_settled(self, pid: int, status: int) -> bool | None:
        """Whether the trial was passed; None if that process was no trial."""
        if pid != self._trial:
            return None
        self._trial = None
        if status == 0:
            os.close(self._output)
            return True
        text = os.pread(self._output, 8192, 0).decode("utf-8", "surrogateescape").strip()
        os.close(self._output)
        killed = f"-check has not ended within {TRIAL_TIME} seconds"
        self._fail(text or (killed if os.WIFSIGNALED(status) else "-check failed"))
        return False

    def execute(
        self, sessions: Sessions, parked: ParkedSessions, fronts: HeldByFronts, unseen: list[int]
    ) -> None:
        """Become the new listener. Returns only if that can't be: everything stays as it was.

        unseen: signals that have come and are not acted on; they are kept for the new one.
        """
        argv, env = self._next
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        for number in unseen:
            os.kill(os.getpid(), number)
        unseen.clear()
        variable, descriptors = self._write_down(sessions, parked, fronts, asker=True)
        try:
            os.execve(argv[0], argv, {**env, VARIABLE: variable})
        except (OSError, ValueError) as why:
            obstacle = f"{argv[0]}: {reason(why)}"
        os.close(int(variable.partition(".")[2]))
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._fail(obstacle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)

    def _write_down(
        self,
        sessions: Sessions,
        parked: ParkedSessions,
        fronts: HeldByFronts,
        *,
        asker: bool,
    ) -> tuple[str, list[int]]:
        """The value of VARIABLE, and the descriptors that are no more closed at exec for it."""
        lines = [f"uid {self._uid}"]
        descriptors = [sock.fileno() for sock in self._sockets]
        lines += [f"socket {number}" for number in descriptors]
        if asker and self._running:
            lines.append(f"lock {self._running.lock}")
            descriptors.append(self._running.lock)
        if asker and self._asker:
            lines.append(f"asker {self._asker.fileno()}")
            descriptors.append(self._asker.fileno())
        lines += [f"session {pid} {inet_ntop(AF_INET6, address)}" for pid, address in sessions]
        if self._soft is not None:
            lines.append(f"soft {self._soft}")
        for numbers, rest in parked:
            lines.append(f"parked {','.join(map(str, numbers))} {rest.hex()}")
            descriptors += numbers
        for channel, serial, held in fronts:
            descriptors.append(channel.fileno())
            lines.append(f"front {channel.fileno()} {serial}")
            for number, address, ends in held:
                lines.append(f"held {number} {inet_ntop(AF_INET6, address)} {ends.hex()}")
        file = park(os.memfd_create("reload", os.MFD_CLOEXEC))
        with open(file, "wb", closefd=False) as written:
            written.write("\n".join(lines).encode())
        for number in (file, *descriptors):
            os.set_inheritable(number, True)
        return f"{os.getpid()}.{file}", descriptors

    def _fail(self, text: str) -> None:
        for line in text.split("\n"):
            log.err(f"{NAME}: not reloaded: {line}")
        self._tell(os.fsencode(text))

    def _tell(self, word: bytes) -> None:
        if self._asker:
            _send(self._asker, word)
            self._asker = None


def _send(asker: socket, word: bytes) -> None:
    """The last word to a command."""
    asker.setblocking(False)
    try:
        asker.send(word)
    except OSError:
        pass  # it waits no longer
    asker.close()


def command(pidfile: str, argv: list[str], env: dict[str, str]) -> int:
    """-reload: ask the daemon of `pidfile`, and wait for the outcome; the exit status.

    argv: the new command line, or empty. Raises Refused.
    """
    pid = daemon.holder(pidfile)
    if pid is None:
        raise Refused(f"{NAME}: not reloaded: none is running ({pidfile}.lock is not locked)")
    listener = _reach(pid)
    file = os.memfd_create("command", os.MFD_CLOEXEC)
    os.write(file, _pack(argv, env))
    send_fds(listener, [b"r"], [file])
    listener.settimeout(COMMAND_TIME)
    try:
        word = listener.recv(8192)
    except OSError as why:
        word = os.fsencode(f"no answer: {why.strerror or why}")
    if word == DONE:
        return 0
    text = os.fsdecode(word) or "the listener has ended"
    raise Refused("\n".join(f"{NAME}: not reloaded: {line}" for line in text.split("\n")))


def _reach(holder: int) -> socket:
    """A connection to the listener that has the lock, or whose parent has it. Raises Refused."""
    deadline = monotonic() + START_TIME
    while True:
        for pid in (holder, *daemon.children(holder)):
            listener = _connect(pid)
            if listener:
                return listener
        if monotonic() > deadline:
            raise Refused(f"{NAME}: not reloaded: pid {holder} can't be reached, nor a child of it")
        sleep(LOOK_AGAIN)


def _connect(pid: int) -> socket | None:
    listener = socket(AF_UNIX, SOCK_SEQPACKET)
    try:
        listener.connect(_control_name(pid))
        # The name may be anybody's; the environment is told to nobody else.
        if struct.unpack("3i", listener.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))[0] == pid:
            return listener
    except OSError:
        pass
    listener.close()
    return None


def _control_name(pid: int) -> str:
    return f"\0couriertcpd/{pid}"


def with_pid(argv: list[str], pidfile: str | None) -> list[str]:
    """The command line with that -pid, or none, and without -reload."""
    kept = [argv[0]] if pidfile is None else [argv[0], f"-pid={pidfile}"]
    for index, word in enumerate(argv[1:], 1):
        if not word.startswith("-") or word == "-":
            return [*kept, *argv[index:]]
        if word.partition("=")[0] not in ("-pid", "-reload", "-check"):
            kept.append(word)
    return kept


def _pack(argv: list[str], env: dict[str, str]) -> bytes:
    variables = [f"{name}={value}" for name, value in env.items()]
    return os.fsencode("\0".join([str(len(argv)), *argv, *variables]))


def _unpack(descriptor: int) -> CommandLine:
    """What `_pack` has made; closes the descriptor."""
    with open(descriptor, "rb", buffering=0) as file:
        count, *fields = os.fsdecode(os.pread(file.fileno(), LONGEST, 0)).split("\0")
    argv, variables = fields[: int(count)], fields[int(count) :]
    return argv, {name: value for name, _, value in (field.partition("=") for field in variables)}


def reason(why: Exception) -> str:
    return why.strerror if isinstance(why, OSError) and why.strerror else str(why)
