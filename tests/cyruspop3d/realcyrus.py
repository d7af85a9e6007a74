"""Cyrus's own programs, Debian's, unpacked beside: master, pop3d, and lmtpd to put mail there

Nothing of it is installed, and the user `cyrus` need not be there: CYRUS_USER is nobody, all paths
of imapd.conf are in one directory. A mailbox is made by the first mail for it (autocreate), which
comes by LMTP; passwords are in a sasldb, in clear, so that CRAM-MD5 and APOP work.

    real = RealCyrus(directory)             a running master, with pop3d on real.ports["pop3"]
    real.deliver("john", b"Subject: x...")  what lmtpd makes of it is in real.spool("john")
    real.stop()

What master and the services log is in real.lines(), by a /dev/log of their own.
"""

from __future__ import annotations

import os
import shutil
import smtplib
import subprocess
from pathlib import Path

from tests.conftest import DEADLINE, Client, free_port, needs, wait_until
from tests.privatedev import Collector, PrivateDev

PEERS = Path("/var/cache/courierpop3-peers")  # where tests/run unpacks what can't be installed
NOBODY = 65534
PASSWORD = "secret"
DOMAIN = "mail.example"

CONFIG = """\
configdirectory: {directory}/imap
defaultpartition: default
partition-default: {directory}/spool
servername: mail.example
allowplaintext: yes
failedloginpause: 0
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {directory}/sasldb2
sasl_mech_list: PLAIN LOGIN CRAM-MD5
autocreate_quota: 0
autocreate_post: yes
"""
SERVICES = """\
START {{
  recover cmd="{bin}/ctl_cyrusdb -C {conf} -r"
}}
SERVICES {{
{services}
  lmtpunix cmd="{bin}/lmtpd -C {conf} -a" listen="{socket}" prefork=0
}}
EVENTS {{
}}
"""


# Master ends when we do, however that is: then its standard input is at its end.
UNTIL_EOF = '"$@" & child=$!; cat > /dev/null; kill $child; wait $child'


def program(name: str) -> str:
    """The path of one of Cyrus's programs."""
    return needs(str(PEERS / "usr/lib/cyrus/bin" / name))


def environment() -> dict[str, str]:
    """In which they run."""
    libraries = next(PEERS.glob("usr/lib/*/libcyrus_min.so.0")).parent
    user = {"CYRUS_USER": "nobody", "CYRUS_GROUP": "nogroup"}
    return {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(libraries), **user}


def give_to_nobody(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)


class RealCyrus:
    """workers: by the name of their service, with options; another -C is added. keys: of these
    services. config: more lines of imapd.conf; an option that is there already is replaced."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: dict[str, str] | None = None,
        keys: str = "prefork=1",
        config: str = "",
        users: tuple[str, ...] = ("john",),
    ):
        self.directory = directory
        self.conf = directory / "imapd.conf"
        workers = workers or {"pop3": program("pop3d")}
        self.ports = {name: free_port() for name in workers}
        self.configdirectory = directory / "imap"
        for name in ("socket", "proc", "log", "msg", "db", "user", "quota", "sieve"):
            (self.configdirectory / name).mkdir(parents=True)
        (directory / "spool/stage.").mkdir(parents=True)
        self.configure(config)
        for user in users:
            self.add(user)
        give_to_nobody(directory)
        self._lmtp = self.configdirectory / "socket/lmtp"
        services = directory / "cyrus.conf"
        services.write_text(
            SERVICES.format(
                bin=PEERS / "usr/lib/cyrus/bin",
                conf=self.conf,
                services="\n".join(
                    f'  {name} cmd="{command} -C {self.conf}" listen="127.0.0.1:{self.ports[name]}"'
                    f" proto=tcp4 {keys}"
                    for name, command in workers.items()
                ),
                socket=self._lmtp,
            )
        )
        (directory / "dev").mkdir()
        self.log = Collector(directory / "syslog")
        private = PrivateDev(directory / "dev", directory / "syslog")
        argv = [program("master"), "-D", "-C", self.conf, "-M", services, "-p", directory / "pid"]
        with (directory / "master.log").open("wb") as output:
            self.process = subprocess.Popen(
                private.behind("sh", "-c", UNTIL_EOF, "sh", *map(str, argv)),
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # told to end, it ends its whole group
            )
        try:
            wait_until(self._is_listening, "master listens")
        except BaseException:
            self.stop()
            raise

    def _is_listening(self) -> bool:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {int(words[1][-4:], 16) for words in lines if words[3] == "0A"}
        return listening.issuperset(self.ports.values())

    def configure(self, text: str = "") -> None:
        given = [line.split(":")[0] for line in text.splitlines()]
        usual = CONFIG.format(directory=self.directory).splitlines()
        lines = [line for line in usual if line.split(":")[0] not in given]
        self.conf.write_text("\n".join(lines) + "\n" + text)

    def add(self, user: str) -> None:
        """A user whose password is PASSWORD."""
        argv = [needs(str(PEERS / "usr/sbin/saslpasswd2")), "-f", self.directory / "sasldb2"]
        subprocess.run(
            [*argv, "-u", DOMAIN, "-p", "-c", user],
            input=PASSWORD.encode(),
            check=True,
            timeout=DEADLINE,
        )

    def deliver(self, users: str, message: bytes) -> None:
        """By LMTP, line ends being CRLF. lmtpd puts Return-Path and Received in front of it."""
        with smtplib.LMTP(str(self._lmtp), timeout=DEADLINE) as client:
            for user in users.split():
                client.sendmail("sender@example.org", [user], message)

    def spool(self, user: str) -> list[bytes]:
        """The messages in a mailbox, as Cyrus stores them, in their order."""
        found = subprocess.run(
            [program("mbpath"), "-C", self.conf, f"user/{user}"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        folder = Path(found.stdout.strip())
        numbers = [int(path.name[:-1]) for path in folder.iterdir() if path.name[:-1].isdigit()]
        return [(folder / f"{number}.").read_bytes() for number in sorted(numbers)]

    def client(self, service: str = "pop3") -> Client:
        return Client(self.ports[service])

    def lines(self) -> list[str]:
        """What was logged, with priority and time."""
        return self.log.lines()

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(DEADLINE)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
