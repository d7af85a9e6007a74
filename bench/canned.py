"""canned - no server: canned.c, which shows how many sessions the load generator can drive"""

from __future__ import annotations

from accounts import Accounts
from servers import PATH, Command, Server


class Canned(Server):
    def __init__(self, name: str, folder: str, accounts: Accounts, program: str):
        super().__init__(name, folder, accounts)
        self.program = program

    def commands(self) -> list[Command]:
        return [([self.program, str(self.port)], {"PATH": PATH})]
