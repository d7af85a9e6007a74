"""courierlogger - give what programs write on descriptor 2 to syslog

    courierlogger NAME                                  logs what comes on descriptor 0, as NAME
    courierlogger -name=NAME [OPTION...]                the same
    courierlogger [OPTION...] PROGRAM [ARGUMENT...]     starts PROGRAM, and logs its descriptor 2
    courierlogger -pid=FILE [-start] ... PROGRAM ...    as a daemon; a second one quietly gives way
    courierlogger -pid=FILE -stop | -restart

-name=NAME         the identity in the log; else the last part of PROGRAM
-facility=F        mail, or auth authpriv cron daemon ftp kern lpr news user uucp local0 ... local7
-respawn           start PROGRAM again, 5 seconds after it has ended
-user=U -group=G   become these once PROGRAM runs; with -droproot before
-file=FILE         ours: append to FILE instead, with a time stamp; opened again at SIGHUP
-stderr=journal    ours: write to descriptor 2 instead, as systemd's journal likes it: `<6>TEXT`.
                   An option, because the journal then names the lines after the unit
                   (SyslogIdentifier=), while by way of /dev/log they keep NAME

PROGRAM is looked up beside our own programs, then in PATH. It has /dev/null on descriptors 0 and 1,
and starts in the directory where this was called; the logger itself goes to / (`supervisor` says
what signals do). What lines become is told in courierchain.syslog.

Exits 0 at the end of input, or once PROGRAM and those that have its descriptor 2 have ended,
however they did; 1 after an error, with one line on descriptor 2. Reference: couriertcpd.md 13.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from signal import SIG_DFL, SIGHUP, SIGINT, signal

from courierchain import daemon, log, syslog
from courierchain.refusal import Refused
from courierlogger.destinations import LogFile, to_journal
from courierlogger.options import Options, parse
from courierlogger.supervisor import Supervisor

NAME = "courierlogger"

Reopen = Callable[[], None]


def main(argv: list[str], env: dict[str, str]) -> int:
    signal(SIGINT, SIG_DFL)
    try:
        options = parse(argv)
        if options.stop:
            return daemon.stop(options.pid, NAME)
        if options.restart:
            return daemon.restart(options.pid, NAME)
        return supervise(options, env) if options.program else read(options)
    except Refused as why:
        for line in str(why).split("\n"):
            log.plain(line)
        return 1


def read(options: Options) -> int:
    """Log what comes on descriptor 0."""
    write, reopen = destination(options)
    if reopen:
        signal(SIGHUP, lambda *_: reopen())
    drop_rights(options)
    withdraw(options, 1)
    syslog.relay(write, first_only=options.first_only)
    return 0


def supervise(options: Options, env: dict[str, str]) -> int:
    """Log what PROGRAM says."""
    check_names(options)
    running = daemon.detach(options.pid, NAME, once_is_enough=True) if options.pid else None
    write, reopen = destination(options)
    supervisor = Supervisor(options.program, env, write, respawn=options.respawn, reopen=reopen)
    if running:
        running.ready()
    if options.droproot:
        drop_rights(options)
    supervisor.start()
    if not options.droproot:
        try:
            drop_rights(options)
        except Refused:
            supervisor.end()
            raise
    withdraw(options, 0, 1)
    return supervisor.run()


def destination(options: Options) -> tuple[syslog.Write, Reopen | None]:
    """How to write a message, and what SIGHUP is to open again. Raises Refused."""
    if options.file:
        file = LogFile(options.file, options.name)
        return file.write, file.reopen
    if options.stderr:
        return to_journal, None
    return syslog.Syslog(options.name, options.facility).write, None


def check_names(options: Options) -> None:
    """Complain of an unknown user while nothing has been started. Raises Refused."""
    if options.group:
        daemon.group_id(options.group)
    if options.user:
        daemon.user_ids(options.user)


def drop_rights(options: Options) -> None:
    if options.group:
        daemon.change_group(options.group)
    if options.user:
        daemon.change_user(options.user, keep_group=bool(options.group))


def withdraw(options: Options, *descriptors: int) -> None:
    """Keep no directory busy, and no descriptor of who called us but those in use."""
    os.chdir("/")
    unused = descriptors if options.stderr and not options.file else (*descriptors, 2)
    daemon.to_null(unused)
