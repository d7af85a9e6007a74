"""couriertcpd - listen, and start a program for each connection

    couriertcpd [OPTION...] PORTS PROGRAM [ARGUMENT...]
    couriertcpd -check [OPTION...] PORTS PROGRAM [ARGUMENT...]
    couriertcpd -pid=FILE -stop | -restart
    couriertcpd -pid=FILE -reload [[OPTION...] PORTS PROGRAM [ARGUMENT...]]

PORTS       110 or pop3, 127.0.0.1.110, lists with commas; see `listen`
PROGRAM     started with the client on descriptors 0 and 1 and TCPREMOTEIP... in its environment
OPTION      see `options`; limits, -maxprocs and others, in `limits`; -access in `access`;
            -haproxy in `proxies`; -block and -allow in `lookups`; -maxfailsperip and
            -maxfailsperuser in `throttle`
-check      says what would keep it from starting, without listening; exits 0 if nothing would
-reload     see `reload`; what systemd gives and is told, see `systemd`

Programs of ours among PROGRAM and its arguments are loaded once, now, and called in the forked
child; all others, and with -coldexec those too, are executed (see courierchain.handover).

Exits 0 when told to (SIGTERM, SIGINT), and as soon as the daemon listens with -pid; 1 after an
error, with one line on descriptor 2. Reference: couriertcpd.md 1 to 6, 10, 11.
"""

from __future__ import annotations

import gc
import os
from signal import SIG_BLOCK, SIG_IGN, SIGHUP, SIGPIPE, SIGUSR2, pthread_sigmask, signal

from courierchain import daemon, front, handover, log, programs, verified
from courierchain.refusal import Refused
from courierchain.request import RECORD
from couriertcpd import reload, stderr, systemd
from couriertcpd.access import Access
from couriertcpd.arrival import Address, Variables
from couriertcpd.children import usual_idle
from couriertcpd.connection import variables
from couriertcpd.encryption import Relay, exists, of_every_connection, on_demand
from couriertcpd.front import USER, Fronts
from couriertcpd.installation import (
    Missing,
    closed_to_users,
    is_login,
    load_chain,
)
from couriertcpd.limits import Limits
from couriertcpd.listen import endpoints, open_sockets, try_sockets
from couriertcpd.listener import Listener
from couriertcpd.lookups import of_command_line
from couriertcpd.options import Options, parse
from couriertcpd.parkinglot import Terms
from couriertcpd.proxies import Proxies
from couriertcpd.rehearsal import rehearse
from couriertcpd.throttle import THROTTLE, Throttle
from couriertcpd.worker import Serve

NAME = "couriertcpd"
LEARNED = (
    "TLS_SUBJECT_",
    "TLS_BINDING_",
    "TLS_CONNECTED_PROTOCOL",
)  # told by couriertls, or by nobody


def main(argv: list[str], env: dict[str, str]) -> int:
    try:
        options = parse(argv)
        if options.stop or options.restart:
            return signal_daemon(options)
        if options.check:
            return check(options, env)
        if options.reload:
            command_line = [os.path.abspath(argv[0]), *argv[1:]] if options.program else []
            return reload.command(options.pid, command_line, env)
        return listen(options, argv, env)
    except Refused as why:
        for line in str(why).split("\n"):
            log.plain(line)
    except Missing as why:
        log.plain(f"{argv[0]}: {why}")
    return 1


def signal_daemon(options: Options) -> int:
    """-stop, -restart: without a lock file to open there is nothing to do, and no failure."""
    try:
        if options.stop:
            return daemon.stop(options.pid, NAME)
        return daemon.restart(options.pid, NAME)
    except Refused as why:
        log.plain(str(why))
        return 0


def check(options: Options, env: dict[str, str]) -> int:
    """Do what can be done of `listen` without a trace. In a reload's trial this process has the
    rights and the sockets of the listener, and can find out whether it will have its ports."""
    before = reload.inheritance(env)
    base = base_environment(options, env)
    verified.configure(base)
    places = endpoints(options.portlist, options.address)
    Proxies(options.haproxy, options.haproxyfrom)
    of_command_line(options, base)
    _, program = encryption(options, base)
    load_chain(program, base)
    provide_for_closed_directories(options)
    if before:
        try_sockets(places, before.sockets)
    change_ids(options)
    stderr.check(options)
    Access(options, base)
    return 0


def listen(options: Options, argv: list[str], env: dict[str, str]) -> int:
    """From the command line to the last connection, in the order of couriertcpd.md 4.1."""
    before = reload.inheritance(env)
    passed = systemd.passed_sockets(env)
    notifier = systemd.Notifier(env)
    base = base_environment(options, env)
    verified.configure(base)
    proxies = Proxies(options.haproxy, options.haproxyfrom)
    access = Access(options, base)
    lookups = of_command_line(options, base)
    tls, program = encryption(options, base)
    chain = load_chain(program, base)
    provide_for_closed_directories(options)
    if not options.coldexec and is_login(chain[0]):
        rehearse(session(chain, {**base, "POP3_FAILURE_DELAY": "0"}))
    inherited = [*passed.values(), *(before.sockets if before else ())]
    running = become_daemon(options, before, [sock.fileno() for sock in inherited])
    occupy_record_number()
    pthread_sigmask(SIG_BLOCK, [SIGHUP, SIGUSR2])  # until the Listener has its handlers
    places = endpoints(options.portlist, options.address)
    systemd.check_use(passed, places, options.portlist)
    sockets = open_sockets(places, inherited)
    if running and not before:
        running.ready()
    if tls:  # before privileges go: perhaps only root can read the keys
        settle(options, base, daemonized=running is not None)
        start(tls)
        change_ids(options)
    else:
        change_ids(options)
        settle(options, base, daemonized=running is not None)
    signal(SIGPIPE, SIG_IGN)
    limits = Limits(options.maxprocs, options.maxperip, options.maxperc, options.warn)
    throttle = Throttle.of(options, base)
    if throttle:
        base = {**base, THROTTLE: throttle.name}
    serve = session(chain, base, options.stderr == "socket")
    terms = parking_terms(options, base, before)
    fronts = fronts_of(options, chain, base, tls, before)
    gc.collect()
    gc.freeze()  # what is here now is every child's, and stays
    gc.disable()  # a session is short, and has no cycles worth a search
    return Listener(
        *(sockets, proxies, access, limits, lookups, tls, throttle, serve),
        prefork=options.prefork,
        uses=options.uses,
        most_idle=options.maxidle or usual_idle(),
        terms=terms,
        fronts=fronts,
        notifier=notifier,
        reload=reload.Reload(argv, env, sockets, running, before, terms.soft if terms else None),
        before=before,
    ).run()


