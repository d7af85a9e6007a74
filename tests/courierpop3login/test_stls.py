"""STLS where the system has nothing left: one sentence, and every descriptor closed."""

from __future__ import annotations

import errno
import os
from _socket import socketpair

import pytest

from courierpop3login import stls
from tests.conftest import BIN

ENV = {"PATH": "/usr/bin:/bin", "POP3_STARTTLS": "YES", "TLS_CERTFILE": "x"}


def fails(number: int):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


def fails_at(turn: int, works, number: int):
    """Works until it has been called so often."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        return fails(number)() if len(calls) == turn else works(*arguments)

    return call


@pytest.mark.parametrize(
    "owner, name, replacement",
    [
        (stls, "socketpair", fails(errno.EMFILE)),
        (stls.os, "fork", fails(errno.EAGAIN)),
        (stls.os, "pipe", fails(errno.EMFILE)),
        (stls.os, "pipe", fails_at(2, os.pipe, errno.EMFILE)),
    ],
    ids=["no socket", "no process", "no pipe", "one pipe"],
)
def test_f_net_6_without_process_or_descriptor_there_is_a_reason(
    monkeypatch, owner, name, replacement
):
    monkeypatch.setattr(owner, name, replacement)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(stls.Failed) as caught:
        stls.start({**ENV, "COURIERTLS": str(BIN / "couriertls")}, 5)
    assert str(caught.value) in (os.strerror(errno.EMFILE), os.strerror(errno.EAGAIN))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_relay_that_goes_between_question_and_answer_is_no_tls(monkeypatch):
    """The question is left unread, and ends with the relay."""
    ours, theirs = socketpair()
    monkeypatch.setattr(stls.relay, "channel", ours)
    before = len(os.listdir("/proc/self/fd"))
    ask = stls.relay.ask

    def ask_and_end(*arguments):
        ask(*arguments)
        theirs.close()

    monkeypatch.setattr(stls.relay, "ask", ask_and_end)
    with pytest.raises(stls.Failed, match="the TLS relay has gone"):
        stls.start(ENV, 5)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    ours.close()
