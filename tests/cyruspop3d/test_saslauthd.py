"""sasl_pwcheck_method: saslauthd in imapd.conf."""

from __future__ import annotations

import pytest

from cyruspop3d import config, environment
from tests.authmodules.test_authsaslauthd import NO, YES
from tests.authmodules.test_authsaslauthd import fake as fake  # a fixture


@pytest.mark.parametrize(
    ("method", "modules", "chain"),
    [
        ("", "", ["authpam"]),
        ("auxprop", "authuserdb", ["authuserdb"]),
        ("saslauthd", "", ["authsaslauthd"]),
        ("auxprop saslauthd", "authuserdb", ["authsaslauthd", "authuserdb"]),
        ("saslauthd", "authuserdb authsaslauthd", ["authuserdb", "authsaslauthd"]),
    ],
)
def test_it_chooses_the_modules(tmp_path, method, modules, chain):
    lines = {"sasl_pwcheck_method": method, "courier_modules": modules}
    conf = tmp_path / "imapd.conf"
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value)
    conf.write_text(f"configdirectory: {tmp_path}\n{text}")
    command = environment.command(config.read(str(conf), "pop3", {}))
    assert command == ["courierpop3login", *chain, "courierpop3d", "./Maildir"]


def test_saslauthd_is_asked_and_the_modules_know_the_account(cyrus, fake):
    one = fake(YES)
    cyrus.configure(f"sasl_pwcheck_method: saslauthd\nsasl_saslauthd_path: {one.path}\n")
    cyrus.john.deliver(b"Subject: x\n\n")
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        assert client.ask("PASS another secret").startswith("+OK Mailbox locked")
        assert client.ask("STAT") == "+OK 1 14"
    assert one.asked == b"\0\4john\0\x0eanother secret\0\3pop\0\0"


def test_whom_it_refuses_the_modules_may_know(cyrus, fake):
    cyrus.configure(f"sasl_pwcheck_method: saslauthd\nsasl_saslauthd_path: {fake(NO).path}\n")
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("+OK Mailbox locked")


def test_when_it_says_nothing_it_is_nobody_s_fault(cyrus, tmp_path):
    """And the client isn't told that its password was wrong."""
    cyrus.configure(f"sasl_pwcheck_method: saslauthd\nsasl_saslauthd_path: {tmp_path}/mux\n")
    with cyrus.start() as client:
        client.line()
        client.ask("USER john")
        assert client.ask(f"PASS {cyrus.john.password}").startswith("-ERR [SYS/TEMP]")
        client.close()
        assert "(is saslauthd running?)" in client.end()[1]
