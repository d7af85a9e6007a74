"""verify(secret, stored): every stored form, and everything that must not match.

The constants were made outside this project, from the secret `secret`: the ones marked auth.md are
of the reference, the others of openssl passwd(1), Perl's crypt, or passlib.
"""

import _operator
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from courierchain import passwords
from courierchain.passwords import verify

ROOT = Path(__file__).resolve().parents[2]

DIGESTS = {
    "md5": b"{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",  # auth.md
    "md5raw": b"{MD5RAW}5ebe2294ecd0e0f08eab7690d2a6ee69",  # auth.md
    "sha": b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",  # auth.md
    "sha256": b"{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",  # auth.md
    "sha512": b"{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5b"
    b"DufKRpayrW/isg==",
    "ssha": b"{SSHA}uJDd0BIdJ9Z7yDCZNWdgYeb33+cBAgME",  # auth.md
}
CRYPT = {
    "des": b"abNANd1rDfiNc",
    "bsdi": b"_7C/.ynAFmnr8YEs7aXs",
    "1": b"$1$courier1$Ned2zIfm2D9ut1l72e4ns.",
    "2a": b"$2a$05$courierchaincourierchOf8u7n2KmpgD6YEYckcLE58pjkGdImQy",
    "2b": b"$2b$05$courierchaincourierchOf8u7n2KmpgD6YEYckcLE58pjkGdImQy",
    "2y": b"$2y$05$courierchaincourierchOf8u7n2KmpgD6YEYckcLE58pjkGdImQy",
    "3": b"$3$$878d8014606cda29677a44efa1353fc7",
    "5": b"$5$courierSalt$qkExTE4hRvd58Mr.z7jBgrMyPx2mHdfaE4Gr1h2dTw1",
    "6": b"$6$openssl$IVBPCMqocSRqcy0eMGtnQTqlstbfvXUADP.FQdAczAe4IX4lc.yoXJxrMLM7wCKCKbm101nZMhvt"
    b"Q552/bfxW0",
    "6 rounds": b"$6$rounds=7777$courierSalt$Yr4HOQFHJEilKuuLE3YxpdbqQzYWmjpRP3SH795CKFIEh62r7WFV"
    b"hCWbOP6j/lO8lu92d2lpWNukmWDdRO0ie/",
    "sha1": b"$sha1$1000$O3vFAtol$Tce82iASYE6LhP6m6xGs0Pfke.Xh",
    "sunmd5": b"$md5,rounds=100$saltsalt$$rgAdXqlcPXRb8MLDhwIsL/",
    "yescrypt": b"$y$j75$courierchain$ZTKhjQlDKNNbLyPyWhxWoqJ3S1f/p286vnVXNtuDI31",
    "yescrypt, default cost": b"$y$j9T$k2XAnEHBqQ1Ct2aMXFKNaR4OddqOgpaPj/5$kA2WM.ucd0P.QRACQc0SOmt"
    b"Dh.zgBxFGBJW6MdWGel.",
    "gost-yescrypt": b"$gy$j75$courierchain$tbJwanyP/bul67Smn5QwbBhfIrM6ySw69xbi9Hy6VW5",
    "scrypt": b"$7$66..../....courierchain$rQ5ZVrRtFvUNHUZgtlbAb6pH3ZAOJF8a.WRkUZ47zW2",
}
PASSLIB = {
    "argon2i": b"$argon2i$v=19$m=512,t=2,p=1$AOC8V8p5r5VyrtXaO0eoVQ$C3OsgEsD+hIpoT0d396R4+JgbvgyID"
    b"lED7llnikB8NI",
    "argon2d": b"$argon2d$v=19$m=512,t=2,p=1$T8lZK8XYW4ux1loLIQRg7A$vkiTN+mV9TEtpJyk44wUcG5zTPQfmm"
    b"OiK13gYIKiumA",
    "argon2id": b"$argon2id$v=19$m=512,t=2,p=1$qHVOKcX4H0NI6R0jxFgrBQ$1MtqqzjV/XK1B3B85yEwn9OhEHCT"
    b"XKgfeiUP5DGVzOM",
    "pbkdf2": b"$pbkdf2$1000$D.Hc2ztHqDXmvNd6D.FcSw$lzNhRXoIktHKwZ2d/qlPT/g8wuc",
    "pbkdf2-sha256": b"$pbkdf2-sha256$1000$DOHcO.dcS2kNAeD839sbAw$S1aOHSh9uMIGt.cwA03pGcPwkKJAx2hH"
    b"XPm7e/mw9bY",
    "pbkdf2-sha512": b"$pbkdf2-sha512$1000$xTjnfG.N8Z5zzjmndA5ByA$nJKiVJQWfU9VCIqcMn2k/4sZdu0PLKyw"
    b"d6cxi58AbgPQj22zH65VueqW6lt4RLa6KkwTJ0lPx5E0JQycQtLAAQ",
    "django": b"pbkdf2_sha256$1000$Pmrte41vjYCr$cNHClBk3CaWiThtWUJyMlFNJu1Rff19xW1sZw1+6/6w=",
    "scrypt of passlib": b"$scrypt$ln=8,r=8,p=1$w7i3ljImhNC6t/ZeC8GYkw$rvv5cPBlhB/Ca2x0JPvJpsnJFI/"
    b"GSkcGBnquvxGPfLw",
    "phpass": b"$P$5vlImHDfM/lIXs.6HuCerv4L5lzQBk.",
    "phpBB": b"$H$5PW2qYJUUBsATa2FEMmOItwChzCCRQ0",
    "apr1": b"$apr1$courier1$kCyRY6uq6yzmiXjHLRdWu0",
}
ARGON2ID = PASSLIB["argon2id"]

