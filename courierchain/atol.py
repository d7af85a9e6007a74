"""atol - what C makes of a text that begins like a number

Courier reads account options, its environment and the numbers in front of file names this way, and
the order of messages rests on it. Numbers from the network are another matter: pop3proto.commands.
"""

from __future__ import annotations

LARGEST = 2**63 - 1
SMALLEST = -(2**63)
DIGITS = b"0123456789"


def atol(text: bytes) -> int:
    """The decimal number in front of `text`, blanks and a sign allowed; 0 if there is none."""
    front = text.partition(b".")[0]
    if front.isdigit() and len(front) < 19:
        return int(front)
    text = text.lstrip(b" \t\n\v\f\r")
    negative = text.startswith(b"-")
    if negative or text.startswith(b"+"):
        text = text[1:]
    digits = text[: len(text) - len(text.lstrip(DIGITS))].lstrip(b"0")
    value = int(digits[:20] or b"0")  # twenty digits are beyond the limits in any case
    return max(-value, SMALLEST) if negative else min(value, LARGEST)
