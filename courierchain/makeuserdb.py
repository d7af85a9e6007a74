"""makeuserdb - the databases that are made of the text of a userdb

SOURCE            a text, or a directory with any number of them, also in directories below. Files
                  whose names begin with a dot or end in `~` don't count; what a package manager
                  has left is a mistake, see LEFTOVERS
SOURCE.dat        a GDBM record for each name: the fields but passwords, and `_`, the name of the
                  text below SOURCE with a `/` behind it, or nothing where SOURCE is a text
SOURCE shadow.dat (in one word) the fields whose names end in `pw`; mode 0600
SOURCE.lock       held while they are made

Either database is replaced as a whole, and neither unless all texts can be used (reference auth.md
2.3). The source holds passwords: it must be closed to group and others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from stat import S_IRWXG, S_IRWXO

from courierchain import gdbm, userdb
from courierchain.refusal import Refused

LEFTOVERS = (".rpmsave", ".rpmnew", ".rpmorig")
NAMED_LEFTOVERS = ".dpkg-"
DIST = ".dist"
WRONG = 255
MODES = {".dat": 0o644, "shadow.dat": 0o600}

Database = dict[bytes, bytes]


def make(source: str) -> list[str]:
    """Make the databases; a line for each account that can't be used. Raises Refused."""
    check(source)
    held = userdb.locked(source + ".lock", 0o644)
    try:
        open_part, shadow, remarks = compiled(source)
        for suffix, database in ((".dat", open_part), ("shadow.dat", shadow)):
            store(database, source + suffix, MODES[suffix])
    finally:
        os.close(held)
    return remarks


def check(source: str) -> None:
    """Raises Refused for a source that may not be used."""
    for path in (source, source + ".dat", source + "shadow.dat"):
        if os.path.islink(path):
            raise Refused(
                f"\nERROR: Wrong makeuserdb command.\n       ({path} is a symbolic link)", WRONG
            )
    try:
        mode = os.stat(source).st_mode
    except FileNotFoundError as why:
        raise Refused(f"{source}: not found.", 2) from why
    except OSError as why:
        raise Refused(f"{source}: {why.strerror}", why.errno or 1) from why
    if mode & (S_IRWXG | S_IRWXO):
        raise Refused(
            f"{source}: MAY NOT HAVE GROUP OR WORLD PERMISSIONS!! (chmod go= {source})", WRONG
        )


def compiled(source: str) -> tuple[Database, Database, list[str]]:
    """The two databases, and what is wrong with accounts in them. Raises Refused."""
    open_part: Database = {}
    shadow: Database = {}
    first: dict[bytes, str] = {}
    remarks = []
    for file, folder in texts(source):
        for number, name, fields in userdb.records(userdb.read(file), file):
            place = f"{file} line {number}"
            shown = os.fsdecode(name)
            if name in first:
                raise Refused(
                    f"{place}: Cannot store record for {shown} - duplicate of {first[name]}"
                )
            first[name] = place
            secret = [f for f in fields.split(b"|") if f.partition(b"=")[0].endswith(b"pw")]
            others = [f for f in fields.split(b"|") if f and f not in secret]
            open_part[name] = b"|".join([*others, b"_=" + os.fsencode(folder)])
            if secret:
                shadow[name] = b"|".join(secret)
            if lacking := lacks(name, fields):
                remarks.append(f"{place}: {shown} lacks {lacking}, so it can't be used")
    return open_part, shadow, remarks


def lacks(name: bytes, fields: bytes) -> str:
    """What an account needs and this hasn't; nothing for the name that a uid has."""
    if name.endswith(b"="):
        return ""
    known = {key: field.partition(b"=")[2] for key, field in userdb.parse(fields).items()}
    numbers = [key for key in ("uid", "gid") if not known.get(key.encode(), b"").isdigit()]
    return ", ".join([*numbers, *([] if known.get(b"home") else ["home"])])


def texts(source: str) -> Iterator[tuple[str, str]]:
    """Each text, with its name below the source and a slash. Raises Refused."""
    if not os.path.isdir(source):
        yield source, ""
        return
    for folder, folders, files in os.walk(source, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or name.endswith("~"):
                continue
            file = f"{folder}/{name}"
            check_leftover(file)
            yield file, os.path.relpath(file, source) + "/"


def unreadable(why: OSError) -> None:
    raise Refused(f"{why.filename}: {why.strerror}", why.errno or 1)


def check_leftover(file: str) -> None:
    name = os.path.basename(file)
    base = file.removesuffix(DIST)
    is_newer = False
    if base != file and os.path.exists(base):
        is_newer = os.stat(file).st_mtime > os.stat(base).st_mtime
    if name.endswith(LEFTOVERS) or NAMED_LEFTOVERS in name or is_newer:
        raise Refused(f"{file}: left by an upgrade (compare it with {base}, and remove it)")


def store(database: Database, file: str, mode: int) -> None:
    """Raises Refused."""
    aside = file.removesuffix(".dat") + ".tmp"
    gdbm.remove(aside)  # with the mode that it may have
    try:
        gdbm.write(database, aside, mode)
        os.chmod(aside, mode)
        gdbm.rename(aside, file)
    finally:
        gdbm.remove(aside)
