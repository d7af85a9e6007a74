"""environment - what imapd.conf says, as the settings that the programs of the chain read

Options that Courier's programs have a setting for become that one; the others are CYRUS_... (see
courierchain.cyrus).
"""

from __future__ import annotations

import os

from cyruspop3d.config import Config

SASLAUTHD = "authsaslauthd"
PRODUCT = "courierpop3"
SHORTEST_TIMEOUT = 600  # seconds; RFC 1939 section 3 asks for as much
LONGEST = 86400  # seconds that the programs of the chain take
CLEAR = ("PLAIN", "LOGIN")  # mechanisms that send the password as it is
VERSIONS = {"tls1_0": "TLSv1", "tls1_1": "TLSv1.1", "tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}

SWITCHES = (
    *("username_tolower", "popsubfolders", "unixhierarchysep", "popuseimapflags", "readonly"),
    "allowapop",
)
CHOICES = ("serverinfo", "virtdomains", "uidl_format")
NUMBERS = (
    *("popminpoll", "poppollpadding", "plaintextloginpause"),
    *("maxlogins_per_host", "maxlogins_per_user"),
)

Environment = dict[str, str]


def command(config: Config) -> list[str]:
    """The chain. A name without `/` is one of our own programs, or found in PATH."""
    maildir = config.chain.get("MAILDIR") or "./Maildir"
    return ["courierpop3login", *modules(config), "courierpop3d", maildir]


def modules(config: Config) -> list[str]:
    """Those of courier_modules, authpam without it. With `sasl_pwcheck_method: saslauthd` that one
    is asked first, and those of courier_modules know the accounts; without them the system does."""
    named = config.chain.get("MODULES", "").split()
    if not asks_saslauthd(config) or SASLAUTHD in named:
        return named or ["authpam"]
    return [SASLAUTHD, *named]


def asks_saslauthd(config: Config) -> bool:
    return "saslauthd" in config.text("sasl_pwcheck_method").lower().split()


def saslauthd(config: Config) -> Environment:
    if not asks_saslauthd(config):
        return {}
    found = {"AUTHSASLAUTHD_ACCOUNTS": "next" if config.chain.get("MODULES") else "passwd"}
    if path := config.text("sasl_saslauthd_path"):
        found["AUTHSASLAUTHD_SOCKET"] = path
    return found


def settings(config: Config, service: str, ssf: int) -> Environment:
    """ssf: the security strength of a layer outside, as of -p; over 1 it keeps passwords secret."""
    allows_plain = config.is_on("allowplaintext") or ssf > 1
    name = service if config.choice("telemetry_name") == "service" else ""
    found = {
        "POP3_DIALECT": "cyrus",
        "POP3_RESPONSE_CODES": "1",
        "POP3_IDLE_TIMEOUT": timeout(config),
        "POP3_LOGIN_TIMEOUT": timeout(config),
        "POP3_FAILURE_DELAY": str(min(max(0, config.number("failedloginpause")), LONGEST)),
        "CYRUS_SERVICE": service,
        "POP3_TELEMETRY": f"{config.text('configdirectory')}/log",
        "POP3_TELEMETRY_NAME": f"{name}-{os.getpid()}" if name else str(os.getpid()),
        "CYRUS_SERVERNAME": config.text("servername") or os.uname().nodename,
        "CYRUS_VERSION": PRODUCT,
        "CYRUS_ALLOWPLAINTEXT": str(int(allows_plain)),
        "CYRUS_POPEXPIRETIME": str(config.number("popexpiretime") // 86400),
        "CYRUS_DEFAULTDOMAIN": config.text("defaultdomain"),
        "CYRUS_CONFIGDIRECTORY": config.text("configdirectory"),
        **{f"CYRUS_{option.upper()}": str(int(config.is_on(option))) for option in SWITCHES},
        **{f"CYRUS_{option.upper()}": config.choice(option) for option in CHOICES},
        **{f"CYRUS_{option.upper()}": str(config.number(option)) for option in NUMBERS},
    }
    found.update(mechanisms(config, allows_plain))
    found.update(tls(config))
    found.update(saslauthd(config))
    ours = {name: value for name, value in config.chain.items() if name not in OWN}
    return {**found, **ours}


OWN = ("MODULES", "MAILDIR")  # of courier_NAME, what isn't a setting of the chain's


def timeout(config: Config) -> str:
    return str(min(max(SHORTEST_TIMEOUT, config.number("poptimeout")), LONGEST))


def mechanisms(config: Config, allows_plain: bool) -> Environment:
    listed = config.text("sasl_mech_list").replace(",", " ").upper().split()
    without_tls = [name for name in listed if allows_plain or name not in CLEAR]
    return {"POP3AUTH": " ".join(without_tls), "POP3AUTH_TLS": " ".join(listed)}


def has_tls(config: Config) -> bool:
    paths = config.text("tls_server_cert"), config.text("tls_server_key")
    return all(path not in ("", "disabled") for path in paths)


def tls(config: Config) -> Environment:
    found = {"POP3_TLS_REQUIRED": str(int(config.is_on("tls_required"))), "POP3_STARTTLS": "NO"}
    if not has_tls(config):
        return found
    trusted = config.text("tls_client_ca_file") or config.text("tls_client_ca_dir")
    wanted = {"off": "NONE", "optional": "PEER", "require": "REQUIREPEER"}
    verify = wanted[config.choice("tls_client_certs")] if trusted else "NONE"
    found.update(
        POP3_STARTTLS="YES" if config.is_on("allowstarttls") else "NO",
        TLS_CERTFILE=config.text("tls_server_cert"),
        TLS_PRIVATE_KEYFILE=config.text("tls_server_key"),
        TLS_CIPHER_LIST=config.text("tls_ciphers"),
        TLS_TRUSTCERTS=trusted,
        TLS_VERIFYPEER=verify,
    )
    if config.is_set("tls_versions"):
        words = config.text("tls_versions").replace(",", " ").split()
        lowest = [VERSIONS[name] for name in VERSIONS if name in words]
        if lowest:
            found["TLS_PROTOCOL"] = lowest[0]
    return found
