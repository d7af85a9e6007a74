"""makedat - make a GDBM database of a text, or of all texts in a directory

    makedat -src=SRC -file=FILE -tmp=TMP [-hup=PIDFILE] [-cidr]

SRC      a text as makedatprog reads it, without the dot at its end; of a directory, all files but
         those that an editor or a package manager has left (x~, x.dpkg-old, x.rpmnew...)
FILE     is replaced by way of TMP, in the same directory, see `prog`
-hup     then the process whose number is in PIDFILE, if there is one, gets SIGHUP
-cidr    192.168.0.0/22 and 192.0.2.7-192.0.3.9 become keys that couriertcpd knows, see `cidr`

Exits 0, or 1 with a line on descriptor 2. Reference: couriertcpd.md 7.4.
"""

from __future__ import annotations

import os
from signal import SIGHUP

from courierchain import log
from courierchain.refusal import Refused, refusal
from makedat import prog

LEFTOVERS = (".dpkg-", ".rpmsave", ".rpmnew", ".rpmorig")
OPTIONS = ("src", "file", "tmp", "hup")


def main(argv: list[str], env: dict[str, str]) -> int:
    given = options(argv[1:])
    if not (given["src"] and given["file"] and given["tmp"]):
        log.plain(f"Usage: {argv[0]} -src=src -file=file -tmp=tmpfile -hup=hupfile [-cidr]")
        return 1
    try:
        text = source(given["src"])
        if "cidr" in given:
            text = expanded(text, given["src"])
        prog.make(text, given["tmp"], given["file"])
        if os.path.isfile(given["hup"]):
            hang_up(given["hup"])
    except Refused as why:
        log.plain(str(why))
        return 1
    return 0


def options(words: list[str]) -> dict[str, str]:
    """The values by name, all empty if there is a word that isn't an option; `cidr` if given."""
    given = dict.fromkeys(OPTIONS, "")
    for word in words:
        name, equals, value = word.removeprefix("-").partition("=")
        if word == "-cidr":
            given["cidr"] = ""
        elif word.startswith("-") and equals and name in OPTIONS:
            given[name] = value
        else:
            return dict.fromkeys(OPTIONS, "")
    return given


def source(path: str) -> bytes:
    """All lines of the file, or of the files in the directory in the order of their names."""
    if not os.path.isdir(path):
        return prog.read(path, path)
    files = [f"{path}/{name}" for name in sorted(os.listdir(path)) if not is_leftover(name)]
    return b"\n".join(prog.read(file, file) for file in files if os.path.isfile(file))


def is_leftover(name: str) -> bool:
    return name.endswith("~") or any(leftover in name for leftover in LEFTOVERS)


def expanded(text: bytes, name: str) -> bytes:
    from makedat.cidr import expand

    try:
        return expand(text)
    except ValueError as why:
        raise Refused(f"{name}: {why}") from why


def hang_up(pidfile: str) -> None:
    pid = prog.read(pidfile, pidfile).strip()
    if not (pid.isdigit() and len(pid) < 10 and int(pid) > 1):
        raise Refused(f"{pidfile}: no number of a process")
    try:
        os.kill(int(pid), SIGHUP)
    except OSError as why:
        raise refusal(f"{pidfile}: kill", why) from why
