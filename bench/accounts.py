"""accounts - the mailboxes that every server of the benchmark serves

    with accounts(folder) as mailboxes: ...

Makes 20 system accounts popbench01.. with a password in md5-crypt, /etc/courier/userdb with the
same (text, and compiled by Courier's makeuserdb), /etc/pam.d/pop3 if there is none; one account
popbenchv that owns 20 virtual mailboxes, and a userdb of these. Each mailbox is a Maildir with 3
messages.

Writes to /etc freely: to be called in a private view only (privateview.enter). Home directories are
on disk, below /var/tmp, and removed at the end.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

COUNT = 20
MESSAGES = 3
VIRTUAL_OWNER = "popbenchv"
USERDB = "/etc/courier/userdb"
PAM_FILE = "/etc/pam.d/pop3"
PAM_STACK = "@include common-auth\n@include common-account\n@include common-session\n"
MESSAGE = "From: a@example.com\nTo: b@example.com\nSubject: {0}\n\n" + "A line of a letter.\n" * 40


class Accounts:
    """One password, a list of users as popload reads it, and the userdb with them."""

    def __init__(self, folder: str, homes: str):
        self.homes = homes
        self.password = secrets.token_hex(8)
        self.hash = md5_crypt(self.password)
        self.system_users = f"{folder}/users"
        self.system_userdb = USERDB
        self.owners: dict[str, str] = {}

    def home_of(self, name: str) -> str:
        return f"{self.homes}/{name}"

    def write_userdb(self, owners: dict[str, str]) -> None:
        """Puts all users, each with its owner, into Courier's userdb, and compiles it."""
        self.owners = owners
        self.write_users(self.system_users, list(owners))
        for compiled in (f"{USERDB}.dat", f"{USERDB}shadow.dat"):
            if os.path.exists(compiled):
                os.unlink(compiled)
        write(USERDB, "".join(self.userdb_line(*pair) for pair in owners.items()), 0o600)
        subprocess.run(["makeuserdb"], check=True)

    def userdb_line(self, name: str, owner: str) -> str:
        ids = pwd.getpwnam(owner)
        where = f"uid={ids.pw_uid}|gid={ids.pw_gid}|home={self.home_of(name)}"
        return f"{name}\t{where}|systempw={self.hash}\n"

    def write_users(self, path: str, names: list[str]) -> None:
        write(path, "".join(f"{name} {self.password}\n" for name in names), 0o600)

    def passwd_file(self) -> str:
        """The users of the userdb as Dovecot's passwd-file has them."""
        lines = []
        for name, owner in self.owners.items():
            ids = pwd.getpwnam(owner)
            where = f"{ids.pw_uid}:{ids.pw_gid}::{self.home_of(name)}"
            lines.append(f"{name}:{{MD5-CRYPT}}{self.hash}:{where}::\n")
        return "".join(lines)


class Mailboxes(Accounts):
    """System accounts, and virtual ones with a list of users and a userdb of their own."""

    def __init__(self, folder: str, homes: str):
        super().__init__(folder, homes)
        self.virtual_users = f"{folder}/users-virtual"
        self.virtual_userdb = f"{folder}/userdb-virtual"

    def make(self) -> None:
        self.make_system_accounts()
        self.make_virtual_mailboxes()
        if not os.path.exists(PAM_FILE):
            write(PAM_FILE, PAM_STACK, 0o644)

    def make_system_accounts(self) -> None:
        names = [f"popbench{number:02}" for number in range(1, COUNT + 1)]
        for name in names:
            add_account(name, self.home_of(name), self.hash)
            make_maildir(self.home_of(name), pwd.getpwnam(name))
        self.write_userdb({name: name for name in names})

    def make_virtual_mailboxes(self) -> None:
        add_account(VIRTUAL_OWNER, self.home_of(VIRTUAL_OWNER), "!")
        owner = pwd.getpwnam(VIRTUAL_OWNER)
        names = [f"virtual{number:02}@example.com" for number in range(1, COUNT + 1)]
        for name in names:
            make_maildir(self.home_of(name), owner)
        self.write_users(self.virtual_users, names)
        lines = [self.userdb_line(name, VIRTUAL_OWNER) for name in names]
        write(self.virtual_userdb, "".join(lines), 0o640)
        os.chown(self.virtual_userdb, 0, owner.pw_gid)


@contextmanager
def accounts(folder: str) -> Iterator[Mailboxes]:
    with homes() as path:
        mailboxes = Mailboxes(folder, path)
        mailboxes.make()
        yield mailboxes


@contextmanager
def homes() -> Iterator[str]:
    """A directory on disk for home directories, removed at the end."""
    path = tempfile.mkdtemp(prefix="popbench-", dir="/var/tmp")
    try:
        os.chmod(path, 0o755)
        yield path
    finally:
        shutil.rmtree(path)


def md5_crypt(password: str) -> str:
    command = ["userdbpw", "-md5"]
    done = subprocess.run(
        command, input=password + "\n", capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def add_account(name: str, home: str, password_hash: str) -> None:
    """A user with a group of its own, whatever this machine's defaults are."""
    command = ["useradd", "--no-create-home", "--no-log-init", "--user-group"]
    command += ["--home-dir", home, "--shell", "/bin/false", "--password", password_hash, name]
    subprocess.run(command, check=True)


def make_maildir(home: str, owner: pwd.struct_passwd) -> None:
    for folder in ("", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp"):
        os.mkdir(home + folder, 0o700)
        os.chown(home + folder, owner.pw_uid, owner.pw_gid)
    for number in range(MESSAGES):
        path = f"{home}/Maildir/cur/{1700000000 + number}.M{number}P1.example:2,S"
        write(path, MESSAGE.format(number), 0o600)
        os.chown(path, owner.pw_uid, owner.pw_gid)


def write(path: str, text: str, mode: int) -> None:
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
