"""authtypes - the kinds of question on descriptor 3, and which of our modules answer which

    login        userid LF password
    cram-md5 ... challenge LF response, both in base64 (see cram)
    apop         challenge LF response, as above: the digest of POP3's APOP (ours)
    scram-sha-1, scram-sha-256
                 userid LF client-first-message-bare LF cbind-input, the last two in base64: who
                 knows the userid goes on with the dialogue (see proof)
    external     identity, proved already: by a client certificate. There is no password, so a
                 module takes it on purpose or rejects it (ours: reference chain-protocol.md 2)
    oauthbearer  userid, or nothing where the token alone tells it, LF token (ours: RFC 7628). Who
                 takes it proves an identity, and hands that on as `external`

A module rejects what it doesn't know. The login program looks at the chain before it announces a
way to log in; of other people's programs it can't tell what they take.
"""

from __future__ import annotations

import os

from courierchain import programs

LOGIN = b"login"
CRAM = (b"cram-md5", b"cram-sha1", b"cram-sha256")
SCRAM = (b"scram-sha-1", b"scram-sha-256")
APOP = b"apop"
EXTERNAL = b"external"
OAUTHBEARER = b"oauthbearer"
DIALOGUE = "COURIER_LOGIN_DIALOGUE"  # set while nobody has gone on with one (see dialogue)

OF_SECRETS = (LOGIN, *CRAM, *SCRAM, APOP, EXTERNAL)  # where stored secrets can be read
TAKEN: dict[str, tuple[bytes, ...]] = {  # by programs of ours; one that isn't here is like others'
    "authcheckpassword": (LOGIN,),
    "authcram": (*CRAM, APOP),
    "authdaemon": (LOGIN, *CRAM, EXTERNAL),
    "authoauth": (OAUTHBEARER,),
    "authmysql": OF_SECRETS,
    "authldap": OF_SECRETS,
    "authpam": (LOGIN, EXTERNAL),
    "authpgsql": OF_SECRETS,
    "authpwd": (LOGIN, EXTERNAL),
    "authshadow": (LOGIN, EXTERNAL),
    "authsaslauthd": (LOGIN,),
    "authsqlite": OF_SECRETS,
    "authuserdb": OF_SECRETS,
    "authvchkpw": (LOGIN,),
}
CHECKS_APOP = "AUTHCHECKPASSWORD_APOP"  # the setting that says so of a checkpassword program
SERVERS = ("courierpop3d", "pop3d")  # the modules end in front of them


def complete(words: list[str]) -> list[str]:
    """The chain behind a login program: where it names no module but begins with the server, as
    Courier's has since its version 4, authdaemon stands in front of that (auth.md 1.1)."""
    return ["authdaemon", *words] if asks_authdaemond(words) else words


def asks_authdaemond(words: list[str]) -> bool:
    return os.path.basename(words[0]) in SERVERS


class Chain:
    """What the modules of a chain take. is_known: all of them are ours, and ask nobody else.

    may_talk: there is one among the others that could talk with the client
    """

    __slots__ = ("taken", "is_known", "may_talk")

    def __init__(self, words: list[str], env: dict[str, str]):
        """words: what is behind the login program in its command line."""
        self.taken: set[bytes] = set()
        self.is_known = True
        self.may_talk = False
        for word in reversed(modules_of(words)):
            name = our_program(word, env)
            types = TAKEN.get(name)
            if types is None:
                self.is_known = False
                self.may_talk |= name != "authpipe"
            elif OAUTHBEARER not in types or self.may_take(EXTERNAL):  # hands on to those behind it
                self.taken.update(types)
                if name == "authcheckpassword" and env.get(CHECKS_APOP) == "1":
                    self.taken.add(APOP)

    def may_take(self, authtype: bytes) -> bool:
        others = self.may_talk if authtype in SCRAM else not self.is_known
        return authtype in self.taken or others


def modules_of(words: list[str]) -> list[str]:
    """The modules among the programs behind a login program."""
    servers = (at for at, word in enumerate(words) if os.path.basename(word) in SERVERS)
    return words[: next(servers, len(words))]


def our_program(word: str, env: dict[str, str]) -> str:
    """The name of a program of ours; empty for another one."""
    path = programs.locate(word, env)
    if path is None or not (path in programs.resident or programs.entry_of(path)):
        return ""
    return os.path.basename(path)
