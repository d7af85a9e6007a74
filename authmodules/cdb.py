"""cdb - a constant database (https://cr.yp.to/cdb/cdb.txt): look up a key, or make one

    256 pairs (position, slots)       at the begin, one for each hash % 256: where its table is
    records                           length of key, length of data, key, data
    tables                            slots (hash, position of the record); position 0: free

Numbers are 32 bits, little-endian. A key's slot is the first of its table from (hash / 256) % slots
on that has its hash and whose record has its key.

The file may be anybody's: nothing outside of it is read, no more than PROBES slots of a table, and
no record over LARGEST octets. What is made here has tables twice as large as need be.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from struct import pack, unpack

HEADER = 2048
PROBES = 4096  # in one that is made as it should be, two or three are usual
LARGEST = 65536
MOST = 1 << 32  # octets of a file


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


def made(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A database of keys with their data. Raises Broken if it would be too large."""
    tables: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    body = bytearray()
    for key, data in records:
        hashed = hash_of(key)
        tables[hashed % 256].append((hashed, HEADER + len(body)))
        body += pack("<2I", len(key), len(data)) + key + data
    header = bytearray()
    for table in tables:
        header += pack("<2I", HEADER + len(body), 2 * len(table))
        for slot in filled(table):
            body += pack("<2I", *slot)
        if HEADER + len(body) > MOST:
            raise Broken("over 4 GB")
    return bytes(header + body)


def filled(table: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Twice as many slots; each entry in the first free one from its own on."""
    slots = [(0, 0)] * (2 * len(table))
    for hashed, position in table:
        at = hashed // 256 % len(slots)
        while slots[at][1]:
            at = (at + 1) % len(slots)
        slots[at] = hashed, position
    return slots
