"""mastered - a pop3d under a master: Cyrus's, or ours

    Mastered(name, folder, store, master, pop3d, conf)

store: the mail (cyrusmail.Store), which is made at the first start. master: its command. conf: the
imapd.conf that both read. Eight processes wait, of Cyrus's and of ours. As many clients may wait as
come at once: with a master's usual 32, the kernel turns some away, who come back a second later.
"""

from __future__ import annotations

from accounts import write
from cyrusmail import Store
from servers import Command, Server

BACKLOG = "256"


class Mastered(Server):
    def __init__(
        self, name: str, folder: str, store: Store, master: list[str], pop3d: str, conf: str
    ):
        super().__init__(name, folder, store)
        self.store = store
        self.master = master
        self.pop3d = pop3d
        self.conf = conf
        self.service = "pop3" + name.replace("-", "")  # in cyrus.conf; its lock is called so

    def start(self) -> None:
        self.store.make()
        super().start()

    def commands(self) -> list[Command]:
        services = f"{self.folder}/cyrus.conf"
        command = f"{self.pop3d} -C {self.conf}"
        place = f'listen="127.0.0.1:{self.port}" proto=tcp4'
        line = f'{self.service} cmd="{command}" {place} prefork=8 maxchild={self.most}'
        write(services, f"START {{\n}}\nSERVICES {{\n  {line}\n}}\nEVENTS {{\n}}\n", 0o644)
        argv = [*self.master, "-D", "-l", BACKLOG, "-C", self.conf, "-M", services]
        return [([*argv, "-p", f"{self.folder}/pid"], self.store.environment())]
