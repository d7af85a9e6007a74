"""pop3d - Cyrus's POP3 server command, over Maildirs and a chain of authentication modules

    pop3d [-C FILE] [-U USES] [-T TIMEOUT] [-D] [-X] [-s] [-k] [-p SSF]

    -C   another imapd.conf than /etc/imapd.conf
    -U   connections that one process serves before it ends (250)
    -T   seconds that a process which has served waits for the next connection (60); 0: for ever
    -D   run debug_command before anything else
    -X   serve the client on descriptors 0 and 1, whoever has started us
    -s   TLS from the first byte
    -k   Kerberos's KPOP, which there isn't: each client is told how to use this program
    -p   a layer outside has this strength; over 1, passwords are safe

Started by Cyrus's master, with a listening socket on descriptor 4, it is a worker: see `worker`.
Otherwise, as from inetd or behind couriertcpd, the client is on descriptors 0 and 1, and pop3d
becomes the chain of `environment.command`, which talks POP3.

Reads      imapd.conf; CYRUS_SERVICE (pop3), CYRUS_ID, CYRUS_PREFIX
Writes     one line on descriptor 2 (a worker: to syslog) for what keeps it from working, and one
           that names the options without effect
Exits      64 misused, 70 started by master without its variables, 71 a system call failed, 78 for
           imapd.conf; else with the chain's status: 0 after QUIT
"""

from __future__ import annotations

import os
from _socket import AF_INET, SO_ACCEPTCONN, SOCK_STREAM, SOL_SOCKET, socket

from courierchain import handover, log, procfile, verified
from courierchain.handover import CannotBecome
from courierchain.refusal import Refused
from cyruspop3d import commandline, config, environment
from cyruspop3d.commandline import Arguments
from cyruspop3d.config import Config

USAGE, INTERNAL, SYSTEM, CONFIG = 64, 70, 71, 78  # sysexits(3)
LISTENING = 4  # descriptor
USAGE_REPLY = b"-ERR usage: pop3d [-C <alt_config>] [-k] [-s]\r\n"
LONGEST_COMMAND = 1023  # octets of debug_command with its arguments

Environment = dict[str, str]


class Stop(Exception):
    """Nothing can be served: an exit status, and what the log says."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


def main(argv: list[str], env: Environment) -> int:
    is_worker = is_listening(LISTENING) and "-X" not in argv
    err, warn = log.err, log.warn
    if is_worker:
        from courierchain.journal import Journal
        from cyruspop3d.sessions import OWN_LOG

        journal = Journal(env.get("CYRUS_SERVICE") or "pop3", descriptor=OWN_LOG)
        err, warn = journal.err, journal.warn
    try:
        arguments = parse(argv)
        service = service_of(env, is_worker)
        found = configure(arguments, service, env)
        env = env | environment.settings(found, service, arguments.ssf)
        remember(env)
        if arguments.debugs:
            debug(found, argv[0], service)
        if arguments.is_tls and not environment.has_tls(found):
            remedy = "set tls_server_cert and tls_server_key"
            raise Stop(CONFIG, f"pop3s: required OpenSSL options not present; {remedy}")
    except Stop as why:
        err(f"{os.path.basename(argv[0])}: {why}")
        return why.status
    if found.ignored:
        text = f"{found.path}: no effect over Maildirs: {', '.join(found.ignored)}"
        warn(f"{os.path.basename(argv[0])}: {text}")
    if not is_worker:
        return serve(arguments, env, found)
    from cyruspop3d.worker import Worker

    return Worker(arguments, found, argv[0], env, lambda env: serve(arguments, env, found)).work()


def is_listening(descriptor: int) -> bool:
    try:
        inherited = socket(fileno=os.dup(descriptor))
    except OSError:
        return False
    try:
        return inherited.getsockopt(SOL_SOCKET, SO_ACCEPTCONN) == 1
    except OSError:
        return False
    finally:
        inherited.close()


def parse(argv: list[str]) -> Arguments:
    """Raises Stop."""
    try:
        return commandline.parse(argv)
    except commandline.Misused as why:
        raise Stop(USAGE, str(why)) from why


def service_of(env: Environment, is_worker: bool) -> str:
    """The service's name in cyrus.conf. Raises Stop."""
    for name in ("CYRUS_SERVICE", "CYRUS_ID") if is_worker else ():
        if not env.get(name):
            raise Stop(INTERNAL, f"could not getenv({name}); exiting")
    return env.get("CYRUS_SERVICE") or "pop3"


def configure(arguments: Arguments, service: str, env: Environment) -> Config:
    """Raises Stop."""
    try:
        return config.read(arguments.config, service, env)
    except config.BadConfig as why:
        raise Stop(CONFIG, str(why)) from why


def remember(env: Environment) -> None:
    """Raises Stop."""
    try:
        verified.configure(env)
    except Refused as why:
        raise Stop(CONFIG, str(why)) from why


def debug(found: Config, name: str, service: str) -> None:
    """Run debug_command, with our name, process id and service in the place of its conversions."""
    text = found.text("debug_command")
    if not text:
        return
    arguments = iter((name, str(os.getpid()), service))
    first, *rest = text.replace("%%", "\0").split("%")
    shown = first + "".join(next(arguments, "") + piece[1:] for piece in rest)
    os.system(os.fsdecode(os.fsencode(shown.replace("\0", "%"))[:LONGEST_COMMAND]))


def serve(arguments: Arguments, env: Environment, found: Config) -> int:
    """Become the chain that serves the client on descriptors 0 and 1."""
    if arguments.is_kerberos:
        log.err("pop3d: -k: there is no Kerberos here; remove it")
        os.write(1, USAGE_REPLY)
        return USAGE
    env = addressed(env)
    procfile.begin(env)
    env.setdefault(f"AUTHSERVICE{env.get('TCPLOCALPORT', '')}", "pop")
    argv = environment.command(found)
    if arguments.is_tls:
        argv = ["couriertls", "-server", "-tcpd", *argv]
    try:
        handover.become(argv, env)
    except CannotBecome as why:
        log.err(f"pop3d: {why}")
    return SYSTEM


def addressed(env: Environment) -> Environment:
    """The environment with TCPREMOTEIP and so on, unless somebody has set them."""
    if "TCPREMOTEIP" in env:
        return env
    client = socket(AF_INET, SOCK_STREAM, 0, fileno=0)  # said, so that nobody asks the kernel
    try:
        ends = {"TCPREMOTE": client.getpeername(), "TCPLOCAL": client.getsockname()}
    except OSError:  # it is none
        return env
    finally:
        client.detach()
    if not all(isinstance(end, tuple) for end in ends.values()):
        return env
    ips = {f"{name}IP": end[0].removeprefix("::ffff:") for name, end in ends.items()}
    ports = {f"{name}PORT": str(end[1]) for name, end in ends.items()}
    return {**env, **ips, **ports}
