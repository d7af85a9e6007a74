"""makeuserdb - make the databases of a userdb, which authuserdb reads in its place

    makeuserdb [-f SOURCE]

SOURCE is else AUTHUSERDB_FILE (/etc/courier/userdb); see `courierchain.makeuserdb` for what is
made, and of what. An account without uid, gid or home is a line on descriptor 2, and is made as it
is.

Exits 0. With a line on descriptor 2: 2 if there is no SOURCE, 255 if its permissions are too wide
or it is a symbolic link, else 1; everything stays as it was. Reference: auth.md 2.3.
"""

from __future__ import annotations

import os
import sys

from courierchain import log, makeuserdb
from courierchain.refusal import Refused
from courierchain.settings import Settings


def main(argv: list[str], env: dict[str, str]) -> int:
    words = argv[1:]
    if words and (words[0] != "-f" or len(words) != 2):
        log.plain(f"Usage: {argv[0]} [-f file]")
        return 1
    source = words[1] if words else Settings(env).text("AUTHUSERDB_FILE")
    os.umask(0o022)
    try:
        for remark in makeuserdb.make(source.rstrip("/")):
            log.plain(remark)
    except Refused as why:
        sys.stderr.write(f"{why}\n")
        return why.status
    return 0
