"""introspection - ask who has issued a token whether it is good (RFC 7662)

    OAUTH_INTROSPECTION_URL            https, or http to this host
    OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET    who asks, by HTTP's Basic
    OAUTH_CAFILE                       who may vouch for the server; else whom the system trusts
    OAUTH_TIMEOUT                      seconds for all of it (5; at most 60)

The server has to prove its name. It answers with status 200 and a JSON object of at most LARGEST
octets, in which `active` is true, with the token's claims, or false: the token is wrong. Any other
answer, a redirection too, is a temporary failure. A process of its own asks, and is killed when
that takes too long.
"""

from __future__ import annotations

import json
from base64 import b64encode
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLContext, create_default_context
from urllib.parse import SplitResult, quote_plus, urlencode, urlsplit

from authmodules.apart import Unfinished, apart
from authmodules.claims import Claims, Wrong
from authmodules.rcfile import RcFile
from courierchain.authmodule import TemporaryFailure

LARGEST = 65536  # octets of an answer
TIMEOUT, LONGEST_TIMEOUT = 5, 60  # seconds
HERE = ("127.0.0.1", "::1", "localhost")
OK, TROUBLE = b"+", b"-"


def claimed(token: bytes, rc: RcFile) -> Claims:
    """What the server says of an active token. Raises Wrong and TemporaryFailure."""
    url = server(rc)
    limit = rc.number("OAUTH_TIMEOUT") or TIMEOUT
    if limit > LONGEST_TIMEOUT:
        raise TemporaryFailure(f"{rc.place('OAUTH_TIMEOUT')}: over {LONGEST_TIMEOUT} seconds")
    try:
        said = apart(limit, ask, url, token, rc, limit)
        if said.startswith(TROUBLE):
            raise Unfinished(said[1:].decode(errors="replace"))
        claims = json.loads(said[1:])
        if not isinstance(claims, dict) or not isinstance(claims.get("active"), bool):
            raise Unfinished("an answer that is none of RFC 7662")
    except Unfinished as why:
        raise TemporaryFailure(
            f"{rc.text('OAUTH_INTROSPECTION_URL')}: {why}"
            f" (check {rc.place('OAUTH_INTROSPECTION_URL')})"
        ) from why
    except (ValueError, RecursionError) as why:
        raise TemporaryFailure(
            f"{rc.text('OAUTH_INTROSPECTION_URL')}: an answer that is not JSON"
        ) from why
    if not claims["active"]:
        raise Wrong("it is not active")
    return claims


def server(rc: RcFile) -> SplitResult:
    """Raises TemporaryFailure for an URL over which nobody's token may go."""
    try:
        url = urlsplit(rc.text("OAUTH_INTROSPECTION_URL"))
        good = url.hostname and url.port != 0 and not url.username
    except ValueError:
        good = False
    if not good or url.scheme not in ("https", "http"):
        raise TemporaryFailure(f"{rc.place('OAUTH_INTROSPECTION_URL')}: write https://HOST/PATH")
    if url.scheme == "http" and url.hostname not in HERE:
        raise TemporaryFailure(
            f"{rc.place('OAUTH_INTROSPECTION_URL')}: http is for this host alone (write https)"
        )
    return url


def ask(url: SplitResult, token: bytes, rc: RcFile, limit: int) -> bytes:
    """The answer behind OK, or what is wrong behind TROUBLE; in a process of its own."""
    try:
        connection = connect(url, rc, limit)
        body = urlencode({"token": token, "token_type_hint": "access_token"})
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("POST", target, body, headers(rc))
        response = connection.getresponse()
        if response.status != 200:
            return TROUBLE + b"status %d" % response.status
        answer = response.read(LARGEST + 1)
        return OK + answer if len(answer) <= LARGEST else TROUBLE + b"an answer that is too long"
    except (OSError, HTTPException, ValueError) as why:
        text = getattr(why, "strerror", None) or str(why) or type(why).__name__
        return TROUBLE + text.encode(errors="replace")


def connect(url: SplitResult, rc: RcFile, limit: int) -> HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "http":
        return HTTPConnection(host, url.port or 80, timeout=limit)
    return HTTPSConnection(host, url.port or 443, timeout=limit, context=trust(rc))


def trust(rc: RcFile) -> SSLContext:
    return create_default_context(cafile=rc.text("OAUTH_CAFILE") or None)


def headers(rc: RcFile) -> dict[str, str]:
    found = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
        "Connection": "close",
    }
    if rc.text("OAUTH_CLIENT_ID"):  # RFC 6749 section 2.3.1
        names = (rc.text("OAUTH_CLIENT_ID"), rc.text("OAUTH_CLIENT_SECRET"))
        pair = ":".join(quote_plus(name, errors="surrogateescape") for name in names)
        found["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
    return found
