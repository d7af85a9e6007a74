"""certificates - which certificate a client is shown, and what is wrong with the files

    TLS_CERTFILE.NAME         for a client that asks for NAME (SNI), or for x.NAME and has no file
    TLS_CERTFILE.ADDRESS      for connections to ADDRESS of ours: 192.0.2.1, 2001:db8::1
    TLS_CERTFILE              for all others
    TLS_PRIVATE_KEYFILE.NAME  the key, if it isn't in the certificate's file

(reference couriertcpd.md 12.4.) NAME is never made a path: it is looked up among the names that are
found in the directory, so it leads nowhere else (8314-07, reference 19).

`load` raises Refused with the line for the log: a TLS_CERTFILE that can't be used is an error. A
file of a NAME that can't be is a warning, and counts as absent. Contexts are made before the relay
forks, so all workers share the keys of session tickets.
"""

from __future__ import annotations

import os
import ssl
from stat import S_IROTH
from time import time

from courierchain import log
from courierchain.refusal import Refused
from couriertls import binding
from couriertls import settings as settings_of
from couriertls.binding import ServerContext
from couriertls.settings import Settings
from couriertls.validity import not_after

TICKETS = 1  # that a TLS 1.3 client gets: each connection brings the next one
LARGEST = 1 << 20  # octets of a certificate's file
KEY = b" PRIVATE KEY-----"
OBSOLETE_CIPHERS = "DEFAULT"  # to which a lower level of security is added

MODE = -1  # where it is in a stamp
Stamp = dict[str, tuple[int, ...] | None]


class Certificates:
    """The contexts for all names; `names` of those that aren't loaded yet map to None."""

    __slots__ = ("_settings", "_default", "_suffixes", "_named", "_logs_keys", "warnings")

    def __init__(self, settings: Settings):
        self._settings = settings
        self.warnings = list(settings.warnings)
        self._logs_keys = False
        self._default = server_context(settings)
        load_pair(self._default, settings, "", self.warnings)
        self._suffixes = names(settings)
        self._named: dict[str, ssl.SSLContext | None] = dict.fromkeys(self._suffixes)
        self._default.sni_callback = self._choose

    def load_all(self, previous: Certificates | None) -> None:
        """Load those of all names now; one that can't be is that of `previous`, or absent."""
        for name in list(self._named):
            self._load(name, previous._named.get(name) if previous else None)

    def _adopt(self, name: str, context: ssl.SSLContext) -> None:
        context.sni_callback = self._choose
        self._named[name] = context
        if self._logs_keys:
            binding.log_keys([context])

    def log_keys(self) -> int:
        """For channel bindings, in the process that relays; how many descriptors it has taken."""
        self._logs_keys = True
        named = [context for context in self._named.values() if context]
        return binding.log_keys([self._default, *named])

    def context(self, address: str) -> ssl.SSLContext:
        """What to begin a handshake with on a connection to this address of ours."""
        if "." in address:
            address = address.removeprefix("::ffff:")
        return self._find(address.lower()) or self._default

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Called in a handshake, with the name that the client asks for."""
        rest = (name or "").lower().rstrip(".")
        while rest:
            found = self._find(rest)
            if found:
                tls.context = found
                return
            rest = rest.partition(".")[2]

    def _find(self, name: str) -> ssl.SSLContext | None:
        if name not in self._named:
            return None
        return self._named[name] or self._load(name)

    def _load(self, name: str, before: ssl.SSLContext | None = None) -> ssl.SSLContext | None:
        """The context for a name. If it can't be loaded that is a warning, and the one `before`
        counts; without such, None, and it isn't tried again."""
        context = server_context(self._settings)
        found: list[str] = []
        try:
            load_pair(context, self._settings, f".{self._suffixes[name]}", found)
        except Refused as why:
            if before:
                self.warnings.append(f"{why} (the one read before stays in use)")
                self._adopt(name, before)
            else:
                self.warnings.append(f"{why} (counts as absent)")
                del self._named[name]
            return before
        self.warnings += found
        self._adopt(name, context)
        return context


def load(
    settings: Settings, *, all_names: bool = True, previous: Certificates | None = None
) -> Certificates:
    """Raises Refused. Without all_names a name's files are read when it is asked for."""
    certificates = Certificates(settings)
    if all_names:
        certificates.load_all(previous)
    return certificates


