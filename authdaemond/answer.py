"""answer - what the modules say to a question, in the octets of the socket

The modules are ours, and are asked as in the chain, one after another: the first that accepts wins,
a temporary failure ends it. PRE, where there is nothing to prove, is what they know as `external`:
so an account that is locked or expired isn't found.

PASSWD goes the same way: the module that takes the old password changes it, if it can.

No stored hash is told to anyone. PASSWD2 is the password that was right, for who logs in to another
host with it.
"""

from __future__ import annotations

import gc
import os

from authdaemond.configuration import Configuration
from authdaemond.question import Question
from courierchain import handover, log, programs
from courierchain.account import Account
from courierchain.authmodule import AuthModule, Rejected, Unchangeable
from courierchain.authsocket import END, FAIL, OK
from courierchain.request import Request
from courierchain.settings import Settings


def load(configuration: Configuration, env: dict[str, str]) -> dict[str, AuthModule]:
    """The modules of the list, by name, in its order; a WARN for each that isn't ours."""
    found = {}
    for name in configuration.modules:
        path = programs.locate(name, env) if "/" not in name else None
        entry = programs.entry_of(path) if path else None
        try:
            module = handover.load(entry) if entry else None
        except ImportError as why:
            log.warn(f"authdaemond: {name}: cannot be loaded: {why}")
            continue
        if isinstance(module, AuthModule) and name != "authdaemon":
            found[name] = module
        else:
            log.warn(f"authdaemond: {configuration.file}: authmodulelist: no module {name} here")
    handover.load_late_modules()  # else each process would load them anew
    gc.collect()
    gc.freeze()
    return found


def to(question: Question, modules: dict[str, AuthModule], configuration: Configuration) -> bytes:
    """Raises TemporaryFailure and Unusable: then there is no answer."""
    env = {**os.environ, **configuration.values, "TCPREMOTEIP": question.ip or "127.0.0.1"}
    if question.verb == b"ENUMERATE":
        return enumeration(modules, Settings(env))
    if question.module:
        modules = {name: modules[name] for name in modules if name == question.module}
    if question.request is None:
        return FAIL
    if question.verb == b"PASSWD":
        return OK if change(question.request, question.new, modules, env) else FAIL
    for module in modules.values():
        try:
            account = module.ask(question.request, env)
        except Rejected:
            continue
        module.renew(question.request, account, env)
        secret = question.request.login[1] if question.request.login else b""
        return described(account, secret, configuration.default_options)
    return FAIL


def change(
    request: Request, new: bytes, modules: dict[str, AuthModule], env: dict[str, str]
) -> bool:
    """Whether the module that takes the old password has made it the new one.

    Raises TemporaryFailure and Unusable.
    """
    user = log.safe(request.login[0]) if request.login else ""
    for name, module in modules.items():
        try:
            module.ask(request, env)
            if module.change:
                module.change(request, new, Settings(env))
        except Rejected:
            continue
        except Unchangeable as why:
            log.warn(f"{name}: this password can't be changed here, user={user}: {why}")
            return False
        if not module.change:
            log.warn(f"{name}: passwords can't be changed here, user={user} (see passwd(1))")
            return False
        log.info(f"{name}: password changed, user={user}")
        return True
    return False


def described(account: Account, secret: bytes, default_options: str) -> bytes:
    fields = {
        "USERNAME": account.system_user,
        "UID": "" if account.system_user else str(account.uid),
        "GID": str(account.gid),
        "HOME": account.home,
        "ADDRESS": account.address,
        "NAME": account.fullname.partition(",")[0],
        "MAILDIR": account.maildir,
        "QUOTA": account.quota,
        "PASSWD2": os.fsdecode(secret),
        "OPTIONS": with_defaults(account.options, default_options),
    }
    lines = (os.fsencode(f"{name}={value}\n") for name, value in fields.items() if value)
    return b"".join(lines) + END


def with_defaults(options: str, defaults: str) -> str:
    """The options, and those of the defaults whose names are not among them."""
    own = [option for option in options.split(",") if option]
    names = {option.partition("=")[0] for option in own}
    added = [option for option in defaults.split(",") if option]
    return ",".join(own + [word for word in added if word.partition("=")[0] not in names])


def enumeration(modules: dict[str, AuthModule], settings: Settings) -> bytes:
    """All accounts of all modules that can list theirs. Raises TemporaryFailure."""
    text = b""
    for name, module in modules.items():
        text += os.fsencode(f"# {name}\n\n")
        for account in module.everybody(settings) if module.everybody else ():
            words = (account.address, str(account.uid), str(account.gid), account.home)
            line = "\t".join((*words, account.maildir, account.options))
            if "\n" not in line and "#" not in line:  # readers cut there
                text += os.fsencode(line + "\n")
    return text + END
