"""worker - a process of Cyrus's master: one session after another

Descriptor 4 is the listening socket, 3 where master is told what we do. CYRUS_SERVICE and CYRUS_ID
name the lock file in socket/ of configdirectory, by which workers take turns: see `turns`.

`sessions` says who becomes the chain, this process or a child. After a session that QUIT has ended
the worker tells master AVAILABLE and takes the next one; after another it ends, as Cyrus's does. It
also ends if master does: nobody else could tell it to, and it would keep the port.

    2 3      is sent when a connection has come
    1        when the session is over and another one is wanted

Lines go to syslog; without one, to descriptor 2.

Exits      0 after its last session, the timeout, SIGHUP, and when the program was replaced; 64
           after a client of -k; 71 when it can't accept; 75 after SIGTERM, SIGINT, SIGQUIT
"""

from __future__ import annotations

import gc
import os
from _signal import alarm
from _socket import socket
from array import array
from binascii import hexlify
from collections.abc import Callable
from errno import EINVAL
from select import EPOLLERR
from time import sleep

from courierchain import cyruslines, handover, procfile, programs, rehearsal
from courierchain.journal import Journal
from cyruspop3d import environment
from cyruspop3d.commandline import Arguments
from cyruspop3d.config import Config
from cyruspop3d.sessions import (
    OWN_LOCK,
    OWN_LOG,
    OWN_READY,
    OWN_STATUS,
    InChild,
    InProcess,
    can_be_in_process,
)
from cyruspop3d.turns import Turns, move
from cyruspop3d.waiting import ENDING, Interrupted, catch

STATUS, LISTENING = 3, 4  # descriptors, as master gives them
AVAILABLE, UNAVAILABLE, CONNECTION = 1, 2, 3
OK, SYSTEM, TERMINATED = 0, 71, 75
DIALECT = (  # what the chain imports for Cyrus's
    *("courierpop3login.cyrus:CyrusAuthorization", "courierpop3d.cyrus:CyrusTransaction"),
    *("courierpop3d.cyrusjournal:CyrusJournal", "resource:getrusage"),
)
SHORT_OF_DESCRIPTORS = 0.1  # seconds until accept is tried again

Environment = dict[str, str]


