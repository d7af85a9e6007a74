"""cyrus - the options of imapd.conf, as `pop3d` hands them on to the programs of the chain

Each is a variable CYRUS_NAME, NAME being the option's in upper case. Switches are 0 or 1, durations
seconds, POPEXPIRETIME days; enumerations and texts are as the file has them.

    CYRUS_SERVERNAME, CYRUS_SERVERINFO, CYRUS_VERSION       what the server says it is
    CYRUS_ALLOWPLAINTEXT                                    USER and PASS outside TLS
    CYRUS_ALLOWAPOP                                         APOP, where a module takes it
    CYRUS_USERNAME_TOLOWER, CYRUS_VIRTDOMAINS, CYRUS_DEFAULTDOMAIN, CYRUS_POPSUBFOLDERS,
    CYRUS_UNIXHIERARCHYSEP                                  what a userid means
    CYRUS_POPEXPIRETIME, CYRUS_POPMINPOLL, CYRUS_POPPOLLPADDING
    CYRUS_UIDL_FORMAT, CYRUS_POPUSEIMAPFLAGS, CYRUS_READONLY
    CYRUS_PLAINTEXTLOGINPAUSE, CYRUS_MAXLOGINS_PER_HOST, CYRUS_MAXLOGINS_PER_USER
    CYRUS_CONFIGDIRECTORY                                   where msg/shutdown is looked for

Not options are CYRUS_SERVICE, as master sets it; CYRUS_PROCFILE (see procfile), as the worker does;
CYRUS_CHALLENGE, the greeting's, as the login program does; and CYRUS_SESSIONID, as the mail server.
"""

from __future__ import annotations

DEFAULTS = {
    **{"SERVERNAME": "", "SERVERINFO": "on", "VERSION": "", "ALLOWPLAINTEXT": "0"},
    **{"USERNAME_TOLOWER": "1", "VIRTDOMAINS": "off", "DEFAULTDOMAIN": "internal"},
    **{"POPSUBFOLDERS": "0", "UNIXHIERARCHYSEP": "1", "POPEXPIRETIME": "-1", "POPMINPOLL": "0"},
    **{"POPPOLLPADDING": "1", "UIDL_FORMAT": "cyrus", "POPUSEIMAPFLAGS": "0", "READONLY": "0"},
    **{"CONFIGDIRECTORY": "", "PLAINTEXTLOGINPAUSE": "0", "MAXLOGINS_PER_HOST": "0"},
    **{"MAXLOGINS_PER_USER": "0", "ALLOWAPOP": "1"},
}


class Options:
    """The options in an environment: `Options(env).text("SERVERNAME")`."""

    __slots__ = ("_env",)

    def __init__(self, env: dict[str, str]):
        self._env = env

    def text(self, name: str) -> str:
        return self._env.get(f"CYRUS_{name}") or DEFAULTS[name]

    def is_on(self, name: str) -> bool:
        return self.text(name) == "1"

    def number(self, name: str) -> int:
        """Raises ValueError."""
        return int(self.text(name))
