"""courier - the original: Debian's couriertcpd, courierpop3login, authdaemond and courierpop3d

    Courier(name, folder, accounts, "authuserdb")
    CourierTls(name, folder, accounts, pem)     behind its couriertls

Everything is as Debian's packages have it but the port, how many clients are let in, and which
module authdaemond asks. The paths of authdaemonrc and of authdaemond's socket are compiled in, so
each set-up sees an /etc/courier and a /run/courier of its own.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import time

import originals
from accounts import USERDB_FILES, Accounts
from privateview import behind
from servers import PATH, START_SECONDS, Command, Failed, Server

LIB = "/usr/lib/courier"
TLS_OPTIONS = ["-server", "-tcpd", "-user=courier"]


class Courier(Server):
    """Listener and authdaemond, which tries one module."""

    def __init__(self, name: str, folder: str, accounts: Accounts, module: str):
        super().__init__(name, folder, accounts)
        self.etc = f"{self.folder}/etc"
        self.run = f"{self.folder}/run"
        self.programs = originals.in_place("courier-pop", self.folder)
        shutil.copytree("/etc/courier", self.etc)
        for suffix in USERDB_FILES:
            shutil.copy2(accounts.userdb + suffix, f"{self.etc}/userdb{suffix}")
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
        listener = ["/usr/sbin/couriertcpd", *listener_options(self.most), f"-stderr={self.log}"]
        chain = [f"{LIB}/courier/courierpop3login", f"{LIB}/courier/courierpop3d", "Maildir"]
        return [
            (self.seen([f"{LIB}/courier-authlib/authdaemond"]), {"PATH": PATH}),
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


class CourierTls(Courier):
    """The same for TLS, as the start script of Debian's package runs it."""

    def __init__(self, name: str, folder: str, accounts: Accounts, pem: str):
        super().__init__(name, folder, accounts, "authuserdb")
        self.pem = pem

    def commands(self) -> list[Command]:
        authdaemond, (argv, env) = super().commands()
        behind_port = argv.index(str(self.port)) + 1
        argv[behind_port:behind_port] = ["/usr/bin/couriertls", *TLS_OPTIONS]
        env.update(TLS_CERTFILE=self.pem, TLS_VERIFYPEER="NONE", POP3_TLS="1")
        return [authdaemond, (argv, env)]


def listener_options(most: int) -> list[str]:
    """Of Courier's couriertcpd, and of ours."""
    return ["-address=127.0.0.1", f"-maxprocs={most}", f"-maxperip={most}", "-nodnslookup"]
