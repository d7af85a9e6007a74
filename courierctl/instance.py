"""instance - one of the two listeners, as the configuration files have it

    pop3d       PORT, ADDRESS, PIDFILE, LOGGEROPTS
    pop3d-ssl   SSLPORT, SSLADDRESS, SSLPIDFILE, SSLLOGGEROPTS; couriertls before the login program

Both read both files, each in two orders, as Courier's start scripts do (reference couriertcpd.md
15.3): one for the values on the command line, and pop3d before pop3d-ssl, so that the latter wins,
for the environment of the sessions. The command line is 15.2's; its values are split by a second
shell, so that TCPDOPTS may hold quotes of its own. MAILDIRPATH and the pid file are not split: with
a blank or a `$` in them Courier's don't work.

AUTHMODULES="authpam authuserdb" puts these modules between login program and server, as Courier did
until 2004. A setting that is not there, or empty, has the value that Courier ships.
"""

from __future__ import annotations

import os
from shlex import quote

from courierchain.refusal import Refused, refusal
from courierctl import ports, shell
from courierctl.layout import DEBIAN, Layout, is_ours

SHIPPED = {
    "PIDFILE": "/run/courier/pop3d.pid",
    "SSLPIDFILE": "/run/courier/pop3d-ssl.pid",
    "MAXDAEMONS": "40",
    "MAXPERIP": "4",
    "PORT": "110",
    "SSLPORT": "995",
    "ADDRESS": "0",
    "SSLADDRESS": "0",
    "MAILDIRPATH": "Maildir",
}
MAIL_USER = "courier"
COURIERTLS = f"{DEBIAN['couriertls']}/couriertls"  # as Debian's files have it


class NotConfigured(Refused):
    """A configuration file isn't there."""


class Kind:
    """Which settings are an instance's own. start: switches it on if it begins with a y."""

    __slots__ = ("name", "tls", "start", "pidfile", "port", "address", "loggeropts")

    def __init__(self, name: str, tls: bool, start: str, prefix: str):
        self.name = name
        self.tls = tls
        self.start = start
        self.pidfile = f"{prefix}PIDFILE"
        self.port = f"{prefix}PORT"
        self.address = f"{prefix}ADDRESS"
        self.loggeropts = f"{prefix}LOGGEROPTS"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("pop3d", False, "POP3DSTART", ""),
        Kind("pop3d-ssl", True, "POP3DSSLSTART", "SSL"),
    )
}


class Instance:
    """What `load` has found. A program that is nowhere stands in argv with its bare name."""

    __slots__ = (
        *("kind", "layout", "files", "values", "environment"),
        *("argv", "directory", "complaints", "assigned"),
    )

    kind: Kind
    layout: Layout
    files: list[str]  # in the order of the command line's values: the last one wins
    values: dict[str, str]  # for the command line
    environment: dict[str, str]  # of the logger, and so of all sessions
    argv: list[str]  # courierlogger's; empty if there is a reason in `why_not_split`
    directory: str  # where it starts
    complaints: list[str]  # of the shell
    assigned: list[str]  # names that the files have given values

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def pidfile(self) -> str:
        return self.values[self.kind.pidfile]

    @property
    def portlist(self) -> str:
        return self.values[self.kind.port]

    def endpoints(self) -> list[tuple[str, int]]:
        """Where it listens. Raises ValueError, with what is wrong."""
        return ports.endpoints(self.portlist.strip(), self.values[self.kind.address])

    @property
    def is_switched_on(self) -> bool:
        return self.values.get(self.kind.start, "")[:1] in ("y", "Y")

    @property
    def tcpd(self) -> int:
        """The index in argv of couriertcpd, with its options and the ports behind it."""
        return self.argv.index(program(self, "couriertcpd"))

    @property
    def chain(self) -> int:
        """The index in argv of the program that couriertcpd starts."""
        return self.argv.index(program(self, first_of_chain(self)), self.tcpd)

    def where(self, setting: str) -> str:
        """FILE line N: SETTING, for the file whose value counts on the command line."""
        for file in reversed(self.files):
            number = shell.assigned_at(file, setting)
            if number:
                return f"{file} line {number}: {setting}"
        return setting


