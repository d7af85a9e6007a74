"""userdbchange - change a password in the userdb

The line of the text is rewritten as by userdb(8): the field in which the password was found, and
the secrets for CRAM, SCRAM and APOP that go with it. If makeuserdb has made databases, they are
made again; a text that could not be made into some is found before anything is changed.

A rehash changes the one field in which the password was found, and nothing if it isn't as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from authmodules import authuserdb, newpassword
from courierchain import cram, log, makeuserdb, newhash, passwords, userdb
from courierchain.authmodule import Rejected, TemporaryFailure
from courierchain.refusal import Refused
from courierchain.request import Request
from courierchain.settings import Settings

Secret = Callable[[bytes], bytes]


def of_cram(algorithm: str) -> Secret:
    return lambda new: cram.state_of(algorithm, new)


def of_scram(scheme: str) -> Secret:
    return lambda new: newpassword.by_scheme(new, scheme)


OTHERS: dict[bytes, Secret] = {  # secrets that may stand beside the password, and how they are made
    **{b"hmac-%spw" % name.encode(): of_cram(name) for name in ("md5", "sha1", "sha256")},
    **{b"%spw" % scheme.lower().encode(): of_scram(scheme) for scheme in newhash.SCRAM},
    b"apoppw": lambda new: new,
}


def change(request: Request, new: bytes, settings: Settings) -> None:
    """Raises Rejected if the old password is wrong, TemporaryFailure if nothing can be changed."""
    if request.login is None:
        raise Rejected
    user, old = request.login
    path = settings.text("AUTHUSERDB_FILE")
    stored = authuserdb.password(request, authuserdb.lookup(user, path))
    if stored is None or not passwords.verify(old, stored):
        raise Rejected
    fresh = newpassword.stored(new, settings, stored)

    def rewritten(text: bytes) -> bytes:
        fields = userdb.find(text, user) or {}
        name = key(request.service, b"systempw", fields)
        if fields.get(name) != name + b"=" + stored:
            raise TemporaryFailure(f"{path} has been changed since makeuserdb (call makeuserdb)")
        fields[name] = name + b"=" + fresh
        for field, make in OTHERS.items():
            name = key(request.service, field, fields)
            if name in fields:
                fields[name] = name + b"=" + make(new)
                if not userdb.is_field(fields[name]):
                    log.warn("no new password: one for APOP has no | in it")
                    raise Rejected
        return userdb.with_fields(text, user, fields)

    rewrite(user, path, rewritten)


def rehash(request: Request, stored: bytes, settings: Settings) -> None:
    """Put another hash of the request's password in the place of `stored`. The secrets that go with
    the password are those of the same one. Raises Rejected if `stored` isn't there, or somebody is
    changing the text; TemporaryFailure."""
    if request.login is None:
        raise Rejected
    user, secret = request.login

    def rewritten(text: bytes) -> bytes:
        fields = userdb.find(text, user) or {}
        name = key(request.service, b"systempw", fields)
        if fields.get(name) != name + b"=" + stored:
            raise Rejected
        fields[name] = name + b"=" + newpassword.renewed(secret, settings, stored)
        return userdb.with_fields(text, user, fields)

    rewrite(user, settings.text("AUTHUSERDB_FILE"), rewritten, waits=False)


def rewrite(
    user: bytes, path: str, rewritten: Callable[[bytes], bytes], *, waits: bool = True
) -> None:
    """Edit the text that has the user, and make the databases again. Raises what `rewritten` does,
    TemporaryFailure, and, if it doesn't wait for others, Rejected."""
    try:
        is_made = os.path.exists(path + ".dat")
        if is_made:
            makeuserdb.check(path)
            makeuserdb.compiled(path)
        userdb.edit(text_with(user, path), rewritten, waits=waits)
        if is_made:
            makeuserdb.make(path)
    except userdb.Busy as why:
        raise Rejected from why
    except Refused as why:
        raise TemporaryFailure(str(why)) from why


def key(service: bytes, field: bytes, fields: userdb.Fields) -> bytes:
    """The field that counts for a service."""
    own = service + (b"pw" if field == b"systempw" else b"-" + field)
    return own if own in fields else field


def text_with(user: bytes, path: str) -> str:
    """The text that has the user's line. Raises Refused and TemporaryFailure."""
    for file, _ in makeuserdb.texts(path):
        if userdb.find(userdb.read(file), user) is not None:
            return file
    raise TemporaryFailure(f"{path} has been changed since makeuserdb (call makeuserdb)")
