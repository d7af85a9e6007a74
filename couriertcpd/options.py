"""options - the command line of couriertcpd

    couriertcpd [options] PORTLIST PROGRAM [ARG...]
    couriertcpd -pid=FILE -stop | -restart | -reload
    couriertcpd -pid=FILE -reload [options] PORTLIST PROGRAM [ARG...]

Options are as in courierchain.commandline; the last of several counts, but for a LIST, and a flag
is on if it is there at all (reference couriertcpd.md 2). What is wrong raises Refused with the line
for descriptor 2; the exit status is then 1.

Courier's numbers are read as C reads them: `-maxperip=4x` is 4. Ours are digits, or refused.
"""

from __future__ import annotations

import os

from courierchain import commandline
from courierchain.refusal import Refused

FLAG = "flag"
TEXT = "text"
NUMBER = "number"  # as C's atoi reads it; 1 or more
LEVEL = "level"  # the same, from 0 to maxprocs; outside of it as if not given
COUNT = "count"  # digits only
SECONDS = "seconds"  # digits, and a decimal fraction; more than 0
IGNORED = "ignored"  # old command lines have it
LIST = "list"  # may be given several times, and all count

INT_MAX = 2**31 - 1
COUNT_DIGITS = 9
LONGEST_PARK = 86400.0  # seconds


class Option:
    """A row of the table."""

    __slots__ = ("name", "kind", "default", "meaning", "lowest")

    def __init__(
        self, name: str, kind: str, default: str | float | None, meaning: str, lowest: int = 1
    ):
        self.name = name
        self.kind = kind
        self.default = default
        self.meaning = meaning
        self.lowest = lowest


# Numbers are in the order in which Courier complains of them.
TABLE = (
    Option("address", TEXT, "0", "for the elements of PORTLIST that have none; 0 is every address"),
    Option("maxprocs", NUMBER, 40, "connections at a time"),
    Option("warn", LEVEL, None, "connections from which WARN is logged; default: see limits.py"),
    Option("maxperc", NUMBER, None, "connections from one /24; default: maxprocs"),
    Option("maxperip", NUMBER, 4, "connections from one address"),
    Option("listen", NUMBER, None, "no effect: the backlog is always the system's largest"),
    Option("nodnslookup", FLAG, False, "no TCPREMOTEHOST, no TCPLOCALHOST"),
    Option("user", TEXT, None, "name or uid to become once the ports are bound"),
    Option("group", TEXT, None, "name or gid, likewise"),
    Option("pid", TEXT, "", "become a daemon; its pid goes to this file, FILE.lock is locked"),
    Option("stop", FLAG, False, "end the daemon of -pid"),
    Option("restart", FLAG, False, "send SIGHUP to the daemon of -pid"),
    Option("stderr", TEXT, None, "file for descriptor 2; also: socket (the client), syslog"),
    Option("stderrlogger", TEXT, None, "program that reads descriptor 2; wins over -stderr"),
    Option("stderrloggername", TEXT, None, "its argument; default: PROGRAM's last part"),
    Option("access", TEXT, None, "records by address: who is denied, what sessions are told"),
    Option("accesslocal", FLAG, False, "our own address and port are looked up there too"),
    Option("denymsg", TEXT, None, "a line for a client that is denied or dropped"),
    Option("drop", TEXT, None, "close connections that have this variable; without a value: BLOCK"),
    Option("noidentlookup", IGNORED, None, "identd is never asked"),
    Option("proxy", IGNORED, None, "there is no SOCKS"),
    Option("allow", LIST, None, "DNS allow list"),
    Option("block", LIST, None, "DNS block list"),
    Option("haproxy", TEXT, None, "connections begin with a PROXY header; see proxies.py"),
    # Ours
    Option("haproxyfrom", TEXT, None, "who may send one: addresses, networks; default: this host"),
    Option("prefork", COUNT, 0, "processes that wait for a client", lowest=0),
    Option("uses", COUNT, 1, "clients that one process serves, one after another"),
    Option("maxidle", COUNT, None, "processes of -uses that wait; default: see children.py"),
    Option("front", FLAG, False, "no process for a client that has not sent a login"),
    Option("park", SECONDS, None, "of silence, after which a session waits without a process", 0),
    Option("reload", FLAG, False, "let the daemon of -pid take up new code, or this command line"),
    Option("check", FLAG, False, "say what is wrong with the command line, and do nothing"),
    Option("coldexec", FLAG, False, "execute each program of the chain, loaded or not"),
    Option("dnstimeout", COUNT, 5, "seconds for all that the DNS is asked about a client"),
    Option("nameservers", TEXT, "", "whom to ask about lists; default: those of resolv.conf"),
    Option("maxfailsperip", COUNT, 0, "failed logins from one address; 0: any number", lowest=0),
    Option("maxfailsperuser", COUNT, 0, "failed logins as one userid; 0: any number", lowest=0),
    Option("failswindow", COUNT, 600, "seconds in which they are counted, from the first"),
)

MISSPELT = {"maxprocs": "maxprocsarg"}  # as Courier's complaint has it


