"""authcheckpassword - let a checkpassword program check the password

    authcheckpassword CHECKPASSWORD NEXT [ARGUMENT...]

CHECKPASSWORD is any program with the interface of qmail's checkpassword: it reads `userid NUL
password NUL timestamp NUL` from descriptor 3, at most 512 octets, and if it accepts, becomes the
user and then the program in its arguments (reference chain-protocol.md 14). That one is ours,
checkpassword-accepted, which says so on a pipe, and becomes NEXT. So all holds for the service that
CHECKPASSWORD has set: ids, groups, limits, current directory, environment.

This process stays until the service is over, and ends with its status. CHECKPASSWORD's own exit 1
rejects; any other end of it, and AUTHPROGRAM_TIMEOUT seconds without a word, are a temporary
failure. Only `login` requests can be asked so, and with AUTHCHECKPASSWORD_APOP=1, for programs that
can, `apop`: the digest is in the place of the password, and the challenge in that of the timestamp.
"""

from __future__ import annotations

import os
from _signal import (
    SIG_BLOCK,
    SIG_DFL,
    SIG_UNBLOCK,
    SIGKILL,
    SIGPIPE,
    SIGTERM,
    SIGXFSZ,
    pthread_sigmask,
    signal,
)
from select import POLLIN, poll
from time import monotonic, time

from authmodules.checkpassword_accepted import ACCEPTED, LARGEST, OF_ACCOUNT, REPORT
from courierchain import authmodule, cram, failure, handover, log, programs, request
from courierchain.account import Unusable
from courierchain.authmodule import Rejected, TemporaryFailure
from courierchain.authtypes import APOP, CHECKS_APOP
from courierchain.handover import AuthFailure, CannotBecome
from courierchain.request import BadRequest, Request
from courierchain.settings import Settings

ACCEPTOR = "checkpassword-accepted"
LARGEST_RECORD = 512  # octets that a checkpassword program reads
NO = 1  # its exit status for an unknown user, or a wrong password


def authcheckpassword(argv: list[str], env: dict[str, str]) -> int:
    if len(argv) < 3:
        raise AuthFailure
    following = argv[2:]
    if env.get("AUTHENTICATED"):
        handover.become(following, env, record=True)
    try:
        raw = request.take()
        if not raw:
            raise AuthFailure
        service = accepted(request.parse(raw), argv[1], following, env)
    except (TemporaryFailure, BadRequest, Unusable) as why:
        log.err(f"authcheckpassword: {why}")
        lasts = isinstance(why, Unusable)
        handover.start_over(env, failure.PERMANENT if lasts else failure.TEMPORARY)
    except Rejected:
        pass_on(raw, following, env)
    return authmodule.outlive(service)


def pass_on(raw: bytes, following: list[str], env: dict[str, str]) -> None:
    try:
        request.offer(raw)
        handover.become(following, env, record=True)
    except (OSError, CannotBecome) as why:
        log.err(f"authcheckpassword: {why}")
        handover.start_over(env, failure.TEMPORARY)


def accepted(question: Request, program: str, following: list[str], env: dict[str, str]) -> int:
    """The process that serves the user from now on.

    Raises Rejected, TemporaryFailure, and Unusable for ids that may own no mailbox.
    """
    asked = login_of(question, env)
    if asked is None or handover.is_rehearsing():
        raise Rejected
    record = b"%s\0%s\0%s\0" % asked
    if len(record) > LARGEST_RECORD:
        raise Rejected
    # Looked up now: in the user's home a relative name would be the user's.
    argv = [located(name, env) for name in (program, ACCEPTOR, following[0])] + following[1:]
    try:
        limit = Settings(env).seconds("AUTHPROGRAM_TIMEOUT")
        process, report = start(argv, record, question.service, env)
    except (OSError, ValueError) as why:
        raise TemporaryFailure(f"cannot run {program}: {why}") from why
    told, status = outcome(process, report, limit)
    if told == ACCEPTED:
        return process
    if told:
        raise Unusable(f"{program}: {os.fsdecode(told)}")
    if status == NO:
        raise Rejected
    if status is None:
        raise TemporaryFailure(f"{program} was killed: no answer in {limit} seconds")
    kind = "exit status" if status >= 0 else "signal"
    raise TemporaryFailure(f"{program} has ended with {kind} {abs(status)}")


def login_of(question: Request, env: dict[str, str]) -> tuple[bytes, bytes, bytes] | None:
    """Userid, password and timestamp; None for a question that can't be asked."""
    if question.login:
        return (*question.login, b"Y%d" % time())
    answer = cram.asked(question) if question.authtype == APOP else None
    if answer is None or not Settings(env).is_on(CHECKS_APOP):
        return None
    return answer.user, answer.digest, answer.challenge


def located(name: str, env: dict[str, str]) -> str:
    path = programs.locate(name, env)
    if path is None:
        raise TemporaryFailure(f"{name}: No such file or directory")
    return path


def start(argv: list[str], record: bytes, service: bytes, env: dict[str, str]) -> tuple[int, int]:
    """Start CHECKPASSWORD; its process, the first of a group, and what it reports on."""
    own = {name: value for name, value in env.items() if name not in OF_ACCOUNT}
    request.offer(record)
    report, told = os.pipe()
    os.set_inheritable(told, True)
    own[REPORT] = f"{told} {os.getpgrp()} {os.fsdecode(service)}"
    pthread_sigmask(SIG_BLOCK, [SIGTERM])
    try:
        process = os.posix_spawn(
            argv[0], argv, own, setpgroup=0, setsigmask=[], setsigdef=[SIGPIPE, SIGXFSZ]
        )
        signal(SIGTERM, lambda *_: end_with(process))
    except OSError:
        os.close(report)
        raise
    finally:
        pthread_sigmask(SIG_UNBLOCK, [SIGTERM])
        os.close(told)
        request.close()
    return process, report


def end_with(process: int) -> None:
    """Told to end before there is an answer: nothing of CHECKPASSWORD is left either."""
    os.killpg(process, SIGKILL)
    os._exit(1)


def outcome(process: int, report: int, limit: float) -> tuple[bytes, int | None]:
    """What was reported; and unless it is ACCEPTED, when the service goes on, the exit status: None
    if the time was over, and all that had been started was killed."""
    deadline = monotonic() + limit
    over = os.pidfd_open(process)
    try:
        told = os.read(report, LARGEST) if readable(report, deadline) else b""
        if told == ACCEPTED:
            return told, None
        in_time = readable(over, deadline)
    finally:
        os.close(over)
        os.close(report)
    if not in_time:
        os.killpg(process, SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    signal(SIGTERM, SIG_DFL)
    return told, status if in_time else None


def readable(descriptor: int, deadline: float) -> bool:
    poller = poll()
    poller.register(descriptor, POLLIN)
    return bool(poller.poll(max(0, (deadline - monotonic()) * 1000)))
