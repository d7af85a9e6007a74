"""cyrusmaster - run the services of a cyrus.conf

    cyrusmaster [-M FILE] [-l BACKLOG] [-p FILE] [-d | -D] [-L FILE] [-v] [-V] [-C FILE] [-j N]

    -M       another file than /etc/cyrus.conf
    -l       clients that may wait for a worker, at each socket (32)
    -p       write the process id there, and lock FILE.lock: one master at a time
    -d       as a daemon: the command ends when it listens. Without -p, -p /run/cyrusmaster.pid
    -D       descriptors 0, 1 and 2 stay as they are
    -L       they write there
    -v       passed on to the workers, in CYRUS_VERBOSE
    -V       say which version this is
    -C, -j   Cyrus's; without effect. imapd.conf is the workers' affair

START and DAEMON are run too; of EVENTS the log says that they are not. Workers run as whom master
runs: as CYRUS_USER and CYRUS_GROUP of the environment, which it becomes when it has bound all
sockets, else as who has started it. Our pop3d needs root to serve accounts with uids of their own.

Lines go to syslog, as cyrusmaster[PID]; without one, to descriptor 2.

Exits      0 after SIGTERM, SIGINT or SIGQUIT; 1 if one runs already; 64 misused; 71 if nothing can
           be run, or a command of START fails; 78 for cyrus.conf
"""

from __future__ import annotations

import os

from courierchain import daemon, log
from courierchain.daemon import Daemon
from courierchain.journal import Journal
from courierchain.refusal import Refused
from cyrusmaster import child, commandline, conf, services
from cyrusmaster.commandline import Arguments
from cyrusmaster.conf import BadConf, Environment, Sections
from cyrusmaster.master import Master
from cyrusmaster.services import Service

NAME = "cyrusmaster"
USAGE, SYSTEM, CONFIG = 64, 71, 78  # sysexits(3)
PIDFILE = "/run/cyrusmaster.pid"


class Stop(Exception):
    """It cannot run: an exit status, and what is said of it."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


def main(argv: list[str], env: Environment) -> int:
    try:
        arguments = commandline.parse(argv)
        if arguments.wants_version:
            print(f"{NAME}, of courierpop3", flush=True)
            return 0
        return serve(arguments, env)
    except commandline.Misused as why:
        log.err(f"{NAME}: {why}")
        return USAGE
    except Stop as why:
        log.err(f"{NAME}: {why}")
        return why.status
    except Refused as why:
        log.err(f"{NAME}: {why}")
        return 1


def serve(arguments: Arguments, env: Environment) -> int:
    """Raises Stop and Refused."""
    read_services(arguments.conf, env)  # what is wrong is said to whoever has typed this
    running = lock(arguments)
    if arguments.logfile:
        to_file(arguments.logfile)
    if arguments.verbosity:
        env = {**env, "CYRUS_VERBOSE": str(arguments.verbosity)}
    journal = Journal(NAME)
    sections, wanted = read_services(arguments.conf, env)
    say_ignored(arguments, sections, journal)
    start_up(sections, env)

    def again() -> list[Service]:
        try:
            return read_services(arguments.conf, env)[1]
        except Stop as why:
            raise ValueError(str(why)) from why

    master = Master(wanted, again, env, arguments.backlog, journal.line)
    if not master.has_work:
        raise Stop(SYSTEM, f"{arguments.conf}: nothing to run; write a service into SERVICES")
    if running:
        running.ready()
    elif arguments.pidfile:
        daemon.write_pid(arguments.pidfile)
    become_user(env)
    if not arguments.keeps_stdio and not arguments.logfile:
        daemon.to_null((0, 1, 2) if journal.is_syslog or running else (0, 1))
    journal.info("ready for work")
    return master.run()


def read_services(path: str, env: Environment) -> tuple[Sections, list[Service]]:
    """Raises Stop."""
    try:
        sections = conf.read(path, env)
        return sections, services.running(sections, env)
    except BadConf as why:
        raise Stop(CONFIG, str(why)) from why


def lock(arguments: Arguments) -> Daemon | None:
    """Be the only one; with -d, a daemon. Raises Refused."""
    if arguments.is_daemon:
        return daemon.detach(arguments.pidfile or PIDFILE, NAME)
    if arguments.pidfile:
        daemon.acquire(arguments.pidfile)
    return None


def to_file(path: str) -> None:
    """Descriptors 1 and 2 append to a file. Raises Stop."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as why:
        raise Stop(SYSTEM, f"{path}: {why.strerror}") from why
    daemon.to_null((0,))
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)


def say_ignored(arguments: Arguments, sections: Sections, journal: Journal) -> None:
    if arguments.ignored:
        journal.info(f"no effect here: {' '.join(arguments.ignored)}")
    if events := sections["EVENTS"]:
        names = ", ".join(event.name for event in events)
        journal.warn(f"EVENTS are not run here: {names}; use cron or timers of systemd")


def start_up(sections: Sections, env: Environment) -> None:
    """Run the commands of START to their ends, in their order. Raises Stop."""
    for entry in sections["START"]:
        try:
            argv, path = services.command(entry, env)
        except BadConf as why:
            raise Stop(CONFIG, str(why)) from why
        command = services.Service(entry, env)
        pid = os.fork()
        if pid == 0:
            child.become(command, env, (), ())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise Stop(SYSTEM, f"can't run startup: {entry.place}: {entry.name}: {how}")


def become_user(env: Environment) -> None:
    """Whom CYRUS_USER and CYRUS_GROUP name. Raises Refused."""
    user, group = env.get("CYRUS_USER", ""), env.get("CYRUS_GROUP", "")
    if group:
        daemon.change_group(group)
    if user:
        daemon.change_user(user, keep_group=bool(group))
