"""The options of pop3d (cyrus-pop3d.md 1)."""

from __future__ import annotations

import pytest

from cyruspop3d.commandline import Misused, parse


def test_defaults():
    found = parse(["pop3d"])
    assert (found.config, found.uses, found.timeout, found.ssf) == ("/etc/imapd.conf", 250, 60, 0)
    assert not (found.debugs or found.is_tls or found.is_kerberos or found.on_stdin)


def test_all_of_them():
    found = parse("pop3d -C /x -U 30 -T 5 -p 128 -D -s -k -X".split())
    assert (found.config, found.uses, found.timeout, found.ssf) == ("/x", 30, 5, 128)
    assert found.debugs and found.is_tls and found.is_kerberos and found.on_stdin


@pytest.mark.parametrize(("text", "uses"), [("0", 1), ("1", 1), ("x", 1), ("-3", 1), ("7x", 7)])
def test_uses_is_read_as_atoi_does_and_at_least_one(text, uses):
    assert parse(["pop3d", "-U", text]).uses == uses


@pytest.mark.parametrize("word", ["-U2", "-T5", "-C/etc/imapd.conf", "-p2"])
def test_a_joined_value_is_refused(word):
    with pytest.raises(Misused, match="MUST be separated by whitespace"):
        parse(["pop3d", word])


@pytest.mark.parametrize("words", [["-H"], ["-sk"], ["file"], ["-U"], [""]])
def test_what_nobody_knows_is_refused(words):
    with pytest.raises(Misused, match="usage: pop3d"):
        parse(["pop3d", *words])


def test_patience_is_between_the_timeout_and_twice_as_long():
    found = parse(["pop3d", "-T", "5"])
    assert all(5 <= found.patience < 10 for _ in range(50))
    found.timeout = 0
    assert found.patience == 0