class Ended(Exception):
    """This process is to end, with `status`."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class Worker:
    """serve: becomes the chain for the client on descriptors 0 and 1, with this environment."""

    __slots__ = (
        *("_arguments", "_journal", "_serve", "_turns", "_sessions"),
        *("_program", "_known", "_hung_up", "_env", "_procfile"),
    )

    def __init__(
        self,
        arguments: Arguments,
        found: Config,
        program: str,
        env: Environment,
        serve: Callable[[Environment], int],
    ):
        self._arguments = arguments
        self._serve = serve
        self._env = env
        service = env["CYRUS_SERVICE"]
        prefix = env.get("CYRUS_SYSLOG_PREFIX") or found.text("syslog_prefix")
        facility = found.text("syslog_facility")
        self._journal = Journal(service, prefix, facility, cyruslines.NOTICES, OWN_LOG)
        proc = found.text("proc_path") or f"{found.text('configdirectory')}/proc"
        self._procfile = f"{proc}/{os.getpid()}"
        self._program = program
        self._known = identity(program)
        self._hung_up = False
        self._take_descriptors(
            f"{found.text('configdirectory')}/socket/{service}-{env['CYRUS_ID']}"
        )
        self._sessions = self._prepare(environment.command(found))
        gc.collect()
        gc.freeze()

    def _take_descriptors(self, name: str) -> None:
        """name: of the lock file, without .lock"""
        os.set_inheritable(LISTENING, False)
        listening = socket(fileno=LISTENING)
        listening.setblocking(False)
        self._turns = Turns(listening, OWN_READY, OWN_LOCK)
        try:
            move(STATUS, OWN_STATUS)
            self._turns.watch(OWN_STATUS)
        except OSError:
            pass  # there is none; each message will say so
        try:
            self._turns.open_lock(f"{name}.lock")
        except OSError as why:
            text = f"locking disabled: couldn't open socket lockfile {name}.lock: {why.strerror}"
            self._journal.err(text)

    def _prepare(self, command: list[str]) -> InProcess | InChild:
        """Load the programs of the chain that are ours, once for all sessions."""
        is_plain = not (self._arguments.is_tls or self._arguments.is_kerberos)
        if self._env.get("COURIER_COLDEXEC") != "1":
            for word in command:
                path = programs.locate(word, self._env)
                if path:
                    handover.preload(path)
            for entry in DIALECT:
                handover.load(entry)
            handover.load_rehash(self._env)
            if is_plain and can_be_in_process(command, self._env):
                highest = OWN_LOG if self._journal.is_syslog else OWN_LOCK
                return InProcess(self._chain, self._journal, highest, self._stop, self._hang_up)
            if is_plain and self._arguments.uses > rehearsal.ROUNDS:
                self._rehearse()
        return InChild(self._chain, self._journal, STATUS, self._hang_up)

    def _rehearse(self) -> None:
        nobody = b"nobody-" + hexlify(os.urandom(16))
        env = {**self._env, "POP3_FAILURE_DELAY": "0"}
        rehearsal.rehearse(lambda: self._run(env), nobody)

    def _run(self, env: Environment) -> int:
        return handover.run(lambda argv, env: self._serve(env), [self._program], env)

    def _chain(self) -> int:
        return self._run({**self._env, "CYRUS_PROCFILE": self._procfile})

    def work(self) -> int:
        """Serve sessions; the exit status."""
        catch()
        try:
            for use in range(1, self._arguments.uses + 1):
                client = self._next_client(has_served=use > 1)
                self._tell(UNAVAILABLE, CONNECTION)
                status = self._session(client)
                if self._arguments.is_kerberos:
                    return status or OK
                if status != 0 or self._hung_up or use == self._arguments.uses:
                    return OK
                self._tell(AVAILABLE)
                self._sessions.release()
        except Ended as why:
            return why.status
        finally:
            procfile.remove(self._procfile)
        return OK

    def _next_client(self, *, has_served: bool) -> int:
        """The descriptor of the next client. Raises Ended."""
        patience = self._arguments.patience
        try:
            if has_served:
                self._turns.served()
                alarm(patience)
            while True:
                self._check(self._turns.wait())
                if (client := self._accept()) is not None:
                    return client
        except Interrupted as why:
            raise self._ended_by(why) from why
        finally:
            alarm(0)

    def _check(self, events: dict[int, int]) -> None:
        """Raises Ended if there is to be no other session."""
        if events.get(OWN_STATUS, 0) & EPOLLERR:
            self._journal.info("master has gone")
            raise Ended(OK)
        if identity(self._program) != self._known:
            self._journal.info("process file has changed")
            raise Ended(OK)

    def _accept(self) -> int | None:
        """None if another worker has the client, or it has gone. Raises Ended, Interrupted."""
        try:
            return self._turns.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return None
        except OSError as why:
            if why.errno == EINVAL:  # master doesn't listen there any more
                raise Ended(OK) from why
            self._journal.err(f"accept failed: {why.strerror}")
            sleep(SHORT_OF_DESCRIPTORS)
            raise Ended(SYSTEM) from why

    def _session(self, client: int) -> int | None:
        """The exit status of one. Raises Ended."""
        try:
            return self._sessions.serve(client)
        except Interrupted as why:
            raise self._ended_by(why) from why
        finally:
            procfile.end(self._procfile)

    def _ended_by(self, why: Interrupted) -> Ended:
        if why.number not in ENDING:
            return Ended(OK)
        self._journal.info("graceful shutdown")
        return Ended(TERMINATED)

    def _stop(self) -> None:
        """In a session of this process."""
        procfile.remove(self._procfile)
        self._journal.info("graceful shutdown")
        os._exit(TERMINATED)

    def _hang_up(self) -> None:
        """The session may finish."""
        self._hung_up = True

    def _tell(self, *messages: int) -> None:
        """Messages to master: two C ints each, the message and our process id."""
        words = array("i")
        for message in messages:
            words.extend((message, os.getpid()))
        try:
            os.write(OWN_STATUS, words.tobytes())
        except OSError as why:
            self._journal.err(f"unable to tell master {messages[-1]}: {why.strerror}")


def identity(program: str) -> tuple[int, ...]:
    """What changes when the file of a program is replaced; empty if there is none."""
    try:
        there = os.stat(program)
    except OSError:
        return ()
    return there.st_ino, there.st_size, there.st_mtime_ns
