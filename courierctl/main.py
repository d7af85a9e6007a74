"""courierctl - start and stop the server from Courier's configuration files

    courierctl [-C DIR] start | stop | restart | reload | status | configtest [INSTANCE...]

-C DIR      where `pop3d` and `pop3d-ssl` are (/etc/courier)
INSTANCE    pop3d or pop3d-ssl. Without one: those that POP3DSTART and POP3DSSLSTART switch on, and
            for stop, reload and status those that run as well

start       check both files, then start courierlogger, which starts couriertcpd
stop        end them, and with them all sessions
restart     the same and start again, if all checks are passed; else nothing is touched
reload      the listener reads its access file again; sessions go on
status      what runs; the exit status is 0, or 3 if one is stopped that should run
configtest  check, and print the command lines

Complaints go to descriptor 2, one a line, `ERR:` or `WARN:` in front. Exits 0, or 1 after an error,
2 after a wrong command line; 4 when the state can't be known. Reference: couriertcpd.md 14 and 15.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from courierchain import log
from courierchain.refusal import Refused
from courierctl import running, verbs
from courierctl.instance import KINDS, Instance, NotConfigured, load
from courierctl.layout import Layout

CONFIGURATION = "/etc/courier"
VERBS = ("start", "stop", "restart", "reload", "status", "configtest")
UNKNOWN = 4  # the exit status of `status`, by the LSB


def main(argv: list[str], env: dict[str, str]) -> int:
    given = arguments(argv)
    try:
        return obey(given, Layout(argv[0]), env)
    except NotConfigured as why:
        print(why)  # where Courier's start script says it
    except Refused as why:
        log.err(str(why))
    finally:
        sys.stdout.flush()
    return UNKNOWN if given.verb == "status" else 1


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="courierctl", description="Start and stop the POP3 server from Courier's files."
    )
    parser.add_argument(
        "-C", dest="folder", metavar="DIR", default=CONFIGURATION, type=os.path.abspath
    )
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("names", nargs="*", metavar="INSTANCE", help=" or ".join(KINDS))
    given = parser.parse_args(argv[1:])
    for name in given.names:
        if name not in KINDS:
            parser.error(f"no such instance: {name} (there are {' and '.join(KINDS)})")
    return given


def obey(given: argparse.Namespace, layout: Layout, env: dict[str, str]) -> int:
    names = dict.fromkeys(given.names or KINDS)
    instances = [load(KINDS[name], given.folder, layout, env) for name in names]

    def is_meant(instance: Instance) -> bool:
        return bool(given.names) or instance.is_switched_on

    meant = [instance for instance in instances if is_meant(instance)]
    if not meant:
        log.warn(f"{given.folder}: neither POP3DSTART nor POP3DSSLSTART is YES")
    others = [
        instance
        for instance in instances
        if not is_meant(instance) and running.holder(instance.pidfile) is not None
    ]
    act: dict[str, Callable[[], int]] = {
        "start": lambda: verbs.start(meant),
        "stop": lambda: verbs.stop(instances),
        "restart": lambda: verbs.restart(meant, others),
        "reload": lambda: verbs.reload([*meant, *others]),
        "status": lambda: verbs.status(instances, is_meant),
        "configtest": lambda: verbs.configtest(meant),
    }
    return act[given.verb]()
