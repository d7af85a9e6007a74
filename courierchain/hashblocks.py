"""hashblocks - MD5, SHA-1 and SHA-256, from a state that somebody has kept

hashlib begins every hash at its beginning. A userdb holds what HMAC's two hashes have come to after
their first block (see cram), and that can't be put into hashlib's, so the block functions are here:
RFC 1321, and FIPS 180-4 for the others. A block takes about 50 microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sin
from struct import pack, unpack

BLOCK = 64  # octets
MASK = 0xFFFFFFFF

State = tuple[int, ...]


class Algorithm:
    """octets: of a digest. order: of the octets in a word, as struct writes it."""

    __slots__ = ("octets", "start", "_compress", "_order")

    def __init__(self, start: State, compress: Callable[[State, State], State], order: str):
        self.octets = 4 * len(start)
        self.start = start
        self._compress = compress
        self._order = order

    def state(self, octets: bytes) -> State:
        return unpack(f"{self._order}{len(self.start)}I", octets)

    def octets_of(self, state: State) -> bytes:
        return pack(f"{self._order}{len(self.start)}I", *state)

    def update(self, state: State, blocks: bytes) -> State:
        for begin in range(0, len(blocks), BLOCK):
            words = unpack(f"{self._order}16I", blocks[begin : begin + BLOCK])
            fresh = self._compress(state, words)
            state = tuple((old + new) & MASK for old, new in zip(state, fresh, strict=True))
        return state

    def digest(self, state: State, done: int, rest: bytes) -> bytes:
        """The hash of `done` octets, which led to `state`, and of `rest` behind them."""
        bits = 8 * (done + len(rest))
        length = pack(f"{self._order}2I", *self._halves(bits))
        padding = b"\x80" + bytes(-(len(rest) + 9) % BLOCK)
        return self.octets_of(self.update(state, rest + padding + length))

    def _halves(self, bits: int) -> State:
        low, high = bits & MASK, bits >> 32
        return (low, high) if self._order == "<" else (high, low)


def rotate_left(word: int, places: int) -> int:
    return (word << places | word >> (32 - places)) & MASK


def rotate_right(word: int, places: int) -> int:
    return (word >> places | word << (32 - places)) & MASK


MD5_TURNS = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
MD5_SINES = [int(abs(sin(step + 1)) * 2**32) for step in range(64)]


def md5_block(state: State, words: State) -> State:
    a, b, c, d = state
    for step in range(64):
        if step < 16:
            mixed, word = b & c | ~b & d, step
        elif step < 32:
            mixed, word = d & b | ~d & c, 5 * step + 1
        elif step < 48:
            mixed, word = b ^ c ^ d, 3 * step + 5
        else:
            mixed, word = c ^ (b | ~d & MASK), 7 * step
        turned = (a + mixed + MD5_SINES[step] + words[word % 16]) & MASK
        a, d, c = d, c, b
        b = (b + rotate_left(turned, MD5_TURNS[step // 16][step % 4])) & MASK
    return a, b, c, d


SHA1_ADDED = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)


def sha1_block(state: State, words: State) -> State:
    a, b, c, d, e = state
    schedule = list(words)
    for step in range(16, 80):
        earlier = schedule[step - 3] ^ schedule[step - 8] ^ schedule[step - 14]
        schedule.append(rotate_left(earlier ^ schedule[step - 16], 1))
    for step, word in enumerate(schedule):
        if step < 20:
            mixed = b & c | ~b & d
        elif 40 <= step < 60:
            mixed = b & c | b & d | c & d
        else:
            mixed = b ^ c ^ d
        turned = rotate_left(a, 5) + mixed + e + SHA1_ADDED[step // 20] + word
        a, b, c, d, e = turned & MASK, a, rotate_left(b, 30), c, d
    return a, b, c, d, e


SHA256_ADDED = (
    *(0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4),
    *(0xAB1C5ED5, 0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE),
    *(0x9BDC06A7, 0xC19BF174, 0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F),
    *(0x4A7484AA, 0x5CB0A9DC, 0x76F988DA, 0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7),
    *(0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967, 0x27B70A85, 0x2E1B2138, 0x4D2C6DFC),
    *(0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85, 0xA2BFE8A1, 0xA81A664B),
    *(0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070, 0x19A4C116),
    *(0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3),
    *(0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7),
    0xC67178F2,
)


def sha256_block(state: State, words: State) -> State:
    schedule = list(words)
    for step in range(16, 64):
        near, far = schedule[step - 2], schedule[step - 15]
        near = rotate_right(near, 17) ^ rotate_right(near, 19) ^ near >> 10
        far = rotate_right(far, 7) ^ rotate_right(far, 18) ^ far >> 3
        schedule.append((near + far + schedule[step - 7] + schedule[step - 16]) & MASK)
    a, b, c, d, e, f, g, h = state
    for added, word in zip(SHA256_ADDED, schedule, strict=True):
        turned = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)
        first = h + turned + (e & f ^ ~e & g) + added + word
        turned = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)
        second = turned + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (first + second) & MASK, a, b, c, (d + first) & MASK, e, f, g
    return a, b, c, d, e, f, g, h


MD5_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
SHA256_START = (
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)

ALGORITHMS = {
    "md5": Algorithm(MD5_START, md5_block, "<"),
    "sha1": Algorithm((*MD5_START, 0xC3D2E1F0), sha1_block, ">"),
    "sha256": Algorithm(SHA256_START, sha256_block, ">"),
}
