"""request - the record on descriptor 3

    service LF authtype LF authdata LF

(reference chain-protocol.md 2; design.md 2). A question has the authtype of its secret (see
`authtypes`); its authdata for `login` is `userid LF password LF`, so it ends with two LFs, and
a reader takes none, one or two. The answer of an accepting module is a record too: authtype
`authenticated`, authdata the value of AUTHENTICATED.

A record travels in a pipe that is written whole before anyone reads it: it fits in the pipe's
buffer, so nobody has to stay behind to write the rest. Between resident programs it stays in this
process (`pass_on`): the pipe is made when the next program turns out to be executed.
"""

from __future__ import annotations

import os
from errno import EBADF
from select import POLLIN, poll
from time import monotonic

from courierchain.authtypes import EXTERNAL, LOGIN, OAUTHBEARER

RECORD = 3  # the descriptor
LARGEST = 4096  # octets; below the smallest pipe buffer there is
PATIENCE = 10.0  # seconds that the writer at the other end may take
AUTHENTICATED = b"authenticated"

_passed: bytes | None = None


class BadRequest(Exception):
    """A record that is cut off, over-long or has not the form above."""


class Request:
    """A parsed record. `fields` are the lines of authdata, without the last LFs."""

    __slots__ = ("service", "authtype", "authdata", "raw")

    def __init__(self, service: bytes, authtype: bytes, authdata: bytes, raw: bytes):
        self.service = service
        self.authtype = authtype
        self.authdata = authdata
        self.raw = raw

    @property
    def fields(self) -> list[bytes]:
        return self.authdata.split(b"\n")

    @property
    def login(self) -> tuple[bytes, bytes] | None:
        """Userid and password of a `login` question; None for another kind or an empty half.

        Both are one line: a record with more lines is somebody's forgery (CVE-48).
        """
        if self.authtype != LOGIN or len(self.fields) != 2 or not all(self.fields):
            return None
        user, password = self.fields
        return user, password

    @property
    def external(self) -> bytes | None:
        """The identity of an `external` question: there is nothing left to prove."""
        if self.authtype != EXTERNAL or len(self.fields) != 1:
            return None
        return self.fields[0] or None

    @property
    def bearer(self) -> tuple[bytes, bytes] | None:
        """Userid, perhaps empty, and token of an `oauthbearer` question; None for another kind."""
        if self.authtype != OAUTHBEARER or len(self.fields) != 2 or not self.fields[1]:
            return None
        user, token = self.fields
        return user, token


def encode(service: bytes, authtype: bytes, *lines: bytes) -> bytes:
    """The record for a question (which ends with a second LF) or an answer.

    Raises BadRequest when a line holds LF or NUL, or the whole is larger than LARGEST.
    """
    record = b"\n".join((service, authtype, *lines, b""))
    if record.count(b"\n") != len(lines) + 2 or b"\0" in record:
        raise BadRequest("a line end or NUL inside a field")
    if authtype != AUTHENTICATED:
        record += b"\n"
    if len(record) > LARGEST:
        raise BadRequest(f"{len(record)} octets, at most {LARGEST} are taken")
    return record


def parse(raw: bytes) -> Request:
    """Raises BadRequest."""
    if len(raw) > LARGEST:
        raise BadRequest(f"over {LARGEST} octets")
    service, lf, rest = raw.partition(b"\n")
    authtype, second_lf, authdata = rest.partition(b"\n")
    if not (service and lf and authtype and second_lf) or b"\0" in raw:
        raise BadRequest("no service, authtype and authdata in it")
    for _ in range(2):
        authdata = authdata.removesuffix(b"\n")
    return Request(service, authtype, authdata, raw)


def offer(record: bytes) -> None:
    """Make `record` readable on descriptor 3, for the next program.

    Raises OSError when there is no descriptor left for a pipe.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.write(writer, record)
    os.close(writer)
    if reader == RECORD:
        os.set_inheritable(RECORD, True)
    else:
        os.dup2(reader, RECORD)
        os.close(reader)


def pass_on(record: bytes) -> None:
    """Have `record` for the program that this process becomes next (courierchain.handover)."""
    global _passed
    close()
    _passed = record


def put_down() -> None:
    """What was passed on, on descriptor 3: for a program that is executed. Raises OSError."""
    global _passed
    if _passed is not None:
        record, _passed = _passed, None
        offer(record)


def take() -> bytes:
    """What was passed on, or else what descriptor 3 holds, to its end; empty if it is closed or
    holds nothing. Closes it.

    Raises BadRequest if it is larger than LARGEST, or its writer neither writes nor closes.
    """
    global _passed
    if _passed is not None:
        record, _passed = _passed, None
        return record
    record = b""
    poller = poll()
    poller.register(RECORD, POLLIN)
    deadline = monotonic() + PATIENCE
    try:
        while len(record) <= LARGEST:
            if not poller.poll(max(0, (deadline - monotonic()) * 1000)):
                raise BadRequest("descriptor 3 stays open and silent")
            part = os.read(RECORD, LARGEST + 1)
            if not part:
                return record
            record += part
        raise BadRequest(f"over {LARGEST} octets on descriptor 3")
    except OSError as why:
        if why.errno == EBADF:
            return b""
        raise BadRequest(why.strerror) from why
    finally:
        close()


def close() -> None:
    global _passed
    _passed = None
    os.closerange(RECORD, RECORD + 1)  # which does not mind if it is closed already
