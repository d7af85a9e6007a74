"""pop3d, its configuration, and an account that authuserdb knows."""

from __future__ import annotations

import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest
import trustme

from tests.conftest import BIN, DEADLINE, Account, Accounts, Client, needs_root
from tests.cyruspop3d.realcyrus import PEERS, RealCyrus

__all__ = ["PEERS"]

POP3D = str(BIN / "pop3d")


class Cyrus:
    """imapd.conf, configdirectory and accounts; `configure` writes options over the usual ones."""

    def __init__(self, public: Path):
        self.public = public
        self.conf = public / "imapd.conf"
        self.directory = public / "imap"
        for folder in ("log", "msg", "proc", "socket"):
            (self.directory / folder).mkdir(parents=True)
        self.accounts = Accounts(public)
        self.john: Account = self.accounts.add("john")
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.configure()

    def configure(self, text: str = "") -> None:
        usual = {
            "configdirectory": self.directory,
            "servername": "mail.example",
            "allowplaintext": "yes",
            "failedloginpause": "0",
            "courier_modules": "authuserdb",
            "courier_authuserdb_file": self.accounts.userdb,
        }
        given = [line.split(":")[0].strip().lower() for line in text.splitlines()]
        lines = [f"{key}: {value}\n" for key, value in usual.items() if key not in given]
        self.conf.write_text("".join(lines) + text)

    def start(self, *options: str, **more) -> Session:
        return Session([POP3D, "-C", str(self.conf), *options], self.environment, **more)


class Session(Client):
    """pop3d with a client on its descriptors 0 and 1."""

    def __init__(self, argv: list[str], env: dict[str, str], tls=None):
        self.socket, server = socket.socketpair()
        self.socket.settimeout(DEADLINE)
        with server:
            self.process = subprocess.Popen(
                argv, env=env, stdin=server, stdout=server, stderr=subprocess.PIPE
            )
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def end(self) -> tuple[int, str]:
        """Exit status and log, once the program has ended."""
        _, log = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, log.decode()

    def __exit__(self, *_) -> None:
        super().__exit__()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def cyrus(public):
    return Cyrus(public)


@pytest.fixture
def tls(cyrus):
    """A certificate in imapd.conf, and the context of a client that trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(cyrus.public / "cert.pem")
    certificate.private_key_pem.write_to_path(cyrus.public / "key.pem")
    names = f"tls_server_cert: {cyrus.public}/cert.pem\ntls_server_key: {cyrus.public}/key.pem\n"
    cyrus.configure(f"allowplaintext: no\n{names}")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def real_cyrus():
    """Cyrus's own pop3d under its own master, both Debian's; john and mary may log in."""
    needs_root()
    directory = Path(tempfile.mkdtemp(prefix="courierpop3-cyrus-", dir="/var/tmp"))
    directory.chmod(0o755)
    real = RealCyrus(directory, users=("john", "mary"))
    yield real
    real.stop()
