"""The settings and the command line, whatever is in them."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.refusal import Refused
from couriertls import options, peer, settings, validity

text = st.text(st.characters(exclude_characters="\0"), max_size=40)
words = st.sampled_from(["NONE", "TLSv1", "TLSv1.2++", "peer", "pop3,@s", "0", "1", "9" * 400, ""])


@given(st.dictionaries(st.sampled_from(sorted(settings.DEFAULTS)), text | words))
def test_any_environment_is_settings_or_one_line(env):
    try:
        found = settings.read(env)
    except Refused as why:
        name = str(why).partition("=")[0]
        assert name in settings.DEFAULTS and "; " in str(why)
    else:
        assert found.certificate == env["TLS_CERTFILE"]
        assert ssl.TLSVersion[found.lowest]
        assert found.verify in ("NONE", "PEER", "REQUIREPEER")
        assert 1 <= found.relays <= settings.MOST_RELAYS
        assert not [word for word in found.alpn if word.startswith("@")]


@pytest.mark.parametrize("value", ["", "TLSv1.2", "TLSv1.2+", "TLSv1.2++", "SSL3", "SSL23", "none"])
def test_8996_01_only_an_explicit_old_version_goes_below_1_2(value):
    found = settings.read({"TLS_CERTFILE": "/x", "TLS_PROTOCOL": value})
    assert found.lowest == "TLSv1_2" and not found.is_obsolete


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12), max_size=5))
def test_any_command_line_is_options_or_one_line(arguments):
    try:
        found = options.parse(["couriertls", *arguments])
    except Refused as why:
        assert str(why)
    else:
        assert all(argument in arguments for argument in found.program)


def test_the_last_of_several_options_counts_and_a_lone_dash_ends_them():
    found = options.parse(["t", "-remotefd=4", "-remotefd=5", "-server=0", "-", "-prog", "-server"])
    assert (found.remotefd, found.server, found.program) == (5, True, ["-prog", "-server"])


@given(st.binary(max_size=300))
def test_any_octets_have_a_date_or_none(octets):
    for pem in (octets, ssl.DER_cert_to_PEM_cert(octets).encode()):
        assert isinstance(validity.not_after(pem), int | None)


@given(text, text)
def test_variables_of_a_subject_are_short_and_hold_no_control_character(name, value):
    class Tls:
        @staticmethod
        def getpeercert():
            return {"subject": (((name, value),),)}

        cipher = staticmethod(lambda: None)
        version = staticmethod(lambda: None)

    try:
        found = peer.variables(Tls())
    except peer.Unusable:
        return
    assert found.pop(peer.PROTOCOL) == "(unknown),0bits,(unknown)"
    for variable, shown in found.items():
        assert variable.isprintable() or not variable.isascii()
        assert len(f"{variable}={shown}".encode("utf-8", "ignore")) <= peer.LONGEST
        assert not any(ord(character) < 0x20 for character in variable + shown)
