"""authmysql and authpgsql over TLS: whom they talk to, and what becomes of it when the server goes.

The servers of the other tests, started anew with a certificate; they demand one of us too.
"""

from __future__ import annotations

import os
import shutil

import pytest
import trustme

from courierchain.authmodule import TemporaryFailure
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.authmodules.conftest import Database
from tests.authmodules.test_kept import PATIENT, connected
from tests.authmodules.test_sql import LATER, SERVED, WRONG, asked, login
from tests.conftest import ROOT, wait_until

pytestmark = pytest.mark.parametrize("database", ["mysql", "pgsql"], indirect=True)

MYSQL_TLS = ["--ssl-ca={0}/ca.pem", "--ssl-cert={0}/cert.pem", "--ssl-key={0}/key.pem"]
PGSQL_TLS = ["ssl=on", "ssl_ca_file={0}/ca.pem", "ssl_cert_file={0}/cert.pem"]
PGSQL_TLS += ["ssl_key_file={0}/key.pem", "listen_addresses=127.0.0.1"]
HBA = "local all all trust\nhostssl all root 127.0.0.1/32 cert\n"


class Encrypted:
    """A database that talks TLS, and the files of who asks it: `ours`."""

    def __init__(self, database: Database, ours):
        self.database = database
        self.server = database.server
        self.ours = ours
        self.authority = trustme.CA()
        self.place = self.server.directory / "tls"
        self.place.mkdir()
        ours.joinpath("ca.pem").write_bytes(self.authority.cert_pem.bytes())
        ours.joinpath("other.pem").write_bytes(trustme.CA().cert_pem.bytes())
        self.write(ours, self.authority.issue_cert("client", common_name="root"))
        options = MYSQL_TLS
        if database.kind == "pgsql":
            options = [word for option in PGSQL_TLS for word in ("-c", option)]
            self.hba = self.server.directory / "data" / "pg_hba.conf"
            self.hba_was = self.hba.read_text()
            self.hba.write_text(HBA)
        else:
            database.execute("CREATE OR REPLACE USER pop@'127.0.0.1' REQUIRE X509")
            database.execute("GRANT SELECT ON mail.passwd TO pop@'127.0.0.1'")
        self.server.options_for_tls = [option.format(self.place) for option in options]
        self.restart_as("127.0.0.1")

    def write(self, place, certificate: trustme.LeafCert) -> None:
        place.joinpath("cert.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        key = place / "key.pem"
        key.write_bytes(certificate.private_key_pem.bytes())
        key.chmod(0o600)

    def restart_as(self, name: str) -> None:
        """With a certificate for that name."""
        self.server.stop()
        self.write(self.place, self.authority.issue_cert(name))
        shutil.copy(self.ours / "ca.pem", self.place)
        if ROOT:
            for path in (self.place, *self.place.iterdir()):
                os.chown(path, 65534, 65534)
        self.server.start()

    def restore(self) -> None:
        self.server.stop()
        self.server.options_for_tls = []
        if self.database.kind == "pgsql":
            self.hba.write_text(self.hba_was)
        shutil.rmtree(self.place)
        self.server.start()

    def configure(self, authority: str = "ca.pem", client: bool = True) -> None:
        cert, key, ca = self.ours / "cert.pem", self.ours / "key.pem", self.ours / authority
        port = str(self.server.port)
        if self.database.kind == "mysql":
            own = {"SSL_CERT": str(cert), "SSL_KEY": str(key)} if client else {}
            there = {"SERVER": "127.0.0.1", "PORT": port, "SOCKET": None, "USERNAME": "pop"}
            self.database.configure(**there, SSL_CACERT=str(ca), SSL_CIPHER="HIGH", **own)
            return
        words = f"host=127.0.0.1 port={port} user=root dbname=template1 sslmode=verify-full"
        words += f" sslrootcert={ca}"
        if client:
            words += f" sslcert={cert} sslkey={key}"
        self.database.configure(CONNECTION=words)


@pytest.fixture
def encrypted(remote, john, public):
    found = Encrypted(remote, public)
    try:
        remote.add(john)
        found.configure()
        remote.environment |= PATIENT
        yield found
    finally:
        remote.server.thaw()
        found.restore()


def test_9525_01_a_server_that_proves_its_name_to_who_proves_theirs(encrypted, john):
    database = encrypted.database
    secret = john.password.encode()
    assert asked(database, b"login", b"john", secret).user == "john"
    for settings in ({"authority": "other.pem"}, {"client": False}):
        encrypted.configure(**settings)
        with pytest.raises(TemporaryFailure):
            asked(database, b"login", b"john", secret)
    encrypted.configure()
    encrypted.restart_as("database.example")
    with pytest.raises(TemporaryFailure):
        asked(database, b"login", b"john", secret)


def test_3206_02_over_tls_the_server_goes_hangs_and_comes_back(encrypted, authdaemond, serve, john):
    """Through the chain and through authdaemond, where the connection stays."""
    database = encrypted.database
    wait_until(lambda: not connected(database), "connections of other tests have gone")
    stages = [*database.stages[:2], "authuserdb", *database.stages[2:]]
    chain = serve("-uses=20", stages=stages, env=database.environment)
    modules = f"{database.module} authuserdb"
    daemon = authdaemond(authmodulelist=modules, **database.environment)

    def works() -> bool:
        right = daemon.login("john", john.password)
        assert daemon.login("john", "wrong") == b"FAIL\n"
        assert login(chain, "john", "wrong") == WRONG
        return right.endswith(b".\n") and login(chain, "john", john.password) == SERVED

    def fails() -> bool:
        told = daemon.login("john", john.password), login(chain, "john", john.password)
        return told == (b"", LATER)

    assert works() and works()
    encrypted.restart_as("127.0.0.1")
    assert works()
    assert "ERR" not in daemon.log.read_text()
    encrypted.server.stop()
    assert fails()
    encrypted.server.start()
    assert works()
    encrypted.server.freeze()
    assert fails() and fails()
    encrypted.server.thaw()
    assert works()