def load(kind: Kind, folder: str, layout: Layout, caller: dict[str, str]) -> Instance:
    """Read the files in `folder`; `caller` is the environment of courierctl.

    Raises NotConfigured, and Refused for a file that can't be read or that the shell can't parse.
    """
    files = [f"{folder}/pop3d", f"{folder}/pop3d-ssl"]
    for file in files:
        _check_file(file)
    instance = Instance()
    instance.kind, instance.layout = kind, layout
    base = _base(instance, caller)
    # The script of pop3d goes to the prefix first, the one of pop3d-ssl stays where it is (15.1).
    instance.directory = _working_directory() if kind.tls else base["prefix"]
    instance.files = files if kind.tls else files[::-1]
    values = shell.source(instance.files, base, instance.directory)
    given = {name: value for name, value in values.environment.items() if value}
    instance.values = {**SHIPPED, **given}
    instance.assigned = [name for name in values.environment if name not in {*base, "PWD"}]
    line = _command_line(instance) if not why_not_split(instance) else ""
    sourced = shell.source(files, base, instance.directory, line)
    instance.argv = sourced.words
    instance.complaints = sourced.complaints
    instance.environment = {"PROXY_HOSTNAME": "", **sourced.environment, **_extras(kind)}
    _prefer_our_couriertls(instance)
    return instance


def _prefer_our_couriertls(instance: Instance) -> None:
    """For STLS: Debian's files name the one of courier-base, which may be there beside ours."""
    ours = instance.layout.find("couriertls")
    if ours and is_ours(ours) and instance.environment.get("COURIERTLS") == COURIERTLS:
        instance.environment["COURIERTLS"] = ours


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"  # somebody has removed it


def _check_file(file: str) -> None:
    if not os.path.exists(file):
        raise NotConfigured(f"{file} does not exist, forgot make install-configure?")
    try:
        shell.lines(file)
    except OSError as why:
        raise refusal(file, why) from why
    shell.check_syntax(file)


def _base(instance: Instance, caller: dict[str, str]) -> dict[str, str]:
    """The environment in which the files are read: nearly empty (15.1)."""
    passed_on = ("PATH", "SHELL") if instance.kind.tls else ()
    kept = {name: caller[name] for name in passed_on if name in caller}
    return {**kept, **instance.layout.exports()}


def _extras(kind: Kind) -> dict[str, str]:
    """What is settled once the connection is TLS, whatever the files say."""
    if not kind.tls:
        return {}
    return {"POP3_TLS": "1", "POP3_STARTTLS": "NO", "POP3_TLS_REQUIRED": "0"}


def _command_line(instance: Instance) -> str:
    """Before the second shell has split it."""
    values, kind = instance.values, instance.kind
    words = [
        quote(program(instance, "courierlogger")),
        f"-pid={quote(instance.pidfile)} -start",
        values.get(kind.loggeropts, ""),
        quote(program(instance, "couriertcpd")),
        f"-address={values[kind.address]}",
        f"-maxprocs={values['MAXDAEMONS']} -maxperip={values['MAXPERIP']}",
        values.get("TCPDOPTS", ""),
        values[kind.port],
    ]
    if kind.tls:
        words += [quote(program(instance, "couriertls")), f"-server -tcpd -user={MAIL_USER}"]
    words += [quote(program(instance, "courierpop3login"))]
    words += [quote(path or name) for name, path in modules(instance)]
    words += [quote(program(instance, "courierpop3d")), quote(values["MAILDIRPATH"])]
    # A value over several lines is still one command.
    return " ".join(words).replace("\n", " ")


def program(instance: Instance, name: str) -> str:
    return instance.layout.find(name) or name


def first_of_chain(instance: Instance) -> str:
    return "couriertls" if instance.kind.tls else "courierpop3login"


def modules(instance: Instance) -> list[tuple[str, str | None]]:
    """The words of AUTHMODULES, each with its path if there is such a program."""
    words = instance.values.get("AUTHMODULES", "").split()
    return [(word, instance.layout.find_module(word)) for word in words]


def why_not_split(instance: Instance) -> list[str]:
    """Values that the second shell could not split, or would take for more than one command."""
    kind = instance.kind
    settings = (kind.loggeropts, kind.address, "MAXDAEMONS", "MAXPERIP", "TCPDOPTS", kind.port)
    return [
        f"{instance.where(name)}={instance.values[name]}: {reason}"
        for name in settings
        if (reason := _obstacle(instance.values.get(name, "")))
    ]


def _obstacle(value: str) -> str | None:
    """What keeps a value from being words of one command."""
    outside, mark = shell.bare(value)
    if mark:
        return f"nothing closes the inner {mark}"
    sign = next((sign for sign in outside if sign in ";&|<>()#"), None)
    return sign and f"{sign} needs quotes, inside of those around the value"
