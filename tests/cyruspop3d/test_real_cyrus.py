"""Cyrus's own pop3d under its own master, which the other tests compare with, serves mail."""

from __future__ import annotations

from tests.cyruspop3d.realcyrus import PASSWORD


def test_cyrus_serves_what_lmtpd_has_stored(real_cyrus):
    real_cyrus.deliver("mary", b"Subject: hello\r\n\r\nbody\r\n")
    (stored,) = real_cyrus.spool("mary")
    with real_cyrus.client() as client:
        assert client.line().startswith(b"+OK mail.example Cyrus POP3 ")
        assert client.ask("USER mary") == "+OK Name is a valid mailbox"
        assert client.ask(f"PASS {PASSWORD}").startswith("+OK Mailbox locked and ready")
        assert client.ask("STAT") == f"+OK 1 {len(stored)}"
        assert client.ask("QUIT") == "+OK"
