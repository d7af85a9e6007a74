"""popa3d - Openwall's popa3d, unpacked beside what is installed

    Popa3d(name, folder, accounts)

Its users are the system's, by PAM; their mail is one file each, in a /var/mail of its own. Debian's
inetd entry starts it for each connection, and so does Courier's couriertcpd here: as a daemon it
takes no more than 50 connections from an address in 10 seconds.
"""

from __future__ import annotations

import os

import originals
from accounts import MESSAGE, MESSAGES, Accounts, add_account
from courier import listener_options
from privateview import behind
from servers import PATH, Command, Server

USER = "popa3d"
POSTMARK = "From a@example.com Tue Nov 14 22:13:20 2023\n"
PAM_STACK = "@include common-auth\n@include common-account\n"  # Debian's


class Popa3d(Server):
    def __init__(self, name: str, folder: str, accounts: Accounts):
        super().__init__(name, folder, accounts)
        self.mail = f"{accounts.homes}/{name}"
        self.state = f"{self.folder}/state"
        self.program = f"{originals.unpacked('popa3d')}/usr/sbin/popa3d"
        add_account(USER, "/var/lib/popa3d", "!")
        os.makedirs(f"{self.state}/popa3d", 0o755)  # empty: it speaks with strangers from there
        with open("/etc/pam.d/popa3d", "w") as file:
            file.write(PAM_STACK)
        self.deliver()

    def deliver(self) -> None:
        os.mkdir(self.mail, 0o755)
        letters = (POSTMARK + MESSAGE.format(number) + "\n" for number in range(MESSAGES))
        text = "".join(letters)
        for name, ids in self.accounts.owners.items():
            with open(f"{self.mail}/{name}", "w") as file:
                file.write(text)
            os.chown(file.name, *ids)
            os.chmod(file.name, 0o600)

    def commands(self) -> list[Command]:
        listener = ["/usr/sbin/couriertcpd", *listener_options(self.most), f"-stderr={self.log}"]
        argv = [*listener, str(self.port), self.program]
        own = {self.mail: "/var/mail", self.state: "/var/lib"}
        return [(behind(own, argv), {"PATH": PATH})]