# What a foreign crypt(3) may lack (auth.md names none of them); libxcrypt has them all.
NOT_IN_EVERY_LIBCRYPT = {"3", "sha1", "sunmd5", "gost-yescrypt", "scrypt", "bsdi"}


def known(forms):
    return [pytest.param(stored, id=name) for name, stored in forms.items()]


def crypt_form(name, stored):
    if name in NOT_IN_EVERY_LIBCRYPT and not passwords.crypt(b"secret", stored):
        return pytest.param(stored, id=name, marks=pytest.mark.skip("not in this libcrypt"))
    return pytest.param(stored, id=name)


CRYPT_FORMS = [crypt_form(name, stored) for name, stored in CRYPT.items()]


@pytest.fixture
def computed(monkeypatch):
    """The settings that crypt(3) was called with."""
    settings_seen = []
    crypt = passwords.crypt

    def seen(secret, setting):
        settings_seen.append(setting)
        return crypt(secret, setting)

    monkeypatch.setattr(passwords, "crypt", seen)
    return settings_seen


# The forms of auth.md Part 3


@pytest.mark.parametrize("stored", [*known(DIGESTS), *CRYPT_FORMS])
def test_the_right_secret_matches_and_wrong_ones_do_not(stored):
    assert verify(b"secret", stored) is True
    for wrong in (b"Secret", b"secre", b"", b"\xff", b"secret\0", stored):
        assert verify(wrong, stored) is False


@pytest.mark.parametrize("stored", CRYPT_FORMS)
def test_braced_crypt_in_any_case_is_crypt(stored):
    for brace in (b"{CRYPT}", b"{crypt}", b"{Crypt}"):
        assert verify(b"secret", brace + stored)
        assert not verify(b"wrong", brace + stored)


@pytest.mark.parametrize("stored", known(DIGESTS))
def test_names_in_braces_match_in_any_case(stored):
    name, _, value = stored.partition(b"}")
    assert verify(b"secret", name.lower() + b"}" + value)
    assert verify(b"secret", name.title() + b"}" + value)


