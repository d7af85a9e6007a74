"""accounts - the mailboxes that every server of the benchmark serves

    with accounts(folder) as mailboxes:
        mailboxes.system      20 system accounts, each with its uid; passwords in md5-crypt
        mailboxes.strong      the same mailboxes and uids; passwords in sha512-crypt, 5,000 rounds
        mailboxes.virtual     20 mailboxes that all belong to one account, popbenchv
    many_accounts(folder, homes, 2000)      a uid each, but not in /etc/passwd

Each is an Accounts: a list of users and passwords, a userdb with them (text, and compiled by
Courier's makeuserdb), and Maildirs with 3 messages. The system accounts popbench01.. have the same
password in /etc/shadow, and there is an /etc/pam.d/pop3.

Writes to /etc: to be called in a private view only (privateview.enter). Home directories are on
disk, below /var/tmp, and removed at the end.
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
FIRST_UID = 100_000  # of many_accounts
PAM_FILE = "/etc/pam.d/pop3"
PAM_STACK = "@include common-auth\n@include common-account\n@include common-session\n"
MESSAGE = "From: a@example.com\nTo: b@example.com\nSubject: {0}\n\n" + "A line of a letter.\n" * 40
MD5, SHA512 = "-1", "-6"  # of openssl passwd
USERDB_FILES = ("", ".dat", "shadow.dat")

Ids = tuple[int, int]  # uid, gid


class Accounts:
    """Users with one password, each with the uid and gid that its mailbox belongs to."""

    def __init__(self, folder: str, homes: str, name: str, password: str = "", scheme: str = MD5):
        self.homes = homes
        self.password = password or secrets.token_hex(8)
        self.hash = password_hash(self.password, scheme)
        self.users = f"{folder}/{name}.users"
        self.userdb = f"{folder}/{name}.userdb"
        self.owners: dict[str, Ids] = {}

    def home_of(self, name: str) -> str:
        return f"{self.homes}/{name}"

    def write(self, owners: dict[str, Ids]) -> None:
        """Writes the list of users, and the userdb; only root may read it."""
        self.owners = owners
        write(self.users, "".join(f"{name} {self.password}\n" for name in owners), 0o600)
        write(self.userdb, "".join(self.userdb_line(*pair) for pair in owners.items()), 0o600)
        subprocess.run(["makeuserdb", "-f", self.userdb], check=True)

    def userdb_line(self, name: str, ids: Ids) -> str:
        where = f"uid={ids[0]}|gid={ids[1]}|home={self.home_of(name)}"
        return f"{name}\t{where}|systempw={self.hash}\n"

    def passwd_file(self) -> str:
        """The users of the userdb as Dovecot's passwd-file has them."""
        return "".join(
            f"{name}:{self.hash}:{uid}:{gid}::{self.home_of(name)}::\n"
            for name, (uid, gid) in self.owners.items()
        )


class Mailboxes:
    """The three kinds of accounts of short sessions."""

    def __init__(self, folder: str, homes: str):
        self.system = Accounts(folder, homes, "system")
        self.strong = Accounts(folder, homes, "strong", self.system.password, SHA512)
        self.virtual = Accounts(folder, homes, "virtual")

    def make(self) -> None:
        self.make_system_accounts()
        self.make_virtual_mailboxes()
        if not os.path.exists(PAM_FILE):
            write(PAM_FILE, PAM_STACK, 0o644)

    def make_system_accounts(self) -> None:
        names = [f"popbench{number:02}" for number in range(1, COUNT + 1)]
        for name in names:
            add_account(name, self.system.home_of(name), self.system.hash)
        owners = {name: ids_of(name) for name in names}
        for name, ids in owners.items():
            make_maildir(self.system.home_of(name), ids)
        self.system.write(owners)
        self.strong.write(owners)

    def make_virtual_mailboxes(self) -> None:
        add_account(VIRTUAL_OWNER, self.virtual.home_of(VIRTUAL_OWNER), "!")
        owner = ids_of(VIRTUAL_OWNER)
        names = [f"virtual{number:02}@example.com" for number in range(1, COUNT + 1)]
        for name in names:
            make_maildir(self.virtual.home_of(name), owner)
        self.virtual.write(dict.fromkeys(names, owner))
        for suffix in USERDB_FILES:
            os.chown(self.virtual.userdb + suffix, *owner)  # whom its listener has become


@contextmanager
def accounts(folder: str) -> Iterator[Mailboxes]:
    with homes() as path:
        mailboxes = Mailboxes(folder, path)
        mailboxes.make()
        yield mailboxes


def many_accounts(folder: str, homes: str, count: int) -> Accounts:
    """So many users that only the userdb knows."""
    many = Accounts(folder, homes, f"many-{count}")
    owners = {f"user{number:04}": (FIRST_UID + number,) * 2 for number in range(count)}
    for name, ids in owners.items():
        if not os.path.exists(many.home_of(name)):
            make_maildir(many.home_of(name), ids)
    many.write(owners)
    return many


@contextmanager
def homes() -> Iterator[str]:
    """A directory on disk for home directories, removed at the end."""
    path = tempfile.mkdtemp(prefix="popbench-", dir="/var/tmp")
    try:
        os.chmod(path, 0o755)
        yield path
    finally:
        shutil.rmtree(path)


def password_hash(password: str, scheme: str) -> str:
    command = ["openssl", "passwd", scheme, "-stdin"]
    done = subprocess.run(command, input=password, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def add_account(name: str, home: str, password_hash: str) -> None:
    """A user with a group of its own, whatever this machine's defaults are."""
    command = ["useradd", "--no-create-home", "--no-log-init", "--user-group"]
    command += ["--home-dir", home, "--shell", "/bin/false", "--password", password_hash, name]
    subprocess.run(command, check=True)


def ids_of(name: str) -> Ids:
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


def make_maildir(home: str, owner: Ids) -> None:
    for folder in ("", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp"):
        os.mkdir(home + folder, 0o700)
        os.chown(home + folder, *owner)
    for number in range(MESSAGES):
        path = f"{home}/Maildir/cur/{1700000000 + number}.M{number}P1.example:2,S"
        write(path, MESSAGE.format(number), 0o600)
        os.chown(path, *owner)


def write(path: str, text: str, mode: int) -> None:
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
