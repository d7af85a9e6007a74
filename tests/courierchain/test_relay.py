"""What is said to the TLS relay and what it answers (courierchain.relay)."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import relay

ident = st.binary(max_size=relay.LONGEST_IDENT)
value = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=200)
name = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_.0123456789", min_size=1, max_size=30)


@given(ident, st.dictionaries(name, value, max_size=9))
def test_an_answer_says_what_the_relay_said(ident, variables):
    found = relay.answered(relay.answer(ident, True, variables=variables))
    assert (found.ident, found.connected, found.variables) == (ident, True, variables)


@given(ident, value)
def test_a_failure_has_its_text(ident, text):
    found = relay.answered(relay.answer(ident, False, text))
    assert (found.ident, found.connected, found.text) == (ident, False, text)
    assert not found.variables


@given(st.binary(max_size=200))
def test_any_octets_are_a_message_or_refused(octets):
    for read in (relay.answered, lambda message: relay.asked(message, [8, 9])):
        try:
            read(octets)
        except relay.BadMessage:
            pass


@pytest.fixture
def channel():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@given(ident=ident, address=value)
def test_a_request_arrives_with_its_descriptors(ident, address):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        env = {"TCPREMOTEIP": address, "TCPLOCALIP": "::1", "PASSWORD": "x"}
        relay.ask(ours, ident, env, 0, 1, 2)
        message, descriptors, _, _ = socket.recv_fds(theirs, relay.LARGEST, 4)
    request = relay.asked(message, descriptors)
    assert request.ident == ident
    expected = {"TCPREMOTEIP": address, "TCPLOCALIP": "::1"}
    assert request.env == {name: text for name, text in expected.items() if text}
    passed = (request.network, request.plain, request.reply)
    assert [os.fstat(copy) for copy in passed] == [os.fstat(number) for number in range(3)]
    for copy in descriptors:
        os.close(copy)


def test_a_reply_descriptor_may_be_left_out(channel):
    ours, theirs = channel
    relay.ask(ours, b"7", {}, 0, 1)
    message, descriptors, _, _ = socket.recv_fds(theirs, relay.LARGEST, 4)
    assert relay.asked(message, descriptors).reply is None
    for copy in descriptors:
        os.close(copy)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_request_has_two_or_three_descriptors(count):
    with pytest.raises(relay.BadMessage):
        relay.asked(b"\x011", list(range(count)))


def test_a_relay_that_has_gone_is_an_error(channel):
    ours, theirs = channel
    theirs.close()
    with pytest.raises(BrokenPipeError):
        relay.ask(ours, b"1", {}, 0, 1)


@pytest.mark.parametrize("ident, address", [(b"x" * 65, ""), (b"", "1\0TLS_CERTFILE=x")])
def test_what_cannot_be_said_is_an_error(channel, ident, address):
    with pytest.raises(OSError):
        relay.ask(channel[0], ident, {"TCPREMOTEIP": address}, 0, 1)
