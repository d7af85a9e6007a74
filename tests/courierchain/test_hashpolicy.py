"""Which stored hashes a login replaces: those that are not what PASSWORD_SCHEME asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain import hashpolicy, newhash
from courierchain.newhash import CannotMake

SECRET = b"s3cret"
BCRYPT = b"$2b$10$nOUIs5kJ7naTuTFkBy1veuK0kSxUFXfuaOKdOKf9xYT0KKIGSJwFa"
SHA_CRYPT = b"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJuesI68O"
ARGON2 = b"$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$8ZWVpbFV5xhfFF3s4fRvkUnGJuMTIuVVHCCQvwTKTDQ"
SCRAM_1 = newhash.make(SECRET, "SCRAM-SHA-1")
SCRAM_256 = newhash.make(SECRET, "SCRAM-SHA-256")


@pytest.mark.parametrize(
    "policy",
    [
        *("MD5", "MD5RAW", "SHA", "SSHA", "SHA256", "SHA512", "$1$"),
        *("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256 rounds=5000"),
        *("yescrypt", "yescrypt rounds=1", "yescrypt rounds=3", "bcrypt rounds=4"),
        *("sha256_crypt rounds=1000", "sha512_crypt rounds=1500", "sha512_crypt rounds=5000"),
        *("pbkdf2_sha256 rounds=1000", "pbkdf2_sha512 rounds=1000"),
        *("scrypt rounds=4 block_size=8 parallelism=1", "argon2 memory_cost=64 time_cost=1"),
        "argon2 memory_cost=64 rounds=2 parallelism=1",
    ],
)
@pytest.mark.parametrize("old", [b"ab01FAX.bQRSU", b"{CRYPT}ab01FAX.bQRSU"])
def test_what_is_made_by_a_policy_is_kept_by_it(policy, old):
    if policy.split()[0] in newhash.PASSLIB:
        pytest.importorskip("passlib")
    if policy.startswith("argon2"):
        pytest.importorskip("argon2")
    assert hashpolicy.is_due(old, SECRET, policy)
    made = newhash.make(SECRET, policy, old)
    assert hashpolicy.is_kept(made, policy)
    assert not hashpolicy.is_due(made, SECRET, policy)


@pytest.mark.parametrize(
    "stored, policy, due",
    [
        (BCRYPT, "bcrypt", False),  # no number named
        (BCRYPT, "bcrypt rounds=10", False),
        (BCRYPT, "bcrypt rounds=9", False),  # stronger than need be
        (BCRYPT, "bcrypt rounds=11", True),
        (b"{CRYPT}" + BCRYPT, "bcrypt rounds=10", False),
        (b"{crypt}" + BCRYPT, "bcrypt rounds=11", True),
        (BCRYPT.replace(b"2b", b"2y"), "bcrypt rounds=10", False),
        (BCRYPT.replace(b"2b", b"2x"), "bcrypt rounds=10", True),  # of a broken program
        (BCRYPT, "argon2", True),
        (SHA_CRYPT, "sha512_crypt", False),
        (SHA_CRYPT, "sha512_crypt rounds=5000", False),
        (SHA_CRYPT, "sha512_crypt rounds=5001", True),
        (SHA_CRYPT, "sha256_crypt", True),
        (b"$6$rounds=9000$1234$x", "sha512_crypt rounds=10000", True),
        (b"$6$rounds=10000$1234$x", "sha512_crypt rounds=10000", False),
        (b"$6$9999999$x", "sha512_crypt rounds=10000", True),  # a salt of digits
        (ARGON2, "argon2", False),
        (ARGON2, "argon2 memory_cost=1024 time_cost=2 parallelism=1", False),
        (ARGON2, "argon2 memory_cost=1025", True),
        (ARGON2, "argon2 rounds=3", True),
        (b"{ARGON2ID}" + ARGON2, "argon2 time_cost=2", False),
        (ARGON2.replace(b"2id", b"2i"), "argon2", True),
        (b"$pbkdf2-sha256$1000$c2FsdA$x", "pbkdf2_sha256 rounds=1001", True),
        (b"$scrypt$ln=14,r=8,p=1$c2FsdA$x", "scrypt rounds=14 block_size=8", False),
        (b"$scrypt$ln=14,r=8,p=1$c2FsdA$x", "scrypt rounds=15", True),
        (b"$y$j9T$abc$def", "yescrypt rounds=5", False),
        (b"$y$j9T$abc$def", "yescrypt rounds=6", True),
        (b"$y$j75$abc$def", "yescrypt rounds=2", True),
        (b"$y$", "yescrypt rounds=5", True),
        (b"{SHA}x", "SHA", False),
        (b"{sha}x", "SHA", False),
        (b"{SHA256}x", "SHA", True),
        (b"{SHA}x", "SHA256", True),
        (b"$1$x$y", "$1$", False),
        (b"{CRYPT}", "bcrypt", True),
        (b"{", "bcrypt", True),
        (b"{SHA}x", "", False),  # Courier's rule
        (b"ab01FAX.bQRSU", "", False),
    ],
)
def test_scheme_and_numbers_decide(stored, policy, due):
    assert hashpolicy.is_due(stored, SECRET, policy) == due


@pytest.mark.parametrize("policy", ["bcrypt", "SHA512", "argon2", "SCRAM-SHA-256"])
def test_what_SCRAM_needs_stays(policy):
    assert not hashpolicy.is_due(SCRAM_1, SECRET, policy)
    assert not hashpolicy.is_due(SCRAM_256, SECRET, policy)


def test_more_rounds_for_SCRAM():
    assert hashpolicy.is_due(SCRAM_256, SECRET, "SCRAM-SHA-256 rounds=5000")
    assert not hashpolicy.is_due(SCRAM_1, SECRET, "SCRAM-SHA-256 rounds=5000")
    assert not hashpolicy.is_due(SCRAM_256, SECRET, "SCRAM-SHA-256 rounds=4096")


def test_a_password_that_bcrypt_would_cut_keeps_its_hash():
    assert hashpolicy.is_due(b"{SHA}x", b"x" * 72, "bcrypt")
    assert not hashpolicy.is_due(b"{SHA}x", b"x" * 73, "bcrypt")


@pytest.mark.parametrize("policy", ["bcrypt rounds", "bcrypt rounds=-1", "yescrypt rounds=99"])
def test_numbers_that_are_none_are_said(policy):
    with pytest.raises(CannotMake):
        hashpolicy.is_due(b"$y$j9T$abc$def" if "yes" in policy else b"{SHA}x", SECRET, policy)


POLICIES = [f"{name} rounds=5" for name in hashpolicy.SCHEMES] + ["SHA", "SCRAM-SHA-1", "argon2"]
PREFIXES = [prefix for prefixes, _ in hashpolicy.SCHEMES.values() for prefix in prefixes]


@given(st.sampled_from([b"", b"{CRYPT}", *PREFIXES]), st.binary(max_size=40))
def test_CVE_49_any_stored_octets_are_kept_or_not(prefix, rest):
    for policy in POLICIES:
        assert hashpolicy.is_kept(prefix + rest, policy) in (True, False)
