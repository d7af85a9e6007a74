"""behaviours - what clients do to a POP3 server, rightly and wrongly

    users = Users(accounts)             names, password, and how to deliver to one of them
    name, behaviour = choose(chance, users)

Each behaviour is a generator for clients.py; WEIGHTS says how often each is chosen. Those of
BROKEN are cut off somewhere: by a reset, or by closing without QUIT.
"""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable
from itertools import count

from accounts import MESSAGE, MESSAGES, Accounts
from clients import END, LINE, LINES, SECURE, Behaviour, Client, Unexpected

LOGIN_TIMEOUT = IDLE_TIMEOUT = 8  # seconds that the server is to be told to give
STRANGERS = 100  # names that the server doesn't know; it remembers some 10,000 for a while
PARKED = 2.5  # seconds after which a server with -park=1 has parked

Play = Callable[[Client], Behaviour]


class Users:
    def __init__(self, accounts: Accounts, chance: random.Random):
        self.accounts = accounts
        self.names = list(accounts.owners)
        self.chance = chance
        self.serial = count(1)

    def name(self) -> bytes:
        return self.chance.choice(self.names).encode()

    @property
    def password(self) -> bytes:
        return self.accounts.password.encode()

    def deliver(self, name: bytes) -> None:
        maildir = f"{self.accounts.home_of(name.decode())}/Maildir"
        number = next(self.serial)
        letter = f"{1_800_000_000 + number}.soak.example"
        with open(f"{maildir}/tmp/{letter}", "w") as file:
            file.write(MESSAGE.format(number))
        os.chown(file.name, *self.accounts.owners[name.decode()])
        os.rename(file.name, f"{maildir}/new/{letter}")


def expect(reply: bytes | list[bytes], start: bytes = b"+OK") -> bytes:
    """The first line. Raises Unexpected if it begins otherwise."""
    line = reply[0] if isinstance(reply, list) else reply
    if not line.startswith(start):
        raise Unexpected(f"{line!r} instead of {start!r}")
    return line


def ask(client: Client, command: bytes, start: bytes = b"+OK") -> Behaviour:
    client.send(command + b"\r\n")
    expect((yield LINE), start)


def log_in(client: Client, users: Users, name: bytes = b"") -> Behaviour:
    expect((yield LINE))
    yield from ask(client, b"USER " + (name or users.name()))
    yield from ask(client, b"PASS " + users.password)


def quit_(client: Client) -> Behaviour:
    yield from ask(client, b"QUIT")
    yield END


def polls(client: Client, users: Users) -> Behaviour:
    yield from log_in(client, users)
    yield from ask(client, b"STAT")
    yield from quit_(client)


def reads(client: Client, users: Users) -> Behaviour:
    """The first messages are those that nobody deletes."""
    yield from log_in(client, users)
    for command in (b"LIST", b"UIDL", b"RETR 1", b"TOP 2 3", b"RETR 3"):
        client.send(command + b"\r\n")
        expect((yield LINES))
    yield from ask(client, b"DELE 1")
    yield from ask(client, b"DELE 1", b"-ERR")
    yield from ask(client, b"RSET")
    yield from quit_(client)


def deletes(client: Client, users: Users) -> Behaviour:
    """All that has been delivered; others may do the same."""
    name = users.name()
    users.deliver(name)
    yield from log_in(client, users, name)
    client.send(b"LIST\r\n")
    listed = yield LINES
    expect(listed)
    for number in range(MESSAGES + 1, len(listed)):
        yield from ask(client, b"DELE %d" % number)
    yield from quit_(client)


def is_refused(client: Client, users: Users) -> Behaviour:
    """A wrong password, then the right one."""
    expect((yield LINE))
    name = users.name()
    yield from ask(client, b"USER " + name)
    yield from ask(client, b"PASS wrong", b"-ERR")
    yield from ask(client, b"USER " + name)
    yield from ask(client, b"PASS " + users.password)
    yield from quit_(client)


def is_unknown(client: Client, users: Users) -> Behaviour:
    expect((yield LINE))
    yield from ask(client, b"USER nobody%d" % users.chance.randrange(STRANGERS))
    yield from ask(client, b"PASS wrong", b"-ERR")
    yield from quit_(client)


def authenticates(client: Client, users: Users) -> Behaviour:
    expect((yield LINE))
    secret = base64.b64encode(b"\0".join((b"", users.name(), users.password)))
    yield from ask(client, b"AUTH PLAIN " + secret)
    yield from ask(client, b"NOOP")
    yield from quit_(client)