@pytest.mark.parametrize("stored", known({**DIGESTS, **CRYPT}))
def test_a_hash_cut_or_lengthened_anywhere_does_not_match_CVE_49(stored):
    for cut in range(0, len(stored), 3):
        assert not verify(b"secret", stored[:cut])
    for tail in (b"\n", b"\0", b" ", b"=", b".", b"$", b"\xff"):
        assert not verify(b"secret", stored + tail)


def test_a_secret_of_any_octets_matches():
    # Made by perl -e 'print crypt("\xff\xfe p\tw ", q($6$salt))'
    stored = (
        b"$6$salt$IRIWmPl2kmW9KynRg/pSvtiPUJXMnkXj4JnVJMNWJgNCrGeQWsAZNpogqwQIbWoZsCLQs4"
        b"sjvSXo9fzYotCQr0"
    )
    assert verify(b"\xff\xfe p\tw ", stored)
    assert not verify(b"\xff\xfe p\tw", stored)


@pytest.mark.parametrize(
    "stored",
    [
        b"{SSHA}4a17ymwbXJvDE6YbDT+N4c31GUUZo1TqnXNuTQ==",  # 8 octets of salt
        b"{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",  # none
        b"{SSHA}",
        b"{SSHA}!!!!",
        b"{SSHA}uJDd0BIdJ9Z7yDCZNWdgYeb33+cBAgM",  # padding lost
        b"{SSHA256}vcsk3nBjrsajvbrdPagiqdnNTQrJ7g1TvmkGKw231ANbCwFAqBXifA==",
        b"{PLAIN}secret",
        b"{CLEARTEXT}secret",
        b"{}secret",
        b"{BLF-CRYPT}" + CRYPT["2y"],
        b"{SHA512-CRYPT}" + CRYPT["6"],
        b"{CRYPT}" + DIGESTS["sha"],
        b"{CRYPT}{CRYPT}" + CRYPT["6"],
        b"{ARGON2ID}" + CRYPT["6"],
        b"{MD5RAW}5EBE2294ECD0E0F08EAB7690D2A6EE69",
    ],
)
def test_forms_that_courier_does_not_know_are_refused(stored):
    assert not verify(b"secret", stored)


# What never matches


BROKEN = [b"", b"*", b"!", b"!!", b"x", b"*0", b"*1", b"**", b"*LK*", b"NP", b"secret", b"\0", b"$"]
BROKEN += [b"{", b"}", b"{}", b"{CRYPT}", b"{crypt", b"{CRYPT}*0", b"{SHA}", b"{MD5}", b"{MD5RAW}"]
BROKEN += [b"!" + CRYPT["6"], b"*" + CRYPT["des"], b"$6$", b"$6$$", b"$1$", b"$y$", b"$7$", b"$2b$"]
BROKEN += [b"$2b$05$tooshort", b"$2b$99$" + b"a" * 53, b"$9$salt$hash", b"$6$rounds=$salt$hash"]
BROKEN += [b"_", b"_J9..", b"_J9..ab:d", b"\x80\xff", b"a:", b"::", b"\n\n", b"a" * 13]
BROKEN += [b"a" * 1024, b"$" * 1024]
BROKEN += [b"A" * (1 << 20), b"{SHA}" + b"A" * (1 << 20), b"$6$" + b"9" * (1 << 20)]
QUICK = [DIGESTS["sha"], CRYPT["des"], CRYPT["1"]]


@pytest.mark.parametrize("stored", BROKEN, ids=lambda stored: repr(stored[:24]))
def test_a_broken_or_locked_entry_never_matches_and_never_raises_CVE_46_CVE_49(stored):
    for secret in (b"secret", b"*", b"x", b"", b"\0", b"*0", stored[:600]):
        assert verify(secret, stored) is False


