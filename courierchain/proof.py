"""proof - let the client prove by SCRAM that it has an account's secret; for modules

    question = scram.asked(request)                     in a module's function, None: another kind
    proof.demand(question, forms, clear, settings)      returns if it has

A module that doesn't know the userid raises Rejected, as always: another one may. One that does may
have stored forms for it, of which that of the right kind is taken, or a password in clear, or
neither, when it is as if the userid weren't known. From then on the client has had its answer, and
can't give another one: wherever it has failed, no other module is asked.

In authdaemond, and in a listener that warms up, there is no client, so everybody is rejected.
"""

from __future__ import annotations

from collections.abc import Iterable

from courierchain import authmodule, dialogue, failure, handover, log, scram
from courierchain.authmodule import PermanentFailure, Refused, Rejected
from courierchain.saslprep import NotPrepared
from courierchain.scram import Question, Secret
from courierchain.settings import Settings


def demand(
    question: Question, forms: Iterable[bytes | None], clear: bytes | None, settings: Settings
) -> None:
    """Raises Rejected, Refused, and PermanentFailure for what an administrator has to change."""
    if handover.is_rehearsing() or not authmodule.opens_sessions:
        raise Rejected
    try:
        secret = stored(question, forms) or of_clear(question, clear, settings)
        if secret is None:
            raise Rejected
        dialogue.converse(question, secret, settings)
    except dialogue.Aborted as why:
        raise Refused(failure.ABORTED) from why
    except scram.Wrong as why:
        raise Refused(failure.REJECTED) from why
    except ValueError as why:  # a setting
        raise PermanentFailure(str(why)) from why


def stored(question: Question, forms: Iterable[bytes | None]) -> Secret | None:
    for form in forms:
        secret = scram.stored_secret(form) if form else None
        if secret is None or secret.algorithm != question.algorithm:
            continue
        if secret.rounds < scram.LEAST_ROUNDS:
            raise PermanentFailure(
                f"user={log.safe(question.user)}: a SCRAM form of {secret.rounds} rounds, at least"
                f" {scram.LEAST_ROUNDS} are needed (have the password set anew)"
            )
        return secret
    return None


def of_clear(question: Question, clear: bytes | None, settings: Settings) -> Secret | None:
    """Raises ValueError for a setting that makes no sense."""
    if not clear:  # CVE-09
        return None
    rounds, salt = dialogue.rounds(settings), dialogue.salt(question, settings)
    try:
        return scram.secret_of(question.algorithm, clear, salt, rounds)
    except NotPrepared:
        log.warn(f"user={log.safe(question.user)}: a password that SCRAM can't be used with")
        return None
