"""The forms in which OPTIONS names a mail host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierpop3proxy.hostlogin import NoAnswer, default_port, endpoint


@pytest.mark.parametrize(
    "name, host, port",
    [
        ("mail.example.com", "mail.example.com", None),
        ("mail.example.com:995", "mail.example.com", 995),
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:1110", "192.0.2.1", 1110),
        ("2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
    ],
)
def test_a_host_and_perhaps_a_port(name, host, port):
    assert endpoint(name) == (host, port or default_port())


@pytest.mark.parametrize(
    "name",
    [
        *("", ":110", "mail:", "mail:0", "mail:65536", "mail:x", "mail: 1", "mail:\u0661"),
        *("[", "[]", "[::1", "[::1]110", "[::1]:", "[::1]:x", "mail:" + "9" * 5000),
    ],
)
def test_what_is_no_host(name):
    with pytest.raises(NoAnswer):
        endpoint(name)


@given(st.text(max_size=30) | st.from_regex(r"\[?[a-f0-9:.]{0,9}\]?:?[0-9]{0,6}", fullmatch=True))
def test_any_text_is_an_endpoint_or_is_none(name):
    try:
        host, port = endpoint(name)
    except NoAnswer:
        return
    assert host in name
    assert 0 < port < 65536
