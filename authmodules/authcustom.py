"""authcustom - ask a Python function of the site's own

AUTHCUSTOM=FILE:FUNCTION names it (/etc/courier/authcustom.py:authcustom). The function gets what a
module's function gets, the request and the settings, and does what one does: it returns an Account,
or raises Rejected or TemporaryFailure (see `courierchain.authmodule`). None is Rejected too. A
request of any type comes to it, also `external`, which has no password in it.

If FILE has a function `change` too, that changes passwords: change(request, new, settings) gets the
request of type login that the first one has just accepted, and the new password. It raises Rejected
and TemporaryFailure, or Unchangeable, which says why not. Afterwards the first one is asked with
the new password: only if it accepts that, it has been changed.

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
from courierchain.authmodule import Rejected, TemporaryFailure, Unchangeable, auth_module
from courierchain.authtypes import LOGIN
from courierchain.request import BadRequest, Request, encode, parse
from courierchain.settings import Settings

Names = dict[str, object]
Function = Callable[..., object]
Stamp = tuple[int, ...]

CHANGE = "change"

loaded: dict[str, tuple[Stamp, Names]] = {}  # by path


@auth_module
def authcustom(request: Request, settings: Settings) -> Account:
    path, name = place(settings)
    rule = function(path, name)
    if rule is None:
        raise TemporaryFailure(f"{path} has no function {name} (AUTHCUSTOM={path}:FUNCTION)")
    if handover.is_rehearsing():
        raise Rejected  # loaded is loaded; the site's rule is for real clients
    account = rule(request, settings)
    if account is None:
        raise Rejected
    if not isinstance(account, Account):
        raise TemporaryFailure(f"the function has returned {type(account).__name__}, not Account")
    return account


@authcustom.changes
def change(request: Request, new: bytes, settings: Settings) -> None:
    """Raises Rejected, TemporaryFailure and Unchangeable."""
    from authmodules import newpassword  # here: no login needs it

    path, _ = place(settings)
    site_changes = function(path, CHANGE)
    if site_changes is None:
        raise Unchangeable(f"{path} has no function {CHANGE}")
    if request.login is None:
        raise Rejected
    newpassword.check(new)
    try:
        asked = parse(encode(request.service, LOGIN, request.login[0], new))
    except BadRequest as why:
        raise Rejected from why
    site_changes(request, new, settings)
    try:
        authcustom.verify(asked, settings)
    except Rejected as why:
        raise TemporaryFailure(f"{path}: the new password isn't taken after {CHANGE}()") from why


def place(settings: Settings) -> tuple[str, str]:
    """The file and the function that AUTHCUSTOM names. Raises TemporaryFailure."""
    setting = settings.text("AUTHCUSTOM")
    path, _, name = setting.rpartition(":")
    if not path.startswith("/"):
        raise TemporaryFailure(f"AUTHCUSTOM={setting}: not an absolute FILE, a colon and a name")
    return path, name


def function(path: str, name: str) -> Function | None:
    """A function of the file; None if there is none of this name. Raises TemporaryFailure."""
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            check_owner(path, status)
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if path not in loaded or loaded[path][0] != stamp:
                loaded[path] = stamp, load(file.read(), path)
    except OSError as why:
        raise TemporaryFailure(f"cannot read {path}: {why.strerror}") from why
    found = loaded[path][1].get(name)
    return found if callable(found) else None


def check_owner(path: str, status: os.stat_result) -> None:
    """Raises TemporaryFailure for a file that somebody else may have written."""
    if not S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise TemporaryFailure(f"{path} is not a file of root's (chown root {path})")
    if status.st_mode & (S_IWGRP | S_IWOTH):
        mode = S_IMODE(status.st_mode)
        raise TemporaryFailure(f"{path} has mode {mode:o}, others may write it (chmod 644 {path})")


def load(text: bytes, path: str) -> Names:
    """Run the file's text; what it defines. Raises TemporaryFailure."""
    module: Names = {"__name__": "authcustom", "__file__": path}
    try:
        exec(compile(text, path, "exec", dont_inherit=True), module)
    except SyntaxError as why:
        raise TemporaryFailure(f"{path} line {why.lineno}: {why.msg}") from why
    except Exception as why:
        raise TemporaryFailure(f"{path} cannot be loaded: {handover.where(why)}") from why
    return module
