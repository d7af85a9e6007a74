"""mkpop3dcert - make a self-signed certificate, to begin with

    mkpop3dcert [PREFIX]

Writes PREFIX.pem (/etc/courier/pop3d.pem): private key, then certificate; mode 0600 from the first
moment on, owner courier where there is such a user (CVE-31). A file that is there is never touched.

PREFIX.cnf, else /etc/courier/pop3d.cnf: what stands in the certificate, see `cnf`; without any, the
name of this machine. BITS: of the RSA key, 2048 to 16384, or medium, high, ultra (3072, or what the
file says). SHA-256; 365 days, or what the file says; subjectAltName has the cn, and dns_name and
ip_address of the file, because clients look nowhere else (RFC 9525).

Exits 0; 1 with `FILE already exists.` on descriptor 1, or after an error with a line on descriptor
2; 0, silently, where openssl isn't installed. Reference: couriertcpd.md 14.4.
"""

from __future__ import annotations

import os
import socket
import sys

from courierchain import log
from courierchain.refusal import Refused, refusal
from courierctl import cnf, openssl, private

PREFIX = "/etc/courier/pop3d"
BITS = 3072
FEWEST, MOST = 2048, 16384


def main(argv: list[str], env: dict[str, str]) -> int:
    os.umask(0o077)
    prefix = argv[1] if len(argv) > 1 else PREFIX
    file = f"{prefix}.pem"
    if os.path.lexists(file):
        return exists(file)
    program = openssl.path(env)
    if program is None:
        return 0
    try:
        template = read(prefix)
        bits = env.get("BITS") or str(template.bits or BITS)
        private.make(file, certificate(program, template, openssl.bits(bits, "BITS", FEWEST, MOST)))
    except FileExistsError:
        return exists(file)
    except Refused as why:
        log.plain(f"mkpop3dcert: {why}")
        return 1
    say(f"{file}: self-signed, for {', '.join(template.names)}, {template.days} days")
    return 0


def exists(file: str) -> int:
    say(f"{file} already exists.")
    return 1


def say(text: str) -> None:
    print(text)
    sys.stdout.flush()


def read(prefix: str) -> cnf.Template:
    """Raises Refused, with the name of the file."""
    for file in (f"{prefix}.cnf", f"{PREFIX}.cnf"):
        try:
            with open(file, encoding="utf-8") as opened:
                return cnf.parse(opened.read())
        except FileNotFoundError:
            continue
        except OSError as why:
            raise refusal(file, why) from why
        except UnicodeDecodeError as why:
            raise Refused(f"{file}: not UTF-8") from why
        except Refused as why:
            raise Refused(f"{file}: {why}") from why
    name = socket.getfqdn()
    return cnf.Template([("CN", name)], [name], cnf.DAYS, 0)


def certificate(program: str, template: cnf.Template, bits: int) -> bytes:
    """Key and certificate, PEM. Raises Refused."""
    size = f"rsa_keygen_bits:{bits}"
    key = openssl.run(program, "genpkey", "-algorithm", "RSA", "-pkeyopt", size)
    files = {"key": key, "config": cnf.request(template).encode()}
    made = openssl.run(
        program,
        *("req", "-x509", "-new", "-sha256", "-batch", "-days", str(template.days)),
        *("-key", "{key}", "-config", "{config}"),
        files=files,
    )
    return key + made
