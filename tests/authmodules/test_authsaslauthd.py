"""authsaslauthd: Cyrus SASL's saslauthd, the real one and ones that fail."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.authmodules.asking import HOSTILE, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.conftest import DEADLINE, needs, needs_root, wait_until
from tests.cyruspop3d.conftest import PEERS

WITH_PRIVATE_ETC = 'mount --bind "$1" /etc && shift && exec "$@"'
YES, NO = b"\0\2OK", b"\0\3NO "


@pytest.fixture(scope="module")
def saslauthd(tmp_path_factory):
    """The socket of a saslauthd whose sasldb knows john@example.com; its password is `right`."""
    needs_root()
    program, passwd = (
        needs(str(PEERS / f"usr/sbin/{name}")) for name in ("saslauthd", "saslpasswd2")
    )
    directory = tmp_path_factory.mktemp("saslauthd")
    etc = directory / "etc"
    etc.mkdir()
    for name in ("passwd", "nsswitch.conf"):
        shutil.copy(f"/etc/{name}", etc)
    options = ["-f", etc / "sasldb2", "-u", "example.com", "-p", "-c"]
    subprocess.run([passwd, *options, "john"], input=b"right", check=True, timeout=DEADLINE)
    private = ["unshare", "-m", "--propagation", "private", "sh", "-c", WITH_PRIVATE_ETC, "sh", etc]
    argv = [program, "-a", "sasldb", "-m", directory, "-d", "-n", "1"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(  # it ends its whole group
            [*private, *argv], stdout=log, stderr=log, start_new_session=True
        )
    wait_until((directory / "mux").exists, "saslauthd listens")
    yield directory / "mux"
    process.terminate()
    process.wait(DEADLINE)


class Fake:
    """A socket that takes one question, and answers `pieces`; None: it says nothing."""

    def __init__(self, path: Path, *pieces: bytes | None):
        self.path = path
        self.asked = b""
        self._pieces = pieces
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            self.asked = connection.recv(8192)
            for piece in self._pieces:
                if piece is None:
                    self._over.wait(DEADLINE)
                else:
                    connection.sendall(piece)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listening.close()


@pytest.fixture
def fake(tmp_path):
    running: list[Fake] = []

    def start(*pieces: bytes | None) -> Fake:
        running.append(Fake(tmp_path / "mux", *pieces))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.mark.parametrize(
    ("user", "password", "word"),
    [
        ("john@example.com", "right", "trouble"),
        ("john@example.com", "wrong", "rejected"),
        ("john", "right", "rejected"),
        ("mary@example.com", "right", "rejected"),
        *((text, "right", "rejected") for text in HOSTILE.values()),
    ],
)
def test_the_real_one_says_who_may(ask, saslauthd, user, password, word):
    """`trouble`: it is told to hand john on, and the next program takes no `external`."""
    settings = {"AUTHSASLAUTHD_SOCKET": saslauthd, "AUTHSASLAUTHD_ACCOUNTS": "next"}
    found = ask("authsaslauthd", user, password, **settings)
    assert found.word == ("pop3\nexternal\njohn@example.com\n\n" if word == "trouble" else word)


def test_the_modules_behind_it_know_the_account(ask, saslauthd, accounts):
    accounts.add("john@example.com")
    settings = {"AUTHSASLAUTHD_SOCKET": saslauthd.parent, "AUTHSASLAUTHD_ACCOUNTS": "next"}
    found = ask("authsaslauthd", "john@example.com", "right", "authuserdb", **settings)
    assert (found.word, found.env["AUTHENTICATED"]) == ("accepted", "john@example.com")
    found = ask("authsaslauthd", "john@example.com", "wrong", "authuserdb", **settings)
    assert found.word == "rejected"


def test_without_them_it_is_an_account_of_the_system(ask, fake):
    needs_root()
    one = fake(YES)
    found = ask("authsaslauthd", "bin", "secret", AUTHSASLAUTHD_SOCKET=one.path)
    assert (found.word, found.env["AUTHENTICATED"]) == ("accepted", "bin")
    assert one.asked == b"\0\3bin\0\6secret\0\4pop3\0\0"


def test_whom_the_system_does_not_know_is_rejected(ask, fake):
    one = fake(YES)
    found = ask("authsaslauthd", "x@y@example.com", "secret", AUTHSASLAUTHD_SOCKET=one.path)
    assert found.word == "rejected"
    assert one.asked == b"\0\3x@y\0\6secret\0\4pop3\0\x0bexample.com"


def test_an_answer_may_come_in_pieces(ask, fake):
    one = fake(NO[:1], NO[1:3], NO[3:])
    assert ask("authsaslauthd", "bin", "x", AUTHSASLAUTHD_SOCKET=one.path).word == "rejected"


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((None,), "no answer in time"),
        ((YES[:3], None), "no answer in time"),
        ((), "no answer"),
        ((YES[:3],), "no answer"),
        ((b"\0\2HI",), "neither OK nor NO"),
        ((b"\0\0",), "neither OK nor NO"),
        ((b"\xff\xffOK" + b"x" * 5000,), "an answer that is too long"),
    ],
)
def test_what_is_no_answer_is_never_a_no(ask, fake, pieces, said):
    settings = {"AUTHSASLAUTHD_SOCKET": fake(*pieces).path, "AUTHPROGRAM_TIMEOUT": 1}
    found = ask("authsaslauthd", "bin", "x", **settings)
    assert found.word == "trouble" and said in found.log
    assert found.env["WHY"] == "temporary"


def test_a_saslauthd_that_is_not_there_is_a_temporary_failure(ask, tmp_path):
    found = ask("authsaslauthd", "bin", "x", AUTHSASLAUTHD_SOCKET=tmp_path / "mux")
    assert found.word == "trouble" and "is saslauthd running?" in found.log


@pytest.mark.parametrize(
    "record", [external(b"bin"), b"pop3\ncram-md5\nPDE+\nYmluIHg=\n\n"], ids=["external", "cram"]
)
def test_only_passwords_can_be_asked(ask, tmp_path, record):
    found = ask("authsaslauthd", record=record, AUTHSASLAUTHD_SOCKET=tmp_path / "mux")
    assert found.word == "rejected"
