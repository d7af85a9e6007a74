"""Debian's original authdaemond, with a view of its own of the places that are compiled into it:
/etc/courier, /run/courier, and the system's users.

    john, mary    in the userdb
    petra, paul   system users, with PAM; paul's account has expired
    root2         in the userdb, with uid 0
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import (
    BIN,
    DEADLINE,
    Account,
    Accounts,
    needs,
    needs_root,
    sha,
    wait_until,
)

LIB = Path("/usr/lib/courier/courier-authlib")
MODULES = "authuserdb authpam"
PAM = "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
PAM += "session required pam_unix.so\n"
HMAC_MD5_OF_SECRET = "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"


class Site:
    """Accounts, and an /etc and a /run for them. `run` runs a program that sees them."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.system = directory / "etc"
        self.etc = self.system / "courier"
        self.run_directory = directory / "run"
        self.socket = self.run_directory / "authdaemon" / "socket"
        self.log = directory / "log"
        self.daemon: subprocess.Popen | None = None
        subprocess.run(["cp", "-a", "/etc", self.system], check=True)
        (self.run_directory / "authdaemon").mkdir(parents=True)
        self.run_directory.chmod(0o755)
        (self.run_directory / "authdaemon").chmod(0o750)
        self.set(authmodulelist=MODULES, DEFAULTOPTIONS="")
        self.accounts = Accounts(directory)
        self.accounts.userdb = self.etc / "userdb"
        self.add_accounts()
        self.keeper = self.make_view()
        self.run("makeuserdb")

    def add_accounts(self) -> None:
        secret = {"hmac-md5pw": HMAC_MD5_OF_SECRET}
        self.accounts.userdb.touch(0o600)
        self.john = self.accounts.add("john", gecos="John Doe", **secret)
        self.mary = self.accounts.add("mary", quota="1000000S", options="disableimap=1,x=y")
        boxes = self.mary.home / "boxes"
        self.mary.maildir.rename(boxes)
        self.mary.maildir = boxes
        record = {"uid": self.mary.uid, "gid": self.mary.gid, "home": self.mary.home}
        # makeuserdb refuses a second record of a name.
        text = self.accounts.userdb.read_text().replace("options=", f"mail={boxes}|options=")
        self.accounts.userdb.write_text(text)
        self.accounts.record("root2", **{**record, "uid": 0, "systempw": sha("x")})
        self.petra = self.accounts.add("petra", listed=False)
        self.paul = self.accounts.add("paul", listed=False)

    def make_view(self) -> subprocess.Popen:
        """A process that holds a mount namespace with our directories in the place of the system's.

        Not with files: one is uncovered as soon as somebody outside replaces that below.
        """
        added = {
            "passwd": passwd_line(self.petra, "Petra,,,") + passwd_line(self.paul),
            "shadow": shadow_line(self.petra, "") + shadow_line(self.paul, expires="1"),
            "group": f"music:x:{self.petra.gid + 1000}:petra\n",
        }
        for name, lines in added.items():
            with (self.system / name).open("a") as file:
                file.write(lines)
        for service in ("pop3", "imap", "login"):
            (self.system / "pam.d" / service).write_text(PAM)
        nothing = self.directory / "nothing"
        nothing.mkdir()
        binds = {self.system: "/etc", self.run_directory: "/run/courier"}
        binds[nothing] = "/usr/libexec"  # where courier-imap finds a server that outlives it
        steps = ["mkdir -p /run/courier"]
        steps += [f"mount --bind {ours} {place}" for ours, place in binds.items()]
        script = " && ".join([*steps, "echo ready", "exec sleep infinity"])
        argv = [needs("unshare"), "--mount", "/bin/sh", "-c", script]
        keeper = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert keeper.stdout.readline() == b"ready\n"
        return keeper

    def set(self, **settings: str) -> None:
        file = self.etc / "authdaemonrc"
        lines = [
            line for line in file.read_text().splitlines() if line.partition("=")[0] not in settings
        ]
        lines += [f'{name}="{value}"' for name, value in settings.items()]
        file.write_text("\n".join(lines) + "\n")

    def inside(self, *argv) -> list[str]:
        """The command, to be run in the view."""
        enter = [needs("nsenter"), f"--mount=/proc/{self.keeper.pid}/ns/mnt", "--"]
        return [*enter, *map(str, argv)]

    def run(self, *argv, env=None) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.inside(*argv),
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})},
        )

    def start(self, *argv) -> None:
        """Start an authdaemond, and wait until it answers."""
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                self.inside(*argv),
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
            )
        wait_until(self.socket.exists, f"a socket of {argv}")

    def stop(self) -> None:
        if self.daemon:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(20)
            self.daemon = None
            self.socket.unlink(missing_ok=True)

    def ask(self, request: bytes, *, then_close: bool = True) -> bytes:
        """What the daemon answers."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(self.socket))
            client.sendall(request)
            if then_close:
                client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def tcpd(self) -> str:
        """A couriertcpd in the view."""
        script = self.directory / "couriertcpd"
        script.write_text(f'#!/bin/sh\nexec {" ".join(self.inside(BIN / "couriertcpd"))} "$@"\n')
        script.chmod(0o755)
        return str(script)

    def end(self) -> None:
        self.stop()
        self.keeper.kill()
        self.keeper.wait()


def passwd_line(account: Account, gecos: str = "") -> str:
    return f"{account.name}:x:{account.uid}:{account.gid}:{gecos}:{account.home}:/bin/sh\n"


def shadow_line(account: Account, expires: str) -> str:
    argv = [needs("openssl"), "passwd", "-6", account.password]
    hashed = subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    return f"{account.name}:{hashed}:19000:::::{expires}:\n"


@pytest.fixture(scope="module")
def site():
    needs_root()
    for program in ("authdaemond", "makeuserdb", "unshare", "nsenter"):
        needs(program)
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    site = Site(directory)
    yield site
    site.end()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def original(site):
    """The site, with Debian's authdaemond."""
    site.start(LIB / "authdaemond")
    yield site
    site.stop()


def groups_of(account: Account) -> set[int]:
    """The groups of the processes that serve an account."""
    found = set()
    for process in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(
                line.split(":", 1) for line in process.read_text().splitlines() if ":" in line
            )
        except OSError:
            continue
        if fields["Uid"].split()[0] == str(account.uid) and os.path.exists(process):
            found |= set(map(int, fields["Groups"].split()))
    return found
