"""openssl - the program that makes keys, certificates and parameters

What it is given and what it makes stays in memory: secrets are never in a file that it chose the
mode of, nor in its arguments.
"""

from __future__ import annotations

import os
import subprocess

from courierchain import programs
from courierchain.refusal import Refused

STRENGTHS = {"low": 2048, "medium": 2048, "high": 3072, "ultra": 8192}  # as certtool has them


def path(env: dict[str, str]) -> str | None:
    return programs.locate("openssl", env)


def run(program: str, *arguments: str, files: dict[str, bytes] | None = None) -> bytes:
    """What openssl prints. `{name}` among the arguments is a path to the content of files[name].

    Raises Refused, with openssl's own words.
    """
    held = {name: _in_memory(content) for name, content in (files or {}).items()}
    paths = {name: f"/dev/fd/{descriptor}" for name, descriptor in held.items()}
    try:
        done = subprocess.run(
            [program, *(argument.format(**paths) for argument in arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=list(held.values()),
            check=False,
        )
    except OSError as why:
        raise Refused(f"{program}: {why.strerror}") from why
    finally:
        for descriptor in held.values():
            os.close(descriptor)
    if done.returncode:
        words = done.stderr.decode(errors="replace").split("\n")
        raise Refused(f"openssl {arguments[0]}: {'; '.join(filter(None, words))}")
    return done.stdout


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("openssl", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as opened:
        opened.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def bits(text: str, setting: str, lowest: int, highest: int) -> int:
    """A number of bits, or one of STRENGTHS. Raises Refused."""
    number = STRENGTHS.get(text.lower()) or (int(text) if text.isascii() and text.isdigit() else 0)
    if not lowest <= number <= highest:
        names = ", ".join(STRENGTHS)
        raise Refused(f"{setting}={text}: not a number from {lowest} to {highest}, nor {names}")
    return number
