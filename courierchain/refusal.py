"""refusal - a start that cannot be

Refused carries the line for descriptor 2; the program writes it and exits with 1. It is raised
where the obstacle is met, and caught once, in the program's main. Its status is that of programs
whose originals exit with another one than 1.
"""

from __future__ import annotations


class Refused(Exception):
    """The text is the line for descriptor 2."""

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


def refusal(what: str, why: OSError) -> Refused:
    """A failed system call, as perror(3) says it."""
    return Refused(f"{what}: {why.strerror}")
