"""New stored forms: what comes of a policy, and that it lets its password in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierchain import newhash, passwords
from tests.conftest import BIN, DEADLINE, needs_module

SECRET = b"secret"
SCRAM_1 = b"SCRAM-SHA-1$4096:c2FsdA==$" + b"A" * 27 + b"=:" + b"A" * 27 + b"="
SCRAM_256 = b"{SCRAM-SHA-256}5000,c2FsdA==," + b"A" * 43 + b"=," + b"A" * 43 + b"="
OF_COURIER = {  # reference auth.md Part 3
    "MD5": b"{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "MD5RAW": b"{MD5RAW}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "SHA": b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "SHA256": b"{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
}


@pytest.mark.parametrize(
    "old, prefix",
    [
        (None, b"{SHA512}"),
        (b"", b"{SHA512}"),
        (b"$1$abc$def", b"$1$"),
        (b"{md5}x", b"{MD5}"),
        (b"{MD5RAW}x", b"{MD5RAW}"),
        (b"{SHA}x", b"{SHA}"),
        (b"{ssha}x", b"{SSHA}"),
        (b"{SHA256}x", b"{SHA256}"),
        (b"{SHA512}x", b"{SHA512}"),
        (b"$6$abc$def", b"{SSHA}"),
        (b"{CRYPT}$6$abc$def", b"{SSHA}"),
        (b"{BLF-CRYPT}$2y$x", b"{SSHA}"),
        (b"{", b"{SSHA}"),
        (SCRAM_1, b"SCRAM-SHA-1$4096:"),
        (SCRAM_256, b"SCRAM-SHA-256$4096:"),
        (b"{SCRAM-SHA-256}broken", b"{SSHA}"),
        (b"ab0123456789a", b"{SSHA}"),
    ],
)
def test_without_a_policy_it_is_what_courier_would_make(old, prefix):
    stored = newhash.make(SECRET, "", old)
    assert stored.startswith(prefix)
    assert passwords.verify(SECRET, stored)
    assert not passwords.verify(SECRET + b"x", stored)


@pytest.mark.parametrize("scheme", OF_COURIER)
def test_couriers_forms_to_the_octet(scheme):
    assert newhash.make(SECRET, scheme) == OF_COURIER[scheme]


def test_the_salt_of_SSHA_is_another_each_time():
    assert newhash.make(SECRET, "SSHA") != newhash.make(SECRET, "SSHA")


CHEAP = {
    "argon2 memory_cost=64 time_cost=1": b"$argon2id$v=19$m=64,t=1,",
    "pbkdf2_sha256 rounds=10": b"$pbkdf2-sha256$10$",
    "pbkdf2_sha512 rounds=10": b"$pbkdf2-sha512$10$",
    "scrypt rounds=4": b"$scrypt$ln=4,",
    "bcrypt rounds=4": b"$2b$04$",
    "sha256_crypt rounds=1000": b"$5$rounds=1000$",
    "sha512_crypt rounds=1000": b"$6$rounds=1000$",
    "yescrypt rounds=1": b"$y$",
    "$1$": b"$1$",
    "SCRAM-SHA-256 rounds=5000": b"SCRAM-SHA-256$5000:",
}


@pytest.mark.parametrize("policy", CHEAP)
def test_what_a_policy_makes_lets_its_password_in(policy):
    if policy.split()[0] in newhash.PASSLIB:
        needs_module("passlib")
    others = "a sécret".encode() if policy.startswith("SCRAM") else b"\xff\xfe \xc3\xa4"
    for secret in (SECRET, others):
        stored = newhash.make(secret, policy, b"{SSHA}x")
        assert stored.startswith(CHEAP[policy])
        assert passwords.verify(secret, stored)
        assert not passwords.verify(secret[:-1], stored)


def test_CRYPT_in_front_stays():
    stored = newhash.make(SECRET, "bcrypt rounds=4", b"{crypt}$6$abc$def")
    assert stored.startswith(b"{CRYPT}$2b$")
    assert passwords.verify(SECRET, stored)


@pytest.mark.parametrize(
    "policy, why",
    [
        ("md5", "PASSWORD_SCHEME=md5: not one of argon2, "),
        ("nothing", "PASSWORD_SCHEME=nothing: not one of argon2, "),
        ("bcrypt rounds", "PASSWORD_SCHEME=bcrypt rounds: rounds: not of the form NAME=NUMBER"),
        ("bcrypt rounds=-1", "not of the form NAME=NUMBER"),
        ("SSHA rounds=1", "PASSWORD_SCHEME=SSHA: not one of"),
        ("bcrypt rounds=99", "bcrypt: "),
        ("SCRAM-SHA-256 rounds=10", "SCRAM-SHA-256: it has rounds=4096 to 5000000"),
        ("bcrypt flavour=1", "bcrypt: crypt(3) can't make it with {'flavour': 1}"),
    ],
)
def test_a_policy_that_makes_no_sense_is_named(policy, why):
    with pytest.raises(newhash.CannotMake) as raised:
        newhash.make(SECRET, policy)
    assert why in str(raised.value)
    assert "secret" not in str(raised.value)


def test_what_nobody_could_log_in_with_is_not_made(monkeypatch):
    monkeypatch.setattr(newhash, "made", lambda *_: b"{SSHA}broken")
    with pytest.raises(newhash.CannotMake, match="nobody could log in"):
        newhash.make(SECRET)


@pytest.mark.parametrize("secret", [b"", b"a\0b", b"x" * 512])
def test_CVE_09_passwords_that_never_match_are_not_stored(secret):
    with pytest.raises(newhash.CannotMake):
        newhash.make(secret)


def test_bcrypt_takes_no_password_that_it_would_cut():
    assert newhash.make(b"x" * 72, "bcrypt rounds=4")
    with pytest.raises(newhash.CannotMake, match="72 octets at most"):
        newhash.make(b"x" * 73, "bcrypt rounds=4")


@settings(deadline=None, max_examples=30)
@given(st.binary(min_size=1, max_size=80).filter(lambda octets: b"\0" not in octets))
def test_any_password_is_right_afterwards(secret):
    for scheme in ("SSHA", "SHA512", "$1$"):
        assert passwords.verify(secret, newhash.make(secret, scheme))


# Which libraries there may be: passlib as it is, which nobody maintains, and its successor of the
# same import name; each with a bcrypt of before and of after it began to refuse long passwords.
LIBRARIES = [f"{name}-bcrypt-{version}" for name in ("passlib", "libpass") for version in (4, 5)]
FOLDER = Path(os.environ.get("COURIERPOP3_PASSLIB", "/var/cache/courierpop3-passlib"))
MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
from courierchain import newhash, passwords
import bcrypt, passlib
assert passlib.__file__.startswith(sys.argv[1]) and bcrypt.__file__.startswith(sys.argv[1])
broken = [b"$argon2id$v=19$m=64", b"$pbkdf2-sha256$1$x", b"$scrypt$ln=4,r=8,p=1$"]
broken += [b"$2b$04$", b"$apr1$"]
for policy in sys.argv[2:]:
    stored = newhash.make(b"secret", policy)
    assert passwords.verify(b"secret", stored) and not passwords.verify(b"secre", stored)
    broken += [stored[:-1], stored[:20], stored.replace(b"$", b"$$"), stored[:-8] + b"\\xff" * 8]
    print(stored.decode())
assert not [stored for stored in broken if passwords.verify(b"secret", stored)]
assert not any(passwords.verify(b"x" * 600, stored) for stored in broken)
assert passwords.verify(b"secret", b"$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0")
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_with_each_library_the_same_comes_out(library):
    folder = FOLDER / library
    if not folder.is_dir():
        assert not os.environ.get("CI"), f"no {folder} (tests/run makes it)"
        pytest.skip(f"no {folder} (tests/run makes it)")
    argv = [sys.executable, "-I", "-c", MAKE, str(folder), *CHEAP]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stderr == ""  # passlib 1.7.4 would print a traceback about bcrypt's version
    made = done.stdout.splitlines()
    assert [stored[: len(prefix)] for stored, prefix in zip(made, CHEAP.values(), strict=True)] == [
        prefix.decode() for prefix in CHEAP.values()
    ]


def authpasswd(*words: str, text: bytes = b"secret\n", **env: str) -> tuple[int, str, str]:
    argv = [str(BIN / "authpasswd"), *words]
    done = subprocess.run(argv, input=text, capture_output=True, env=env, timeout=DEADLINE)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("method", ["md5", "MD5RAW", "sha", "Sha256"])
def test_authpasswd_makes_couriers_forms(method):
    assert authpasswd(method) == (0, OF_COURIER[method.upper()].decode() + "\n", "")


def test_authpasswd_makes_others():
    for words, prefix in {
        (): "$1$",
        ("ssha",): "{SSHA}",
        ("crypt",): "{SSHA}",
        ("1234567890123456",): "{SSHA}",
        ("-scheme=sha256_crypt rounds=1000",): "$5$rounds=1000$",
    }.items():
        status, out, err = authpasswd(*words)
        assert (status, err) == (0, "")
        assert out.startswith(prefix)
        assert passwords.verify(SECRET, out.strip().encode())
    assert authpasswd(PASSWORD_SCHEME="SHA")[1] == OF_COURIER["SHA"].decode() + "\n"


def test_authpasswd_without_a_password():
    assert authpasswd(text=b"") == (1, "", "")
    assert authpasswd(text=b"\n")[:2] == (1, "")