def pipelines(client: Client, users: Users) -> Behaviour:
    lines = (b"CAPA", b"USER " + users.name(), b"PASS " + users.password, b"STAT", b"QUIT")
    client.send(b"\r\n".join((*lines, b"")))
    expect((yield LINE))
    expect((yield LINES))
    for _ in lines[1:]:
        expect((yield LINE))
    yield END


def talks_nonsense(client: Client, users: Users) -> Behaviour:
    expect((yield LINE))
    for line in (b"", b"\0\xff\0", b"RETR 1", b"STAT", b"user", b"AUTH NOSUCH", b"x" * 300):
        yield from ask(client, line, b"-ERR")
    yield from quit_(client)


def waits_before_login(client: Client, users: Users) -> Behaviour:
    expect((yield LINE))
    yield from ask(client, b"USER " + users.name())
    yield PARKED
    yield from ask(client, b"PASS " + users.password)
    yield from quit_(client)


def waits(client: Client, users: Users) -> Behaviour:
    """Marks are kept while it is parked."""
    yield from log_in(client, users)
    yield from ask(client, b"DELE 1")
    yield PARKED
    yield from ask(client, b"DELE 1", b"-ERR")
    yield PARKED
    yield from ask(client, b"RSET")
    yield from quit_(client)


def waits_and_resets(client: Client, users: Users) -> Behaviour:
    yield from log_in(client, users)
    yield PARKED
    client.reset()


def says_nothing(client: Client, users: Users) -> Behaviour:
    yield END


def says_half(client: Client, users: Users) -> Behaviour:
    expect((yield LINE))
    client.send(b"USER hal")
    yield END


def falls_silent(client: Client, users: Users) -> Behaviour:
    yield from log_in(client, users)
    yield END


def stops_sending(client: Client, users: Users) -> Behaviour:
    """And reads on."""
    yield from log_in(client, users)
    client.send(b"RETR 1\r\n")
    client.stop_sending()
    expect((yield LINES))
    yield END


def encrypts(client: Client, users: Users) -> Behaviour:
    expect((yield LINE))
    yield from ask(client, b"STLS")
    yield SECURE
    yield from ask(client, b"USER " + users.name())
    yield from ask(client, b"PASS " + users.password)
    client.send(b"RETR 2\r\n")
    expect((yield LINES))
    yield from quit_(client)


WEIGHTS: dict[Callable[[Client, Users], Behaviour], float] = {
    polls: 40,
    reads: 14,
    deletes: 8,
    is_refused: 4,
    is_unknown: 4,
    authenticates: 5,
    pipelines: 8,
    talks_nonsense: 3,
    waits_before_login: 1,
    waits: 1,
    waits_and_resets: 1,
    says_nothing: 0.2,
    says_half: 0.2,
    falls_silent: 0.2,
    stops_sending: 3,
    encrypts: 4,
}
BROKEN = 0.12  # of all
LIKELY_TO_BREAK = (polls, reads, deletes, is_refused, pipelines, encrypts, authenticates)
MOST_STEPS = 10


def keep_only(names: list[str]) -> None:
    """Leaves these behaviours, unbroken. KeyError if there is none of such a name."""
    global BROKEN
    known = {found.__name__: found for found in WEIGHTS}
    kept = {known[name] for name in names}
    for found in WEIGHTS.keys() - kept:
        del WEIGHTS[found]
    BROKEN = 0.0


def choose(chance: random.Random, users: Users) -> tuple[str, Play]:
    if chance.random() < BROKEN:
        inner = chance.choice(LIKELY_TO_BREAK)
        steps, resets = chance.randrange(MOST_STEPS), chance.random() < 0.7
        name = f"{inner.__name__}, broken behind step {steps}"
        return name, lambda client: broken(client, inner(client, users), steps, resets)
    (found,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
    return found.__name__, lambda client: found(client, users)


def broken(client: Client, inner: Behaviour, steps: int, resets: bool) -> Behaviour:
    """The first steps of another, and then no more of it: its last words may be unanswered."""
    answer = None
    for _ in range(steps):
        try:
            wanted = next(inner) if answer is None else inner.send(answer)
        except StopIteration:
            return
        if wanted == END:
            break
        answer = yield wanted
    if resets:
        client.reset()
