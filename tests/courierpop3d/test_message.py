"""Sizes, ids and the Unicode flag of stored messages."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierpop3d.headers import eight_bit_headers
from courierpop3d.measure import measure
from courierpop3d.message import PLAIN, UNICODE, Messages

E = b"\xe9"
MIME = b"From: a@b\nMime-Version: 1.0\nContent-Type: "
B = MIME + b'multipart/mixed; boundary="b"\n\npre\n'


@pytest.mark.parametrize(
    "message, flagged",
    [
        (b"Subject: " + E + b"\n\nx\n", True),
        (b"X: y\n\n" + E + b"\n", False),
        (E + b" no header at all", True),
        (b"\n" + E, False),
        (b"Subject: x\nX: " + E, True),
        # parts
        (B + b"--b\nX: " + E + b"\n\nx\n--b--\n", True),
        (B + b"--b\nX: y\n\n" + E + b"\n--b--\n", False),
        (B + E + b"\n--b\nX: y\n\nx\n--b--\n", False),
        (B + b"--b\nX: y\n\nx\n--b--\nX: " + E + b"\n", False),
        (B + b"--b\nX: y\n\nx\n--b  \nX: " + E + b"\n\n--b--\n", True),
        (B + b"--b\nX: y\n\nx\n--b--\n--b\nX: " + E + b"\n", False),
        (B + b"--b\nX: " + E + b"\n", True),
        (B + b"--b\n\n--b\nX: " + E + b"\n", True),
        (B + b"--b\nX: y\n--b\nX: " + E + b"\n", True),
        # RFC 2046 section 5.1.1: a line that begins with the boundary
        (B + b"--bc\nX: " + E + b"\n\n", True),
        # how a boundary is told
        (MIME + b"multipart/mixed;\n boundary=b\n\n--b\nX: " + E + b"\n", True),
        (MIME + b"MULTIPART/MIXED; BOUNDARY = b\n\n--b\nX: " + E + b"\n", True),
        (MIME + b"multipart/mixed\n\n--b\nX: " + E + b"\n", False),
        (MIME + b"text/plain; boundary=b\n\n--b\nX: " + E + b"\n", False),
        # not MIME without its version, as in Courier
        (b"Content-Type: multipart/mixed; boundary=b\n\n--b\nX: " + E + b"\n", False),
        # parts in parts, messages in messages
        (B + b"--b\nContent-Type: multipart/x; boundary=c\n\n--c\nX: " + E + b"\n", True),
        (B + b"--b\nContent-Type: multipart/x; boundary=bc\n\n--bc--\n--b\n" + E, True),
        (B + b"--b\nContent-Type: message/rfc822\n\nX: " + E + b"\n\n", True),
        (B + b"--b\nContent-Type: message/global\n\nX: " + E + b"\n\n", True),
        (B + b"--b\nContent-Type: message/delivery-status\n\nX: " + E + b"\n\n", False),
        (B + b"--b\nContent-Type: text/rfc822-headers\n\nX: " + E + b"\n\n", False),
        (MIME + b"message/rfc822\n\nX: " + E + b"\n", True),
        (MIME + b"multipart/digest; boundary=b\n\n--b\n\nX: " + E + b"\n", True),
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_6856_the_unicode_flag_looks_at_all_headers_and_at_nothing_else(message, flagged, line_end):
    message = message.replace(b"\n", line_end)
    octets = [message[position : position + 1] for position in range(len(message))]
    assert eight_bit_headers([message]) is flagged
    assert eight_bit_headers(octets) is flagged


@given(
    st.lists(
        st.sampled_from(
            [
                b"--b",
                b"--c",
                b"--b--",
                b"--c--",
                b"",
                b"x",
                b" y",
                E,
                b"X: " + E,
                b"Mime-Version: 1",
            ]
            + [b"Content-Type: multipart/x; boundary=" + letter for letter in (b"b", b"c")]
            + [b"Content-Type: message/rfc822", b"Content-Type: multipart/digest; boundary=c"]
        ),
        max_size=25,
    ),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_the_unicode_flag_is_the_same_however_the_octets_come(lines, cuts):
    message = b"\n".join(lines)
    edges = [0, *sorted(cut for cut in cuts if cut < len(message)), len(message)]
    pieces = [message[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert eight_bit_headers(pieces) == eight_bit_headers([message])


def in_chunks(text: bytes):
    return (text[position : position + 65536] for position in range(0, len(text), 65536))


NESTED = b"".join(
    b"--%d\nContent-Type: multipart/x; boundary=%d\n\n" % (n, n + 1) for n in range(3000)
)
FLOODS = {
    "20 000 address headers": b"To: a@b\n" * 20000 + b"\n" + E,
    "3000 nested parts": MIME + b"multipart/x; boundary=0\n\n" + NESTED + E + b"\n",
    "3000 nested messages": MIME
    + b"message/rfc822\n\n"
    + b"Content-Type: message/rfc822\n\n" * 3000,
    "a header of 10 MB": b"X: " + b"a" * 10**7 + b"\n\n" + E,
    "a folded header of 3 MB": b"Content-Type: x\n" + b" a\n" * 10**6 + b"\n" + E,
    "a body line of 10 MB": B + b"-" * 10**7 + E,
    "a million lines of hyphens": B + b"--\n" * 10**6 + E,
    "300 000 delimiters": B + b"--b\n\n" * 300_000 + E,
    "boundaries without end": MIME + b"multipart/x; boundary=" + b"b" * 10**6 + b"\n\n" + E,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_CVE_12_CVE_46_floods_take_bounded_time_and_memory(flood):
    started = time.process_time()
    eight_bit_headers(in_chunks(FLOODS[flood]))
    assert time.process_time() - started < 8


def test_CVE_12_memory_stays_small():
    message = FLOODS["3000 nested parts"] + FLOODS["a body line of 10 MB"][: 10**6]
    chunks = list(in_chunks(message))
    tracemalloc.start()
    eight_bit_headers(chunks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "content, octets",
    [
        *[(b"", 0), (b"x", 3), (b"x\n", 3), (b".\n", 3), (b"\n", 2), (b"x\r\n", 3), (b"x\r", 4)],
        *[(b"a\n\nb", 8), (b"\0\n", 3), (b"a\rb\n", 5), (b"\r\n\n", 4)],
    ],
)
def test_1939_24_ROB_13_sizes_are_what_retr_sends(box, content, octets):
    box.put("cur/1", content)
    assert measure(b"1") == (octets, PLAIN)


def test_1939_24_sizes_are_true_across_the_edges_of_reads(box):
    chance = random.Random(1)
    content = bytes(chance.choices(b"\r\n.a", k=200_000))
    box.put("cur/1", content)
    sent = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert measure(b"1")[0] == len(sent) + (0 if content.endswith(b"\n") else 2)


def test_an_8_bit_byte_after_the_first_read_still_counts(box):
    box.put("cur/1", B + b"x\n" * 50_000 + b"--b\nX: " + E + b"\n")
    assert measure(b"1")[1] == UNICODE
    box.put("cur/2", b"Subject: x\n\n" + b"x\n" * 50_000 + E)
    assert measure(b"2")[1] == PLAIN


def test_1939_37_ids_made_of_names_are_printable():
    name = bytes(octet for octet in range(1, 256) if octet not in b"/:") + b":2,S"
    uidl = Messages([name]).uidl(0)
    assert all(0x21 <= octet <= 0x7E for octet in uidl)
    assert b"+20!+22#$%&+27()*+2B,-.0" in uidl
