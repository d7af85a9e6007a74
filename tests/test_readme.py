"""The modules that the README shows, in a chain; and `make demo`, as a newcomer runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEADLINE, ROOT, needs, needs_root, sha

SOURCE = Path(__file__).parent.parent


def code_of(name: str) -> str:
    """The code block of the README that has this name in its first comment or docstring."""
    readme = (SOURCE / "README.rst").read_text()
    blocks = re.findall(r"\.\. code-block:: \w+\n\n((?:    .*\n|\n)+)", readme)
    (block,) = [block for block in blocks if f"{name} - " in block]
    return "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))


def test_the_python_module_of_the_readme(serve, any_mode, accounts, script, public):
    needs_root()
    account = accounts.add("john", listed=False)
    account.home.rename(public / "john")
    account.home = public / "john"
    (public / "htpasswd").write_text(f"mary:{sha('x')}\njohn:{sha(account.password)}\n")
    code = code_of("authhtpasswd")
    assert len(code.splitlines()) < 40
    for shown, here in {
        "/opt/courierpop3/bin/python3": sys.executable,
        "/etc/courier/htpasswd": str(public / "htpasswd"),
        "UID = GID = 5000": f"UID = GID = {account.uid}",
        "/srv/mail": str(public),
    }.items():
        assert shown in code
        code = code.replace(shown, here)
    module = script("authhtpasswd", code)
    server = serve(*any_mode, stages=["courierpop3login", module, "courierpop3d", "./Maildir"])
    with server.client().login(account) as client:
        assert client.ask("STAT") == "+OK 0 0"
    with server.client() as client:
        client.line()
        client.ask("USER nobody")
        assert client.ask("PASS x") == "-ERR Login failed."


def test_the_shell_module_of_the_readme_lets_guest_in_and_passes_others_on(
    serve, any_mode, john, accounts, script, public
):
    needs_root()
    needs("setpriv")
    guest = accounts.add("guest", listed=False)
    guest.password = "let me in"
    (public / "password").write_text(guest.password + "\n")
    code = code_of("authguest")
    for shown, here in {
        "/etc/courier/guest": str(public / "password"),
        "/srv/guest": str(guest.home),
        "--reuid=guest --regid=guest --init-groups": (
            f"--reuid={guest.uid} --regid={guest.gid} --clear-groups"
        ),
    }.items():
        assert shown in code
        code = code.replace(shown, here)
    module = script("authguest", code)
    stages = ["courierpop3login", module, "authuserdb", "courierpop3d", "./Maildir"]
    server = serve(*any_mode, stages=stages)
    for account in (guest, john):
        with server.client().login(account) as client:
            assert client.ask("STAT") == "+OK 0 0"


def test_the_function_of_the_readme(serve, any_mode, accounts, public):
    needs_root()
    account = accounts.add("john", listed=False)
    account.home.rename(public / "john")
    (public / "students").write_text(f"mary {sha('x')}\njohn {sha(account.password)}\n")
    code = code_of("authcustom")
    assert len([line for line in code.splitlines() if line]) <= 10
    for shown, here in {
        "/etc/courier/students": str(public / "students"),
        "uid=5000, gid=5000": f"uid={account.uid}, gid={account.gid}",
        "/srv/mail": str(public),
    }.items():
        assert shown in code
        code = code.replace(shown, here)
    (public / "authcustom.py").write_text(code)
    (public / "authcustom.py").chmod(0o644)
    stages = ["courierpop3login", "authcustom", "courierpop3d", "./Maildir"]
    server = serve(
        *any_mode, stages=stages, env={"AUTHCUSTOM": f"{public}/authcustom.py:authcustom"}
    )
    with server.client().login(account) as client:
        assert client.ask("STAT") == "+OK 0 0"
    with server.client() as client:
        client.line()
        client.ask("USER nobody")
        assert client.ask("PASS x") == "-ERR Login failed."


@pytest.mark.timeout(300)
def test_make_demo_ends_with_a_command_that_fetches_a_message(tmp_path):
    needs("make")
    needs("curl")
    copy = tmp_path / "copy"
    tracked = subprocess.run(
        ["git", "-C", str(SOURCE), "archive", "HEAD"], capture_output=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    copy.mkdir()
    subprocess.run(["tar", "-x", "-C", str(copy)], input=tracked.stdout, check=True)
    env = {**os.environ, "DEMO_PORT": "11119"}

    def make(target: str) -> str:
        done = subprocess.run(
            ["make", "--no-print-directory", "-C", str(copy), target],
            env=env,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        last = make("demo").splitlines()[-1]
        assert last.split()[0] == "curl"
        fetched = subprocess.run(
            last.split(), capture_output=True, timeout=DEADLINE, check=False, text=True
        )
        assert "Subject: Welcome" in fetched.stdout
        if ROOT:
            pid = int((copy / ".demo.pid").read_text())
            assert os.stat(f"/proc/{pid}").st_uid != 0
    finally:
        make("demo-stop")
    assert not list(copy.glob(".demo*"))
