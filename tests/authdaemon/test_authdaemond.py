"""Our authdaemond: what it answers beside what Debian's original does, and Debian's programs, which
are made for the original, with it.
"""

from __future__ import annotations

import hmac
import os
import signal
import socket
import subprocess
import threading
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authdaemond import answer, configuration, question
from authdaemond.configuration import Configuration
from courierchain.account import Account
from courierchain.refusal import Refused
from courierchain.request import BadRequest
from tests.authdaemon.conftest import HMAC_MD5_OF_SECRET, LIB, MODULES
from tests.conftest import BIN, children_of, needs, wait_until

ORIGINALS = "/usr/lib/courier/courier"
SHOWN = ("authtest", "-s", "pop3")


def auth(*lines: str) -> bytes:
    record = "".join(f"{line}\n" for line in lines).encode()
    return b"AUTH %d\n%s" % (len(record), record)


def cram(user: str, secret: bytes, challenge: bytes = b"<1@host>") -> bytes:
    digest = hmac.new(secret, challenge, "md5").hexdigest()
    response = b64encode(f"{user} {digest}".encode()).decode()
    return auth("pop3", "cram-md5", b64encode(challenge).decode(), response)


def questions(site) -> list[bytes]:
    john, mary, petra, paul = site.john, site.mary, site.petra, site.paul
    whole = auth("pop3", "login", "john", john.password)
    record = whole.partition(b"\n")[2]
    return [
        b"PRE . pop3 john\n",
        b"PRE authuserdb pop3 mary\n",
        b"PRE authpam pop3 mary\n",
        b"PRE . pop3 petra\n",
        b"PRE . pop3 nobody-here\n",
        b"PRE authnone pop3 john\n",
        whole,
        b"TCPREMOTEIP=192.0.2.7\n" + whole,
        b"UNKNOWN=1\nTCPREMOTEIP=192.0.2.7\n" + whole,
        b"AUTH %d\n%s" % (len(record) - 1, record),
        b"AUTH %d\n%s" % (len(record) + 1, record + b"\n"),
        auth("pop3", "login", "john", "wrong"),
        auth("pop3", "login", "mary", mary.password),
        auth("pop3", "login", "petra", petra.password),
        auth("pop3", "login", "petra", "wrong"),
        auth("pop3", "login", "paul", paul.password),  # CVE-30: the account check counts
        auth("pop3", "login", "nobody-here", "x"),
        auth("pop3", "login", "", "x"),
        auth("pop3", "nothing", "john", john.password),
        cram("john", b"secret"),
        cram("john", b"wrong"),
        cram("mary", b"secret"),
        b"JUNK\n",
        b"\n",
        b"PRE\n",
    ]


def without_hash(text: bytes) -> bytes:
    """Nor the full name, which the original leaves out after CRAM."""
    return b"".join(
        line for line in text.splitlines(True) if not line.startswith((b"PASSWD=", b"NAME="))
    )


@pytest.fixture(scope="module")
def of_the_original(site):
    """What Debian's daemon answers, and what Debian's programs print with it."""
    site.start(LIB / "authdaemond")
    said = [without_hash(site.ask(asked)) for asked in questions(site)]
    shown = show(site)
    site.stop()
    return said, shown


def show(site) -> list[str]:
    lines = []
    for words in (
        (*SHOWN, "john"),
        (*SHOWN, "mary", site.mary.password),
        (*SHOWN, "petra", site.petra.password),
        (*SHOWN, "petra", "wrong"),
        (*SHOWN, "nobody-here"),
        ("authenumerate", "-o"),
        ("authenumerate", "-s"),
    ):
        done = site.run(*words)
        lines += [" ".join(words), str(done.returncode), *done.stdout.splitlines()]
        lines += done.stderr.splitlines()
    # The order of accounts is that of a database.
    lists = sorted(line for line in lines if line.count("\t") > 3)
    lines = [line for line in lines if line.count("\t") <= 3]
    return [line for line in lines if not line.startswith("Encrypted Password:")] + lists