class Options:
    """What a command line says: an attribute for each option, by its name, and the positionals."""

    __slots__ = (
        *(option.name for option in TABLE if option.kind not in (IGNORED, LIST)),
        "lists",
        "argv0",
        "portlist",
        "program",
    )

    argv0: str
    portlist: str
    program: list[str]  # PROGRAM and its arguments; empty with -stop, -restart, lone -reload

    address: str
    maxprocs: int
    warn: int | None  # None: the default of limits.py
    maxperc: int
    maxperip: int
    listen: int | None
    nodnslookup: bool
    user: str | None
    group: str | None
    pid: str  # empty without -pid
    stop: bool
    restart: bool
    stderr: str | None
    stderrlogger: str | None
    stderrloggername: str
    access: str | None
    accesslocal: bool
    denymsg: str | None
    drop: str | None  # never empty
    haproxy: str | None
    haproxyfrom: str | None
    prefork: int
    uses: int
    maxidle: int | None
    front: bool
    park: float | None  # with -uses
    reload: bool
    check: bool
    coldexec: bool
    dnstimeout: int
    nameservers: str
    maxfailsperip: int
    maxfailsperuser: int
    failswindow: int
    lists: list[tuple[str, str]]  # -allow and -block with their values, as they came


def parse(argv: list[str]) -> Options:
    """Read a command line; argv[0] is the name that messages begin with. Raises Refused.

    With -stop and -restart nothing else is looked at, as nothing else is done. So it is with
    -reload, if nothing but -pid stands beside it.
    """
    kinds = {option.name: option.kind for option in TABLE}
    pairs, positionals = commandline.scan(argv, kinds)
    given = dict(pairs)
    options = Options()
    options.lists = [pair for pair in pairs if kinds[pair[0]] == LIST]
    options.argv0 = argv[0]
    options.portlist, options.program = "", []
    for option in TABLE:
        if option.name in Options.__slots__:
            setattr(options, option.name, _value(option, given.get(option.name)))
    signals = options.stop or options.restart
    if not options.pid and (signals or options.reload or "pid" in given):
        raise Refused(f"{argv[0]}: -pid argument is required.")
    same = options.reload and not positionals and given.keys() <= {"reload", "pid"}
    if not (signals or same):
        if len(positionals) < 2:
            raise Refused(f"Usage: {argv[0]} [options] port prog arg1 arg2...")
        options.portlist, *options.program = positionals
        _check_numbers(options)
        _complete(options)
    return options


def _value(option: Option, text: str | None) -> str | float | None:
    if text is None:
        return option.default
    if option.kind == FLAG:
        return True
    if option.kind in (NUMBER, LEVEL):
        return leading_number(text)
    if option.kind == COUNT:
        plain = text.isascii() and text.isdigit() and len(text) <= COUNT_DIGITS
        return int(text) if plain else -1
    if option.kind == SECONDS:
        return decimal(text)
    return text


def _check_numbers(options: Options) -> None:
    for option in TABLE:
        if option.kind in (NUMBER, COUNT, SECONDS):
            value = getattr(options, option.name)
            if value is not None and value < option.lowest:
                name = MISSPELT.get(option.name, option.name)
                raise Refused(f"Invalid -{name} option.")


def _complete(options: Options) -> None:
    """Settle the defaults that depend on other arguments."""
    options.maxperc = options.maxperc or options.maxprocs
    options.stderrloggername = options.stderrloggername or os.path.basename(options.program[0])
    if options.park and options.uses < 2:
        raise Refused("-park requires -uses=2 or more")
    if options.accesslocal and options.access is None:
        raise Refused("-accesslocal requires -access")
    if options.drop is not None:
        # Of a list Courier looks at the first variable alone.
        options.drop = options.drop.partition(",")[0] or "BLOCK"
    if options.warn is not None and not 0 <= options.warn <= options.maxprocs:
        options.warn = None


def decimal(text: str) -> float:
    """A number of seconds, more than 0 and at most a day; -1 for anything else."""
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()) or len(text) > COUNT_DIGITS or text == point:
        return -1.0
    value = float(text)
    return value if 0 < value <= LONGEST_PARK else -1.0


def leading_number(text: str) -> int:
    """What C's atoi makes of a text: blanks, a sign, digits, the rest ignored; 0 without digits.

    Beyond the range of a C int it is the end of the range.
    """
    text = text.lstrip(" \t\n\v\f\r")
    sign = -1 if text.startswith("-") else 1
    digits = text[1:] if text[:1] in ("+", "-") else text
    length = 0
    while length < len(digits) and digits[length] in "0123456789":
        length += 1
    # int() refuses thousands of digits.
    significant = digits[:length].lstrip("0")
    number = int(significant or "0") if len(significant) <= 10 else INT_MAX
    return max(-INT_MAX - 1, min(sign * number, INT_MAX))


def listing() -> str:
    """All options, one a line: name, kind, default, meaning."""
    return "".join(
        f"-{option.name:<17} {option.kind:<8} {_shown(option.default):<6} {option.meaning}\n"
        for option in TABLE
    )


def _shown(default: str | float | None) -> str:
    return "off" if default is False else "" if default is None else str(default)
