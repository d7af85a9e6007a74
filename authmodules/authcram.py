"""authcram - find the user in the userdb, by CRAM-MD5, CRAM-SHA1 or CRAM-SHA256 alone

For a chain in which another module has the passwords (reference auth.md 2.3). Fields, files and
settings are authuserdb's, which takes these mechanisms too.
"""

from __future__ import annotations

from authmodules.authuserdb import by_challenge
from courierchain.account import Account
from courierchain.authmodule import auth_module
from courierchain.request import Request
from courierchain.settings import Settings


@auth_module
def authcram(request: Request, settings: Settings) -> Account:
    return by_challenge(request, settings.text("AUTHUSERDB_FILE"))
