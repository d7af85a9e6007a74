"""servers - how to start, stop and look at each server that is compared

A set-up is a class with a name, its users file and the commands to run:

    start()    run the commands, wait for a greeting on a loopback port of its own
    stop()     end them, and whatever they started
    pids()     all its processes
    cpu_ms()   the processor time it has used so far

To add a server, write a class with `commands`, and name it in `set_ups` or `set_ups_for_long`.
"""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import socket
import ssl
import time
from contextlib import suppress

import keeper
import originals
import processes
from accounts import VIRTUAL_OWNER, Accounts, Mailboxes, write
from privateview import behind

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 10.0
PARKED_SECONDS = 17.0  # -park=1, and the life of processes that wait then, looked at every 5 s
LISTENER_OPTIONS = ["-address=127.0.0.1", "-maxprocs=400", "-maxperip=400", "-nodnslookup"]

Command = tuple[list[str], dict[str, str]]


class Failed(Exception):
    """A server that does not start, or does not serve."""


class Server:
    """`pem`: certificate and key, if its port is one for TLS. `idle_seconds`: after so long an idle
    session needs no more than it ever will."""

    pem = ""
    idle_seconds = 0.0

    def __init__(self, name: str, folder: str, users: str):
        self.name = name
        self.users = users
        self.folder = f"{folder}/{name}"
        self.log = f"{self.folder}/stderr"
        self.port = 0
        self.keepers: list[int] = []
        os.mkdir(self.folder)
        # A listener with -user opens its log when it has already become that user.
        os.close(os.open(self.log, os.O_CREAT | os.O_WRONLY))
        os.chmod(self.log, 0o666)

    def commands(self) -> list[Command]:
        """What to run, in this order, with which environment; the last one listens on the port."""
        raise NotImplementedError

    def start(self) -> None:
        os.truncate(self.log, 0)
        self.port = free_port()
        for argv, env in self.commands():
            self.keepers.append(keeper.start(argv, env, self.log))
        self.wait_for_greeting()

    def stop(self) -> None:
        while self.keepers:
            keeper.stop(self.keepers.pop())

    def pids(self) -> list[int]:
        return [pid for held in self.keepers for pid in processes.descendants(held)]

    def cpu_ms(self) -> float:
        return processes.cpu_ms(self.keepers)

    def wait_for_greeting(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not greets(self.port, tls=bool(self.pem)):
            if not all(keeper.alive(held) for held in self.keepers):
                raise Failed(f"{self.name}: ended at start: {self.last_words()}")
            if time.monotonic() > until:
                raise Failed(f"{self.name}: no greeting on its port: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        with open(self.log, errors="replace") as file:
            lines = [line for line in file.read().splitlines() if line.strip()]
        return " / ".join(lines[-3:]) or "it wrote nothing"


class Courier(Server):
    """The original: listener and authdaemond, which tries one module.

    The paths of authdaemonrc and of authdaemond's socket are compiled in, so each set-up sees an
    /etc/courier and a /run/courier of its own.
    """

    def __init__(self, name: str, folder: str, mailboxes: Accounts, module: str):
        super().__init__(name, folder, mailboxes.system_users)
        self.etc = f"{self.folder}/etc"
        self.run = f"{self.folder}/run"
        self.programs = originals.in_place("courier-pop", self.folder)
        shutil.copytree("/etc/courier", self.etc)
        with open(f"{self.etc}/authdaemonrc", "r+") as file:
            text = re.sub(r"(?m)^authmodulelist=.*", f'authmodulelist="{module}"', file.read())
            file.seek(0)
            file.truncate()
            file.write(text)
        owner = pwd.getpwnam("courier")
        os.makedirs(f"{self.run}/authdaemon", 0o750)
        os.chown(f"{self.run}/authdaemon", owner.pw_uid, owner.pw_gid)
        os.makedirs("/run/courier", exist_ok=True)

    def commands(self) -> list[Command]:
        lib = "/usr/lib/courier"
        listener = ["/usr/sbin/couriertcpd", *LISTENER_OPTIONS, f"-stderr={self.log}"]
        chain = [f"{lib}/courier/courierpop3login", f"{lib}/courier/courierpop3d", "Maildir"]
        return [
            (self.seen([f"{lib}/courier-authlib/authdaemond"]), {"PATH": PATH}),
            (self.seen([*listener, str(self.port), *chain]), {"PATH": PATH}),
        ]

    def seen(self, argv: list[str]) -> list[str]:
        own = {self.etc: "/etc/courier", self.run: "/run/courier", **self.programs}
        return behind(own, argv)

    def start(self) -> None:
        super().start()
        until = time.monotonic() + START_SECONDS
        while not os.path.exists(f"{self.run}/authdaemon/socket"):
            if time.monotonic() > until:
                raise Failed(f"{self.name}: authdaemond makes no socket: {self.last_words()}")
            time.sleep(0.05)


class Ours(Server):
    """Our couriertcpd, the stages of the chain found beside it."""

    def __init__(
        self, name: str, folder: str, mailboxes: Accounts, bin: str, module: str, *options: str
    ):
        super().__init__(name, folder, mailboxes.system_users)
        self.bin = bin
        self.module = module
        self.options = options
        self.userdb = mailboxes.system_userdb
        if any(option.startswith("-park=") for option in options):
            self.idle_seconds = PARKED_SECONDS

    def commands(self) -> list[Command]:
        listener = [f"{self.bin}/couriertcpd", *LISTENER_OPTIONS, *self.options]
        chain = ["courierpop3login", self.module, "courierpop3d", "./Maildir"]
        argv = [*listener, f"-stderr={self.log}", str(self.port), *chain]
        return [(argv, {"PATH": PATH, "AUTHUSERDB_FILE": self.userdb})]


class OursVirtual(Ours):
    """All mailboxes belong to one user, so a process may serve one session after another."""

    def __init__(self, name: str, folder: str, mailboxes: Mailboxes, bin: str, *more: str):
        options = [f"-user={VIRTUAL_OWNER}", "-uses=1000"]
        super().__init__(name, folder, mailboxes, bin, "authuserdb", *options, *more)
        self.users = mailboxes.virtual_users
        self.userdb = mailboxes.virtual_userdb


class Dovecot(Server):
    """Dovecot 2.3 with its defaults: set is what has none, and where it is to listen and to write.

    Its state directory is compiled in, so it sees a /var/lib/dovecot of its own.
    """

    login = ""  # settings of its login service

    def __init__(self, name: str, folder: str, mailboxes: Accounts):
        super().__init__(name, folder, mailboxes.system_users)
        self.config = f"{self.folder}/dovecot.conf"
        self.programs = originals.in_place("dovecot-pop3d", self.folder)
        self.state = f"{self.folder}/state"
        self.passwd = f"{self.folder}/passwd"
        os.mkdir(self.state)
        write(self.passwd, mailboxes.passwd_file(), 0o600)
        os.chown(self.passwd, pwd.getpwnam("dovecot").pw_uid, -1)

    def commands(self) -> list[Command]:
        write(self.config, self.settings(), 0o600)
        argv = ["/usr/sbin/dovecot", "-F", "-c", self.config]
        seen = behind({self.state: "/var/lib/dovecot", **self.programs}, argv)
        return [(seen, {"PATH": PATH})]

    def encryption(self) -> str:
        return "ssl = no"

    def settings(self) -> str:
        plain, tls = (0, self.port) if self.pem else (self.port, 0)
        return f"""
protocols = pop3
listen = 127.0.0.1
base_dir = {self.folder}/run
{self.encryption()}
log_path = {self.log}
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = {self.passwd}
}}
userdb {{
  driver = passwd-file
  args = {self.passwd}
}}
service pop3-login {{
  {self.login}
  inet_listener pop3 {{
    port = {plain}
  }}
  inet_listener pop3s {{
    ssl = yes
    port = {tls}
  }}
}}
"""


LOGIN_REUSED = "service_count = 0\n  process_min_avail = 2\n  client_limit = 1000"
TLS_OPTIONS = ["-server", "-tcpd", "-user=courier"]


class CourierTls(Courier):
    """The same for TLS, as the start script of Debian's package runs it."""

    def __init__(self, name: str, folder: str, mailboxes: Accounts, pem: str):
        super().__init__(name, folder, mailboxes, "authuserdb")
        self.pem = pem

    def commands(self) -> list[Command]:
        authdaemond, (argv, env) = super().commands()
        behind_port = argv.index(str(self.port)) + 1
        argv[behind_port:behind_port] = ["/usr/bin/couriertls", *TLS_OPTIONS]
        env.update(TLS_CERTFILE=self.pem, TLS_VERIFYPEER="NONE", POP3_TLS="1")
        return [authdaemond, (argv, env)]


class OursTls(Ours):
    """The same command line with ours."""

    def __init__(
        self, name: str, folder: str, mailboxes: Accounts, bin: str, pem: str, *options: str
    ):
        super().__init__(name, folder, mailboxes, bin, "authuserdb", *options)
        self.pem = pem

    def commands(self) -> list[Command]:
        ((argv, env),) = super().commands()
        behind_port = argv.index(str(self.port)) + 1
        argv[behind_port:behind_port] = ["couriertls", *TLS_OPTIONS]
        return [(argv, {**env, "TLS_CERTFILE": self.pem})]


class DovecotTls(Dovecot):
    """Dovecot for TLS. `reused`: its login processes serve many clients each; the mail process of a
    session has its user's uid in any case."""

    def __init__(self, name: str, folder: str, mailboxes: Accounts, pem: str, *, reused: bool):
        super().__init__(name, folder, mailboxes)
        self.pem = pem
        self.login = LOGIN_REUSED if reused else ""

    def encryption(self) -> str:
        return f"ssl = required\nssl_cert = <{self.pem}\nssl_key = <{self.pem}"


class Canned(Server):
    """No server: shows how many sessions the load generator can drive at all."""

    def __init__(self, name: str, folder: str, mailboxes: Mailboxes, program: str):
        super().__init__(name, folder, mailboxes.system_users)
        self.program = program

    def commands(self) -> list[Command]:
        return [([self.program, str(self.port)], {"PATH": PATH})]


def set_ups(folder: str, mailboxes: Mailboxes, canned: str, bin: str | None) -> list[Server]:
    """All set-ups for short sessions; without `bin`, those that are not ours."""
    servers: list[Server] = [
        Canned("generator", folder, mailboxes, canned),
        Courier("courier-userdb", folder, mailboxes, "authuserdb"),
        Courier("courier-pam", folder, mailboxes, "authpam"),
    ]
    if bin:
        servers += [
            Ours("ours-userdb", folder, mailboxes, bin, "authuserdb", "-uses=1000"),
            Ours("ours-pam", folder, mailboxes, bin, "authpam", "-uses=1000"),
            Ours("ours-fork", folder, mailboxes, bin, "authuserdb"),
            Ours("ours-fork-pam", folder, mailboxes, bin, "authpam"),
            OursVirtual("ours-virtual", folder, mailboxes, bin),
            Ours("ours-park", folder, mailboxes, bin, "authuserdb", "-uses=1000", "-park=1"),
            Ours("ours-park-pam", folder, mailboxes, bin, "authpam", "-uses=1000", "-park=1"),
            OursVirtual("ours-park-virt", folder, mailboxes, bin, "-park=1"),
        ]
    return servers


def set_ups_for_long(folder: str, mailboxes: Accounts, bin: str | None) -> list[Server]:
    """One set-up of each server, for long sessions; ours with a process for each connection."""
    servers: list[Server] = [
        Courier("courier", folder, mailboxes, "authuserdb"),
        Dovecot("dovecot", folder, mailboxes),
    ]
    if bin:
        servers.append(Ours("ours", folder, mailboxes, bin, "authuserdb"))
    return servers


def set_ups_for_tls(folder: str, mailboxes: Accounts, bin: str | None, pem: str) -> list[Server]:
    """All of them with each account's own uid, and the same certificate."""
    servers: list[Server] = [
        CourierTls("courier", folder, mailboxes, pem),
        DovecotTls("dovecot", folder, mailboxes, pem, reused=False),
        DovecotTls("dovecot-reused", folder, mailboxes, pem, reused=True),
    ]
    if bin:
        servers += [
            OursTls("ours", folder, mailboxes, bin, pem, "-uses=1000", "-park=1"),
            OursTls("ours-fork", folder, mailboxes, bin, pem),
        ]
    return servers


def free_port() -> int:
    """A port that nobody uses, below those that clients are given."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def greets(port: int, *, tls: bool) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            if tls:
                client = unverified().wrap_socket(client)
            return client.recv(512).startswith(b"+OK")
    except OSError:
        return False


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
