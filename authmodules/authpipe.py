"""authpipe - ask a program of the site's own, by Courier's authpipe protocol

AUTHPIPE_PROGRAM (/etc/courier/authProg) reads requests on descriptor 0, one after the other, and
answers each on descriptor 1 (reference auth.md 2.6; the forms are those of `authsocket`):

    AUTH <n> LF <n octets>             service LF authtype LF authdata LF
    PRE . <service> <userid> LF        the account alone: the client has shown a certificate

    NAME=VALUE lines and `.`           the account: ADDRESS, HOME, GID, and UID or USERNAME; perhaps
                                       NAME, MAILDIR, QUOTA, OPTIONS
    FAIL LF                            no such user, or a wrong password

    PASSWD <service> TAB <userid> TAB <old> TAB <new> LF
    OK LF                              the password is another one now; or FAIL

In authdaemond, and in processes of `couriertcpd -uses=N` that log people in, the program stays and
is asked again and again, unless it ends, says something unasked, or is replaced: then there is a
new one for the next question (courierchain.connections). Elsewhere every login has a program of its
own, which is asked once, finds TCPREMOTEIP in its environment, and then the end of its input.

A program that isn't there, ends without an answer, gives another one, or needs more than
AUTHPROGRAM_TIMEOUT seconds, is a temporary failure, never an unknown user.
"""

from __future__ import annotations

import os
from _signal import SIGKILL, SIGPIPE, SIGTERM, SIGXFSZ
from select import POLLIN, poll
from time import monotonic

from authmodules.authdaemon import account, question_of
from courierchain import authsocket, connections, handover
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.authsocket import END, FAIL, LARGEST_ANSWER, OK, NoAnswer
from courierchain.request import BadRequest, Request
from courierchain.settings import Settings

PIECE = 65536
PATIENCE = 2.0  # seconds for the program to end by itself, and again when told to


@auth_module
def authpipe(request: Request, settings: Settings) -> Account:
    if handover.is_rehearsing():
        raise Rejected  # nobody's question
    path = settings.text("AUTHPIPE_PROGRAM")
    try:
        fields = authsocket.fields(ask(question_of(request), settings))
        if fields is None:
            raise Rejected
        return account(fields)
    except (NoAnswer, TemporaryFailure) as why:
        text = str(why).removeprefix("authdaemond: ")
        raise TemporaryFailure(text if path in text else f"{path}: {text}") from why


@authpipe.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    if request.login is None:
        raise Rejected
    try:
        question = authsocket.passwd(request.service, *request.login, new)
    except BadRequest as why:
        raise Rejected from why
    if ask(question, settings) != OK:
        raise Rejected


def ask(question: bytes, settings: Settings) -> bytes:
    """The program's answer. Raises TemporaryFailure."""
    path = settings.text("AUTHPIPE_PROGRAM")
    limit = settings.seconds("AUTHPROGRAM_TIMEOUT")
    env = {name: value for name, value in os.environ.items() if name != "TCPREMOTEIP"}
    if not connections.allowed:
        env["TCPREMOTEIP"] = settings.text("TCPREMOTEIP")
    try:
        answer: bytes = connections.ask(
            "authpipe",
            (path, version(path)),
            lambda: Program(path, env),
            lambda program: program.ask(question, limit),
        )
    except NoAnswer as why:
        raise TemporaryFailure(f"{path}: {why}") from why
    return answer


def version(path: str) -> tuple[int, int, int] | None:
    """Changes when another file takes the place of this one."""
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_dev, there.st_ino, there.st_mtime_ns


class Program(connections.Connection):
    """The running program, the first of a process group, and the pipes to it and from it."""

    __slots__ = ("_process", "_input", "_output")

    def __init__(self, path: str, env: dict[str, str]):
        """Raises NoAnswer."""
        its_input, self._input = os.pipe()
        self._output, its_output = os.pipe()
        ends = [(os.POSIX_SPAWN_DUP2, its_input, 0), (os.POSIX_SPAWN_DUP2, its_output, 1)]
        try:
            self._process = os.posix_spawn(
                path, [path], env, file_actions=ends, setpgroup=0, setsigdef=[SIGPIPE, SIGXFSZ]
            )
        except OSError as why:
            os.close(self._input)
            os.close(self._output)
            raise NoAnswer(f"cannot run it: {why.strerror} (check AUTHPIPE_PROGRAM)") from why
        finally:
            os.close(its_input)
            os.close(its_output)

    def ask(self, question: bytes, limit: float) -> bytes:
        """The answer, as it is. Raises Gone and NoAnswer; what hangs is killed, with its group."""
        deadline = monotonic() + limit
        answer = b""
        try:
            os.write(self._input, question)  # it fits into the pipe
            while not (answer in (FAIL, OK) or (b"\n" + answer).endswith(b"\n" + END)):
                if not wait(self._output, deadline):
                    os.killpg(self._process, SIGKILL)
                    raise NoAnswer(f"no answer in {limit} seconds; killed")
                part = os.read(self._output, PIECE)
                if not part and not answer:
                    raise connections.Gone(NoAnswer("it has ended without a whole answer"))
                answer += part
                if not part or len(answer) > LARGEST_ANSWER:
                    raise NoAnswer(
                        "it has ended without a whole answer" if not part else "too long"
                    )
        except BrokenPipeError as why:
            raise connections.Gone(NoAnswer("it has ended without a question")) from why
        return answer

    def descriptors(self) -> tuple[int, ...]:
        return self._input, self._output

    def close(self) -> None:
        """Nothing of it is left when this process becomes the next program."""
        self.abandon()
        over = os.pidfd_open(self._process)
        try:
            for kill in (SIGTERM, SIGKILL):
                if wait(over, monotonic() + PATIENCE):
                    break
                os.killpg(self._process, kill)
        finally:
            os.close(over)
        os.waitpid(self._process, 0)

    def abandon(self) -> None:
        os.close(self._input)
        os.close(self._output)


def wait(descriptor: int, deadline: float) -> bool:
    """Whether something can be read in time."""
    readable = poll()
    readable.register(descriptor, POLLIN)
    return bool(readable.poll(max(0, (deadline - monotonic()) * 1000)))
