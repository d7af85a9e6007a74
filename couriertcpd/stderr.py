"""stderr - where descriptor 2 of the listener and of all programs leads

    -stderrlogger=P    a process `P NAME` that reads a pipe; NAME is -stderrloggername
    -stderr=syslog     a process of ours that does the same, see courierchain.syslog
    -stderr=socket     the client, in each session; the listener's own is kept
    -stderr=FILE       appended to, made with mode 0660 less the umask

(reference couriertcpd.md 2.2). Both processes outlive SIGHUP and SIGTERM, to log what the others
say last: they end when nobody is left to write.
"""

from __future__ import annotations

import os
from signal import SIG_IGN, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask, signal

from courierchain import handover, log, syslog
from courierchain.refusal import Refused, refusal
from courierchain.request import RECORD
from couriertcpd.options import Options


def redirect(options: Options, env: dict[str, str]) -> None:
    """Raises Refused if the file can't be opened."""
    if options.stderrlogger:
        lead_to(piped(lambda: execute(options, env)))
    elif options.stderr == "syslog":
        identity = options.stderrloggername
        lead_to(piped(lambda: syslog.relay(syslog.Syslog(identity).write)))
    elif options.stderr and options.stderr != "socket":
        try:
            lead_to(os.open(options.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o660))
        except OSError as why:
            raise refusal(options.stderr, why) from why


def check(options: Options) -> None:
    """Raises Refused if `redirect` would; makes no file."""
    file = options.stderr
    if options.stderrlogger:
        if not os.access(options.stderrlogger, os.X_OK):
            raise Refused(f"{options.stderrlogger}: cannot be executed")
    elif file and file not in ("socket", "syslog"):
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
        except FileNotFoundError as why:
            if not os.access(os.path.dirname(file) or ".", os.W_OK | os.X_OK):
                raise Refused(f"{file}: cannot be made") from why
        except OSError as why:
            raise refusal(file, why) from why


def lead_to(descriptor: int) -> None:
    os.dup2(descriptor, 2)
    os.close(descriptor)


def piped(read_lines) -> int:  # type: ignore[no-untyped-def]
    """Start a process that reads what is written to the descriptor returned, on its own 0."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.dup2(reader, 0)
            os.closerange(RECORD, handover.HIGHEST)
            for number in (SIGHUP, SIGINT, SIGTERM):
                signal(number, SIG_IGN)
            pthread_sigmask(SIG_SETMASK, [])
            read_lines()
        finally:
            os._exit(1)
    os.close(reader)
    return writer


def execute(options: Options, env: dict[str, str]) -> None:
    program = options.stderrlogger or ""
    try:
        os.execve(program, [program, options.stderrloggername], env)
    except OSError as why:
        log.err(f"{program}: {why.strerror}")
