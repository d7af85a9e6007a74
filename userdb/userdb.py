"""userdb - show and change accounts of a userdb

    userdb [PATH/... | -f FILE ]NAME set FIELD=VALUE... | unset FIELD... | del
    userdb -show [PATH/... | -f FILE] [NAME]

The text is the userdb, AUTHUSERDB_FILE (/etc/courier/userdb); or, where that is a directory, PATH
in it; or FILE. `set FIELD` without a value asks for it on a terminal, and else reads a line of
descriptor 0. What makeuserdb has made stays as it was, until it is called again.

Exits 0; 1 for a command line that makes no sense, with the right ones on descriptor 1. With a line
on descriptor 2: 22 if a name or field can't be in a userdb, else the number of the system's error.
Reference: auth.md 2.3.
"""

from __future__ import annotations

import os
import sys

from courierchain import log, typed, userdb
from courierchain.refusal import Refused
from courierchain.settings import Settings

INVALID = 22
USAGE = """Usage: {0} [path/.../ | -f file ]name set field=value field=value...
       {0} [path/.../ | -f file ]name unset field field...
       {0} [path/.../ | -f file ]name del
       {0} -show [path/... | -f file ] [name]
"""


class Usage(Exception):
    """The command line makes no sense."""


def main(argv: list[str], env: dict[str, str]) -> int:
    os.umask(0o066)
    words = argv[1:]
    source = Settings(env).text("AUTHUSERDB_FILE")
    try:
        if words[:1] == ["-show"]:
            show(words[1:], source)
        else:
            change(words, source)
    except Usage:
        sys.stdout.write(USAGE.format(argv[0]))
        return 1
    except Refused as why:
        log.plain(str(why))
        return why.status
    finally:
        sys.stdout.flush()
    return 0


def show(words: list[str], source: str) -> None:
    """Raises Refused and Usage."""
    if words[:1] == ["-f"]:
        if len(words) < 2:
            raise Usage
        file, name = words[1], "".join(words[2:3])
    else:
        file, name = place("".join(words[:1]), source)
    text = userdb.read(file)
    if name:
        found = userdb.find(text, os.fsencode(name)) or {}
        lines = list(found.values())
    else:
        names = (line.partition(b"\t")[0] for line in text.split(b"\n"))
        lines = [name for name in names if name and not name.startswith(b"#")]
    sys.stdout.buffer.write(b"".join(line + b"\n" for line in lines))


def place(word: str, source: str) -> tuple[str, str]:
    """The text and the name that PATH/NAME means."""
    path, slash, name = word.rpartition("/")
    return (f"{source}/{path}" if slash else source), name


def change(words: list[str], source: str) -> None:
    """Raises Refused and Usage."""
    if words[:1] == ["-f"]:
        if len(words) < 4:
            raise Usage
        file, name, verb, *arguments = words[1:]
    else:
        if len(words) < 2 or words[0].startswith("-"):
            raise Usage
        file, name = place(words[0], source)
        verb, *arguments = words[1:]
    if verb not in ("set", "unset", "del") or (verb == "del" and arguments):
        raise Usage
    key = os.fsencode(name)
    given = [os.fsencode(argument) for argument in arguments]
    if not userdb.is_name(key) or not all(map(userdb.is_field, given)):
        raise Refused("Invalid field or value.", INVALID)
    if verb == "set":
        given = [whole(key, field) for field in given]
    userdb.edit(file, lambda text: changed(text, key, verb, given))


def whole(name: bytes, field: bytes) -> bytes:
    """The field with its value, which is typed if it isn't there. Raises Refused."""
    if b"=" in field:
        return field
    prompt = os.fsdecode(name + b"." + field)
    value = typed.line(f"{prompt}: ")
    if value is None:
        raise Refused(f"no value for {prompt} (write {os.fsdecode(field)}=VALUE)")
    field += b"=" + value
    if not userdb.is_field(field):
        raise Refused("Invalid field or value.", INVALID)
    return field


def changed(text: bytes, name: bytes, verb: str, given: list[bytes]) -> bytes:
    if verb == "del":
        return userdb.without(text, name)
    found = userdb.find(text, name)
    fields = dict(found or {})
    for field in given:
        key = field.partition(b"=")[0]
        if verb == "set":
            fields[key] = field
        else:
            fields.pop(key, None)
    if fields == (found or {}):
        return text
    return userdb.with_fields(text, name, fields)
