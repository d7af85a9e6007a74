"""check - what would go wrong with an instance, before it is started

    errors      it would not start, or serve nobody: courierctl leaves alone what runs
    warnings    it would work, but hardly as somebody meant it

A line says where (file, line, setting), what is wrong, and what to do. The listener's own options
and the chain behind it are checked by couriertcpd -check, the certificates by couriertls -check;
where another's couriertls is installed, it is seen to that there is a certificate and a key.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from stat import S_IRWXO

from courierchain.refusal import Refused
from courierchain.settings import DEFAULTS, Settings
from courierctl import known, ports, running
from courierctl.instance import MAIL_USER, Instance, modules, program, why_not_split
from courierctl.layout import DEBIAN, is_ours

PATIENCE = 60.0  # seconds for a program that checks something
POSITIVE = re.compile(r"\s*\+?0*[1-9]")  # as atoi(3) reads it
CHOICES = {
    "POP3_FIRST_UIDL": ("number", "filename", "dovecot"),
    "POP3_UNICODE": ("wrapped", "stored"),
    "POP3_EXCLUSIVE": ("0", "1"),
}


class Findings:
    __slots__ = ("errors", "warnings")

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []


def check(instance: Instance, *, every_name: bool = False) -> Findings:
    """With `every_name`, settings that we don't know are told of as well."""
    found = Findings()
    found.warnings += instance.complaints
    found.errors += why_not_split(instance)
    if every_name:
        names(instance, found)
    for part in (numbers, choices, programs, authentication, pid_file, tls):
        part(instance, found)
    if not found.errors:
        free_ports(instance, found)
    if not found.errors:
        rehearsal(instance, found)
    return found


def names(instance: Instance, found: Findings) -> None:
    """Settings that nobody knows, or knows any more."""
    for name in instance.assigned:
        if remark := known.remark(name):
            found.warnings.append(f"{instance.where(name)}: {remark}")
    starttls = instance.values.get("TLS_STARTTLS_PROTOCOL", "")
    if starttls != instance.values.get("TLS_PROTOCOL", ""):
        found.warnings.append(
            f"{instance.where('TLS_STARTTLS_PROTOCOL')}={starttls}: has no effect, as in Courier: "
            "TLS_PROTOCOL counts for STLS too"
        )


def numbers(instance: Instance, found: Findings) -> None:
    for name in ("MAXDAEMONS", "MAXPERIP"):
        if not POSITIVE.match(instance.values[name]):
            value = instance.values[name]
            found.errors.append(f"{instance.where(name)}={value}: not a number of 1 or more")
    address = instance.values[instance.kind.address]
    if address != ports.EVERY_ADDRESS and not ports.is_address(address):
        found.errors.append(
            f"{instance.where(instance.kind.address)}={address}: neither an address nor 0"
        )
        return
    setting = instance.where(instance.kind.port)
    try:
        endpoints = instance.endpoints()
    except ValueError as why:
        found.errors.append(f"{setting}={instance.portlist}: {why}")
        return
    if not endpoints or " " in instance.portlist.strip():
        found.errors.append(
            f"{setting}={instance.portlist}: ports, with commas and no blanks between them"
        )


def choices(instance: Instance, found: Findings) -> None:
    """Settings that a session reads: a wrong value would refuse every login."""
    settings = Settings(instance.environment)
    for name in DEFAULTS:
        try:
            if name in CHOICES:
                settings.choice(name, *CHOICES[name])
            elif name.endswith(("_TIMEOUT", "_DELAY")) or name.startswith("TIMEOUT_"):
                settings.seconds(name)
        except ValueError as why:
            place = instance.where(name).rpartition(":")[0]
            found.errors.append(f"{place}: {why}")


def programs(instance: Instance, found: Findings) -> None:
    layout = instance.layout
    wanted = [name for name in DEBIAN if instance.kind.tls or name != "couriertls"]
    for name in wanted:
        if layout.find(name) is None:
            folders = dict.fromkeys((layout.beside, layout.real, DEBIAN[name]))
            found.errors.append(f"{name}: no such program in {', '.join(folders)}")
    if instance.kind.tls and not _user_exists(MAIL_USER):
        found.errors.append(
            f"couriertls runs as the user {MAIL_USER}, and there is no such user "
            f"(adduser --system --group --no-create-home {MAIL_USER})"
        )


def authentication(instance: Instance, found: Findings) -> None:
    """The modules that AUTHMODULES names. Without it authdaemond is asked."""
    for name, path in modules(instance):
        if path is None:
            folders = ", ".join(instance.layout.module_folders())
            looked = "not an executable file" if "/" in name else f"no such program in {folders}"
            found.errors.append(f"{instance.where('AUTHMODULES')}: {name}: {looked}")


def pid_file(instance: Instance, found: Findings) -> None:
    setting = f"{instance.where(instance.kind.pidfile)}={instance.pidfile}"
    if not instance.pidfile.startswith("/"):
        found.errors.append(f"{setting}: not a path from /")
        return
    folder = os.path.dirname(instance.pidfile)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        found.errors.append(f"{setting}: {folder} is not a directory")
    elif not os.access(folder, os.W_OK):
        found.errors.append(f"{setting}: you may not write to {folder} (are you root?)")


