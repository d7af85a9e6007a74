"""cnf - pop3d.cnf, which says what stands in the certificate that mkpop3dcert makes

Either a template of GnuTLS's certtool, as Debian ships it ::

    organization = "Courier Mail Server"
    cn = "localhost"
    expiration_days = 365
    dns_name = "pop.example.com"

or a configuration of openssl's req, where the fields are those of the section that
`distinguished_name` names (and where `prompt` isn't `no`, the ones that end in _default). What else
there is in such a file is passed over; so is `serial`, since two certificates with the same number
and issuer are refused by some clients. Reference: couriertcpd.md 14.4.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from courierchain.refusal import Refused

CERTTOOL = {  # in the order of the subject
    "country": "C",
    "state": "ST",
    "locality": "L",
    "organization": "O",
    "unit": "OU",
    "cn": "CN",
    "email": "emailAddress",
}
COMMON_NAMES = ("CN", "commonName")
DAYS = 365
REQUEST = """\
[req]
prompt = no
utf8 = yes
string_mask = utf8only
distinguished_name = subject
x509_extensions = extensions
[subject]
{subject}
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = @names
[names]
{names}
"""
SECTION = re.compile(r"\[\s*(\w+)\s*\]")


class Template:
    """subject: field and value, in this order. names: of the host, for subjectAltName. bits: of the
    key, 0 for no word on it."""

    __slots__ = ("subject", "names", "days", "bits")

    def __init__(self, subject: list[tuple[str, str]], names: list[str], days: int, bits: int):
        self.subject = subject
        self.names = names
        self.days = days
        self.bits = bits


def parse(text: str) -> Template:
    """Raises Refused for a text without a common name, or with a number that is none."""
    sections = _sections(text)
    template = _openssl(sections) if len(sections) > 1 else _certtool(sections[""])
    if not template.names:
        raise Refused("there is no cn, the name of the host")
    return template


def _sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """Names and values, by section; "" is what stands before the first."""
    sections: dict[str, list[tuple[str, str]]] = {"": []}
    current = sections[""]
    for line in text.splitlines():
        line = line.strip()
        if found := SECTION.match(line):
            current = sections.setdefault(found[1], [])
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            current.append((name.strip(), _value(value.strip())))
    return sections


def _value(text: str) -> str:
    """Without quotes, or without a comment."""
    if text.startswith(("'", '"')):
        return text[1:].partition(text[0])[0]
    return text.partition("#")[0].strip()


def _certtool(fields: list[tuple[str, str]]) -> Template:
    given = dict(fields)
    subject = [(short, given[name]) for name, short in CERTTOOL.items() if given.get(name)]
    names = [value for name, value in fields if name in ("dns_name", "ip_address") and value]
    names = [given["cn"], *names] if given.get("cn") else names
    return Template(subject, list(dict.fromkeys(names)), _number(given, "expiration_days", DAYS), 0)


def _openssl(sections: dict[str, list[tuple[str, str]]]) -> Template:
    request = dict(sections[""] + sections.get("req", []))
    fields = sections.get(request.get("distinguished_name", ""), [])
    if request.get("prompt") != "no":
        fields = [
            (name.removesuffix("_default"), value)
            for name, value in fields
            if name.endswith("_default")
        ]
    # "0.OU", "1.OU": openssl's way to have several.
    subject = [(re.sub(r"^\d+\.", "", name), value) for name, value in fields if value]
    names = [value for name, value in subject if name in COMMON_NAMES]
    days = _number(request, "default_days", DAYS)
    return Template(subject, names, days, _number(request, "default_bits", 0))


def _number(fields: dict[str, str], name: str, default: int) -> int:
    text = fields.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) and len(text) < 6):
        raise Refused(f"{name} = {text}: not a number from 1 to 99999")
    return int(text)


def request(template: Template) -> str:
    """The configuration with which `openssl req -x509` makes that certificate. Raises Refused."""
    counted: dict[str, int] = {}
    subject = []
    for name, value in template.subject:
        counted[name] = counted.get(name, -1) + 1
        subject.append(f"{counted[name]}.{name} = {quoted(value)}")
    kinds: dict[str, int] = {}
    names = []
    for name in template.names:
        kind = "IP" if _is_address(name) else "DNS"
        kinds[kind] = kinds.get(kind, 0) + 1
        names.append(f"{kind}.{kinds[kind]} = {quoted(name)}")
    return REQUEST.format(subject="\n".join(subject), names="\n".join(names))


def quoted(value: str) -> str:
    """A value as openssl's files have it. Raises Refused for what can't stand there."""
    if not value.isprintable():
        raise Refused(f"{value!r}: there are characters in it that can't be printed")
    return "".join(f"\\{sign}" if sign in "\\\"'$# " else sign for sign in value)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
