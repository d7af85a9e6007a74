"""verbs - start, stop, restart, reload, status, configtest

Each takes instances, prints a line for each of them on descriptor 1, complaints on descriptor 2,
and gives the exit status. Nothing is touched before all that is to be started has been checked.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from collections.abc import Callable
from time import monotonic, sleep

from courierchain import log
from courierchain.refusal import Refused, refusal
from courierctl import ports, running
from courierctl.check import check
from courierctl.instance import MAIL_USER, Instance
from courierctl.table import Row, show

START_TIME = 30.0  # seconds until the listener listens
LOOK_AGAIN = 0.02
STOPPED = 3  # the exit status of `status`, by the LSB


def start(instances: list[Instance]) -> int:
    stopped = [instance for instance in instances if not _complain_if_running(instance)]
    if not is_good(stopped):
        return 1
    return max(launch_all(stopped), int(len(stopped) < len(instances)))


def _complain_if_running(instance: Instance) -> bool:
    pid = running.holder(instance.pidfile)
    if pid is not None:
        log.plain(f"{instance.name}: already running, pid {pid}")
    return pid is not None


def is_good(instances: list[Instance], *, every_name: bool = False) -> bool:
    """Check them all (see `check`); every complaint is one line, and none comes twice."""
    said = set()
    good = True
    for instance in instances:
        found = check(instance, every_name=every_name)
        good = good and not found.errors
        for priority, texts in (("WARN", found.warnings), ("ERR", found.errors)):
            for text in texts:
                if text not in said:
                    log.line(priority, text)
                    said.add(text)
    return good


def launch_all(instances: list[Instance]) -> int:
    """One that doesn't start keeps no other from starting."""
    status = 0
    for instance in instances:
        try:
            launch(instance)
        except Refused as why:
            log.err(str(why))
            status = 1
    return status


def launch(instance: Instance) -> None:
    """Start the logger, which starts the listener; come back when that listens. Raises Refused."""
    make_cache_file(instance.environment.get("TLS_CACHEFILE", ""))
    folder = os.path.dirname(instance.pidfile)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as why:
        raise refusal(folder, why) from why
    done = subprocess.run(
        instance.argv, env=instance.environment, cwd=instance.directory, check=False
    )
    if done.returncode:
        raise Refused(f"{instance.name}: not started")
    pid = wait_until_it_listens(instance)
    print(f"{instance.name}: started, pid {pid}, port {instance.portlist}")


def make_cache_file(file: str) -> None:
    """Courier's cache of TLS sessions; ours needs none, so none is no failure. One that is there is
    kept: it is another service's as well (reference 19)."""
    if not file:
        return
    try:
        cache = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        owner = pwd.getpwnam(MAIL_USER)
        os.fchown(cache, owner.pw_uid, owner.pw_gid)
        os.close(cache)
    except (OSError, KeyError):
        pass


def wait_until_it_listens(instance: Instance) -> int:
    """The logger's pid. Raises Refused if the listener ends, or does not listen."""
    numbers = [port for _, port in instance.endpoints()]
    deadline = monotonic() + START_TIME
    while monotonic() < deadline:
        pid = running.holder(instance.pidfile)
        if pid is None:
            raise Refused(f"{instance.name}: the listener has ended; its log says why")
        ours = set().union(*map(ports.sockets_of, running.family(pid)))
        if all(ours & ports.listening(number) for number in numbers):
            return pid
        sleep(LOOK_AGAIN)
    raise Refused(f"{instance.name}: does not listen after {START_TIME:.0f} s; its log says why")


def stop(instances: list[Instance]) -> int:
    """All of them, in any case; also sessions end."""
    return max([_stop(instance) for instance in instances], default=0)


def _stop(instance: Instance) -> int:
    if running.holder(instance.pidfile) is None:
        print(f"{instance.name}: not running")
        return 0
    status = _tell_logger(instance, "-stop")
    if status == 0:
        print(f"{instance.name}: stopped")
    return status


def reload(instances: list[Instance]) -> int:
    """Have the access file and the log file opened again, and certificates; sessions go on."""
    return max([_reload(instance) for instance in instances], default=0)


def _reload(instance: Instance) -> int:
    if running.holder(instance.pidfile) is None:
        log.plain(f"{instance.name}: not running")
        return 1
    status = _tell_logger(instance, "-restart")
    if status == 0:
        print(f"{instance.name}: reloaded")
    return status


def _tell_logger(instance: Instance, option: str) -> int:
    logger = instance.layout.find("courierlogger")
    if logger is None:
        raise Refused("courierlogger: no such program")
    return subprocess.run([logger, f"-pid={instance.pidfile}", option], check=False).returncode


def restart(instances: list[Instance], leaving: list[Instance]) -> int:
    """Stop and start `instances`, and stop `leaving`, which are switched off by now."""
    if not is_good(instances):
        log.plain("nothing has been stopped")
        return 1
    status = stop([*instances, *leaving])
    return status or launch_all(instances)


def status(instances: list[Instance], expected: Callable[[Instance], bool]) -> int:
    """Show them; 0 if all run that are `expected` to, else 3."""
    found = 0
    rows = []
    for instance in instances:
        pid = running.holder(instance.pidfile)
        if pid is None and expected(instance):
            found = STOPPED
        rows.append(
            Row(
                name=instance.name,
                pid=pid,
                ports=instance.portlist,
                sessions=running.sessions(pid) if pid else 0,
                file=instance.files[-1],
                remark="" if expected(instance) else f"{instance.kind.start} is not YES",
            )
        )
    show(rows)
    return found


def configtest(instances: list[Instance]) -> int:
    good = is_good(instances, every_name=True)
    for instance in instances:
        print(f"{instance.name}: " + shlex.join(instance.argv))
    print("configuration: " + ("good" if good else "not good"))
    return 0 if good else 1
