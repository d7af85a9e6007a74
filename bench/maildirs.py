"""maildirs - the mailboxes of long sessions, the same for every server

    many     many messages of about 3 KB
    named    the same, with sizes in the names of the files (,S= and ,W=)
    fifty    messages of 50 KB
    huge     one of 200 MB
    empty    none

    mailboxes = LongMailboxes(folder, homes, servers)
    mailboxes.make(amounts)     users, homes and the messages
    mailboxes.restore(server)   makes this server's Maildirs, or makes them untouched again
    mailboxes.warm(kind)        so that the page cache holds these messages

Each server has a Maildir of its own of each kind, with links to the same files: no server writes
into a message. "Untouched" is a Maildir as it is before its first login ever: all messages in cur/
and unread, no list of sizes, no index, and nothing that has changed in the last days.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil

from accounts import Accounts, add_account, ids_of

OWNER = "popbenchl"
LONG_AGO = 1_700_000_000
FOLDERS = ("cur", "new", "tmp")
HEADER = """\
Return-Path: <sender{0}@example.com>
Received: from mx.example.com (mx.example.com [192.0.2.25])
  by mail.example.org with ESMTPS; Tue, 14 Nov 2023 22:13:20 +0000
Received: from desk.example.com (desk.example.com [198.51.100.7])
  by mx.example.com with ESMTPSA; Tue, 14 Nov 2023 22:13:19 +0000
Message-ID: <{0}.popbench@example.com>
Date: Tue, 14 Nov 2023 22:13:18 +0000
From: Sender <sender{0}@example.com>
To: Recipient <recipient@example.org>
Subject: Letter {0}
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

"""
TINY = "Subject: {0}\n\nHi\n"
ALPHABET = "abcdefghijklmnopqrstuvwxyz          "


class Amounts:
    """How much of everything; `many` is for the user to say."""

    def __init__(self, many: int, quick: bool = False):
        self.many = many
        self.fifty = 100 if quick else 2000
        self.huge_octets = 20_000_000 if quick else 200_000_000
        self.deleted = many // 10
        self.slow = 100  # messages of 50 KB to the client that delays its ACKs

    def disk(self) -> int:
        """Octets needed on disk, names in three Maildirs included."""
        return self.many * (4096 + 7 * 100) + self.fifty * 57344 + self.huge_octets


class Kind:
    """The messages of one kind of mailbox: name in cur/, and the file it is a link to."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}
        self.octets = 0  # as STAT says, with CRLF at the ends of lines

    def add(self, name: str, file: str, octets: int) -> None:
        self.letters[name] = file
        self.octets += octets


class Store:
    """The files. All belong to the owner of the mailboxes."""

    def __init__(self, path: str, owner: pwd.struct_passwd):
        self.path = path
        self.owner = owner
        self.lines = text_lines()
        os.mkdir(path, 0o755)

    def write(self, name: str, text: bytes) -> str:
        path = f"{self.path}/{name}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while text:
                text = text[os.write(file, text) :]
            os.fchown(file, self.owner.pw_uid, self.owner.pw_gid)
            os.utime(file, (LONG_AGO, LONG_AGO))
        finally:
            os.close(file)
        return path

    def letter(self, number: int, octets: int) -> bytes:
        """A message of about so many octets, its lines ending with LF."""
        text = [HEADER.format(number).encode()]
        missing = octets - len(text[0])
        while missing > 0:
            line = self.lines[(number + len(text)) % len(self.lines)]
            text.append(line)
            missing -= len(line)
        return b"".join(text)


def text_lines() -> list[bytes]:
    """Lines of the length that lines in mail have, always the same."""
    chance = random.Random(1939)
    lengths = [chance.randrange(40, 78) for _ in range(997)]
    return ["".join(chance.choices(ALPHABET, k=length)).encode() + b"\n" for length in lengths]


def with_crlf(text: bytes) -> int:
    return len(text) + text.count(b"\n")


def file_name(number: int) -> str:
    return f"{LONG_AGO + number}.M{number % 1_000_000:06}P1939.mail.example.org"


def owner() -> pwd.struct_passwd:
    return pwd.getpwnam(OWNER)