def tls(instance: Instance, found: Findings) -> None:
    """Without a certificate nobody gets to port 995; on port 110 only STLS fails."""
    settings = instance.environment
    if not (instance.kind.tls or settings.get("POP3_STARTTLS", "")[:1] in ("y", "Y")):
        return
    own = Findings()
    couriertls = instance.layout.find("couriertls")
    if couriertls and is_ours(couriertls):
        ask_couriertls(couriertls, instance, own)
    else:
        certificate(instance, own)
    found.warnings += own.warnings
    if instance.kind.tls:
        found.errors += own.errors
        return
    found.warnings += [f"{error} (STLS will fail)" for error in own.errors]
    helper = settings.get("COURIERTLS", "")
    if not os.access(helper, os.X_OK):
        hint = f" (there is {couriertls})" if couriertls else ""
        found.warnings.append(
            f"{instance.where('COURIERTLS')}={helper}: not an executable file, "
            f"so STLS is not offered{hint}"
        )


def ask_couriertls(program: str, instance: Instance, found: Findings) -> None:
    status, lines = _run([program, "-check"], instance.environment, instance)
    for line in lines:
        kind, _, text = line.partition(": ")
        if kind == "WARN" or not (status or kind == "ERR"):
            found.warnings.append(f"couriertls: {text if kind == 'WARN' else line}")
        else:
            found.errors.append(f"couriertls: {text if kind == 'ERR' else line}")
    if status and not found.errors:
        found.errors.append(f"couriertls -check: exit status {status}")


def certificate(instance: Instance, found: Findings) -> None:
    """There is a certificate and its key, and others can't read the key."""
    file = instance.environment.get("TLS_CERTFILE", "")
    if not file:
        found.errors.append("TLS_CERTFILE is not set: TLS needs a certificate (mkpop3dcert)")
        return
    setting = f"{instance.where('TLS_CERTFILE')}={file}"
    text = _contents(file)
    if text is None or b"-----BEGIN CERTIFICATE-----" not in text:
        reason = "there is no such file, or it can't be read" if text is None else "no certificate"
        found.errors.append(f"{setting}: {reason} (mkpop3dcert makes one)")
        return
    separate = instance.environment.get("TLS_PRIVATE_KEYFILE", "")
    key = _contents(separate) if separate else None
    if key is not None:
        file, text, setting = separate, key, f"{instance.where('TLS_PRIVATE_KEYFILE')}={separate}"
    if b"PRIVATE KEY-----" not in text:
        found.errors.append(f"{setting}: no private key in there")
    elif os.stat(file).st_mode & S_IRWXO:
        found.warnings.append(
            f"{setting}: everybody on this machine can read the private key (chmod o= {file})"
        )


def free_ports(instance: Instance, found: Findings) -> None:
    """Nobody else listens where we are going to."""
    logger = running.holder(instance.pidfile)
    ours = running.family(logger) if logger else []
    for address, port in instance.endpoints():
        why = ports.obstacle(address, port)
        there = [pid for pid in ports.occupants(port) if pid not in ours] if why else []
        if why is None or (ours and not there):
            continue
        first = next((pid for pid in there if running.parent(pid) not in there), None)
        who = f" by {running.command(first)}, pid {first}" if first else ""
        found.errors.append(
            f"{instance.where(instance.kind.port)}={instance.portlist}: port {port}: "
            f"{(why.strerror or str(why)).lower()}{who}"
        )


def rehearsal(instance: Instance, found: Findings) -> None:
    """couriertcpd looks at its options, the access file and the chain; TLS has been looked at."""
    tcpd = instance.argv[instance.tcpd]
    if not is_ours(tcpd):
        return
    options = instance.argv[instance.tcpd + 1 : instance.chain]
    login = instance.argv.index(program(instance, "courierpop3login"), instance.chain)
    setting = instance.where("TCPDOPTS")
    if any(word.startswith("-pid") for word in options):
        found.errors.append(f"{setting}: -pid: take it out, the pid file is courierlogger's")
        return
    argv = [tcpd, "-check", *options, *instance.argv[login:]]
    status, lines = _run(argv, {**instance.environment, "POP3_STARTTLS": "NO"}, instance)
    for line in lines:
        text = line.removeprefix("WARN: ").replace(f"{tcpd}: ", "", 1)
        if status:
            found.errors.append(f"{setting}, or the chain: couriertcpd: {text}")
        else:
            found.warnings.append(f"couriertcpd: {text}")


def _run(argv: list[str], env: dict[str, str], instance: Instance) -> tuple[int, list[str]]:
    """Exit status and all lines of a program."""
    try:
        done = subprocess.run(
            argv,
            env=env,
            cwd=instance.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            text=True,
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        raise Refused(f"{argv[0]}: {why}") from why
    return done.returncode, done.stdout.splitlines()


def _contents(file: str) -> bytes | None:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError:
        return None


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