@pytest.fixture(scope="module")
def ours(site, of_the_original):
    site.start(BIN / "authdaemond")
    yield site
    site.stop()


def test_it_answers_as_the_original_does_but_for_hashes(ours, of_the_original):
    said = [ours.ask(asked) for asked in questions(ours)]
    for asked, before, now in zip(questions(ours), of_the_original[0], said, strict=True):
        assert without_hash(now) == before, asked
    assert b"\nNAME=John Doe\n" in said[0] and b"\nNAME=Petra\n" in said[3]
    assert sum(text.endswith(b"\n.\n") for text in said) == 11
    assert sum(text == b"" for text in said) == 3


def test_the_originals_authtest_and_authenumerate_print_the_same(ours, of_the_original):
    assert show(ours) == of_the_original[1]


@pytest.mark.parametrize("module", [True, False])
def test_the_originals_login_program_uses_it(ours, serve, module):
    needs(f"{ORIGINALS}/courierpop3login")
    stages = (f"{ORIGINALS}/courierpop3login", f"{ORIGINALS}/courierpop3d", "Maildir")
    if module:
        stages = ("courierpop3login", "authdaemon", "courierpop3d", "./Maildir")
    server = serve(stages=stages, tcpd=ours.tcpd(), env={"POP3AUTH": "CRAM-MD5"})
    for account in (ours.john, ours.mary, ours.petra):
        with server.client() as client:
            client.login(account)
            assert client.ask("STAT").startswith("+OK 0 ")
    with server.client() as client:
        client.line()
        if module:  # the original's would take 5 seconds
            assert client.try_login("paul", ours.paul.password) == "-ERR Login failed."
        challenge = b64decode(client.ask("AUTH CRAM-MD5").removeprefix("+ "))
        digest = hmac.new(b"secret", challenge, "md5").hexdigest()
        assert client.ask(b64encode(f"john {digest}".encode()).decode()) == "+OK logged in."


def test_3206_02_a_module_that_cannot_tell_gives_no_answer(ours, serve):
    """Not FAIL; and Debian's login program then says so."""
    ours.set(authmodulelist=MODULES, AUTHUSERDB_FILE="/nowhere/userdb")
    reload(ours)
    try:
        assert ours.ask(auth("pop3", "login", "john", ours.john.password)) == b""
        assert "ERR: authdaemond: cannot read /nowhere/userdb" in ours.log.read_text()
        stages = (f"{ORIGINALS}/courierpop3login", f"{ORIGINALS}/courierpop3d", "Maildir")
        with serve(stages=stages, tcpd=ours.tcpd()).client() as client:
            client.line()
            client.ask("USER john")
            client.send(b"PASS x\r\n")
            assert client.rest() == b"-ERR Temporary problem, please try again later\r\n"
    finally:
        ours.set(AUTHUSERDB_FILE="/etc/courier/userdb")
        reload(ours)


def reload(site) -> None:
    def reports() -> int:
        text = site.log.read_text()
        return text.count("INFO: modules=") + text.count("everything stays as it was")

    before = reports()
    site.daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: reports() > before, "the configuration is read")


def test_sighup_reads_the_configuration_again_and_a_bad_one_changes_nothing(ours):
    asked = auth("pop3", "login", "petra", ours.petra.password)
    ours.set(authmodulelist="authuserdb")
    reload(ours)
    assert ours.ask(asked) == b"FAIL\n"
    ours.set(authmodulelist=MODULES, daemons="none")
    reload(ours)
    assert ours.ask(asked) == b"FAIL\n"
    ours.set(daemons="5", DEFAULTOPTIONS="x=1,wbnodsn=1")
    reload(ours)
    assert ours.ask(asked).endswith(b"OPTIONS=x=1,wbnodsn=1\n.\n")
    asked = auth("pop3", "login", "mary", ours.mary.password)
    assert ours.ask(asked).endswith(b"OPTIONS=disableimap=1,x=y,wbnodsn=1\n.\n")
    ours.set(DEFAULTOPTIONS="")
    reload(ours)


