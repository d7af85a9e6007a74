"""dnslists - block lists and allow lists in the DNS: what is asked, and what an answer means

    -block=ZONE[=SHOWN][,VAR][/A.B.C.D][,MSG]
    -allow=ZONE[=SHOWN][,VAR][/A.B.C.D][,ANYTHING]

A client is on a list if ZONE has an A record for its address turned round; with /A.B.C.D only if
one has this value. MSG is the value of VAR (BLOCK), its first `@` the client's address; without MSG
it is `Blacklisted by ZONE`. With MSG `*`, or ANYTHING even if empty, TXT is asked for too, and is
the value if there is one; unless /A.B.C.D was given, TXT alone is then enough.

    VAR        the value; empty from -allow. A list whose VAR is set already, even to nothing, by
               the access file, the environment or a list before it, doesn't count
    VAR_ZONE   SHOWN, else ZONE       VAR_IP   the A record       VAR_TXT   the TXT record
    ALLOW_n    VAR, for each -allow with the client on it, counted from 0

(reference couriertcpd.md 8.3, as upstream has it). No IO here: `resolver` asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from courierchain.refusal import Refused
from couriertcpd.arrival import Variables
from couriertcpd.listen import MAPPED

LONGEST_NAME = 255  # octets of a name in the DNS, and 63 of a label
LONGEST_LABEL = 63
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
TEXT_WANTED = "*"

Answer = tuple[list[str], str]  # values of the A records, and of TXT: empty if there is none


class DnsList:
    """What one -block or -allow says. Raises Refused.

    variable: VAR. with_text: whether TXT is to be asked for.
    """

    __slots__ = ("variable", "with_text", "_allow", "_zone", "_shown", "_address", "_message")

    def __init__(self, option: str, text: str):
        self._allow = option == "allow"
        place, *others = text.split(",", 2)
        variable, message = [*others, "", ""][:2]
        place, _, address = place.partition("/")
        variable, slash, other_address = variable.partition("/")
        self._zone, _, shown = place.partition("=")
        self._shown = shown or self._zone
        self.variable = variable or "BLOCK"
        self._address = other_address if slash else address
        self._message = message
        self.with_text = len(others) == 2 if self._allow else message == TEXT_WANTED
        self._check(f"-{option}={text}")

    def _check(self, given: str) -> None:
        if not is_host_name(self._zone):
            raise Refused(f"{given}: no zone (zen.example.org is one)")
        if not self.variable.isascii() or not self.variable.isidentifier():
            raise Refused(f"{given}: {self.variable} can't be the name of a variable")
        try:
            if self._address:
                inet_pton(AF_INET, self._address)
        except OSError as why:
            raise Refused(f"{given}: Invalid IP address: {self._address}") from why

    def names(self, address: bytes) -> list[str]:
        """The names to ask for about 16 octets of address, in turn until the client is listed."""
        names = [".".join(address.hex()[::-1])]
        if address.startswith(MAPPED):
            names.insert(0, ".".join(str(octet) for octet in reversed(address[12:])))
        names = [f"{name}.{self._zone}" for name in names]
        return [name for name in names if len(name) <= LONGEST_NAME]

    def judge(self, remote: str, answer: Answer) -> Variables | None:
        """What the answer to one name sets, for the client `remote`; None if it isn't listed."""
        values, text = answer
        value = next((value for value in values if self._address in ("", value)), None)
        if value is None and (self._address or not text):
            return None
        found = {self.variable: "", f"{self.variable}_ZONE": self._shown}
        if value is not None:
            found[f"{self.variable}_IP"] = value
        if not self._allow:
            message = self._message or f"Blacklisted by {self._zone}"
            found[self.variable] = message.replace("@", remote, 1)
        if text and (self._allow or not self._address):
            found[f"{self.variable}_TXT"] = text
            if not self._allow:
                found[self.variable] = text
        return found

    @property
    def allows(self) -> bool:
        return self._allow


def variables(
    lists: list[DnsList], answers: list[list[Answer]], preset: Iterable[str], address: bytes
) -> Variables:
    """What all lists set for a client.

    answers: for each list, one for each name that it was asked for. preset: variables that are set.
    """
    remote = inet_ntop(AF_INET6, address)
    taken = set(preset)
    found: Variables = {}
    allowed = 0
    for dns_list, its_answers in zip(lists, answers, strict=True):
        verdicts = (dns_list.judge(remote, answer) for answer in its_answers)
        verdict = next((verdict for verdict in verdicts if verdict is not None), None)
        if verdict is None or dns_list.variable in taken:
            continue
        taken.add(dns_list.variable)
        found.update(verdict)
        if dns_list.allows:
            found[f"ALLOW_{allowed}"] = dns_list.variable
            allowed += 1
    return found


def is_host_name(name: str) -> bool:
    """Whether a name has letters, digits, hyphens, underscores and dots only, and not too many:
    a name from the DNS is whatever somebody likes to put there (CVE-40)."""
    labels = name.removesuffix(".").split(".")
    return (
        len(name) <= LONGEST_NAME
        and NAME_CHARACTERS.issuperset(name)
        and all(0 < len(label) <= LONGEST_LABEL for label in labels)
    )


def printable(text: bytes, longest: int) -> str:
    """A TXT record, fit for the environment: printable ASCII; anything else is a dot."""
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in text[:longest])
