"""failure - why TLS has failed, in Courier's words

    [DEBUG: ][ip=[TCPREMOTEIP], ]TEXT

TEXT is `couriertls: accept: error:...` for what TLS complains of, `couriertls: accept: REASON` for
a system call, and `Unexpected SSL connection shutdown.`, behind DEBUG:, for a peer that has gone,
which port scanners do all day (reference couriertcpd.md 12.7). Instead of accept: connect, read and
write, where the failure was there.
"""

from __future__ import annotations

import errno
import os
import ssl

from courierchain import log
from couriertls.peer import Unusable

GONE = "Unexpected SSL connection shutdown."


# For who doesn't speak TLS at all OpenSSL has no alert.
PLAIN_TEXT = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST")


class Failure(Exception):
    """text: without address and line end. is_noise: nobody needs to know but who looks for it.
    needs_alert: the peer hasn't been sent one."""

    def __init__(self, text: str, is_noise: bool = False, needs_alert: bool = False):
        super().__init__(text)
        self.text = text
        self.is_noise = is_noise
        self.needs_alert = needs_alert

    def line(self, address: str) -> str:
        """address: TCPREMOTEIP, or nothing."""
        shown = f"ip=[{log.safe(address)}], " if address else ""
        return f"{'DEBUG: ' if self.is_noise else ''}{shown}{self.text}"


def failure(doing: str, why: Exception) -> Failure:
    """doing: accept, connect, read or write."""
    if isinstance(why, Failure):
        return why
    if isinstance(why, Unusable):
        return Failure(f"couriertls: {doing}: {why}")
    gone = isinstance(why, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError))
    if gone or (isinstance(why, OSError) and why.errno == errno.ENOTCONN):
        return Failure(GONE, is_noise=True)
    if isinstance(why, ssl.SSLCertVerificationError):
        return Failure(f"couriertls: {doing}: error:{why.verify_message}")
    if isinstance(why, ssl.SSLError):
        reason = (why.reason or "unknown").replace("_", " ").lower()
        text = f"couriertls: {doing}: error:SSL routines:{reason}"
        return Failure(text, needs_alert=why.reason in PLAIN_TEXT)
    text = why.strerror if isinstance(why, OSError) and why.strerror else type(why).__name__
    return Failure(f"couriertls: {doing}: {text}")


def timeout(doing: str) -> Failure:
    return Failure(f"couriertls: {doing}: {os.strerror(errno.ETIMEDOUT)}")
