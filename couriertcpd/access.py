"""access - who may connect at all, and what the sessions of an address are told

    -access=FILE      records by address: a GDBM database (makedat), or *ours*: its text source
    -accesslocal      our own address and port are looked up too, before the client's
    -denymsg=TEXT     TEXT and LF, for a client that is denied or dropped; not by -accesslocal
    -drop[=VAR]       who has a non-empty VAR (BLOCK) is dropped, with a WARN
    MAXCPERIP         replaces -maxperip; of a record, or of the listener's own environment

Keys: 192.0.2.1, 192.0.2, 192.0, 192, and * for everybody; :2001:0db8 and up to all eight groups for
IPv6; 192.0.2.1.110 and *.110 for our own address and port. In a text also 192.0.2.0/28,
2001:db8::/33, 192.0.2.7-192.0.2.19 (the networks it is made of) and 2001:db8::1. The record of the
smallest network counts, and no other. An IPv4 address in its IPv6 form meets the rules for IPv4
(CVE-41).

Values: `deny...`, or `allow` and assignments with commas between them: allow,A=1,B="x,y",C

All records are in memory, and one decision is a few look-ups there, made before a process is spent.
FILE is read at start, where anything wrong with it is Refused, and at SIGHUP, where the old records
stay (reference couriertcpd.md 7; Courier lets everybody in). A large FILE makes each fork slower:
100,000 records are some 20 MB, and read in 0.3 s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton, socket
from stat import S_ISREG

from courierchain import log, textsource
from courierchain.refusal import Refused
from courierchain.textsource import UNITS
from couriertcpd.arrival import Variables
from couriertcpd.listen import MAPPED, address_bytes
from couriertcpd.options import Options, leading_number

# What a GDBM file begins with, in either order of bytes: old, 32 and 64 bits, numsync.
GDBM = {(0x13579ACD + kind).to_bytes(4, order) for kind in range(5) for order in ("little", "big")}
EVERYBODY = b"*"
LOWER_HEX = b"0123456789abcdef"

Span = tuple[int, int, int]  # bits of an address, the first and the last one


class Denied(Exception):
    """The client is to be closed. reply: what it reads before."""

    def __init__(self, reply: bytes):
        super().__init__()
        self.reply = reply


class Access:
    """The options of a listener and the records of its file, if there is one.

    env: what every session starts from. Raises Refused.
    """

    __slots__ = ("_env", "_file", "_table", "_local", "_reply", "_drop", "_maxperip")

    def __init__(self, options: Options, env: dict[str, str]):
        self._env = env
        self._file = options.access
        self._table = Table({}) if self._file is None else read(self._file)
        self._local = options.accesslocal
        self._reply = b"" if options.denymsg is None else os.fsencode(options.denymsg) + b"\n"
        self._drop = options.drop
        self._maxperip = options.maxperip

    def reload(self) -> None:
        """Read the file again; if that can't be, the old records stay, and the log says why."""
        try:
            if self._file is not None:
                self._table = read(self._file)
        except Refused as why:
            log.err(f"{why}; the records read before stay in force")

    def admit(self, remote: bytes, client: socket) -> Variables:
        """What the records say to the session of a client. Raises Denied."""
        found: Variables = {}
        if self._local:
            local = client.getsockname()
            found = variables(self._table.find(address_bytes(local), local[1]), b"")
        if self._file is not None:
            found = {**found, **variables(self._table.find(remote), self._reply)}
        self.drop_blocked(remote, found)
        return found

    def drop_blocked(self, remote: bytes, found: Variables) -> None:
        """-drop, for a client whose session has these variables. Raises Denied."""
        if self._drop is not None and found.get(self._drop, self._env.get(self._drop)):
            log.warn(f"dropped blocked connection from {inet_ntop(AF_INET6, remote)}")
            raise Denied(self._reply)

    def maxperip(self, found: Variables) -> int:
        """How many connections the address may have whose variables these are."""
        text = found.get("MAXCPERIP", self._env.get("MAXCPERIP", ""))
        number = leading_number(text) if text else 0
        return number if number > 0 else self._maxperip


class Table:
    """Values by key. lengths: of networks for which Courier has no key, and `spell` has one."""

    __slots__ = ("_values", "_lengths")

    def __init__(self, values: dict[bytes, bytes], lengths: dict[int, set[int]] | None = None):
        self._values = values
        self._lengths = {
            size: sorted({*range(unit, size + 1, unit), *(lengths or {}).get(size, ())})[::-1]
            for size, unit in UNITS.items()
        }

    def find(self, address: bytes, port: int | None = None) -> bytes:
        """The value of the record for 16 bytes of address; one that allows if there is none."""
        size, number = measure(address)
        keys = [spell(size, bits, number) for bits in self._lengths[size]]
        if port is not None:
            keys = [b"%s.%d" % (keys[0], port), *keys, b"*.%d" % port]
        for key in (*keys, EVERYBODY):
            if key in self._values:
                return self._values[key]
        return b""


def measure(address: bytes) -> tuple[int, int]:
    """Bits and number of an address; IPv4 in its IPv6 form is IPv4."""
    address = address.removeprefix(MAPPED) if len(address) == 16 else address
    return 8 * len(address), int.from_bytes(address, "big")


def spell(size: int, bits: int, number: int) -> bytes:
    """The key of the network of `bits` bits that an address belongs to: Courier's, or a name of
    our own where Courier has none."""
    network = number >> (size - bits)
    if bits == 0 or bits % UNITS[size]:
        return b"%d/%d/%x" % (size, bits, network)
    return textsource.key(size, bits, network)


