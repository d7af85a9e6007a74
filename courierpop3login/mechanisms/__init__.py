"""mechanisms - the SASL mechanisms (RFC 4422), one file a family; no descriptors, no clock

An object is one dialogue. `respond` gets what the client said, decoded, and gives what to say next,
or the Attempt that has come of it:

    respond(None)      the begin, without an initial response
    respond(octets)    the begin with one, or a response to the last challenge

    bytes              the next challenge
    Attempt            the client has said all: the authentication modules will tell
    raises Malformed   not in the mechanism's grammar: the dialogue is over
    raises Refused     in it, and not to be granted: the dialogue is over

A new mechanism is a file here and a line in `courierpop3login.sasl.TABLE`.
"""

from __future__ import annotations

from binascii import Error, a2b_base64


class Malformed(Exception):
    """The response isn't what the mechanism's grammar allows."""


class Refused(Exception):
    """The response can't log anybody in."""


class Attempt:
    """A complete login, as the client claims it.

    authtype       of the record on descriptor 3
    user           the userid; empty only where the secret tells it
    acts_for       the authorization name; empty for the user's own (RFC 4616 section 2)
    takes_domain   DEFDOMAIN is for userids like this one
    """

    __slots__ = ("authtype", "user", "acts_for", "takes_domain")

    secret = b"password"  # what a refusal calls it

    def __init__(
        self, authtype: bytes, user: bytes, *, acts_for: bytes = b"", takes_domain: bool = True
    ):
        self.authtype = authtype
        self.user = user
        self.acts_for = acts_for
        self.takes_domain = takes_domain

    def lines(self, user: bytes) -> tuple[bytes, ...]:
        """The authdata of the record; `user` has its domain now."""
        raise NotImplementedError


class Mechanism:
    __slots__ = ()

    def respond(self, response: bytes | None) -> bytes | Attempt:
        """See above. Raises Malformed and Refused."""
        raise NotImplementedError


def decode(text: bytes) -> bytes:
    """Base64 without anything else in it (5034-08). Raises Malformed."""
    try:
        if len(text) % 4:
            raise Malformed
        return a2b_base64(text, strict_mode=True)
    except Error as why:
        raise Malformed from why
