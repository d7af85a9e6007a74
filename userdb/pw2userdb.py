"""pw2userdb - write the system's users as a userdb

    pw2userdb [--passwd=FILE] [--shadow=FILE] [--noshadow] [--nouid] [--domain=DOMAIN] [--vpopuid]

--passwd, --shadow   other files than /etc/passwd and /etc/shadow; a shadow file that isn't there
                     gives no passwords, nor does --noshadow
--nouid              no lines `UID= TAB NAME`
--domain             names are NAME@DOMAIN
--vpopuid            all have uid and gid of the user vpopmail

On descriptor 1, in the order of the file, for makeuserdb (reference auth.md 2.3). Of several users
with one uid the first has the line `UID=`.

Exits 0; 255 for an unknown option; else the number of the system's error, with a line on
descriptor 2.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator

from courierchain import log
from courierchain.refusal import Refused

TEXTS = {"passwd": "/etc/passwd", "shadow": "/etc/shadow", "domain": ""}
FLAGS = ("noshadow", "nouid", "vpopuid")
VPOPMAIL = "vpopmail"
SHADOWED = (b"x", b"")
UNKNOWN = 255


def main(argv: list[str], env: dict[str, str]) -> int:
    try:
        given = options(argv[1:])
        hashes = {} if given["noshadow"] else of_shadow(given["shadow"])
        for line in lines(given, hashes):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.flush()
    except Refused as why:
        sys.stderr.write(f"{why}\n")
        return why.status
    except BrokenPipeError:
        return 1
    return 0


def options(words: list[str]) -> dict[str, str]:
    """By name; a flag that isn't given is empty. Raises Refused."""
    given = {**TEXTS, **dict.fromkeys(FLAGS, "")}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in given or (equals and name in FLAGS):
            raise Refused(f"Unknown option: {name}\nInvalid options.", UNKNOWN)
        given[name] = (value if equals else next(rest, "")) if name in TEXTS else name
    return given


def of_shadow(file: str) -> dict[bytes, bytes]:
    """Passwords by name. Raises Refused."""
    if not os.path.exists(file):
        return {}
    return {fields[0]: fields[1] for fields in rows(file, 2)}


def rows(file: str, least: int) -> Iterator[list[bytes]]:
    """Raises Refused."""
    try:
        with open(file, "rb") as opened:
            text = opened.read()
    except OSError as why:
        raise Refused(f"{file}: {why.strerror}", why.errno or 1) from why
    for number, line in enumerate(text.split(b"\n"), 1):
        fields = line.split(b":")
        if line.startswith((b"#", b"+", b"-")) or not line:
            continue  # of NIS, for one
        if len(fields) < least or not fields[0]:
            log.plain(f"{file} line {number}: left out, it is no line of {least} fields")
            continue
        yield fields


def lines(given: dict[str, str], hashes: dict[bytes, bytes]) -> Iterator[bytes]:
    """Raises Refused."""
    shared = owner() if given["vpopuid"] else None
    domain = b"@" + os.fsencode(given["domain"]) if given["domain"] else b""
    named: set[bytes] = set()
    for name, stored, uid, gid, gecos, home, shell, *_ in rows(given["passwd"], 7):
        stored = hashes.get(name, b"" if stored in SHADOWED else stored)
        uid, gid = shared or (uid, gid)
        fields = [b"uid=" + uid, b"gid=" + gid, b"home=" + home]
        for field, value in ((b"shell", shell), (b"systempw", stored), (b"gecos", gecos)):
            if value:
                fields.append(field + b"=" + value.replace(b"|", b"."))
        yield name + domain + b"\t" + b"|".join(fields)
        if not given["nouid"] and uid not in named:
            named.add(uid)
            yield uid + b"=\t" + name


def owner() -> tuple[bytes, bytes]:
    """uid and gid of vpopmail. Raises Refused."""
    try:
        entry = pwd.getpwnam(VPOPMAIL)
    except KeyError as why:
        raise Refused(f"--vpopuid: there is no user {VPOPMAIL}") from why
    return str(entry.pw_uid).encode(), str(entry.pw_gid).encode()
