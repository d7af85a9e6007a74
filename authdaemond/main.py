"""authdaemond - answer mail programs that ask about accounts on a socket

    authdaemond [-rc=FILE]                       stay in the foreground, log on descriptor 2
    authdaemond [-rc=FILE] start|stop|restart    as a daemon, below courierlogger

-rc=FILE    the configuration, else AUTHDAEMONRC, else /etc/courier/authdaemonrc

Takes the place of Courier's authdaemond, for Courier's own programs (courierpop3login, imapd,
authtest) and for our module authdaemon: the same socket, <authdaemonvar>/socket, and the same words
on it (courierchain.authsocket; reference auth.md 2.9). The modules that it asks are ours; other
names in authmodulelist get a WARN and are left out.

`restart` reads the configuration again (SIGHUP), as Courier's does.

Exits 0 after SIGTERM; 1, with a line on descriptor 2, if it can't start.
"""

from __future__ import annotations

import os

from authdaemond import answer, configuration
from authdaemond.cache import Cache
from authdaemond.configuration import Configuration
from authdaemond.listener import Answer, Listener, Service, make_directory
from authdaemond.question import Question
from courierchain import handover, log, verified
from courierchain.authmodule import AuthModule
from courierchain.refusal import Refused

NAME = "authdaemond"
COMMANDS = ("start", "stop", "restart")


def main(argv: list[str], env: dict[str, str]) -> int:
    words = argv[1:]
    file = env.get("AUTHDAEMONRC") or configuration.FILE
    if words and words[0].startswith("-rc="):
        file = words.pop(0).removeprefix("-rc=")
    if len(words) > 1 or (words and words[0] not in COMMANDS):
        log.plain(f"{NAME}: usage: {NAME} [-rc=FILE] [{'|'.join(COMMANDS)}]")
        return 1
    os.chdir("/")
    try:
        settings = configuration.read(os.path.abspath(file))
        if words:
            control(words[0], settings, env)
        listen(settings, env)
    except Refused as why:
        log.plain(f"{NAME}: {why}")
        return 1
    return 0


def control(command: str, settings: Configuration, env: dict[str, str]) -> None:
    """Become the courierlogger that starts, ends or signals the daemon. Raises Refused."""
    options = [f"-pid={settings.directory}/pid", f"-{command}"]
    if command == "start":
        make_directory(settings.directory)  # for the pid file
        options += [f"-name={NAME}", *settings.values.get("LOGGEROPTS", "").split()]
        options += [NAME, f"-rc={settings.file}"]
    handover.become(["courierlogger", *options], env)


def listen(settings: Configuration, env: dict[str, str]) -> None:
    """Raises Refused."""

    def reload() -> Service:
        now = configuration.read(settings.file)
        lend_to_libldap(now)
        modules = answer.load(now, env)
        if not modules:
            raise Refused(f"{settings.file}: authmodulelist names no module that is here")
        verified.configure({**env, **now.values})
        summary = f'modules="{" ".join(modules)}", daemons={now.daemons}'
        reply = answering(modules, now)
        life, size = now.cache
        if life:
            reply = Cache(life, size).before(reply)
            summary += f", authcachelife={life}"
        return Service(now.daemons, reply, summary)

    Listener(f"{settings.directory}/socket", reload).run()


def lend_to_libldap(settings: Configuration) -> None:
    """It looks for LDAPTLS_CACERT and its like in the environment, once, when it is loaded."""
    for name, value in settings.values.items():
        if name.startswith("LDAPTLS_"):
            os.environ[name] = value


def answering(modules: dict[str, AuthModule], settings: Configuration) -> Answer:
    def reply(question: Question) -> bytes:
        return answer.to(question, modules, settings)

    return reply
