"""values - the types that options of imapd.conf have (reference cyrus-pop3d.md 6)

Each function takes the text of a value, and raises ValueError, whose text says what would be right.
"""

from __future__ import annotations

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LONGEST = 20  # characters of a number or duration


def switch(text: str) -> bool:
    """The first letters count, in lower case: 0, n, of, f; 1, y, on, t."""
    if text.startswith(("0", "n", "of", "f")):
        return False
    if text.startswith(("1", "y", "on", "t")):
        return True
    raise ValueError(f"{text!r} is not a switch; write yes or no")


def choice(text: str, choices: tuple[str, ...]) -> str:
    """One of `choices`; where on and off are among them, they have other names."""
    names = {name: name for name in choices}
    if "on" in choices:
        names.update(dict.fromkeys(("1", "yes", "t", "true"), "on"))
    if "off" in choices:
        names.update(dict.fromkeys(("0", "no", "f", "false"), "off"))
    if text not in names:
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
    return names[text]


def integer(text: str) -> int:
    """As C reads it: 0x... is hexadecimal, 0... octal."""
    digits = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[:1] == "0" and digits != "0" else 10
    if not digits.isascii() or not digits.isalnum() or len(digits) > LONGEST:
        raise ValueError(f"{text!r} is not a number; write digits")
    try:
        value = int(digits, base)
    except ValueError as why:
        raise ValueError(f"{text!r} is not a number; write digits") from why
    return -value if text.startswith("-") else value


def duration(text: str, unit: str) -> int:
    """Seconds. `1h30m`; a number without a unit is of the option's own."""
    total, digits = 0, ""
    unsigned = text.removeprefix("-")
    for character in unsigned:
        if character in "0123456789":
            digits += character
        elif character in UNITS and digits:
            total, digits = total + int(digits) * UNITS[character], ""
        else:
            break
    else:
        if unsigned and len(unsigned) <= LONGEST:
            total += int(digits or 0) * UNITS[unit]
            return total if unsigned == text else -total
    raise ValueError(f"{text!r} is not a duration; write digits and d, h, m or s: 1h30m")