def parking_terms(
    options: Options, base: dict[str, str], before: reload.Inheritance | None
) -> Terms | None:
    if options.park is None:
        return None
    soft = before.soft if before else None
    return Terms(options.park, base, options.stderr == "socket", soft)


def fronts_of(
    options: Options,
    chain: list[str],
    base: dict[str, str],
    tls: Relay | None,
    before: reload.Inheritance | None,
) -> Fronts | None:
    """What -front asks for, where the login program can be called with what a front has heard."""
    is_resident = not options.coldexec and is_login(chain[0])
    is_on = options.front and is_resident and options.stderr != "socket"
    if is_on and os.geteuid() == 0 and not exists(USER):
        log.err(f"-front has no effect: there is no user {USER}")
        is_on = False
    if not is_on and not (before and before.fronts):
        return None
    makes_handshakes = tls is not None and tls.on_demand
    return Fronts(chain, base, makes_handshakes=makes_handshakes, is_on=is_on)


def encryption(options: Options, env: dict[str, str]) -> tuple[Relay | None, list[str]]:
    """The TLS relay that there is to be, and the program behind it. Raises Refused. Where TLS is
    only on offer, sessions go on without it."""
    if options.coldexec:
        return None, options.program
    tls, program = of_every_connection(options.program, env)
    if tls:
        tls.check()
    elif is_login(programs.locate(program[0], env) or "") and (offered := on_demand(env)):
        try:
            offered.check()
            tls = offered
        except Refused as why:
            log.err(f"{why}: STLS is not offered")
            env["POP3_STARTTLS"] = "NO"
    return tls, program


def start(tls: Relay) -> None:
    try:
        tls.start()
    except OSError as why:
        raise Refused(f"the TLS relay cannot be started: {why.strerror}") from why


def become_daemon(
    options: Options, before: reload.Inheritance | None, keep: list[int]
) -> daemon.Daemon | None:
    """The daemon that this process becomes, or is already; None without -pid."""
    if not options.pid:
        return None
    if before and before.lock is not None:
        return daemon.Daemon(options.pid, before.lock, -1)
    return daemon.detach(options.pid, NAME, keep=keep)


def change_ids(options: Options) -> None:
    if options.group is not None:
        daemon.change_group(options.group)
    if options.user is not None:
        daemon.change_user(options.user, keep_group=options.group is not None)


def settle(options: Options, env: dict[str, str], *, daemonized: bool) -> None:
    """Have no terminal, and the log on descriptor 2."""
    if daemonized:
        daemon.to_null()
    stderr.redirect(options, env)
    if not daemonized:
        daemon.leave_terminal()


def session(chain: list[str], base: dict[str, str], stderr_too: bool = False) -> Serve:
    """What a child does for one connection: the whole chain, from its first program."""

    def enter(argv: list[str], env: dict[str, str]) -> int:
        handover.become(argv, env)
        return 1

    def serve(remote: Address, local: Address, told: Variables, login: bytes | None) -> int:
        if stderr_too:
            os.dup2(0, 2)
        env = {**base, **told, **variables(remote, local)}
        if login is not None:
            return behind_front(chain, env, login)
        return handover.run(enter, chain, env)

    return serve


def behind_front(chain: list[str], env: dict[str, str], login: bytes) -> int:
    try:
        return front.go_on(chain, env, login)
    except KeyError:  # another program since a reload
        log.err(f"{chain[0]}: can't take over from a front")
        return 1


def base_environment(options: Options, env: dict[str, str]) -> dict[str, str]:
    """What every session starts from. The directory of our programs comes first in PATH, so that
    a foreign stage finds them by their names too."""
    path = env.get("PATH") or programs.STANDARD_PATH
    private = (*systemd.PRIVATE, *LEARNED)
    env = {name: env[name] for name in env if not name.startswith(private)}
    env["PATH"] = f"{programs.directory}:{path}"
    if options.coldexec:
        env["COURIER_COLDEXEC"] = "1"
    return env


def provide_for_closed_directories(options: Options) -> None:
    closed = closed_to_users() if os.geteuid() == 0 else None
    if closed:
        handover.load_late_modules()
        log.warn(
            f"{options.argv0}: users cannot enter {closed}, so no program of this installation "
            "can be executed once a user has logged in; those that are resident work "
            f"(chmod o+x {closed}, or install elsewhere)"
        )


def occupy_record_number() -> None:
    """Let no descriptor that lives long get the number of the chain's record, or a lower one."""
    while (descriptor := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < RECORD:
        os.set_inheritable(descriptor, True)
    if descriptor > RECORD:
        os.close(descriptor)
