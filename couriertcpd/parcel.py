"""parcel - an accepted session on its way to a process of its user

The module's name, account, service, the argv of the rest of the chain and the environment: what a
module hands to the program by becoming the user. It travels in a file in memory, as strings with
NULs between them, from one of our processes to another.
"""

from __future__ import annotations

import os

from courierchain.account import Account

Content = tuple[str, Account, bytes, list[str], dict[str, str]]


def key(account: Account) -> bytes:
    """Says whose process may serve it: sessions with the same key have the same ids and groups."""
    return f"{account.uid} {account.gid} {account.system_user}".encode("utf-8", "surrogateescape")


def pack(name: str, account: Account, service: bytes, argv: list[str], env: dict[str, str]) -> int:
    """A descriptor from which `unpack` reads it. `env` has the account's environment in it, which
    says the rest of the account. Raises OSError.
    """
    fields = [name, os.fsdecode(service)]
    fields += [str(account.uid), str(account.gid), account.system_user]
    fields += [str(len(argv)), *argv]
    for variable in env.items():
        fields += variable
    descriptor = os.memfd_create("session", os.MFD_CLOEXEC)
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        file.write(os.fsencode("\0".join(fields)))
    return descriptor


def unpack(descriptor: int) -> Content:
    """What `pack` has written; closes the descriptor."""
    with open(descriptor, "rb", buffering=0) as file:
        file.seek(0)
        name, service, uid, gid, system_user, count, *fields = os.fsdecode(file.read()).split("\0")
    argv, names = fields[: int(count)], fields[int(count) :]
    env = dict(zip(names[::2], names[1::2], strict=True))
    account = Account(
        user=env["AUTHENTICATED"],
        uid=int(uid),
        gid=int(gid),
        home=env["HOME"],
        system_user=system_user,
    )
    return name, account, os.fsencode(service), argv, env
