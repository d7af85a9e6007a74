"""A parked session's parcel: argv and environment as they were, whatever all have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couriertcpd import parcel

text = st.binary(max_size=9).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
environment = st.dictionaries(text, text, max_size=6)


@given(st.lists(text), environment, environment, st.binary())
def test_it_comes_back_as_it_was(argv, common, own, state):
    removed = set(list(common)[::2])
    env = {name: value for name, value in common.items() if name not in removed} | own
    content = parcel.fold(argv, env, state, common)
    assert parcel.unfold(content, common) == (argv, env, state)


def test_what_all_have_in_common_is_not_in_it():
    base = {"PATH": "/bin", "A": "1"}
    assert b"PATH" not in parcel.fold(["x"], {**base, "A": "2"}, b"", base)


@given(st.binary(max_size=60))
def test_anything_else_is_refused_with_one_kind_of_error(content):
    with pytest.raises(ValueError):
        parcel.unfold(content, {})


def test_whose_process_it_is_follows_from_the_key():
    account = parcel.account_of(b"20001 20002 john doe")
    assert (account.uid, account.gid, account.system_user) == (20001, 20002, "john doe")
    assert parcel.account_of(b"20001 20002 ").system_user == ""
    assert parcel.key(account) == b"20001 20002 john doe"
