"""account - whom an authentication module found, and how a process becomes that user

Groups, gid and uid are set in this order, all three of each, and looked at afterwards; root can't
be had back (AUTHCHAIN-05, CVE-37). uid 0 and gid 0 own no mailbox. A process that is not root can
serve only its own uid and gid.
"""

from __future__ import annotations

import os

from courierchain import connections, verified

MAX_ID = 2**32 - 1  # "no id" for the kernel
MAX_TEXT = 4096  # octets of a path or option string that comes from somebody's database


class Unusable(Exception):
    """The account exists, its password is right, and it can't be served; the text says why."""


class Account:
    """What an accepting module knows (chain-protocol.md 6). Texts are `str` with surrogateescape.

    user         the authenticated name: AUTHENTICATED
    uid, gid     the owner of the mailbox
    home         absolute path, the current directory of what follows
    address      mail identity for the logs: AUTHADDR; default `user`
    system_user  a name in the group database, whose supplementary groups are taken; "" for none
    session      an opened PAM session that lasts as long as the service, or None
    stored       the hash that the password was compared with, where the module can write another
    """

    __slots__ = (
        *("user", "uid", "gid", "home", "address", "fullname"),
        *("maildir", "quota", "options", "system_user", "session", "stored"),
    )

    def __init__(
        self,
        *,
        user: str,
        uid: int,
        gid: int,
        home: str,
        address: str = "",
        fullname: str = "",
        maildir: str = "",
        quota: str = "",
        options: str = "",
        system_user: str = "",
        session: Session | None = None,
        stored: bytes | None = None,
    ):
        self.user = user
        self.uid = uid
        self.gid = gid
        self.home = home
        self.address = address or user
        self.fullname = fullname
        self.maildir = maildir
        self.quota = quota
        self.options = options
        self.system_user = system_user
        self.session = session
        self.stored = stored

    def environment(self) -> dict[str, str]:
        """What the programs behind the module see of the account."""
        return {
            "AUTHENTICATED": self.user,
            "AUTHADDR": self.address,
            "AUTHFULLNAME": self.fullname,
            "MAILDIR": self.maildir,
            "MAILDIRQUOTA": self.quota,
            "OPTIONS": self.options,
            "HOME": self.home,
        }

    def check(self) -> None:
        """Raises Unusable for what no mailbox may have, whatever database it came from."""
        for name, value in self.environment().items():
            if len(value) > MAX_TEXT or (value and min(value) < " "):
                raise Unusable(f"{name} has a control character or is over {MAX_TEXT} long")
        if not self.user:
            raise Unusable("the account has no name")
        if not (0 < self.uid < MAX_ID and 0 < self.gid < MAX_ID):
            raise Unusable(f"uid {self.uid}, gid {self.gid}: not ids that may own a mailbox")
        if not self.home.startswith("/"):
            raise Unusable(f"home {self.home!r} is not an absolute path")


class Session:
    """Something that a module opened for the time of the service.

    changes: this process is another one since then, and the service must be its descendant
    """

    __slots__ = ("changes",)

    def __init__(self, *, changes: bool = False):
        self.changes = changes

    def close(self) -> None:
        """The service has ended; called as root, in the process that opened it."""

    def forget(self) -> None:
        """Called in the process that goes on to serve, before it becomes the user."""


def become_user(account: Account) -> None:
    """Take the groups, gid and uid of an account that has passed `check`, for good; what is kept
    open to databases is not the user's, nor is what is remembered of others' passwords.

    Raises Unusable if that can't be done whole; the process must not go on then.
    """
    connections.drop()
    uid, gid = account.uid, account.gid
    try:
        if os.geteuid() == 0:  # else it stays who it is, and may go on with others
            verified.forget()
            if account.system_user:
                os.initgroups(account.system_user, gid)
            else:
                os.setgroups([gid])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    except OSError as why:
        raise Unusable(f"cannot become uid {uid}, gid {gid}: {why.strerror}") from why
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise Unusable(f"cannot become uid {uid}, gid {gid}: not started as root")


def enter_home(account: Account) -> None:
    """Raises Unusable."""
    try:
        os.chdir(account.home)
    except OSError as why:
        raise Unusable(f"cannot enter the home {account.home}: {why.strerror}") from why