class LongMailboxes(Accounts):
    def __init__(self, folder: str, homes: str, servers: list[str]):
        super().__init__(folder, homes, "long")
        self.names = servers
        self.kinds: dict[str, Kind] = {}
        add_account(OWNER, homes, "!")
        self.store = Store(f"{homes}/store", owner())

    def make(self, amounts: Amounts) -> None:
        self.kinds = {name: Kind() for name in ("many", "named", "fifty", "huge", "empty")}
        chance = random.Random(1939)
        for number in range(amounts.many):
            self.add_letter(number, chance.randrange(2000, 3900))
        for number in range(amounts.fifty):
            self.add("fifty", number, self.store.letter(number, 50_000))
        self.add("huge", 0, self.store.letter(0, amounts.huge_octets))
        self.make_homes()

    def add_letter(self, number: int, octets: int) -> None:
        text = self.store.letter(number, octets)
        name = file_name(number)
        path = self.store.write(f"many-{number}", text)
        size = with_crlf(text)
        self.kinds["many"].add(f"{name}:2,", path, size)
        self.kinds["named"].add(f"{name},S={len(text)},W={size}:2,", path, size)

    def add(self, kind: str, number: int, text: bytes) -> None:
        path = self.store.write(f"{kind}-{number}", text)
        self.kinds[kind].add(f"{file_name(number)}:2,", path, with_crlf(text))

    def make_homes(self) -> None:
        ids = ids_of(OWNER)
        users = {self.user(server, kind): ids for server in self.names for kind in self.kinds}
        for user in users:
            for folder in ("", "/Maildir", *(f"/Maildir/{name}" for name in FOLDERS)):
                os.mkdir(self.home_of(user) + folder, 0o700)
                os.chown(self.home_of(user) + folder, *ids)
        self.write(users)

    def user(self, server: str, kind: str) -> str:
        return f"{server}-{kind}"

    def restore(self, server: str) -> None:
        for name, kind in self.kinds.items():
            restore(f"{self.home_of(self.user(server, name))}/Maildir", kind.letters)
        os.sync()  # what has been done here is not to be waited for in somebody's fsync

    def warm(self, kind: str) -> None:
        """To be called shortly before: some kernels drop what nobody has used for half a minute."""
        for path in self.kinds[kind].letters.values():
            file = os.open(path, os.O_RDONLY)
            while os.read(file, 1 << 20):
                pass
            os.close(file)

    def left(self, server: str, kind: str) -> int:
        """How many messages the Maildir has now."""
        return len(os.listdir(f"{self.home_of(self.user(server, kind))}/Maildir/cur"))


class MillionMailbox(LongMailboxes):
    """For one server, tiny messages, more of them each time. A thousand names share a file."""

    def __init__(self, folder: str, homes: str, server: str):
        super().__init__(folder, homes, [server])
        self.kinds = {"million": Kind(), "empty": Kind()}
        self.make_homes()

    def grow(self, messages: int) -> None:
        kind = self.kinds["million"]
        for number in range(len(kind.letters), messages):
            if number % 1000 == 0:
                text = TINY.format(number).encode()
                path = self.store.write(f"tiny-{number}", text)
            kind.add(f"{file_name(number)}:2,", path, with_crlf(text))


def restore(maildir: str, letters: dict[str, str]) -> None:
    for name in os.listdir(maildir):
        if name not in FOLDERS:
            remove(f"{maildir}/{name}")
    for folder in ("new", "tmp"):
        for name in os.listdir(f"{maildir}/{folder}"):
            os.unlink(f"{maildir}/{folder}/{name}")
    relink(f"{maildir}/cur", letters)
    for folder in FOLDERS:
        os.utime(f"{maildir}/{folder}", (LONG_AGO, LONG_AGO))


def remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def relink(cur: str, letters: dict[str, str]) -> None:
    """Gives the folder these letters under these names, and the kernel a fresh memory of each."""
    present = set(os.listdir(cur))
    for name in present - letters.keys():
        os.unlink(f"{cur}/{name}")
    for name, path in letters.items():
        if name not in present:
            os.link(path, f"{cur}/{name}")
        os.stat(f"{cur}/{name}")
