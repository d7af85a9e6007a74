"""cyrus - the grammar of commands as Cyrus's pop3d reads it, and what it says of mistakes

A keyword goes up to the first white space; in front of it there is none. What follows is the
argument, without the white space before it, with all that is behind it. To a password belongs all
but the one separator. (reference cyrus-pop3d.md 5.2, 5.3)

Not as Cyrus's: a line over the limit is one error, not several commands.
"""

from __future__ import annotations

from pop3proto.replies import err, ok

SPACE = b" \t\r\v\f"
LARGEST = 2**32 - 1  # a number in a command

UNRECOGNIZED = err(b"Unrecognized command")
SYNTAX_ERROR = err(b"Syntax error")
MISSING_ARGUMENT = err(b"Missing argument")
EXTRA_ARGUMENT = err(b"Unexpected extra argument")
NOT_A_NUMBER = err(b"Not a number")
NO_SUCH_MESSAGE = err(b"No such message")
BAD_LINES = err(b"Invalid number of lines")

CAPABLE = ok(b"List of capabilities follows")


class Mistake(Exception):
    """A command that is answered with `reply`, and does nothing."""

    def __init__(self, reply: bytes):
        super().__init__(reply)
        self.reply = reply


def parse(line: bytes | None) -> tuple[bytes, bytes | None]:
    """The verb, in upper case, and the argument if there is one, of what LineReader gave.

    Raises Mistake.
    """
    if line is None or b"\0" in line:
        raise Mistake(UNRECOGNIZED)
    line = line.removesuffix(b"\r")
    end = next((at for at, octet in enumerate(line) if octet in SPACE), len(line))
    verb, rest = line[:end].upper(), line[end:]
    if not verb:
        raise Mistake(UNRECOGNIZED)
    if not rest:
        return verb, None
    argument = rest.lstrip(SPACE)
    if argument:
        return verb, rest[1:] if verb == b"PASS" else argument
    if verb == b"AUTH":
        return verb, None
    raise Mistake(SYNTAX_ERROR)


def needed(argument: bytes | None) -> bytes:
    """Raises Mistake."""
    if argument is None:
        raise Mistake(MISSING_ARGUMENT)
    return argument


def none(argument: bytes | None) -> None:
    """Raises Mistake if there is one."""
    if argument is not None:
        raise Mistake(EXTRA_ARGUMENT)


def leading_number(text: bytes) -> tuple[int | None, bytes]:
    """The number that the text begins with, None without one or over LARGEST; and what follows."""
    rest = text.lstrip(b"0123456789")
    digits = text[: len(text) - len(rest)].lstrip(b"0") or text[:1]
    if not digits.isdigit() or len(digits) > 10 or int(digits) > LARGEST:
        return None, rest
    return int(digits), rest


def message_number(argument: bytes) -> int:
    """Raises Mistake."""
    value, rest = leading_number(argument)
    if value is None:
        raise Mistake(NOT_A_NUMBER)
    if rest:
        raise Mistake(EXTRA_ARGUMENT)
    return value


def top_numbers(argument: bytes) -> tuple[int, int]:
    """The message's number, and that of lines. Raises Mistake, in Cyrus's order."""
    message, rest = leading_number(argument)
    if message is None or not rest:
        raise Mistake(MISSING_ARGUMENT)
    lines, rest = leading_number(rest.lstrip(SPACE))
    if lines is None:
        raise Mistake(BAD_LINES)
    if rest:
        raise Mistake(EXTRA_ARGUMENT)
    return message, lines


def capabilities(expire: int, delay: int) -> list[bytes]:
    """What CAPA lists in every state, in its place. expire: days; below 0, never. delay: seconds
    between two logins."""
    expires = b"EXPIRE NEVER" if expire < 0 else b"EXPIRE %d" % expire
    others = [b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE"]
    return [expires, b"LOGIN-DELAY %d" % delay, *others]