def test_clients_that_say_nothing_hold_up_no_more_than_their_own_process(ours):
    silent = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for client in silent:
        client.connect(str(ours.socket))
    assert ours.ask(b"PRE . pop3 john\n").startswith(b"UID=")
    for client in silent:
        client.close()


def test_CVE_36_many_at_once_each_get_their_own_account(ours):
    def ask(account, found) -> None:
        asked = auth("pop3", "login", account.name, account.password)
        found.extend((account.name, ours.ask(asked)) for _ in range(10))

    found: list[tuple[str, bytes]] = []
    accounts = [ours.john, ours.mary] * 4
    threads = [threading.Thread(target=ask, args=(account, found)) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(f"\nADDRESS={name}\n".encode() in said for name, said in found)


def test_processes_are_replaced_after_a_hundred_questions_and_when_one_dies(ours):
    before = set(children_of(ours.daemon.pid))
    assert len(before) == 5
    for _ in range(510):
        assert ours.ask(b"PRE . pop3 john\n").startswith(b"UID=")
    assert wait_until(lambda: len(children_of(ours.daemon.pid)) == 5, "there are five again")
    now = children_of(ours.daemon.pid)
    assert set(now) != before
    for pid in now:
        os.kill(pid, signal.SIGKILL)
    assert ours.ask(b"PRE . pop3 john\n").startswith(b"UID=")
    assert "ERR: authdaemond: a process has been killed: signal 9\n" in ours.log.read_text()


def test_killed_it_leaves_no_process_behind_and_a_new_one_takes_its_place(ours):
    left = children_of(ours.daemon.pid)
    ours.daemon.kill()
    ours.daemon.wait()
    wait_until(lambda: all(has_ended(pid) for pid in left), "its processes end")
    assert ours.socket.exists()
    ours.start(BIN / "authdaemond")
    wait_until(lambda: answers(ours), "the new one answers")


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def answers(site) -> bool:
    try:
        return site.ask(b"PRE . pop3 john\n").startswith(b"UID=")
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize(
    "asked",
    [
        auth("pop3", "login", "john\0", "x"),
        auth("pop3", "login", "john", "x" * 8000),
        auth("pop3", "login", "john", "x", "y"),
        auth("pop3", "external", "john"),
        auth("pop3", "authenticated", "john"),
        b"PRE . pop3 \n",
        b"PRE .  john\n",
        b"PASSWD pop3\tjohn\tx\ty\n",
    ],
)
def test_CVE_48_what_can_be_nobodys_fails(ours, asked):
    assert ours.ask(asked) == b"FAIL\n"


@pytest.mark.parametrize(
    "asked",
    [b"", b"PRE . pop3", b"AUTH 5\npop3", b"AUTH -1\n", b"AUTH 9999999\n", b"x" * 70_000 + b"\n"],
)
def test_half_a_question_and_none_get_no_answer(ours, asked):
    assert ours.ask(asked) == b""


def test_no_hash_is_told(ours):
    said = ours.ask(b"PRE . pop3 john\n") + ours.ask(b"ENUMERATE\n")
    assert b"PASSWD" not in said and b"{SHA}" not in said
    assert HMAC_MD5_OF_SECRET.encode() not in said


def test_CVE_30_the_socket_is_in_a_directory_closed_to_others(ours, tmp_path):
    assert ours.socket.stat().st_mode & 0o777 == 0o777
    assert ours.socket.parent.stat().st_mode & 0o007 == 0
    for mode, words in ((0o755, "open to everybody"), (None, "another authdaemond answers there")):
        directory = tmp_path / f"directory{mode}"
        directory.mkdir()
        directory.chmod(mode or 0o750)
        if mode is None:
            directory.rmdir()
            directory.symlink_to(ours.socket.parent)
        done = start(tmp_path, authdaemonvar=directory)
        assert done.returncode == 1
        assert words in done.stderr
    assert ours.ask(b"PRE . pop3 john\n").startswith(b"UID=")


def start(tmp_path, *words, text: str = "", **settings) -> subprocess.CompletedProcess:
    rc = tmp_path / "authdaemonrc"
    settings = {"authmodulelist": "authuserdb", **settings}
    rc.write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()) + text)
    argv = [BIN / "authdaemond", f"-rc={rc}", *words]
    env = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, env=env)