def test_an_empty_secret_never_matches_even_its_own_hash_CVE_09():
    assert not verify(b"", b"{MD5}1B2M2Y8AsgTpgAmY7PhCfg==")  # the MD5 of nothing
    assert not verify(b"", passwords.crypt(b"", b"$1$salt$"))


def test_nothing_stored_matches_no_secret_CVE_09():
    for secret in (b"", b"secret", b"\0", b"a" * 4096):
        assert not verify(secret, b"")
        assert not verify(secret, None)


def test_a_secret_with_a_nul_is_not_cut_at_it_CVE_06():
    for stored in (CRYPT["6"], CRYPT["2b"], CRYPT["des"], DIGESTS["sha"]):
        assert not verify(b"secret\0", stored)
        assert not verify(b"secret\0tail", stored)
        assert not verify(b"\0secret", stored)


def test_a_secret_over_511_octets_is_a_mismatch_not_cut():
    for length, matches in ((511, True), (512, False), (1 << 20, False)):
        stored = passwords.crypt(b"p" * min(length, 511), b"$5$salt")
        assert verify(b"p" * length, stored) is matches


# Costs


@pytest.mark.parametrize(
    "stored",
    [
        b"$6$rounds=999999999$salt$" + b"a" * 86,
        b"$6$rounds=5000001$salt$" + b"a" * 86,
        b"$6$rounds=+999999999$salt$" + b"a" * 86,
        b"$6$rounds= 999999999$salt$" + b"a" * 86,
        b"$6$rounds=" + b"9" * 900,
        b"$5$rounds=999999999$salt$" + b"a" * 43,
        b"$2b$31$" + b"a" * 53,
        b"$2y$17$" + b"a" * 53,
        b"$y$jGT$salt$" + b"a" * 43,
        b"$y$jzz$salt$" + b"a" * 43,
        b"$y$zzz$salt$" + b"a" * 43,
        b"$y$jFTz$salt$" + b"a" * 43,
        b"$gy$jzT$salt$" + b"a" * 43,
        b"$7$zU..../....salt$" + b"a" * 43,
        b"$7$CU...z/....salt$" + b"a" * 43,
        b"$7$CU..../z...salt$" + b"a" * 43,
        b"$sha1$4294967295$salt$" + b"a" * 28,
        b"$md5,rounds=4294967295$saltsalt$$" + b"a" * 22,
        b"$md5$rounds=4294967295$saltsalt$$" + b"a" * 22,
        b"$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$" + b"a" * 43,
        b"$argon2id$v=19$m=65536,t=4294967295,p=1$c2FsdHNhbHQ$" + b"a" * 43,
        b"$argon2id$v=19$m=65536$c2FsdHNhbHQ$" + b"a" * 43,
        b"$pbkdf2-sha256$4294967295$c2FsdA$" + b"a" * 43,
        b"$scrypt$ln=31,r=8,p=1$c2FsdA$" + b"a" * 43,
        b"$P$Zsaltsalt" + b"a" * 22,
    ],
    ids=lambda stored: repr(stored[:24]),
)
def test_a_cost_over_the_bound_is_refused_without_being_paid(stored, computed):
    assert not verify(b"secret", stored)
    assert not verify(b"secret", b"{CRYPT}" + stored)
    assert set(computed) <= {passwords.DUMMY}


@pytest.mark.parametrize(
    "stored",
    # Not `$6$` alone, which libxcrypt computes with an empty salt: that takes its time as it is.
    [None, *(s for s in BROKEN if s[:5] not in (b"$6$", b"$6$$")), *QUICK],
    ids=lambda stored: repr(stored)[:24],
)
def test_a_refusal_that_cost_nothing_takes_the_time_of_the_dummy_CVE_07(stored, computed):
    assert not verify(b"wrong", stored)
    assert computed[-1] == passwords.DUMMY
    assert computed.count(passwords.DUMMY) == 1


