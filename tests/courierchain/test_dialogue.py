"""The dialogue of SCRAM, where no client and no chain is needed: salts, and when a reply leaves."""

from __future__ import annotations

import pytest

from courierchain import dialogue, failure, request, scram
from courierchain.authtypes import DIALOGUE
from courierchain.scram import Question
from courierchain.settings import Settings


def salt(user: str, key: str, algorithm: str = "sha256") -> bytes:
    question = Question(algorithm, user.encode(), b"n=x,r=x", b"n,,")
    return dialogue.salt(question, Settings({"POP3_SCRAM_KEY": key}))


def test_5802_03_a_salt_is_of_the_key_the_userid_and_the_mechanism(tmp_path):
    keys = tmp_path / "key", tmp_path / "other"
    keys[0].write_bytes(b"\n one key\n")
    keys[1].write_bytes(b"\xff another \0 key")
    made = [
        salt(user, str(key), algorithm)
        for user in ("john", "jane")
        for key in keys
        for algorithm in ("sha1", "sha256")
    ]
    assert len(set(made)) == 8
    assert {len(octets) for octets in made} == {16}
    assert salt("john", str(keys[0])) == salt("john", str(keys[0]))


@pytest.mark.parametrize("broken", ["missing", "empty", "directory"])
def test_a_key_that_can_not_be_read_is_said_and_salts_stay_the_same(tmp_path, capfd, broken):
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "directory").mkdir()
    path = str(tmp_path / broken)
    assert salt("john", path) == salt("john", path) != salt("jane", path)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"WARN: POP3_SCRAM_KEY={path}: ") for line in lines)


@pytest.mark.parametrize("taken", [0, 1, 99, 100, 101, 250, 1000])
def test_CVE_07_the_first_reply_leaves_at_a_multiple_of_the_pace(taken, monkeypatch):
    began, waits = 1000.0, []
    monkeypatch.setattr(dialogue, "monotonic", lambda: began + taken / 1000)
    monkeypatch.setattr(dialogue, "sleep", waits.append)
    dialogue.wait_for_pace(Settings({DIALOGUE: f"{int(began * 1000)} xxxx"}))
    (waited,) = waits
    assert 0 < waited <= dialogue.PACE + 1e-9
    late = (taken / 1000 + waited) / dialogue.PACE
    assert abs(late - round(late)) < 1e-6


def test_CVE_07_nobodys_reply_keeps_the_pace_too(monkeypatch):
    record = request.encode(b"pop3", b"scram-sha-256", b"jane", b"bj1qYW5lLHI9eA==", b"biws")
    begun = dialogue.begun(record)
    seen = []

    def converse(question, secret, settings):
        seen.append((question.user, secret.rounds, settings.text(DIALOGUE)))
        raise scram.Wrong

    monkeypatch.setattr(dialogue, "converse", converse)
    env = {DIALOGUE: begun, "POP3_SCRAM_ROUNDS": "5000"}
    dialogue.end_unanswered(env)
    assert seen == [(b"jane", 5000, begun)]
    assert env[DIALOGUE] == ""
    for known in (failure.TEMPORARY, failure.PERMANENT):
        env = {DIALOGUE: begun, failure.VARIABLE: known}
        dialogue.end_unanswered(env)
        assert env[DIALOGUE] == ""
    assert len(seen) == 1


@pytest.mark.parametrize(
    "rounds", ["4095", "5000001", "x", "-1", "4096.0", "\u0664\u0660\u0669\u0666"]
)
def test_rounds_that_make_no_sense_are_said(rounds):
    with pytest.raises(ValueError, match="POP3_SCRAM_ROUNDS=.*: not a number from 4096 to 5000000"):
        dialogue.rounds(Settings({"POP3_SCRAM_ROUNDS": rounds}))


@pytest.mark.parametrize("text", ["", "x", "1 x", "1 ", "1 AAAA", "1 " + "A" * 9000])
def test_what_is_no_question_is_not_gone_on_with(text):
    assert dialogue.unanswered({DIALOGUE: text}) is None