def test_it_starts_as_a_daemon_reads_its_configuration_again_and_stops(tmp_path):
    directory = tmp_path / "authdaemon"
    options = {"authdaemonvar": directory, "LOGGEROPTS": f"-file={tmp_path}/log"}
    assert start(tmp_path, "start", **options).returncode == 0
    try:
        wait_until((directory / "socket").exists, "there is a socket")
        assert directory.stat().st_mode & 0o777 == 0o750
        assert start(tmp_path, "restart", **options).returncode == 0
        wait_until(lambda: (tmp_path / "log").read_text().count("modules=") == 2, "it is read")
    finally:
        assert start(tmp_path, "stop", **options).returncode == 0
    assert not (directory / "socket").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"text": "nonsense\n"}, " line 2: not of the form NAME=VALUE"),
        ({"authmodulelist": ""}, 'authmodulelist names no module (authmodulelist="authpam")'),
        ({"authmodulelist": "authnone"}, "authmodulelist names no module that is here"),
        ({"daemons": "x"}, "daemons=x: not a number from 1 to 1000"),
        ({"authdaemonvar": "x"}, "authdaemonvar=x: not a path from /"),
    ],
)
def test_a_configuration_that_cannot_be_is_told(tmp_path, settings, says):
    done = start(tmp_path, **settings)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"authdaemond: {tmp_path}/authdaemonrc") and last.endswith(says)


def test_without_its_file_it_says_so(tmp_path):
    argv = [BIN / "authdaemond", f"-rc={tmp_path}/none"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (
        1,
        f"authdaemond: {tmp_path}/none: No such file or directory\n",
    )


def test_values_of_the_file():
    text = "# x\n\n a = b # c\nd=\"e f\"\ng='h'\ni=\n"
    assert configuration.parse("rc", text) == {"a": "b", "d": "e f", "g": "h", "i": ""}
    with pytest.raises(Refused):
        Configuration("rc", {"authmodulelist": "x", "daemons": "0"})


def test_default_options_are_those_whose_names_are_not_there():
    assert answer.with_defaults("", "a=1") == "a=1"
    assert answer.with_defaults("a,b=2", "a=1,c=3,b") == "a,b=2,c=3"


def test_what_has_no_value_is_left_out():
    account = Account(user="john", uid=1, gid=2, home="/h", fullname="J, D")
    assert answer.described(account, b"", "") == b"UID=1\nGID=2\nHOME=/h\nADDRESS=john\nNAME=J\n.\n"


SAMPLE = b"TCPREMOTEIP=::1\n" + auth("pop3", "login", "john", "x")


@pytest.mark.parametrize("end", range(len(SAMPLE)))
def test_a_question_is_not_answered_before_it_is_whole(end):
    assert question.parse(SAMPLE[:end]) is None


@given(st.binary(max_size=300))
def test_any_octets_are_a_question_half_a_question_or_none(octets):
    for begin in (b"", b"AUTH 20\n", b"PRE ", b"A=b\n"):
        try:
            asked = question.parse(begin + octets)
        except BadRequest:
            continue
        assert asked is None or asked.verb in question.VERBS


def test_the_whole_sample_is_a_question():
    asked = question.parse(SAMPLE + b"more")
    assert (asked.verb, asked.ip, asked.request.login) == (b"AUTH", "::1", (b"john", b"x"))
