"""authenumerate - list all accounts

    authenumerate [-s] [-o]

Asks an authdaemond, at AUTHDAEMON_SOCKET, and prints name, uid, gid, home and maildir, TABs between
them (reference auth.md Part 3). Accounts of uid 0 or gid 0 are left out.

-s    leave out those with the option disableshared
-o    print the options too

Exits 0; 1 if the list isn't whole.
"""

from __future__ import annotations

import sys

from courierchain import authsocket, log, options
from courierchain.authsocket import NoAnswer
from courierchain.settings import Settings

USAGE = "Usage: authenumerate [-s] [-o]"
LARGEST = 1 << 28  # octets: some million accounts
TIME = 300  # seconds for all of them
COLUMNS = 6


def main(argv: list[str], env: dict[str, str]) -> int:
    if not {"-s", "-o"}.issuperset(argv[1:]):
        print(USAGE, file=sys.stderr)
        return 1
    try:
        answer = authsocket.ask(b"ENUMERATE\n", Settings(env), LARGEST, TIME)
    except (NoAnswer, ValueError) as why:
        log.err(f"authenumerate: {why}")
        return 1
    *lines, end, _ = [b"", b"", *answer.split(b"\n")]
    for line in lines:
        row = line.partition(b"#")[0].split(b"\t")
        if len(row) >= COLUMNS and is_listed(row, without_unshared="-s" in argv):
            row = row[: COLUMNS if "-o" in argv else COLUMNS - 1]
            sys.stdout.buffer.write(b"\t".join(row) + b"\n")
    sys.stdout.flush()
    return 0 if end == b"." else 1


def is_listed(row: list[bytes], *, without_unshared: bool) -> bool:
    if b"0" in (row[1], row[2]):
        return False
    told = {"OPTIONS": row[COLUMNS - 1].decode(errors="replace")}
    return not (without_unshared and options.is_on("disableshared", told))
