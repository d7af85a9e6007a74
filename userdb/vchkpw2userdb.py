"""vchkpw2userdb - write vpopmail's users as a userdb

    vchkpw2userdb [--vpopmailhome=DIRECTORY] [--todir=DIRECTORY]

--vpopmailhome   where vpopmail's users/vpasswd and domains/DOMAIN/vpasswd are; else the home of the
                 user vpopmail
--todir          write a file for each domain into this directory, DOMAIN, and `default` for
                 users/vpasswd; else all is on descriptor 1

Names are NAME@DOMAIN, of users/vpasswd NAME alone. uid and gid are those of the directory in which
a vpasswd is. There are no lines `UID= TAB NAME`: all users of a domain have one. A name that is
both in users/vpasswd and in another one, by an alias, is written twice, and makeuserdb names it.

Exits 0, or 1 with a line on descriptor 2. Reference: auth.md 2.3.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator

from courierchain import gdbm, log, userdb
from courierchain.refusal import Refused, refusal

OPTIONS = ("vpopmailhome", "todir")
VPOPMAIL = "vpopmail"
FIELDS = 6  # name, password, 0, flags, full name, home; then quota
NO_QUOTA = b"NOQUOTA"


def main(argv: list[str], env: dict[str, str]) -> int:
    os.umask(0o077)
    try:
        given = options(argv[1:])
        found = list(files(given["vpopmailhome"] or home()))
        for file, domain in found:
            text = b"".join(line + b"\n" for line in lines(file, domain))
            if given["todir"]:
                put(text, given["todir"], os.fsdecode(domain) or "default")
            else:
                sys.stdout.buffer.write(text)
        sys.stdout.flush()
    except Refused as why:
        log.plain(f"vchkpw2userdb: {why}")
        return 1
    return 0


def options(words: list[str]) -> dict[str, str]:
    """Raises Refused."""
    given = dict.fromkeys(OPTIONS, "")
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not equals or name not in OPTIONS:
            raise Refused(f"{word}: not one of --vpopmailhome=DIRECTORY, --todir=DIRECTORY")
        given[name] = value
    return given


def home() -> str:
    try:
        return pwd.getpwnam(VPOPMAIL).pw_dir
    except KeyError as why:
        raise Refused(f"there is no user {VPOPMAIL} (--vpopmailhome=DIRECTORY)") from why


def files(place: str) -> Iterator[tuple[str, bytes]]:
    """Each vpasswd, and its domain. Raises Refused."""
    found = [(f"{place}/users/vpasswd", b"")]
    try:
        domains = sorted(os.listdir(f"{place}/domains"))
    except FileNotFoundError:
        domains = []
    except OSError as why:
        raise refusal(f"{place}/domains", why) from why
    found += [(f"{place}/domains/{name}/vpasswd", os.fsencode(name)) for name in domains]
    known = [pair for pair in found if os.path.isfile(pair[0])]
    if not known:
        raise Refused(f"{place}: no users/vpasswd and no domains/*/vpasswd in it")
    yield from known


def lines(file: str, domain: bytes) -> Iterator[bytes]:
    """Raises Refused."""
    try:
        owner = os.stat(os.path.dirname(file))
    except OSError as why:
        raise refusal(file, why) from why
    ids = b"uid=%d|gid=%d" % (owner.st_uid, owner.st_gid)
    for number, line in enumerate(userdb.read(file).split(b"\n"), 1):
        if not line:
            continue
        fields = line.split(b":")
        name = fields[0] + (b"@" + domain if domain else b"")
        if len(fields) < FIELDS or not userdb.is_name(name) or userdb.has_controls(line):
            log.plain(f"{file} line {number}: left out, it is no line of vpopmail's")
            continue
        _, stored, _, _, fullname, home, *quota = [part.replace(b"|", b".") for part in fields]
        more = {b"systempw": stored, b"gecos": fullname}
        if quota and quota[0] != NO_QUOTA:
            more[b"quota"] = quota[0]
        known = [b"%s=%s" % pair for pair in more.items() if pair[1]]
        yield name + b"\t" + b"|".join([ids, b"home=" + home, *known])


def put(text: bytes, folder: str, name: str) -> None:
    """Replace a file in a directory. Raises Refused."""
    aside, file = f"{folder}/.tmp.{name}", f"{folder}/{name}"
    userdb.write(text, aside, file)
    gdbm.rename(aside, file)