def variables(value: bytes, reply: bytes) -> Variables:
    """The assignments of a record. Raises Denied, with `reply`, if it denies."""
    if value.startswith(b"deny"):
        raise Denied(reply)
    if value.startswith(b"allow"):
        value = value.removeprefix(b"allow").removeprefix(b",")
    pairs = (os.fsdecode(word).partition("=") for word in assignments(value.partition(b"\0")[0]))
    return {name: text for name, _, text in pairs if name}


def assignments(value: bytes) -> Iterator[bytes]:
    """Words between commas. What is in quotes may hold commas; there is no escape."""
    word, quote = bytearray(), b""
    for octet in value:
        character = b"%c" % octet
        if quote:
            if character == quote:
                quote = b""
            else:
                word += character
        elif character in (b'"', b"'"):
            quote = character
        elif character == b",":
            yield bytes(word.strip())
            word.clear()
        else:
            word += character
    yield bytes(word.strip())


def read(file: str) -> Table:
    """The records of a database or a text. Raises Refused."""
    try:
        # O_NONBLOCK: a pipe of that name is not waited for.
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise Refused(f"{file}: not a regular file, which -access needs")
            if opened.peek(4)[:4] in GDBM:
                return Table(in_database(file))
            return in_text(file, opened.read())
    except OSError as why:
        raise Refused(f"{file}: {why.strerror} (make it, or leave out -access)") from why


def in_database(file: str) -> dict[bytes, bytes]:
    try:
        import _gdbm
    except ImportError as why:
        remedy = "Debian: apt install python3-gdbm; or let -access name the text source"
        raise Refused(f"{file}: this Python cannot read GDBM ({remedy})") from why
    try:
        # Not locked: makedat puts a new file in the place of the old one, and never changes it.
        with _gdbm.open(file, "ru") as database:
            expected = len(database)  # raises where the key after a damaged part is just None
            keys = database.keys()
            values = {key: database[key] for key in keys}
    except (_gdbm.error, KeyError) as why:
        raise Refused(f"{file}: broken ({why}; run makedat again)") from why
    if len(values) != expected:
        raise Refused(f"{file}: broken ({len(values)} of {expected} records; run makedat again)")
    return values


def in_text(file: str, text: bytes) -> Table:
    """A text with a key that no address has is refused: what it was to deny would be let in."""
    if not text or b"\0" in text:
        kind = "neither GDBM nor text" if text else "empty"
        raise Refused(f"{file}: {kind} (run makedat again; a list of nobody is a comment)")
    values: dict[bytes, bytes] = {}
    lengths: dict[int, set[int]] = {size: set() for size in UNITS}
    for number, key, value in textsource.records(text):
        try:
            keys = [key] if is_key(key) else spell_all(span(key), lengths)
        except (OSError, ValueError) as why:
            remedy = "192.0.2, 192.0.2.0/28, :2001:0db8 or * is one, and a TAB ends it"
            shown = f"{file}, line {number}: {log.safe(key)}"
            raise Refused(f"{shown}: not an address ({remedy})") from why
        for each in keys:
            if each in values:
                shown = f"{file}, line {number}: {log.safe(key)}"
                raise Refused(f"{shown}: there is a record for it already")
            values[each] = value
    return Table(values, lengths)


def is_key(key: bytes) -> bool:
    """Whether Courier looks for it: an address, or the begin of one, is written in one way only."""
    name, *ports = key.split(b".")
    octets = []
    if name[:1] in (b":", EVERYBODY):
        possible = name == EVERYBODY or is_groups(name, whole=bool(ports))
    else:
        possible, octets, ports = True, [name, *ports[:3]], ports[3:]
    return (
        possible
        and len(ports) <= 1
        and all(is_number(octet, 255) for octet in octets)
        and all(is_number(port, 65535) for port in ports)
    )


def is_groups(name: bytes, whole: bool) -> bool:
    nothing, *groups = name.split(b":")
    enough = len(groups) == 8 if whole else 1 <= len(groups) <= 8
    exact = all(len(group) == 4 and not group.strip(LOWER_HEX) for group in groups)
    return not nothing and enough and exact


def is_number(text: bytes, highest: int) -> bool:
    """Whether it is a number, without a zero before it."""
    written = text.isdigit() and len(text) <= 5 and b"%d" % int(text) == text
    return written and int(text) <= highest


def span(key: bytes) -> Span:
    """The addresses of ADDRESS/BITS, ADDRESS-ADDRESS or ADDRESS. Raises OSError, ValueError."""
    low, slash, bits = key.decode("ascii").partition("/")
    low, dash, high = low.partition("-")
    size, first = measure(packed(low))
    if slash:
        host = 8 * len(packed(low)) - (int(bits) if is_number(bits.encode(), 128) else -1)
        if dash or not 0 <= host <= size:
            raise ValueError(key)
        return size, first >> host << host, first | (1 << host) - 1
    high_size, last = measure(packed(high if dash else low))
    if high_size != size or last < first:
        raise ValueError(key)
    return size, first, last


def packed(text: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def spell_all(addresses: Span, lengths: dict[int, set[int]]) -> list[bytes]:
    """The keys of the networks that make up a span; `lengths` learns how long they are."""
    size, first, last = addresses
    keys = []
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else size
        host = min(aligned, (last - first + 1).bit_length() - 1)
        lengths[size].add(size - host)
        keys.append(spell(size, size - host, first))
        first += 1 << host
    return keys
