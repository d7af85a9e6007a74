"""sessions - two ways in which a worker serves a client

    InProcess     the worker becomes the chain itself, and is a worker again after it. For a process
                  with one uid for good, a chain that is wholly ours and leaves nothing behind
    InChild       a child becomes the chain, and the worker waits for it: as root, from whom each
                  session becomes a user; over TLS from the first octet; with a module of PAM's,
                  which leaves state in its process; with a stage that is executed

Either way the client is on descriptors 0 and 1, and the log lines of the session go where those of
the worker go. A worker in whose process sessions run has its own descriptors from 4 on, above that
of the chain's record.
"""

from __future__ import annotations

import gc
import os
from _signal import SIG_DFL, SIG_UNBLOCK, SIGHUP, SIGTERM, pthread_sigmask, signal
from collections.abc import Callable
from select import POLLIN, poll

from courierchain import handover, log, programs, syslog, verified
from courierchain.daemon import park
from courierchain.journal import Journal
from courierchain.request import RECORD
from courierchain.reuse import enter_again, take_over
from cyruspop3d.waiting import SIGNALS, Act, Interrupted, during, interruptible

# A worker's own descriptors: 4 is the listening socket, and 3 is for the record of the chain.
OWN_STATUS, OWN_READY, OWN_LOCK, OWN_LOG = 5, 6, 7, 8
SYSTEM = 71  # sysexits(3)
PIECE = 65536  # octets of log lines read at a time
GARBAGE = 20_000  # objects more than were freed, after which cycles are looked for
LEAVES_STATE = ("authpam",)

Environment = dict[str, str]
Chain = Callable[[], int]  # becomes the chain; its exit status


def can_be_in_process(command: list[str], env: Environment) -> bool:
    """Whether this process may run the chain more than once. command: its programs, which are
    loaded, and the Maildir."""
    paths = [programs.locate(word, env) for word in command[:-1]]
    return (
        0 not in os.getresuid()
        and len(set(os.getresuid())) == 1
        and all(path and handover.is_resident(path, env) for path in paths)
        and not set(command) & set(LEAVES_STATE)
    )


class InProcess:
    """highest: the last of the worker's own descriptors, which begin at 4. stop: called at SIGTERM,
    does not return; hang_up: at SIGHUP."""

    __slots__ = ("_chain", "_directory", "_umask", "_acts")

    def __init__(
        self,
        chain: Chain,
        journal: Journal,
        highest: int,
        stop: Act,
        hang_up: Act,
    ):
        self._chain = chain
        self._directory = enter_again()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._acts = {**dict.fromkeys(SIGNALS, stop), SIGHUP: hang_up}
        handover.keep(highest)
        verified.begin()
        if journal.is_syslog:
            log.deliver = journal.line
        gc.enable()
        gc.set_threshold(GARBAGE)

    def serve(self, client: int) -> int | None:
        """The exit status of a session; None if this process is to serve no other."""
        take_over(client)
        status = during(self._chain, self._acts)
        os.closerange(RECORD, RECORD + 1)
        os.chdir(self._directory)
        os.umask(self._umask)
        return None if handover.is_spent() else status

    def release(self) -> None:
        """Hang up on the client: not before master knows that we take the next one, or it would
        start somebody for a client who comes back at once."""
        os.closerange(0, 2)


class InChild:
    """own: the first of the worker's own descriptors, all others being above it. hang_up: called at
    SIGHUP, after which the session may finish."""

    __slots__ = ("_chain", "_journal", "_own", "_hang_up", "_lines", "_log", "_log_end")

    def __init__(self, chain: Chain, journal: Journal, own: int, hang_up: Callable[[], None]):
        self._chain = chain
        self._journal = journal
        self._own = own
        self._hang_up = hang_up
        self._lines = syslog.Lines()
        self._log, self._log_end = map(park, os.pipe())

    def serve(self, client: int) -> int | None:
        """The exit status of a session. Raises Interrupted."""
        child = os.fork()
        if child == 0:
            self._become(client)
        os.close(client)
        ended = os.pidfd_open(child)
        ready = poll()
        ready.register(self._log, POLLIN)
        ready.register(ended, POLLIN)
        try:
            while not self._is_over(ready, ended):
                pass
        except Interrupted:
            os.kill(child, SIGTERM)
            raise
        finally:
            os.close(ended)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def release(self) -> None:
        """Nothing: the child has hung up."""

    def _is_over(self, ready: poll, ended: int) -> bool:
        """Log what has come. Raises Interrupted."""
        try:
            events = dict(interruptible(ready.poll))
        except Interrupted as why:
            if why.number != SIGHUP:
                raise
            self._hang_up()
            return False
        if self._log in events:
            self._journal.lines(self._lines.feed(os.read(self._log, PIECE)))
            return False
        return ended in events

    def _become(self, client: int) -> None:
        """In the child. Never returns."""
        try:
            for number in SIGNALS:
                signal(number, SIG_DFL)
            pthread_sigmask(SIG_UNBLOCK, SIGNALS)
            os.dup2(client, 0)
            os.dup2(client, 1)
            os.dup2(self._log_end, 2)
            os.closerange(self._own, handover.HIGHEST)
            os._exit(self._chain())
        finally:
            os._exit(SYSTEM)
