"""testssl.sh (Debian's package) finds nothing above LOW on our defaults, over POP3S and STLS.

It takes its time: asked for here are protocols, ciphers, forward secrecy and the server's
preferences. All that it knows, by hand: ALL_CHECKS=1 in the environment.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.chain.test_tls import authority as authority  # a fixture, as the others
from tests.chain.test_tls import pop3s as pop3s
from tests.chain.test_tls import settings as settings
from tests.chain.test_tls import stls as stls
from tests.conftest import needs

PEERS = "/var/cache/courierpop3-peers"  # where tests/run unpacks what needn't be installed
HARMLESS = {"OK", "INFO", "DEBUG", "LOW"}
# What it says of its own surroundings, and of our test authority's certificate: valid for
# centuries, and nobody can revoke it.
NOT_OURS = {"engine_problem", "cert_validityPeriod", "cert_revocation"}


@pytest.fixture
def any_mode():
    """The relay makes the handshakes whatever serves the sessions."""
    return []


@pytest.fixture
def testssl(public, authority):
    """Run it against a port of ours; what it has found, as id: severity."""
    program = needs(f"{PEERS}/usr/bin/testssl")
    needs("hexdump")
    # It insists on a program that asks the DNS, and is told below not to ask it.
    resolver = public / "bin" / "host"
    resolver.parent.mkdir()
    resolver.write_text("#!/bin/sh\nexit 1\n")
    resolver.chmod(0o755)
    trusted, found = public / "ca.pem", public / "found.json"
    authority.cert_pem.write_to_path(trusted)
    env = {
        "PATH": f"{resolver.parent}:/usr/bin:/bin",
        "TERM": "dumb",
        "TESTSSL_INSTALL_DIR": f"{PEERS}/etc/testssl",
    }

    def run(port: int, *checks: str) -> dict[str, str]:
        options = ["--openssl", needs("openssl"), "--ip", "127.0.0.1", "--nodns", "none"]
        options += ["--warnings", "batch", "--color", "0", "--add-ca", trusted]
        done = subprocess.run(
            ["bash", program, *options, "--jsonfile", found, *checks, f"localhost:{port}"],
            env=env,
            cwd=public,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert found.exists(), done.stdout
        findings = {each["id"]: each["severity"] for each in json.loads(found.read_text())}
        found.unlink()
        return findings

    return run


def checks(*chosen: str) -> tuple[str, ...]:
    return () if "ALL_CHECKS" in os.environ else chosen


@pytest.mark.timeout(300)
def test_8996_01_8314_02_testssl_finds_nothing_over_pop3s(testssl, pop3s):
    found = testssl(pop3s("-maxperip=40").port, *checks("-p", "-s", "-f", "-P"))
    assert found["TLS1"] == found["TLS1_1"] == "INFO"  # not offered; MEDIUM or LOW if it were
    assert found["TLS1_2"] == found["TLS1_3"] == "OK"
    assert found["cipher_order"] == "OK"
    assert found["FS" if "FS" in found else "PFS"] == "OK"
    assert worries(found) == {}


@pytest.mark.timeout(300)
def test_8996_01_8314_02_testssl_finds_nothing_over_stls(testssl, stls):
    found = testssl(stls("-maxperip=40").port, "-t", "pop3", *checks("-p"))
    assert found["TLS1_2"] == found["TLS1_3"] == "OK"
    assert worries(found) == {}


def worries(found: dict[str, str]) -> dict[str, str]:
    return {
        name: severity
        for name, severity in found.items()
        if severity not in HARMLESS and name not in NOT_OURS
    }