def check(env: dict[str, str]) -> list[str]:
    """What is to be said about the settings and their files: lines that begin with `ERR: ` and keep
    couriertls from starting, and others with `WARN: `."""
    try:
        settings = settings_of.read(env)
    except Refused as why:
        return [error(why)]
    try:
        warnings = load(settings).warnings
    except Refused as why:
        return [*map(warning, settings.warnings), error(why)]
    return [*map(warning, warnings)]


def error(why: Refused | str) -> str:
    return f"ERR: couriertls: {why}"


def warning(text: str) -> str:
    return f"WARN: couriertls: {text}"


def server_context(settings: Settings) -> ServerContext:
    """A context without certificates. Raises Refused."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    # A client that closes without close_notify is one that closes; nothing more is obeyed.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_IGNORE_UNEXPECTED_EOF
    context.num_tickets = TICKETS
    adapt(context, settings)
    if settings.alpn:
        context.set_alpn_protocols(settings.alpn)
    return context


def adapt(context: ssl.SSLContext, settings: Settings) -> None:
    """Set what a server and a client have in common. Raises Refused."""
    context.options |= ssl.OP_NO_COMPRESSION
    set_versions(context, settings)
    verify = {"NONE": ssl.CERT_NONE, "PEER": ssl.CERT_OPTIONAL, "REQUIREPEER": ssl.CERT_REQUIRED}
    context.verify_mode = verify[settings.verify]
    if settings.verify != "NONE":
        trust(context, settings.trusted)


def set_versions(context: ssl.SSLContext, settings: Settings) -> None:
    ciphers = settings.ciphers
    if settings.is_obsolete:
        ciphers = f"{ciphers or OBSOLETE_CIPHERS}:@SECLEVEL=0"  # they sign with MD5 and SHA-1
    try:
        if ciphers:
            context.set_ciphers(ciphers)
    except ssl.SSLError as why:
        remedy = "see `openssl ciphers`, or leave it empty"
        raise Refused(f"TLS_CIPHER_LIST={settings.ciphers}: no cipher in it; {remedy}") from why
    if settings.is_obsolete:
        from warnings import catch_warnings, simplefilter  # for Python's own opinion of it

        with catch_warnings():
            simplefilter("ignore")
            context.minimum_version = ssl.TLSVersion[settings.lowest]
    else:
        context.minimum_version = ssl.TLSVersion[settings.lowest]


def trust(context: ssl.SSLContext, place: str) -> None:
    """Load the authorities of TLS_TRUSTCERTS: a file; a directory, as c_rehash leaves it or not.

    Raises Refused.
    """
    setting = f"TLS_TRUSTCERTS={place}"
    try:
        if not os.path.isdir(place):
            context.load_verify_locations(cafile=place)
            return
        files = sorted(os.listdir(place))
        if any(name.endswith(".0") for name in files):
            context.load_verify_locations(capath=place)
            return
        for name in files:
            load_if_certificate(context, os.path.join(place, name))
    except ssl.SSLError as why:
        raise Refused(f"{setting}: no certificate in it; name a PEM file or a directory") from why
    except OSError as why:
        raise Refused(f"{setting}: {why.strerror}; name a PEM file or a directory") from why


def load_if_certificate(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except OSError:  # SSLError is one
        pass


def load_pair(
    context: ssl.SSLContext, settings: Settings, suffix: str, warnings: list[str]
) -> None:
    """Load certificate, key and DH parameters. suffix: `.NAME`, or nothing. Raises Refused."""
    path = settings.certificate + suffix
    setting = f"TLS_CERTFILE{suffix}={path}" if not suffix else path
    text = contents(path, setting)
    if b"-----BEGIN CERTIFICATE-----" not in text:
        raise Refused(f"{setting}: no certificate in it; it needs one in PEM form")
    key = key_of(settings, suffix, text, setting, warnings)
    try:
        context.load_cert_chain(path, key, password=no_password)
    except ssl.SSLError as why:
        raise Refused(f"{setting}: {pair_problem(why, key or path)}") from why
    except (OSError, ValueError) as why:
        raise Refused(f"{setting}: {key or path}: {why}") from why
    if isinstance(context, ServerContext):
        context.end_point = binding.end_point(text)
    warn_of_age(text, setting, warnings)
    warn_of_mode(key or path, warnings)
    load_dh(context, settings, path, warnings)


def contents(path: str, setting: str) -> bytes:
    """Raises Refused."""
    try:
        # O_NONBLOCK: a pipe of that name is not waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(LARGEST) or b""
    except OSError as why:
        remedy = "name a PEM file that this user can read"
        raise Refused(f"{setting}: {why.strerror}; {remedy}") from why


def key_of(
    settings: Settings, suffix: str, certificate: bytes, setting: str, warnings: list[str]
) -> str | None:
    """The file of the key; None if it is that of the certificate. Raises Refused."""
    if settings.key:
        path = settings.key + suffix
        if os.access(path, os.R_OK):
            return path
        if KEY in certificate and not suffix:
            said = f"TLS_PRIVATE_KEYFILE={path}"
            warnings.append(f"{said}: cannot be read; the key in {setting} is used")
    if KEY in certificate:
        return None
    place = f"{settings.key}{suffix}, which cannot be read" if settings.key else "it"
    remedy = "append the key, or name its file in TLS_PRIVATE_KEYFILE"
    raise Refused(f"{setting}: no private key in {place}; {remedy}")


def pair_problem(why: ssl.SSLError, key: str) -> str:
    reason = why.reason or ""
    if reason == "KEY_VALUES_MISMATCH":
        return f"{key} has the key of another certificate; put in the one that belongs to it"
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return f"{reason.replace('_', ' ').lower()}; have a new one made, RSA with 2048 bits or EC"
    problem = reason.replace("_", " ").lower() or "not whole, or not PEM"
    return f"cannot be loaded with the key in {key} ({problem}); make it anew"


def no_password() -> str:
    raise ValueError("the key has a password; remove that with `openssl pkey`")


def warn_of_age(text: bytes, setting: str, warnings: list[str]) -> None:
    end = not_after(text)
    if end is not None and end < time():
        warnings.append(f"{setting}: the certificate has expired; have it renewed")


def warn_of_mode(path: str, warnings: list[str]) -> None:
    there = stamp_of(path)
    if there and there[MODE] & S_IROTH:
        warnings.append(f"{path}: everybody can read the private key in it; chmod o-r {path}")


def load_dh(
    context: ssl.SSLContext, settings: Settings, certificate: str, warnings: list[str]
) -> None:
    """From TLS_DHPARAMS, else from the certificate's file; there needn't be any."""
    for path in filter(None, (settings.dh, certificate)):
        try:
            context.load_dh_params(path)
            return
        except OSError as why:  # SSLError is one
            if path == settings.dh:
                reason = dh_problem(why)
                warnings.append(
                    f"TLS_DHPARAMS={path}: {reason}, so no DHE ciphers (ECDHE is not concerned); "
                    "make it with `openssl dhparam`, or leave it empty"
                )


def dh_problem(why: OSError) -> str:
    if not isinstance(why, ssl.SSLError):
        return why.strerror or str(why)
    return (why.reason or "not DH parameters").replace("_", " ").lower()


def names(settings: Settings) -> dict[str, str]:
    """NAMEs and ADDRESSes that have a file, and how the file spells them."""
    path = settings.certificate
    return {end.lower(): end for end in suffixes(path) if os.access(f"{path}.{end}", os.R_OK)}


def suffixes(path: str) -> list[str]:
    """What follows `PATH.` in the names of the files beside it; a name without a dot or a colon in
    it, such as `old` or `rand`, is none of a host."""
    folder, start = os.path.split(path)
    start += "."
    try:
        files = os.listdir(folder or ".")
    except OSError:
        return []
    ends = [file.removeprefix(start) for file in files if file.startswith(start)]
    return sorted(end for end in ends if "." in end or ":" in end or end == "localhost")


def stamp(settings: Settings) -> Stamp:
    """What changes when somebody puts other files in their place."""
    paths = {settings.certificate, settings.key, settings.dh, settings.trusted} - {""}
    for path in (settings.certificate, settings.key):
        paths |= {f"{path}.{end}" for end in suffixes(path)} if path else set()
    return {path: stamp_of(path) for path in paths}


def stamp_of(path: str) -> tuple[int, ...] | None:
    try:
        there = os.stat(path)
    except OSError:
        return None
    when = (there.st_mtime_ns, there.st_ctime_ns)
    return (there.st_dev, there.st_ino, there.st_size, *when, there.st_mode)


def report(warnings: list[str]) -> None:
    for text in warnings:
        log.plain(warning(text))
