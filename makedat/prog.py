"""makedatprog - make a GDBM database of a text

    makedatprog TEXT TMP FILE

TEXT    lines as in courierchain.textsource, up to one of a single dot; `-`: descriptor 0
TMP     the database while it is made, in the directory of FILE
FILE    is replaced when all has been written to the disk, or not at all

Exits 0, or 1 with a line on descriptor 2: a key that is there twice, no dot at the end, a file that
can't be read or written. Reference: couriertcpd.md 7.4.
"""

from __future__ import annotations

import os

from courierchain import gdbm, log, textsource
from courierchain.refusal import Refused, refusal


def main(argv: list[str], env: dict[str, str]) -> int:
    if len(argv) < 4:
        log.plain(f"Usage: {argv[0]} textfile tmpfile gdbmfile")
        return 1
    name, tmp, file = argv[1:4]
    try:
        text = read(0, name) if name == "-" else read(name, name)
        if not textsource.is_ended(text):
            raise Refused(f"{name}: incomplete (its last line is a single dot)")
        make(text, tmp, file)
    except Refused as why:
        log.plain(str(why))
        return 1
    return 0


def read(file: str | int, name: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as why:
        raise refusal(name, why) from why


def make(text: bytes, tmp: str, file: str) -> None:
    """Replace `file` by a database of the records of `text`. Raises Refused."""
    records: dict[bytes, bytes] = {}
    for _, key, value in textsource.records(text):
        if key in records:
            shown = os.fsdecode(key)
            raise Refused(f"Cannot store record for {shown} - duplicate or out of disk space.")
        if key:
            records[key] = value
    gdbm.replace(records, tmp, file)
