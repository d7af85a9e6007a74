"""settings - one table of the environment variables that the programs read, with their defaults

Courier passes every setting of its configuration files on in the environment (reference
couriertcpd.md 14.1), so that is where all programs look. Names that Courier knows have Courier's
meaning; the others are ours, and their defaults give Courier's behaviour.
"""

from __future__ import annotations

DEFAULTS: dict[str, str | int] = {
    # Courier's
    "DEFDOMAIN": "",  # appended to userids without a domain, with its separator: "@example.com"
    "DOMAINSEP": "",  # characters that show a userid to have a domain; else DEFDOMAIN's first
    "MIME_UNICODE_MESSAGE_TYPE": "message/global",
    # couriertcpd's, of one session; for modules
    "TCPREMOTEIP": "127.0.0.1",
    # ours
    "AUTHUSERDB_FILE": "/etc/courier/userdb",  # text; compiled: the same name with .dat
    "POP3_LOGIN_TIMEOUT": 60,  # seconds for the whole login phase, all attempts together
    "POP3_FAILURE_DELAY": 5,  # seconds before a refused login is answered
    "POP3_IDLE_TIMEOUT": 300,  # seconds a logged-in client may take for a command
    "POP3_SEND_TIMEOUT": 300,  # seconds a client may leave a reply untaken
}


class Settings:
    """The settings in an environment: `Settings(env).DEFDOMAIN`. Empty counts as not set.

    A number that isn't one raises ValueError with the name and what is wrong.
    """

    __slots__ = ("_env",)

    def __init__(self, env: dict[str, str]):
        self._env = env

    def text(self, name: str) -> str:
        return self._env.get(name) or str(DEFAULTS[name])

    def seconds(self, name: str) -> int:
        text = self._env.get(name)
        if not text:
            return int(DEFAULTS[name])
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= 86400):
            raise ValueError(f"{name}={text}: not a number of seconds from 0 to 86400")
        return int(text)
