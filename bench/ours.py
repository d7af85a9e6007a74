"""ours - our couriertcpd, the stages of the chain found beside it

    Ours(name, folder, accounts, bin, "authuserdb", *options)      options of couriertcpd
    OursVirtual(name, folder, accounts, bin, *options)             all mailboxes of one uid
    OursCached(name, folder, accounts, bin, "authuserdb", *options)    with POP3_LOGIN_CACHE
    OursTls(name, folder, accounts, bin, pem, *options)            behind our couriertls

`bin` is the directory with our installed programs.
"""

from __future__ import annotations

from accounts import VIRTUAL_OWNER, Accounts
from courier import TLS_OPTIONS, listener_options
from servers import PATH, Command, Server

PARKED_SECONDS = 17.0  # -park=1, and the life of processes that wait then, looked at every 5 s


class Ours(Server):
    def __init__(
        self, name: str, folder: str, accounts: Accounts, bin: str, module: str, *options: str
    ):
        super().__init__(name, folder, accounts)
        self.bin = bin
        self.module = module
        self.options = options
        if any(option.startswith("-park=") for option in options):
            self.idle_seconds = PARKED_SECONDS

    def commands(self) -> list[Command]:
        listener = [f"{self.bin}/couriertcpd", *listener_options(self.most), *self.options]
        chain = ["courierpop3login", self.module, "courierpop3d", "./Maildir"]
        argv = [*listener, f"-stderr={self.log}", str(self.port), *chain]
        return [(argv, {"PATH": PATH, "AUTHUSERDB_FILE": self.accounts.userdb})]


class OursVirtual(Ours):
    """All mailboxes belong to one user, so a process may serve one session after another."""

    def __init__(self, name: str, folder: str, accounts: Accounts, bin: str, *more: str):
        options = [f"-user={VIRTUAL_OWNER}", "-uses=1000"]
        super().__init__(name, folder, accounts, bin, "authuserdb", *options, *more)


class OursCached(Ours):
    """The hash of a right password is computed once by each process that logs people in."""

    def commands(self) -> list[Command]:
        ((argv, env),) = super().commands()
        return [(argv, {**env, "POP3_LOGIN_CACHE": "3600"})]


class OursTls(Ours):
    """The same command line as Courier's, with ours."""

    def __init__(
        self, name: str, folder: str, accounts: Accounts, bin: str, pem: str, *options: str
    ):
        super().__init__(name, folder, accounts, bin, "authuserdb", *options)
        self.pem = pem

    def commands(self) -> list[Command]:
        ((argv, env),) = super().commands()
        behind_port = argv.index(str(self.port)) + 1
        argv[behind_port:behind_port] = ["couriertls", *TLS_OPTIONS]
        return [(argv, {**env, "TLS_CERTFILE": self.pem})]
