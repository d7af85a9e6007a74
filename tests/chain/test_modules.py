"""Modules that aren't ours, in C, in Perl and in shell: docs/modules.rst shows them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.authmodules.asking import Outcome
from tests.authmodules.asking import ask as ask  # a fixture
from tests.conftest import Account, Accounts, needs, needs_root, wait_until

MODULES = Path(__file__).parent.parent / "modules"
DOCUMENT = MODULES.parent.parent / "docs" / "modules.rst"
LANGUAGES = {"c": "gcc", "pl": "perl", "sh": "setpriv"}
MODES = {"resident": [], "coldexec": ["-coldexec"]}
FAILED = "-ERR Login failed."


def test_the_document_shows_the_modules_that_are_tested():
    shown = re.findall(r"\.\. code-block:: \w+\n\n((?:    .*\n|\n)+)", DOCUMENT.read_text())
    texts = [re.sub("^    ", "", block, flags=re.M).rstrip("\n") + "\n" for block in shown]
    files = [(MODULES / f"authone.{language}").read_text() for language in LANGUAGES]
    assert files == texts
    assert all(len(text.splitlines()) < 40 for text in files)


@pytest.fixture(params=LANGUAGES)
def module(request, public) -> str:
    """The module as a program, for an account in a file of the test's."""
    needs_root()
    tool = needs(LANGUAGES[request.param])
    text = (MODULES / f"authone.{request.param}").read_text()
    assert text.count("/etc/courier/authone") == 1
    text = text.replace("/etc/courier/authone", str(public / "account"))
    program = public / "authone"
    if request.param == "c":
        (public / "authone.c").write_text(text)
        argv = [tool, "-Wall", "-Werror", "-O", "-o", program, public / "authone.c"]
        subprocess.run(argv, check=True)
    else:
        program.write_text(text)
        program.chmod(0o755)
    return str(program)


@pytest.fixture
def mary(accounts: Accounts, public) -> Account:
    """Whom the module knows, and nobody else."""
    account = accounts.add("mary", listed=False)
    write(public / "account", account)
    return account


def write(file: Path, account: Account) -> None:
    fields = (account.name, account.password, account.uid, account.gid, account.home)
    file.write_text("".join(f"{field}\n" for field in fields))
    file.chmod(0o600)


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_authchain_01_authchain_05_in_the_chain(serve, module, mary, john, public, options, place):
    modules = [module, "authuserdb"] if place == "first" else ["authuserdb", module]
    stages = ["courierpop3login", *modules, "courierpop3d", "./Maildir"]
    server = serve(*options, stages=stages, env={"POP3_FAILURE_DELAY": "0"})
    for account in (mary, john):
        with server.client().login(account) as client:
            assert client.ask("STAT") == "+OK 0 0"
            assert ids(server) == [f"{account.uid} " * 4, f"{account.gid} " * 4, f"{account.gid} "]
            assert client.ask("QUIT") == "+OK Bye-bye."
        wait_until(lambda: not server.children(), "the session's end")
    with server.client() as client:
        client.line()
        assert login(client, "mary", john.password) == FAILED
        assert login(client, "nobody", mary.password) == FAILED
        (public / "account").unlink()
        assert login(client, "mary", mary.password) == FAILED
        if place == "first":  # authchain_04: nobody else was asked
            assert login(client, "john", john.password) == FAILED
        write(public / "account", mary)
        assert login(client, "mary", mary.password) == "+OK logged in."


def login(client, name: str, password: str) -> str:
    assert client.ask(f"USER {name}") == "+OK Password required."
    return client.ask(f"PASS {password}")


def ids(server) -> list[str]:
    """uids, gids and groups of the process that serves, a blank behind each."""
    (pid,) = server.children()
    status = Path(f"/proc/{pid}/status").read_text()
    found = (re.search(rf"^{name}:[ \t]*(.*)$", status, re.M) for name in ("Uid", "Gid", "Groups"))
    return [" ".join(match[1].split()) + " " for match in found if match]


RECORDS = {
    "another user": b"pop3\nlogin\njohn\nsecret of mary\n\n",
    "another password": b"pop3\nlogin\nmary\nsecret\n\n",
    "a longer password": b"pop3\nlogin\nmary\nsecret of mary \n\n",
    "a third line": b"pop3\nlogin\nmary\nsecret of mary\nx\n\n",
    "one LF at the end": b"pop3\nlogin\njohn\nx\n",
    "CRAM": b"pop3\ncram-md5\nPDE4PA==\nbWFyeSAw\n\n",
    "EXTERNAL": b"pop3\nexternal\nmary\n\n",
    "a token": b"pop3\noauthbearer\nmary\nsecret of mary\n\n",
    "signs": rb"pop3" + b"\nlogin\n$(id)`id`%s'\"\\\n-n \xff$HOME\n\n",
    "large": b"pop3\nlogin\njohn\n" + b"x" * 4078 + b"\n\n",
}


def test_authchain_01_what_it_does_not_know_passes_byte_for_byte(module, mary, ask):
    for name, record in RECORDS.items():
        assert ask(module, record=record).word == "rejected", name


def test_authchain_03_what_it_knows_goes_on_without_the_record(module, mary, ask):
    done: Outcome = ask(module, record=b"other\nlogin\nmary\nsecret of mary\n\n")
    assert done.word == "accepted"
    assert done.env["AUTHENTICATED"] == done.env["AUTHADDR"] == "mary"
    assert [done.env[name] for name in ("AUTHFULLNAME", "MAILDIR", "MAILDIRQUOTA", "OPTIONS")] == [
        "", "", "", "",
    ]  # fmt: skip
    assert (done.env["UID"], done.env["GROUPS"]) == (str(mary.uid), str(mary.gid))
    assert done.env["CWD"] == str(mary.home)
    assert "secret of mary" not in str(done.env)


def test_authchain_04_trouble_goes_back_to_the_login_program(module, mary, public, ask):
    (public / "account").write_text("mary\nsecret of mary\n")
    assert ask(module, "mary", mary.password).word == "trouble"
    (public / "account").unlink()
    assert ask(module, "mary", mary.password).word == "trouble"


OPEN = "for n in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$n ] && printf $n; done"


@pytest.mark.parametrize("password, left_open", [("secret of mary", ""), ("wrong", "3")])
def test_authchain_03_nothing_but_the_record_is_left_open(module, mary, password, left_open):
    record = f"pop3\nlogin\nmary\n{password}\n\n"
    argv = ["/bin/sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh", module, "/bin/sh", "-c", OPEN]
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=env, input=record, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (left_open, "")


def test_authchain_02_no_record_is_no_chain(module, mary):
    argv = ["/bin/sh", "-c", 'exec "$0" /bin/echo served 3</dev/null', module]
    done = subprocess.run(argv, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False)
    assert (done.stdout, done.stderr.decode()) == (b"", "AUTHFAILURE\n")
    assert done.returncode != 0
    env = {"PATH": "/usr/bin:/bin", "AUTHENTICATED": "john"}
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"served\n", b"")