def test_a_refusal_that_cost_something_is_not_paid_twice_CVE_07(computed):
    for stored in (CRYPT["6"], CRYPT["2b"], CRYPT["yescrypt"]):
        assert not verify(b"wrong", stored)
    assert passwords.DUMMY not in computed


def test_an_unusable_secret_takes_the_same_time_for_known_and_unknown_CVE_07(computed):
    for stored in (CRYPT["6"], DIGESTS["sha"], None):
        for secret in (b"", b"a\0b", b"a" * 600):
            assert not verify(secret, stored)
    assert set(computed) == {passwords.DUMMY}


def test_the_dummy_can_be_of_the_sites_own_kind_and_never_matches_CVE_07(computed, monkeypatch):
    assert not verify(b"secret", None, dummy=CRYPT["2b"])
    monkeypatch.setattr(passwords, "DUMMY", CRYPT["yescrypt"])
    assert not verify(b"secret", None)
    assert computed == [CRYPT["2b"], CRYPT["yescrypt"]]


def test_unknown_and_known_names_take_the_same_processor_time_CVE_07():
    def cheapest(stored):
        times = []
        for _ in range(15):
            start = time.process_time()
            verify(b"wrong", stored)
            times.append(time.process_time() - start)
        return min(times)

    known_name = cheapest(CRYPT["6"])
    for stored in (None, b"", b"*", b"!" + CRYPT["6"], DIGESTS["sha"]):
        assert known_name / 3 < cheapest(stored) < known_name * 3


def test_secrets_are_compared_in_constant_time_CVE_43(monkeypatch):
    assert passwords.same is _operator._compare_digest
    compared = []
    monkeypatch.setattr(passwords, "same", lambda *both: bool(compared.append(both)))
    for stored in (*DIGESTS.values(), CRYPT["des"], CRYPT["6"]):
        compared.clear()
        assert not verify(b"secret", stored)
        assert len(set(compared[0])) == 1


# Any octets at all

CRYPT_KINDS = [p for kinds, scheme, _ in passwords.KINDS if scheme == "crypt" for p in kinds]
PREFIXES = [*CRYPT_KINDS, b"", b"$1$", b"$3$", b"{CRYPT}", b"{CRYPT}$1$", b"{X}"]
PREFIXES += [b"{%s}" % name for name in passwords.DIGESTS]
TAILS = st.binary(max_size=80) | st.text("./09AZaz$,=", max_size=80).map(str.encode)


@settings(max_examples=400)
@given(secret=st.binary(max_size=600), prefix=st.sampled_from(PREFIXES), tail=TAILS)
def test_no_octets_match_or_raise_CVE_46_CVE_49(secret, prefix, tail):
    assert verify(secret, prefix + tail) is False


@settings(max_examples=200)
@given(secret=st.binary(min_size=1, max_size=511).filter(lambda s: b"\0" not in s))
def test_what_crypt_makes_of_any_secret_matches_it_and_not_a_longer_one(secret):
    stored = passwords.crypt(secret, b"$1$salt$")
    assert verify(secret, stored)
    assert not verify(secret + b"x", stored)


@given(stored=TAILS, bound=st.sampled_from([(), (5,), (16, 2), b"jFT$"]))
def test_bounds_judge_any_octets(stored, bound):
    assert passwords.within(bound, stored) in (True, False)


# In processes of their own: what is imported, and who answers to the name passlib

IMPORTS = """
import sys
sys.path.insert(0, sys.argv[1])
import ctypes
before = set(sys.modules)
import courierchain.passwords
print(*sorted(set(sys.modules) - before))
"""
BANNED = set("re hashlib hmac base64 passlib logging typing dataclasses enum collections".split())
ASK = """
import json, sys
sys.path[:0] = sys.argv[2:]
from courierchain.passwords import verify
ask = json.loads(sys.argv[1])
print(json.dumps([verify(bytes.fromhex(p), bytes.fromhex(s)) for p, s in ask]))
print("passlib:", getattr(sys.modules.get("passlib"), "__file__", None))
"""


