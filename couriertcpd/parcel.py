"""parcel - a session on its way from one of our processes to another

pack, unpack    an accepted session, to a process of its user: the module's name, account, service,
                the argv of the rest of the chain and the environment, what a module hands to the
                program by becoming the user, as strings with NULs between them. A large one travels
                in a file in memory

fold, unfold    a session that is parked, to whoever of its user goes on with it: argv, environment,
                and what the program knows. Of the environment it has only what differs from that
                which all sessions of the listener have in common. A large one travels in a file too
"""

from __future__ import annotations

import os

from courierchain import netstrings
from courierchain.account import Account

LARGEST = 262144  # octets of a session that can be parked

Content = tuple[str, Account, bytes, list[str], dict[str, str]]


def key(account: Account) -> bytes:
    """Says whose process may serve it: sessions with the same key have the same ids and groups."""
    return f"{account.uid} {account.gid} {account.system_user}".encode("utf-8", "surrogateescape")


def account_of(key: bytes) -> Account:
    """Somebody to become for the sake of a session that has entered its home already."""
    uid, gid, system_user = key.decode("utf-8", "surrogateescape").split(" ", 2)
    return Account(
        user=system_user or uid, uid=int(uid), gid=int(gid), home="/", system_user=system_user
    )


def pack(
    name: str, account: Account, service: bytes, argv: list[str], env: dict[str, str]
) -> bytes:
    """For `unpack`. `env` has the account's environment in it, which says the rest of it."""
    fields = [name, os.fsdecode(service)]
    fields += [str(account.uid), str(account.gid), account.system_user]
    fields += [str(len(argv)), *argv]
    for variable in env.items():
        fields += variable
    return os.fsencode("\0".join(fields))


def unpack(content: bytes) -> Content:
    name, service, uid, gid, system_user, count, *fields = os.fsdecode(content).split("\0")
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


def fold(argv: list[str], env: dict[str, str], state: bytes, base: dict[str, str]) -> bytes:
    gone = [os.fsencode(name) for name in base if name not in env]
    changed = [
        os.fsencode(text)
        for name, value in env.items()
        if base.get(name) != value
        for text in (name, value)
    ]
    words = [os.fsencode(word) for word in argv]
    return netstrings.encode((*map(netstrings.encode, (words, gone, changed)), state))


def unfold(content: bytes, base: dict[str, str]) -> tuple[list[str], dict[str, str], bytes]:
    """What `fold` was given. Raises ValueError."""
    *parts, state = netstrings.decode(content)
    argv, gone, changed = ([os.fsdecode(text) for text in netstrings.decode(p)] for p in parts)
    env = {name: value for name, value in base.items() if name not in gone}
    env.update(zip(changed[::2], changed[1::2], strict=True))
    return argv, env, state


def written(content: bytes) -> int:
    """A descriptor that `read` takes. Raises OSError."""
    descriptor = os.memfd_create("session", os.MFD_CLOEXEC)
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        file.write(content)
    return descriptor


def read(descriptor: int) -> bytes:
    """All of it; closes the descriptor."""
    with open(descriptor, "rb", buffering=0) as file:
        file.seek(0)
        return file.read()
