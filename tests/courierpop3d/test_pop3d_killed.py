"""kill -9 at every instant, and many programs at the Maildir at once."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from courierpop3d import index

SECONDS = 2.0  # that each of the loops lasts


def mail(name: str) -> bytes:
    return b"Subject: %s\n\n%s" % (name.encode(), name.encode() * 50 + b"\n")


def fill(box, count: int, folder: str = "new") -> list[str]:
    names = [f"{number:03}.a" for number in range(count)]
    for name in names:
        box.put(f"{folder}/{name}", mail(name))
    return names


def loops():
    """Chances of when to kill, for some seconds."""
    chance = random.Random(7)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        yield chance


def ids(server) -> dict[bytes, bytes]:
    """What the client of a session takes down: subject and id of each message."""
    assert server.line() == b"+OK logged in.\r\n"
    listed = dict(line.split() for line in server.many("UIDL"))
    return {server.many(f"TOP {number.decode()} 0")[0]: uidl for number, uidl in listed.items()}


def leave(server) -> None:
    assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"
    assert server.wait() == 0
    server.hang_up()


def test_F_KILL_1_killed_in_quit_only_marked_messages_may_be_gone(box, resident):
    for chance in loops():
        for path in (box.path / "cur").iterdir():
            path.unlink()
        names = fill(box, 12)
        server = resident()
        server.line()
        for number in range(1, 13, 2):
            server.ask(f"DELE {number}")
        server.send(b"QUIT\r\n")
        time.sleep(chance.uniform(0, 0.0006))
        server.kill()
        server.hang_up()
        left = box.names()
        assert {name + ":2," for name in names[1::2]} <= set(left)
        for name in left:
            assert (box.path / "cur" / name).read_bytes() == mail(name.removesuffix(":2,"))
    next_session = resident()
    assert len(ids(next_session)) == len(left)
    leave(next_session)


def test_F_KILL_2_F_KILL_4_killed_in_a_session_nothing_is_gone(box, resident):
    names = fill(box, 5)
    for chance in loops():
        server = resident()
        server.line()
        server.send(b"DELE 1\r\nDELE 2\r\nRETR 3\r\nDELE 3\r\nLIST\r\n" * 5)
        time.sleep(chance.uniform(0, 0.001))
        server.kill()
        server.hang_up()
        assert [name.partition(":")[0] for name in box.names()] == names
    server = resident()
    assert len(ids(server)) == 5
    leave(server)


def test_F_KILL_3_killed_at_login_all_mail_is_there_and_ids_are_kept(box, resident):
    fill(box, 3)
    server = resident()
    known = ids(server)
    leave(server)
    delivered = 3
    for chance in loops():
        for _ in range(2):
            box.put(f"new/{delivered:03}.b", mail(f"{delivered:03}.b"))
            delivered += 1
        server = resident()
        time.sleep(chance.uniform(0, 0.004))
        server.kill()
        server.hang_up()
        if chance.random() < 0.1:
            server = resident()
            present = ids(server)
            leave(server)
            assert len(present) == delivered
            assert known.items() <= present.items()
            known = present
    server = resident()
    present = ids(server)
    leave(server)
    assert len(present) == len(set(present.values())) == delivered
    assert known.items() <= present.items()
    lines = box.list.read_bytes().splitlines()
    assert len(lines) == delivered + 1


class Deliverer:
    """A process that delivers mail until there is much of it, and again when there is little."""

    def __init__(self, box):
        self._names = box.home / "delivered"
        self._stop = box.home / "stop"
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._deliver(box)
            finally:
                os._exit(99)

    def _deliver(self, box) -> None:
        number = 0
        enough = 12
        with self._names.open("w") as names:
            while not self._stop.exists():
                time.sleep(0.002)
                if len(present(box)) >= enough:
                    enough = 5
                else:
                    enough = 12
                    number += 1
                    name = f"{number * 7919 % 10000:04}.{number}"  # before or behind what is there
                    box.deliver(name, mail(name) * (100 if number % 4 == 0 else 1))
                    print(name, file=names)
        os._exit(0)

    def stop(self) -> set[str]:
        """The names of all that it has delivered."""
        self._stop.touch()
        assert os.waitpid(self._pid, 0)[1] == 0
        return set(self._names.read_text().split())


class Witness:
    """What all clients together have been told: no message has two ids, no id two messages."""

    def __init__(self):
        self._ids: dict[bytes, bytes] = {}
        self._subjects: dict[bytes, bytes] = {}

    def note(self, seen: dict[bytes, bytes]) -> None:
        for subject, uidl in seen.items():
            assert self._ids.setdefault(subject, uidl) == uidl
            assert self._subjects.setdefault(uidl, subject) == subject


def present(box) -> set[str]:
    return {name.partition(":")[0] for name in box.names("new") + box.names()}


def killed_at_login(server, chance, witness) -> set[str]:
    server.send(b"UIDL\r\n" + b"".join(b"TOP %d 0\r\n" % number for number in range(1, 15)))
    time.sleep(chance.uniform(0, 0.006))
    server.kill()
    listing, *tops = server.rest().split(b"\r\n.\r\n")[:-1] or [b""]  # the last isn't whole
    uidls = [line.split()[1] for line in listing.splitlines()[2:]]
    witness.note(
        {top.splitlines()[1] + b"\r\n": uidl for top, uidl in zip(tops, uidls, strict=False)}
    )
    return set()


def killed_in_retr(server, chance, witness) -> set[str]:
    witness.note(ids(server))
    server.send(b"".join(b"RETR %d\r\n" % number for number in range(1, 15)))
    server.socket.recv(chance.randrange(1, 100_000))
    time.sleep(chance.uniform(0, 0.001))
    server.kill()
    return set()


def killed_in_quit(server, chance, witness) -> set[str]:
    seen = ids(server)
    witness.note(seen)
    subjects = dict(enumerate(seen, 1))
    marked = chance.sample(sorted(subjects), len(subjects) // 3)
    for number in marked:
        server.ask(f"DELE {number}")
    server.send(b"QUIT\r\n")
    time.sleep(chance.uniform(0, 0.0003))
    server.kill()
    return {subjects[number].decode().removeprefix("Subject: ").strip() for number in marked}


@pytest.mark.parametrize("kills, calm", [(500, 0), (250, 0.012)], ids=["small", "large"])
def test_F_KILL_1_to_4_F_CONC_5_many_kills_while_mail_comes_do_no_harm(
    box, resident, monkeypatch, kills, calm
):
    if calm:  # as in a large mailbox: an index is made when nothing has changed for a while
        monkeypatch.setattr(index, "WORTH", 1)
        monkeypatch.setattr(index, "SETTLED", int(calm * 1e9))
    chance = random.Random(11)
    witness = Witness()
    removed: set[str] = set()
    before: set[str] = set()
    deliverer = Deliverer(box)
    try:
        for _ in range(kills):
            moment = chance.choice([killed_at_login, killed_in_retr, killed_in_quit])
            time.sleep(chance.choice([0, 1.5 * calm]))
            server = resident()
            may_be_gone = moment(server, chance, witness)
            server.hang_up()
            there = present(box)
            assert before - there <= may_be_gone, moment
            removed |= may_be_gone - there
            before = there
    finally:
        delivered = deliverer.stop()
    assert present(box) == delivered - removed
    for folder in ("new", "cur"):
        for name in box.names(folder):
            whole = mail(name.partition(":")[0])
            assert (box.path / folder / name).read_bytes() in (whole, whole * 100)
    server = resident()
    seen = ids(server)
    witness.note(seen)
    assert len(seen) == len(present(box))
    leave(server)


def test_F_CONC_6_sessions_that_begin_at_once_agree_on_ids(box, residents):
    given: dict[bytes, bytes] = {}
    delivered = 0
    for _ in loops():
        servers = residents(4)
        for _ in range(20):
            name = f"{99999 - delivered}.a"  # in front of those that others may be numbering
            box.deliver(name, mail(name))
            delivered += 1
        for server in servers:
            for subject, uidl in ids(server).items():
                assert given.setdefault(subject, uidl) == uidl
        assert len(given) == len(set(given.values()))
        for server in servers:
            leave(server)


class Worker(threading.Thread):
    """Does something again and again until it is told to stop."""

    def __init__(self, work):
        super().__init__()
        self.work = work
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        chance = random.Random(3)
        while not self.ended.wait(0.001):
            self.work(chance)

    def stop(self) -> None:
        self.ended.set()
        self.join()


def test_F_CONC_1_F_CONC_5_deliverers_a_renamer_and_sessions_lose_nothing(box, program):
    delivered: list[str] = []
    fetched: dict[bytes, list[bytes]] = {}

    def deliver(_):
        if len(delivered) < 300:
            name = f"{len(delivered):04}.d"
            box.deliver(name, mail(name))
            delivered.append(name)

    def rename(chance):
        names = box.names()
        if names:
            name = chance.choice(names)
            flags = "".join(chance.sample("FRST", 2))
            try:
                os.rename(
                    box.path / "cur" / name,
                    box.path / "cur" / f"{name.partition(':')[0]}:2,{flags}",
                )
            except FileNotFoundError:
                pass

    server = program()
    server.line()
    workers = [Worker(deliver), Worker(rename)]
    try:
        for _ in range(12):
            server = program()
            for uidl, subject, number in fetch(server):
                fetched.setdefault(uidl, []).append(subject)
                assert server.ask(f"DELE {number}") == b"+OK Deleted.\r\n"
            assert server.ask("QUIT") == b"+OK Bye-bye.\r\n"
            assert server.end()[0] == 0
    finally:
        for worker in workers:
            worker.stop()
    server = program()
    for uidl, subject, _ in fetch(server):
        fetched.setdefault(uidl, []).append(subject)
    assert all(len(subjects) == 1 for subjects in fetched.values())
    subjects = sorted(subject for bodies in fetched.values() for subject in bodies)
    assert subjects == [f"Subject: {name}\r\n".encode() for name in delivered]


def fetch(server):
    """Id, first line and number of each message, which is whole."""
    assert server.line() == b"+OK logged in.\r\n"
    for line in server.many("UIDL"):
        number, uidl = line.split()
        body = server.many(f"RETR {number.decode()}")
        name = body[0].removeprefix(b"Subject: ").strip()
        assert body[2] == name * 50 + b"\r\n"
        yield uidl, body[0], number.decode()


@pytest.mark.parametrize("moment", ["open", "write", "fsync", "rename"])
def test_F_KILL_7_the_list_is_whole_whenever_the_power_goes(box, resident, monkeypatch, moment):
    fill(box, 5)
    server = resident()
    known = ids(server)
    leave(server)
    box.put("new/9.z", mail("9.z"))
    before = box.list.read_bytes()
    real = getattr(os, moment)

    def stop(first, *arguments, **keywords):
        if first > 2 if isinstance(first, int) else os.fsencode(first).startswith(b"tmp/"):
            os.kill(os.getpid(), 9)
        return real(first, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(os, moment, stop)
        server = resident()
    assert server.wait() == -9
    assert box.list.read_bytes() == before
    server = resident()
    assert known.items() <= ids(server).items()
    leave(server)
