"""cdb - look up a key in a constant database (https://cr.yp.to/cdb/cdb.txt)

    256 pairs (position, slots)       at the begin, one for each hash % 256: where its table is
    records                           length of key, length of data, key, data
    tables                            slots (hash, position of the record); position 0: free

Numbers are 32 bits, little-endian. A key's slot is the first of its table from (hash / 256) % slots
on that has its hash and whose record has its key.

The file may be anybody's: nothing outside of it is read, no more than PROBES slots of a table, and
no record over LARGEST octets.
"""

from __future__ import annotations

import os
from struct import unpack

HEADER = 2048
PROBES = 4096  # in one that is made as it should be, two or three are usual
LARGEST = 65536


class Broken(Exception):
    """The file is no constant database."""


def hash_of(key: bytes) -> int:
    value = 5381
    for octet in key:
        value = (value * 33 & 0xFFFFFFFF) ^ octet
    return value


def find(file: int, key: bytes) -> bytes | None:
    """The data of the first record of a key; None if there is none. Raises Broken and OSError."""
    wanted = hash_of(key)
    table, slots = numbers(file, wanted % 256 * 8)
    if slots and table < HEADER:
        raise Broken("a table in the header")
    for probe in range(slots):
        if probe == PROBES:
            raise Broken("a table without free slots")
        hashed, record = numbers(file, table + (wanted // 256 + probe) % slots * 8)
        if record == 0:
            return None
        if hashed == wanted:
            key_size, data_size = numbers(file, record)
            if key_size == len(key) and octets(file, record + 8, key_size) == key:
                return octets(file, record + 8 + key_size, data_size)
    return None


def numbers(file: int, position: int) -> tuple[int, int]:
    first, second = unpack("<2I", octets(file, position, 8))
    return first, second


def octets(file: int, position: int, size: int) -> bytes:
    """Raises Broken for what is not in the file."""
    if size > LARGEST:
        raise Broken(f"a record of {size} octets")
    found = os.pread(file, size, position)
    if len(found) < size:
        raise Broken("it ends too early")
    return found
