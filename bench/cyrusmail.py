"""cyrusmail - the same mailboxes twice: in Cyrus's store, and as Maildirs

    store = Store(folder, programs)     folder: a directory that everybody may enter
    store.make()                        COUNT users with MESSAGES messages each, all nobody's
    store.users                         their list, as popload reads it
    store.cyrus_conf, store.our_conf    an imapd.conf for either pop3d

programs: where Debian's packages of Cyrus are unpacked (originals.cyrus). A mailbox of Cyrus is
made by the first mail for it, which comes by its own lmtpd. Passwords are in a sasldb, where they
are in clear, and in a userdb, as {SHA}: neither side pays for a hash that is slow on purpose.
"""

from __future__ import annotations

import glob
import os
import secrets
import smtplib
import subprocess
import time
from base64 import b64encode
from hashlib import sha1

import keeper
from accounts import COUNT, MESSAGE, MESSAGES, write
from servers import PATH, Failed

NOBODY = 65534
DOMAIN = "mail.example"
DIRECTORIES = ("socket", "proc", "log", "msg", "db", "user", "quota", "sieve")
BOTH = """\
configdirectory: {directory}/imap
servername: mail.example
allowplaintext: yes
failedloginpause: 0
"""
CYRUS = """\
defaultpartition: default
partition-default: {directory}/spool
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {directory}/sasldb2
sasl_mech_list: PLAIN
autocreate_quota: 0
autocreate_post: yes
"""
OURS = """\
courier_modules: authuserdb
courier_authuserdb_file: {directory}/userdb
"""
LMTP = """\
START {{
  recover cmd="{programs}/usr/lib/cyrus/bin/ctl_cyrusdb -C {conf} -r"
}}
SERVICES {{
  lmtpunix cmd="{programs}/usr/lib/cyrus/bin/lmtpd -C {conf} -a" listen="{socket}" prefork=1
}}
"""
SECONDS = 20.0

Environment = dict[str, str]


class Store:
    def __init__(self, folder: str, programs: str):
        self.directory = f"{folder}/mail"
        self.programs = programs
        self.users = f"{self.directory}/users"
        self.cyrus_conf = f"{self.directory}/imapd.conf"
        self.our_conf = f"{self.directory}/ours.conf"
        self.password = secrets.token_hex(8)
        self.names = [f"popbench{number:02}" for number in range(1, COUNT + 1)]

    def environment(self) -> Environment:
        """In which either master runs."""
        (library,) = glob.glob(f"{self.programs}/usr/lib/*/libcyrus_min.so.0")
        user = {"CYRUS_USER": "nobody", "CYRUS_GROUP": "nogroup"}
        return {"PATH": PATH, "LD_LIBRARY_PATH": os.path.dirname(library), **user}

    def make(self) -> None:
        """Unless it has been made."""
        if os.path.exists(self.directory):
            return
        for name in (*(f"imap/{each}" for each in DIRECTORIES), "spool/stage.", "homes"):
            os.makedirs(f"{self.directory}/{name}")
        write(self.cyrus_conf, (BOTH + CYRUS).format(directory=self.directory), 0o644)
        write(self.our_conf, (BOTH + OURS).format(directory=self.directory), 0o644)
        write(self.users, "".join(f"{name} {self.password}\n" for name in self.names), 0o600)
        for name in self.names:
            self.add_user(name)
        self.make_maildirs()
        for place, folders, files in os.walk(self.directory):
            for path in (place, *(f"{place}/{name}" for name in folders + files)):
                os.lchown(path, NOBODY, NOBODY)
        self.deliver()

    def add_user(self, name: str) -> None:
        command = [f"{self.programs}/usr/sbin/saslpasswd2", "-f", f"{self.directory}/sasldb2"]
        command += ["-u", DOMAIN, "-p", "-c", name]
        subprocess.run(command, input=self.password.encode(), check=True, timeout=SECONDS)

    def make_maildirs(self) -> None:
        hashed = "{SHA}" + b64encode(sha1(self.password.encode()).digest()).decode()
        lines = []
        for name in self.names:
            home = f"{self.directory}/homes/{name}"
            for folder in ("cur", "new", "tmp"):
                os.makedirs(f"{home}/Maildir/{folder}")
            for number in range(MESSAGES):
                file = f"{home}/Maildir/cur/{1700000000 + number}.M{number}P1.example:2,S"
                write(file, MESSAGE.format(number), 0o600)
            lines.append(f"{name}\tuid={NOBODY}|gid={NOBODY}|home={home}|systempw={hashed}\n")
        write(f"{self.directory}/userdb", "".join(lines), 0o600)

    def deliver(self) -> None:
        """By LMTP. Raises Failed."""
        services, socket = f"{self.directory}/lmtp.conf", f"{self.directory}/imap/socket/lmtp"
        text = LMTP.format(programs=self.programs, conf=self.cyrus_conf, socket=socket)
        write(services, text, 0o644)
        log = f"{self.directory}/lmtp.log"
        argv = [f"{self.programs}/usr/lib/cyrus/bin/master", "-D", "-C", self.cyrus_conf]
        argv += ["-M", services, "-p", f"{self.directory}/lmtp.pid"]
        master = keeper.start(argv, self.environment(), log)
        try:
            with connected(socket) as client:
                for name in self.names:
                    for number in range(MESSAGES):
                        text = MESSAGE.format(number).replace("\n", "\r\n")
                        client.sendmail("a@example.com", [name], text)
        except (OSError, smtplib.SMTPException) as why:
            with open(log) as file:
                raise Failed(f"Cyrus's lmtpd takes no mail: {why}: {file.read()}") from why
        finally:
            keeper.stop(master)


def connected(path: str) -> smtplib.LMTP:
    """Raises OSError."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            return smtplib.LMTP(path, timeout=SECONDS)
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)
