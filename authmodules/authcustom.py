"""authcustom - ask a Python function of the site's own

AUTHCUSTOM=FILE:FUNCTION names it (/etc/courier/authcustom.py:authcustom). The function gets what a
module's function gets, the request and the settings, and does what one does: it returns an Account,
or raises Rejected or TemporaryFailure (see `courierchain.authmodule`). None is Rejected too. A
request of any type comes to it, also `external`, which has no password in it.

FILE runs with the rights of the chain, so it must belong to root, or to whom the chain runs as, and
nobody else may write it. It is loaded once, and again when it has changed. A FILE that can't be
loaded, and a function that fails, are temporary failures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from stat import S_IMODE, S_ISREG, S_IWGRP, S_IWOTH

from courierchain import handover
from courierchain.account import Account
from courierchain.authmodule import Rejected, TemporaryFailure, auth_module
from courierchain.request import Request
from courierchain.settings import Settings

Rule = Callable[[Request, Settings], Account | None]
Stamp = tuple[int, ...]

loaded: dict[str, tuple[Stamp, Rule]] = {}


@auth_module
def authcustom(request: Request, settings: Settings) -> Account:
    rule = the_rule(settings.text("AUTHCUSTOM"))
    if handover.is_rehearsing():
        raise Rejected  # loaded is loaded; the site's rule is for real clients
    account = rule(request, settings)
    if account is None:
        raise Rejected
    if not isinstance(account, Account):
        raise TemporaryFailure(f"the function has returned {type(account).__name__}, not Account")
    return account


def the_rule(setting: str) -> Rule:
    """The function that FILE:FUNCTION names. Raises TemporaryFailure."""
    path, _, name = setting.rpartition(":")
    if not path.startswith("/"):
        raise TemporaryFailure(f"AUTHCUSTOM={setting}: not an absolute FILE, a colon and a name")
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            check_owner(path, status)
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if setting in loaded and loaded[setting][0] == stamp:
                return loaded[setting][1]
            text = file.read()
    except OSError as why:
        raise TemporaryFailure(f"cannot read {path}: {why.strerror}") from why
    loaded[setting] = stamp, load(text, path, name)
    return loaded[setting][1]


def check_owner(path: str, status: os.stat_result) -> None:
    """Raises TemporaryFailure for a file that somebody else may have written."""
    if not S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise TemporaryFailure(f"{path} is not a file of root's (chown root {path})")
    if status.st_mode & (S_IWGRP | S_IWOTH):
        mode = S_IMODE(status.st_mode)
        raise TemporaryFailure(f"{path} has mode {mode:o}, others may write it (chmod 644 {path})")


def load(text: bytes, path: str, name: str) -> Rule:
    """Run the file's text, and pick the function. Raises TemporaryFailure."""
    module = {"__name__": "authcustom", "__file__": path}
    try:
        exec(compile(text, path, "exec", dont_inherit=True), module)
    except SyntaxError as why:
        raise TemporaryFailure(f"{path} line {why.lineno}: {why.msg}") from why
    except Exception as why:
        raise TemporaryFailure(f"{path} cannot be loaded: {handover.where(why)}") from why
    rule = module.get(name)
    if not callable(rule):
        raise TemporaryFailure(f"{path} has no function {name} (AUTHCUSTOM={path}:FUNCTION)")
    return rule
