"""backends - the databases that know the benchmark's accounts, and what leads Courier and us there

    for backend in backends(folder, mailboxes): backend.start() ... backend.stop()

    module      authmysql, ...
    package     Debian's package with Courier's module, if it is not with the others
    files       what is to be in /etc/courier: names and texts; the same for Courier and for us
    variable    the setting of ours that says where the first of them is

All have the 20 system accounts, with the same hashes as the userdb. Servers listen in `folder` or
on loopback, and their processor time is not the mail server's: Backend.cpu_ms.
"""

from __future__ import annotations

import glob
import os
import pwd
import sqlite3
import subprocess
import time

import keeper
import processes
from accounts import Accounts, write
from servers import PATH, Failed, free_port

COLUMNS = "id, crypt, uid, gid, home"
TABLE = (
    "CREATE TABLE passwd (id varchar(64) PRIMARY KEY, crypt varchar(128), uid integer,"
    " gid integer, home varchar(128))"
)
FIELDS = "USER_TABLE passwd\nCRYPT_PWFIELD crypt\nUID_FIELD uid\nGID_FIELD gid\nHOME_FIELD home\n"
MARKER = "##NAME: MARKER:0\n"
NEEDED = {
    "/usr/sbin/mariadbd": "mariadb-server-core",
    "/usr/bin/mariadb": "mariadb-client-core",
    "/usr/lib/postgresql": "postgresql",
    "/usr/sbin/slapd": "slapd",
    "/usr/bin/perl": "perl-base",
}
SUFFIX = "dc=example,dc=com"
START_SECONDS = 30.0
PIPE = """#!/usr/bin/perl
# Courier's authpipe protocol, with a table in memory
use strict;
my %account = (
{accounts});
$| = 1;
while (my $line = <STDIN>) {{
    my ($verb, $count) = split ' ', $line;
    read(STDIN, my $record, $count) == $count or exit;
    my (undef, undef, $user, $password) = split /\\n/, $record;
    my $known = $account{{$user}};
    print $known && $password eq '{password}' ? "$known.\\n" : "FAIL\\n";
}}
"""


class Backend:
    """The userdb and PAM need no more than this."""

    variable = package = ""

    def __init__(self, name: str, folder: str, mailboxes: Accounts):
        self.name = name
        self.module = f"auth{name}"
        self.mailboxes = mailboxes
        self.files: dict[str, str] = {}
        self.folder = f"{folder}/of-{name}"
        self.log = f"{self.folder}/log"
        self.keepers: list[int] = []
        os.mkdir(self.folder)

    def start(self) -> None:
        """Raises Failed."""

    def stop(self) -> None:
        while self.keepers:
            keeper.stop(self.keepers.pop())

    def cpu_ms(self) -> float:
        return processes.cpu_ms(self.keepers)

    def rows(self) -> list[tuple[str, str, int, int, str]]:
        home, hashed = self.mailboxes.home_of, self.mailboxes.hash
        owners = self.mailboxes.owners.items()
        return [(name, hashed, uid, gid, home(name)) for name, (uid, gid) in owners]

    def run(self, *argv: str, text: str = "", user: str | None = None) -> None:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, user=user, cwd="/")
        if done.returncode:
            raise Failed(f"{self.name}: {argv[0]}: {done.stderr.strip()[-300:]}")

    def launch(self, argv: list[str], *question: str, user: str | None = None) -> None:
        """Keep a server running, and wait until it answers a question."""
        os.close(os.open(self.log, os.O_CREAT | os.O_WRONLY))
        self.keepers.append(keeper.start(argv, {"PATH": PATH}, self.log))
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.run(*question, user=user)
            except Failed:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


class Table(Backend):
    def __init__(self, name: str, folder: str, mailboxes: Accounts):
        super().__init__(name, folder, mailboxes)
        self.variable = f"AUTH{name.upper()}_RC"
        lines = (FIELDS + self.connection()).splitlines()
        text = "".join(f"{name.upper()}_{line}\n" for line in lines)
        self.files = {f"{self.module}rc": text + MARKER}

    def connection(self) -> str:
        raise NotImplementedError

    def sql(self) -> str:
        lines = [f"INSERT INTO passwd ({COLUMNS}) VALUES {row!r};" for row in self.rows()]
        return "\n".join([f"{TABLE};", *lines])


class MySQL(Table):
    package = "courier-authlib-mysql"

    def connection(self) -> str:
        where = f"SERVER localhost\nPORT 0\nOPT 0\nSOCKET {self.folder}/socket\nDATABASE mail\n"
        return where + "USERNAME pop\nPASSWORD secret\n"

    def start(self) -> None:
        os.chmod(self.folder, 0o755)
        place = [f"--datadir={self.folder}/data", f"--tmpdir={self.folder}"]
        options = ["--no-defaults", "--user=root", *place, "--innodb-log-file-size=4M"]
        install = "--auth-root-authentication-method=normal"
        self.run("mariadb-install-db", *options, "--skip-test-db", "--force", install)
        where = [f"--socket={self.folder}/socket", "--skip-networking"]
        client = ["mariadb", "--no-defaults", where[0], "-u", "root"]
        self.launch(["/usr/sbin/mariadbd", *options, *where], *client, "-e", "SELECT 1")
        allow = "CREATE USER pop@localhost IDENTIFIED BY 'secret'; GRANT SELECT ON mail.* TO"
        sql = f"CREATE DATABASE mail; USE mail; {self.sql()} {allow} pop@localhost;"
        self.run(*client, text=sql)


