"""dialogue - SCRAM with the client on descriptors 0 and 1, after its first message

    S: + base64(server-first-message)        C: base64(client-final-message)
    S: + base64(server-final-message)        C: an empty line

The login program takes the client's first message, and passes it on as a record (see `scram`). The
salt that comes next is the account's, so the module that knows the account goes on here (`proof`).
Not one octet behind the LF of a response is read; `*` cancels (5034-07).

COURIER_LOGIN_DIALOGUE tells the login program, when it is called once more, that nobody has gone on
with the dialogue: nobody knows the userid, or nobody was asked. Then it goes on itself, with a salt
that is always the same for a userid, and refuses whatever comes, so that the client can't tell a
userid that isn't there from a wrong password (CVE-07, 5802-03). Whoever has said anything to the
client sets it to nothing. Its value is

    MILLISECONDS RECORD      when, on the monotonic clock; the record, in base64

To the same end the first reply leaves at a multiple of PACE after that: how long it takes to ask
one module or several doesn't show.
"""

from __future__ import annotations

import os
from time import monotonic, sleep, time

from courierchain import failure, log, request, scram
from courierchain.authtypes import DIALOGUE
from courierchain.client import Client, Gone, TimedOut
from courierchain.request import BadRequest
from courierchain.scram import Exchange, Malformed, Question, Secret, Wrong
from courierchain.settings import Settings

LONGEST = 12288 + 2  # octets of a line with its CRLF (RFC 5034 section 4)
PACE = 0.1  # seconds
SPARE_KEY = "/proc/sys/kernel/random/boot_id"


class Aborted(Exception):
    """The client has cancelled, gone, said nothing in time, or what can't be understood."""


def begun(record: bytes) -> str:
    """COURIER_LOGIN_DIALOGUE for a record that is passed on."""
    return f"{int(monotonic() * 1000)} {scram.base64(record).decode()}"


def end_unanswered(env: dict[str, str]) -> None:
    """In the login program: go on with the dialogue that nobody has gone on with, if there is one,
    and let it fail; changes `env`. Raises ValueError for a setting that makes no sense."""
    question = unanswered(env)
    if question is None or env.get(failure.VARIABLE) in (failure.TEMPORARY, failure.PERMANENT):
        env[DIALOGUE] = ""
        return
    settings = Settings(dict(env))
    env[DIALOGUE] = ""
    size = scram.OCTETS[question.algorithm]
    nobody_s = Secret(
        question.algorithm,
        rounds(settings),
        salt(question, settings),
        os.urandom(size),
        os.urandom(size),
    )
    try:
        converse(question, nobody_s, settings)
    except Aborted:
        env[failure.VARIABLE] = failure.ABORTED
    except Wrong:
        pass


def unanswered(env: dict[str, str]) -> Question | None:
    _, _, text = env.get(DIALOGUE, "").partition(" ")
    try:
        return scram.asked(request.parse(scram.octets_of(text.encode()))) if text else None
    except (BadRequest, Malformed):
        return None


def converse(question: Question, secret: Secret, settings: Settings) -> None:
    """Have the client prove that it has the secret. Returns when it has, and has been told so.

    Raises Aborted and Wrong.
    """
    limit = time_left(settings)
    deadline = monotonic() + limit
    try:
        client = Client(send_limit=max(0.0, limit))
        try:
            exchange = Exchange(question, secret, os.urandom(scram.NONCE))
            wait_for_pace(settings)
            final = ask(client, exchange.server_first, deadline)
            if ask(client, exchange.answer(final), deadline):
                raise Malformed
        finally:
            client.detach()
    except (Gone, TimedOut, Malformed) as why:
        raise Aborted from why


def ask(client: Client, said: bytes, deadline: float) -> bytes:
    """The response to a message, decoded. Raises Gone, TimedOut and Malformed."""
    client.send(b"+ %s\r\n" % scram.base64(said))
    line, is_too_long = b"", False
    while not line.endswith(b"\n"):
        line += client.receive_line(deadline - monotonic())
        if len(line) > LONGEST:  # read to its end: it is not to be taken for commands
            line, is_too_long = line[-1:], True
    if is_too_long:
        raise Malformed
    return scram.octets_of(line.removesuffix(b"\n").removesuffix(b"\r"))


def time_left(settings: Settings) -> float:
    """Seconds of the login phase."""
    budget = settings.seconds("POP3_LOGIN_TIMEOUT")
    expire = settings.text("AUTHEXPIRE")
    return min(int(expire[:12]) - time(), budget) if expire.isdigit() else budget


def wait_for_pace(settings: Settings) -> None:
    milliseconds, _, _ = settings.text(DIALOGUE).partition(" ")
    began = int(milliseconds[:15]) / 1000 if milliseconds.isdigit() else 0.0
    sleep(PACE - (monotonic() - began) % PACE)


def rounds(settings: Settings) -> int:
    """For whom none are stored. Raises ValueError."""
    return settings.number("POP3_SCRAM_ROUNDS", scram.LEAST_ROUNDS, scram.MOST_ROUNDS)


def salt(question: Question, settings: Settings) -> bytes:
    """For whom none is stored: always the same for a userid, and nobody else can compute it."""
    text = b"%s %s" % (question.algorithm.encode(), question.user)
    return scram.hmac("sha256", key(settings.text("POP3_SCRAM_KEY")), text)[: scram.SALT]


def key(path: str) -> bytes:
    """What the file holds; if it can't be read, something that stays the same until a restart."""
    for name in (path, SPARE_KEY):
        try:
            with open(name, "rb", buffering=0) as file:
                if octets := (file.read(4096) or b"").strip():
                    return octets
            reason = "empty"
        except OSError as why:
            reason = why.strerror or "?"
        log.warn(f"POP3_SCRAM_KEY={name}: {reason} (name a file of 32 random octets)")
    return b""
