"""What OPTIONS, POP3_TLS and UTF8 say."""

from __future__ import annotations

import pytest

from courierchain.options import has_said_utf8, is_encrypted, is_on


@pytest.mark.parametrize(
    "value",
    ["", "=", "=t", "=T", "=true", "=y", "=Yes", "=1", "=2", "=01", "=+1", "=-1", "= 1", "=1x"],
)
def test_an_option_is_on(value):
    assert is_on("disablepop3", {"OPTIONS": f"a=0,disablepop3{value},b"})


@pytest.mark.parametrize("value", ["=0", "=00", "=no", "=n", "=f", "=false", "=on", "=0x1", "= "])
def test_an_option_is_off(value):
    assert not is_on("disablepop3", {"OPTIONS": f"disablepop3{value}"})


@pytest.mark.parametrize(
    "options", ["", "a=1, disablepop3=1", "DISABLEPOP3=1", "disablepop3=0,disablepop3=1"]
)
def test_names_are_exact_and_the_first_counts(options):
    assert not is_on("disablepop3", {"OPTIONS": options})


@pytest.mark.parametrize("env, on", [({}, False), ({"POP3_TLS": "0"}, False)])
def test_a_connection_is_in_the_clear(env, on):
    assert is_encrypted(env) is on
    assert is_encrypted({"POP3_TLS": "1"})


@pytest.mark.parametrize("value, said", [("0", False), ("1", True), ("", False), ("x", False)])
def test_utf8_is_on_unless_it_is_said_not_to_be(value, said):
    assert has_said_utf8({"UTF8": value}) is said
    assert has_said_utf8({})
