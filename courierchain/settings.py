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
    "MAILDIR_SKIP_SYMLINK_CHECKS": 0,  # not 0: maildirsize may be a symbolic link
    "MIME_UNICODE_MESSAGE_TYPE": "message/global",
    "POP3_PROXY": "0",  # not 0: accounts that have the option mailhost are served there
    "PROXY_HOSTNAME": "",  # what mailhost calls this host; else what the system calls itself
    "POP3AUTH": "",  # the SASL mechanisms to offer
    "POP3AUTH_TLS": "",  # and those inside TLS, if they are others
    "TLS_EXTERNAL": "",  # the field of a client certificate's subject that is a userid: EXTERNAL
    "TIMEOUT_SOCK": 10,  # seconds for the connection to authdaemond
    "TIMEOUT_WRITE": 10,  # seconds for each write to it
    "TIMEOUT_READ": 30,  # seconds for its answer
    # couriertcpd's and courierpop3login's, of one session; for modules
    "TCPREMOTEIP": "127.0.0.1",
    "AUTHEXPIRE": "",
    "COURIER_LOGIN_DIALOGUE": "",
    # ours
    "MAILDIR_TRASHQUOTA": 0,  # not 0: .Trash and flag T count, as in Courier's --with-trashquota
    "AUTHCHECKPASSWORD_APOP": "0",  # 1: the program asked by it knows APOP's digests
    "AUTHCUSTOM": "/etc/courier/authcustom.py:authcustom",  # file and function of the site's own
    "AUTHDAEMON_SOCKET": "/run/courier/authdaemon/socket",  # where an authdaemond is asked
    "AUTHLDAP_RC": "/etc/courier/authldaprc",
    "AUTHMYSQL_RC": "/etc/courier/authmysqlrc",
    "AUTHOAUTH_RC": "/etc/courier/authoauthrc",
    "AUTHPGSQL_RC": "/etc/courier/authpgsqlrc",
    "AUTHPIPE_PROGRAM": "/etc/courier/authProg",
    "AUTHPROGRAM_TIMEOUT": 30,  # seconds that a program asked about a login may take
    "AUTHSASLAUTHD_ACCOUNTS": "passwd",  # or next: the next modules know whom saslauthd let in
    "AUTHSASLAUTHD_SOCKET": "/run/saslauthd/mux",
    "AUTHSQLITE_RC": "/etc/courier/authsqliterc",
    "AUTHSQL_CONNECT_TIMEOUT": 10,  # seconds to reach a database
    "AUTHSQL_QUERY_TIMEOUT": 10,  # seconds to wait for its answer
    "AUTHUSERDB_FILE": "/etc/courier/userdb",  # text; compiled: the same name with .dat
    "PASSWORD_REHASH": "0",  # 1: a login replaces a hash that isn't of PASSWORD_SCHEME, see rehash
    "PASSWORD_SCHEME": "",  # of new hashes, see newhash; else Courier's rule: that of the old one
    "VPOPMAIL_ASSIGN": "/var/qmail/users/assign",  # which domains vpopmail has
    "VPOPMAIL_DOMAIN": "",  # of userids without one, in authvchkpw
    "POP3_LOGIN_CACHE": 0,  # not 0: seconds that a right password's slow hash isn't computed again
    "POP3_LOGIN_TIMEOUT": 60,  # seconds for the whole login phase, all attempts together
    "POP3_FAILURE_DELAY": 5,  # seconds before a refused login is answered
    "POP3_IDLE_TIMEOUT": 300,  # seconds a logged-in client may take for a command
    "POP3_SEND_TIMEOUT": 300,  # seconds a client may leave a reply untaken
    "POP3_LOGINEXEC_TIMEOUT": 60,  # seconds that a mailbox's loginexec may take
    "POP3_FIRST_UIDL": "number",  # ids of a mailbox without a list: number, filename or dovecot
    "POP3_DOVECOT_UIDL_FORMAT": "%08Xu%08Xv",  # pop3_uidl_format of the Dovecot that was here
    "POP3_UNICODE": "wrapped",  # or stored: Unicode messages for a client that hasn't said UTF8
    "POP3_PROXY_TLS": "required",  # or no: passwords reach the mail host as they are, as Courier's
    "POP3_PROXY_CAFILE": "",  # whose signatures count, file or directory; the system's
    "POP3_PROXY_TIMEOUT": 30,  # seconds for each step of a login at a mail host
    "POP3_PROXY_IDLE_TIMEOUT": 1800,  # seconds of silence; the mail host's own limit comes first
    "POP3_AUTH_LAX": "0",  # 1: announce POP3AUTH as it is, and take all there is: Courier's way
    "POP3_RESPONSE_CODES": "0",  # 1: replies may begin with [AUTH], [SYS/TEMP] or [SYS/PERM]
    "POP3_SCRAM_KEY": "/etc/machine-id",  # file that the salts of SCRAM are made of, where none is
    "POP3_SCRAM_ROUNDS": 4096,  # of SCRAM, where none are stored
    "POP3_LOGIN_DELAY": 0,  # not 0: seconds from one login to the next, [LOGIN-DELAY]
    "POP3_DIALECT": "courier",  # or cyrus: whose texts, and what they go with, clients are served
    "POP3_FOLDER": "",  # serve this folder of the Maildir++; levels with dots between them
    "POP3_TELEMETRY": "",  # the directory whose USER/ gets protocol logs of sessions of USER
    "POP3_TELEMETRY_NAME": "",  # the name of such a log; else the process id
    "POP3_EXCLUSIVE": "0",  # 1: a mailbox in use is refused to others, [IN-USE]
}


class Settings:
    """The settings in an environment: `Settings(env).DEFDOMAIN`. Empty counts as not set.

    A value that makes no sense raises ValueError with the name and what is wrong.
    """

    __slots__ = ("_env",)

    def __init__(self, env: dict[str, str]):
        self._env = env

    def text(self, name: str) -> str:
        return self._env.get(name) or str(DEFAULTS[name])

    def choice(self, name: str, *allowed: str) -> str:
        text = self.text(name)
        if text not in allowed:
            raise ValueError(f"{name}={text}: not one of {', '.join(allowed)}")
        return text

    def is_on(self, name: str) -> bool:
        return self.choice(name, "0", "1") == "1"

    def number(self, name: str, least: int, most: int) -> int:
        text = self.text(name)
        if not (
            text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most
        ):
            raise ValueError(f"{name}={text}: not a number from {least} to {most}")
        return int(text)

    def seconds(self, name: str) -> int:
        text = self._env.get(name)
        if not text:
            return int(DEFAULTS[name])
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= 86400):
            raise ValueError(f"{name}={text}: not a number of seconds from 0 to 86400")
        return int(text)
