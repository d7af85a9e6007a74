"""options - the options of imapd.conf that concern POP3, with type, default, and what they do here

`works` is false for options that have no effect over Maildirs: where one is set, the log says so
once. Whatever isn't in the table is taken silently, and means nothing. Ours are

    courier_modules     the chain of authentication modules, with their order (authpam)
    courier_maildir     the Maildir where a module names none (./Maildir)
    courier_NAME        the setting NAME, in upper case, for the programs of the chain
    telemetry_name      pid: a log is called as the manual says; service: SERVICE-PID, as in newer
                        releases

(reference cyrus-pop3d.md 6, 9)
"""

from __future__ import annotations

from collections.abc import Callable

from cyruspop3d import values

KINDS: dict[str, Callable[[str], int]] = {
    "switch": values.switch,
    "integer": values.integer,
    "seconds": lambda text: values.duration(text, "s"),
    "minutes": lambda text: values.duration(text, "m"),
    "days": lambda text: values.duration(text, "d"),
}


class Row:
    """kind: text, enum, or one of KINDS. choices: of an enum."""

    __slots__ = ("kind", "default", "works", "choices")

    def __init__(self, kind: str, default: str, works: bool = True, choices: str = ""):
        self.kind = kind
        self.default = default
        self.works = works
        self.choices = tuple(choices.split())


ALIASES = {  # older names, which count if the option itself isn't there
    "tls_server_cert": ("tls_cert_file",),
    "tls_server_key": ("tls_key_file",),
    "tls_client_ca_file": ("tls_ca_file",),
    "tls_client_ca_dir": ("tls_ca_path",),
    "tls_ciphers": ("tls_cipher_list",),
}

TABLE = {
    "configdirectory": Row("text", ""),
    "servername": Row("text", ""),
    "serverinfo": Row("enum", "on", choices="on min off"),
    "allowplaintext": Row("switch", "no"),
    "allowstarttls": Row("switch", "yes"),  # as in 3.0, which had no such option
    "tls_required": Row("switch", "no"),
    "poptimeout": Row("minutes", "10"),
    "popminpoll": Row("minutes", "0"),
    "poppollpadding": Row("integer", "1"),
    "popexpiretime": Row("days", "-1"),
    "popsubfolders": Row("switch", "no"),
    "popuseimapflags": Row("switch", "no"),
    "uidl_format": Row("enum", "cyrus", choices="uidonly cyrus dovecot courier"),
    "failedloginpause": Row("seconds", "3"),
    "readonly": Row("switch", "no"),
    "username_tolower": Row("switch", "yes"),
    "virtdomains": Row("enum", "off", choices="off userid on"),
    "defaultdomain": Row("text", "internal"),
    "unixhierarchysep": Row("switch", "yes"),
    "sasl_mech_list": Row("text", "CRAM-MD5 PLAIN LOGIN"),
    "tls_server_cert": Row("text", ""),
    "tls_server_key": Row("text", ""),
    "tls_client_ca_file": Row("text", ""),
    "tls_client_ca_dir": Row("text", ""),
    "tls_client_certs": Row("enum", "optional", choices="off optional require"),
    "tls_ciphers": Row("text", ""),
    "tls_versions": Row("text", "tls1_0 tls1_1 tls1_2 tls1_3"),
    "syslog_prefix": Row("text", ""),
    "syslog_facility": Row("text", "mail"),
    "debug_command": Row("text", ""),
    "telemetry_name": Row("enum", "pid", choices="pid service"),
    "plaintextloginpause": Row("seconds", "0"),
    "maxlogins_per_host": Row("integer", "0"),
    "maxlogins_per_user": Row("integer", "0"),
    "proc_path": Row("text", ""),
    "allowapop": Row("switch", "yes"),
    "sasl_pwcheck_method": Row("text", ""),
    "sasl_saslauthd_path": Row("text", ""),
    # No effect here.
    "allowanonymouslogin": Row("switch", "no", False),
    "popuseacl": Row("switch", "no", False),
    "disconnect_on_vanished_mailbox": Row("switch", "no", False),
    "statuscache": Row("switch", "no", False),
    "autocreate_quota": Row("integer", "-1", False),
    "admins": Row("text", "", False),
    "proxyservers": Row("text", "", False),
    "loginrealms": Row("text", "", False),
    "loginuseacl": Row("switch", "no", False),
    "altnamespace": Row("switch", "yes", False),
    "sasl_auxprop_plugin": Row("text", "", False),
    "sasl_minimum_layer": Row("integer", "0", False),
    "sasl_maximum_layer": Row("integer", "256", False),
    "tls_prefer_server_ciphers": Row("switch", "no", False),
    "tls_eccurve": Row("text", "prime256v1", False),
    "tls_session_timeout": Row("minutes", "1440", False),
    "tcp_keepalive": Row("switch", "no", False),
    "tcp_keepalive_cnt": Row("integer", "0", False),
    "tcp_keepalive_idle": Row("seconds", "0", False),
    "tcp_keepalive_intvl": Row("seconds", "0", False),
    "debug": Row("switch", "no", False),
    "chatty": Row("switch", "no", False),
    "auditlog": Row("switch", "no", False),
    "iolog": Row("switch", "no", False),
    "telemetry_bysessionid": Row("switch", "no", False),
    "umask": Row("integer", "077", False),
    "cyrus_user": Row("text", "", False),
    "cyrus_group": Row("text", "", False),
    "srvtab": Row("text", "", False),
}