class PostgreSQL(Table):
    package = "courier-authlib-postgresql"
    user = "postgres"

    def __init__(self, folder: str, mailboxes: Accounts):
        self.port = free_port()
        super().__init__("pgsql", folder, mailboxes)

    def connection(self) -> str:
        return f"CONNECTION host={self.folder} port={self.port} user=postgres dbname=postgres\n"

    def start(self) -> None:
        directory = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        os.chmod(self.folder, 0o755)
        os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        data = f"{self.folder}/data"
        self.run(f"{directory}/initdb", "-D", data, "-A", "trust", "-N", user=self.user)
        where = ["-k", self.folder, "-p", str(self.port), "-c", "listen_addresses="]
        server = [f"{directory}/postgres", "-D", data, *where]
        client = [f"{directory}/psql", "-qAt", "-h", self.folder, "-p", str(self.port)]
        argv = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        self.launch([*argv, *server], *client, "-c", "SELECT 1", user=self.user)
        self.run(*client, text=self.sql(), user=self.user)


class SQLite(Table):
    package = "courier-authlib-sqlite"

    def connection(self) -> str:
        return f"DATABASE {self.folder}/accounts\n"

    def start(self) -> None:
        database = sqlite3.connect(f"{self.folder}/accounts")
        database.executescript(self.sql())
        database.close()


class LDAP(Backend):
    package = "courier-authlib-ldap"
    variable = "AUTHLDAP_RC"

    def __init__(self, folder: str, mailboxes: Accounts):
        super().__init__("ldap", folder, mailboxes)
        self.uri = f"ldap://127.0.0.1:{free_port()}"
        attributes = "UID uidNumber\nGID gidNumber\nHOMEDIR homeDirectory\nCRYPTPW userPassword\n"
        login = f"INITBIND 1\nBINDDN cn=admin,{SUFFIX}\nBINDPW secret\n"
        where = f"URI {self.uri}\nPROTOCOL_VERSION 3\nBASEDN {SUFFIX}\nMAIL uid\nTIMEOUT 5\n"
        lines = (where + login + attributes).splitlines()
        self.files = {"authldaprc": "".join(f"LDAP_{line}\n" for line in lines) + MARKER}

    def start(self) -> None:
        configuration = f"{self.folder}/slapd.conf"
        write(configuration, self.configuration(), 0o600)
        write(f"{self.folder}/entries", self.entries(), 0o600)
        os.mkdir(f"{self.folder}/data")
        self.run("/usr/sbin/slapadd", "-q", "-f", configuration, "-l", f"{self.folder}/entries")
        argv = ["/usr/sbin/slapd", "-d", "0", "-f", configuration, "-h", f"{self.uri}/"]
        host, port = self.uri.removeprefix("ldap://").split(":")
        probe = f"IO::Socket::INET->new('{host}:{port}') or die"
        self.launch(argv, "perl", "-MIO::Socket::INET", "-e", probe)

    def configuration(self) -> str:
        schemas = ("core", "cosine", "nis")
        lines = [f"include /etc/ldap/schema/{name}.schema" for name in schemas]
        lines += ["modulepath /usr/lib/ldap", "moduleload back_mdb", "database mdb"]
        lines += [f"suffix {SUFFIX}", f"directory {self.folder}/data", "index uid eq"]
        return "\n".join([*lines, f"rootdn cn=admin,{SUFFIX}", "rootpw secret", ""])

    def entries(self) -> str:
        text = f"dn: {SUFFIX}\nobjectClass: domain\ndc: example\n"
        for name, crypt, uid, gid, home in self.rows():
            text += f"\ndn: uid={name},{SUFFIX}\nobjectClass: account\nobjectClass: posixAccount\n"
            text += f"uid: {name}\ncn: {name}\nuidNumber: {uid}\ngidNumber: {gid}\n"
            text += f"homeDirectory: {home}\nuserPassword: {{CRYPT}}{crypt}\n"
        return text


class Pipe(Backend):
    package = "courier-authlib-pipe"
    variable = "AUTHPIPE_PROGRAM"

    def __init__(self, folder: str, mailboxes: Accounts):
        super().__init__("pipe", folder, mailboxes)
        lines = ""
        for name, _, uid, gid, home in self.rows():
            fields = f"UID={uid}\\nGID={gid}\\nHOME={home}\\nADDRESS={name}\\n"
            lines += f'    {name} => "{fields}",\n'
        text = PIPE.format(accounts=lines, password=mailboxes.password)
        self.files = {"authProg": text}


def backends(folder: str, mailboxes: Accounts) -> list[Backend]:
    return [
        Backend("userdb", folder, mailboxes),
        Backend("pam", folder, mailboxes),
        MySQL("mysql", folder, mailboxes),
        PostgreSQL(folder, mailboxes),
        SQLite("sqlite", folder, mailboxes),
        LDAP(folder, mailboxes),
        Pipe(folder, mailboxes),
    ]