def run(program, *arguments, options=()):
    return subprocess.run(
        [sys.executable, "-I", *options, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def ask(questions, *path, options=()):
    """The answers, where passlib came from, and what was logged, of another process."""
    text = json.dumps([(secret.hex(), stored.hex()) for secret, stored in questions])
    done = run(ASK, text, *path, ROOT, options=options)
    assert done.returncode == 0, done.stderr
    answers, origin = done.stdout.splitlines()
    return json.loads(answers), origin, done.stderr


def test_importing_it_stays_cheap():
    done = run(IMPORTS, ROOT, options=("-S",))
    assert done.returncode == 0, done.stderr
    assert not BANNED & set(done.stdout.split())


def test_known_courier_forms_never_import_passlib():
    forms = [*DIGESTS.values(), CRYPT["des"], CRYPT["1"], CRYPT["6"], CRYPT["yescrypt"]]
    answers, origin, log = ask([(b"secret", stored) for stored in forms])
    assert all(answers)
    assert origin == "passlib: None"
    assert log == ""


def test_without_passlib_its_hashes_are_refused_and_the_log_names_the_remedy_CVE_49():
    answers, _, log = ask([(b"secret", ARGON2ID), (b"secret", CRYPT["6"])], options=("-S",))
    assert answers == [False, True]
    (line,) = log.splitlines()
    assert line.startswith("ERR: passwords: cannot check argon2: ModuleNotFoundError")
    assert "passlib" in line and "secret" not in line


PEERS = {"passlib": "passlib==1.7.4", "libpass": "libpass"}


@pytest.fixture(scope="module", params=PEERS)
def peer(request, tmp_path_factory):
    """A directory with one of the two packages that answer to `import passlib`."""
    target = tmp_path_factory.mktemp(request.param)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--target", str(target), PEERS[request.param], "argon2-cffi"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        # Only outside CI may the network be missing.
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"pip cannot install {request.param}: {done.stderr[-500:]}")
    assert list(target.glob(f"{request.param}-*.dist-info"))
    return target


@pytest.mark.timeout(300)
def test_passlib_and_libpass_check_what_crypt_does_not_know(peer):
    forms = dict(PASSLIB)
    forms["{CRYPT}"] = b"{CRYPT}" + ARGON2ID
    forms["{ARGON2ID}"] = b"{ARGON2ID}" + ARGON2ID
    forms["{argon2i}"] = b"{argon2i}" + PASSLIB["argon2i"]
    right, origin, log = ask([(b"secret", stored) for stored in forms.values()], peer)
    assert origin.startswith(f"passlib: {peer}")
    assert log == ""
    assert [name for name, matches in zip(forms, right, strict=True) if not matches] == []
    wrong, _, log = ask([(b"Secret", stored) for stored in forms.values()], peer)
    assert not any(wrong)
    assert log == ""


@pytest.mark.timeout(300)
def test_passlib_and_libpass_refuse_broken_hashes_quietly_CVE_49(peer):
    def broken(stored):
        yield from (stored[:cut] for cut in range(4, len(stored), 5))
        yield from (stored + tail for tail in (b"\0", b"\n", b"$", b"\xff"))
        yield from (stored.replace(b"$", b"$$"), stored[:-9] + b"\xff" + stored[-8:])
        yield from (b"{ARGON2I}" + stored, b"{PLAIN}" + stored)

    stored_forms = [one for stored in PASSLIB.values() for one in broken(stored)]
    stored_forms.remove(b"{ARGON2I}" + PASSLIB["argon2i"])
    questions = [(b"secret", one) for one in stored_forms]
    questions += [(secret, ARGON2ID) for secret in (b"", b"\0", b"secret\0", b"\xff", b"s" * 512)]
    answers, _, log = ask(questions, peer)
    assert [ask for ask, matches in zip(questions, answers, strict=True) if matches] == []
    assert log == ""
