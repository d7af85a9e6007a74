"""dovecot - Dovecot 2.3, or 2.4, whose settings have other names

    Dovecot(name, folder, accounts)             as shipped: what is set has no default
    DovecotTuned(name, folder, accounts)        as its documentation says for speed
    DovecotVirtual(name, folder, accounts)      the same, all mailboxes of one uid
    DovecotTls(name, folder, accounts, pem, reused=True)

Tuned are: login processes that serve many clients each ("high-performance mode"), one for each
processor; the cache of the authentication; room for as many clients as come. The mail process of a
session has its user's uid; where all have the same, it serves a thousand sessions.

Its state directory is compiled in, so it sees a /var/lib/dovecot of its own.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess

import originals
from accounts import Accounts, write
from privateview import behind
from servers import PATH, Command, Server

DOVECOT = "/usr/sbin/dovecot"
OF_2_4 = {  # lines of 2.3, as patterns, and what 2.4 has in their place
    r"mail_location = maildir:(.*)": r"mail_driver = maildir\nmail_path = \1",
    r"disable_plaintext_auth = no": "auth_allow_cleartext = yes",
    r"(pass|user)db {\n  driver = passwd-file": r"\1db passwd-file {",
    r"  args =": "  passwd_file_path =",
    r"service_count": "restart_request_count",
    r"ssl_(cert|key) = <": r"ssl_server_\1_file = ",
}


def is_newer() -> bool:
    done = subprocess.run([DOVECOT, "--version"], capture_output=True, text=True, check=True)
    return not done.stdout.startswith("2.3.")


def newer(settings: str) -> str:
    for old, new in OF_2_4.items():
        settings = re.sub(old, new, settings)
    return f"dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n{settings}"


class Dovecot(Server):
    login = ""  # settings of its login service
    more = ""  # further settings

    def __init__(self, name: str, folder: str, accounts: Accounts):
        super().__init__(name, folder, accounts)
        self.config = f"{self.folder}/dovecot.conf"
        self.programs = originals.in_place("dovecot-pop3d", self.folder)
        self.state = f"{self.folder}/state"
        self.passwd = f"{self.folder}/passwd"
        os.mkdir(self.state)
        write(self.passwd, accounts.passwd_file(), 0o600)
        os.chown(self.passwd, pwd.getpwnam("dovecot").pw_uid, -1)

    def commands(self) -> list[Command]:
        settings = self.settings()
        write(self.config, newer(settings) if is_newer() else settings, 0o600)
        argv = [DOVECOT, "-F", "-c", self.config]
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
disable_plaintext_auth = no
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
{self.more}
"""


LOGIN_REUSED = f"service_count = 0\n  process_min_avail = {os.cpu_count()}\n  client_limit = "


class DovecotTuned(Dovecot):
    mail_processes = ""  # further settings of the service that serves mailboxes

    def settings(self) -> str:
        room = self.most + 100
        self.login = f"{LOGIN_REUSED}{room}"
        self.more = f"""
auth_cache_size = 10M
auth_cache_verify_password_with_worker = yes
mail_max_userip_connections = {room}
service auth {{
  client_limit = {4 * room}
}}
service anvil {{
  client_limit = {4 * room}
}}
service pop3 {{
  process_limit = {room}
  {self.mail_processes}
}}
"""
        return super().settings()


class DovecotVirtual(DovecotTuned):
    mail_processes = "service_count = 1000"


class DovecotTls(Dovecot):
    """`reused`: its login processes serve many clients each."""

    def __init__(self, name: str, folder: str, accounts: Accounts, pem: str, *, reused: bool):
        super().__init__(name, folder, accounts)
        self.pem = pem
        self.login = f"{LOGIN_REUSED}1000" if reused else ""

    def encryption(self) -> str:
        return f"ssl = required\nssl_cert = <{self.pem}\nssl_key = <{self.pem}"
