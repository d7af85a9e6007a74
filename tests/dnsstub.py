"""A name server for tests: UDP on 127.0.0.1, with the records that it is given.

stub.records["2.0.0.127.bl.example"] = {"A": ["127.0.0.2"], "TXT": ['"listed"']}
stub.broken["dead.example"] = "silent"     for all names below it; see BREAKAGES
stub.open.clear()                          nothing is answered until stub.open.set()
"""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

BREAKAGES = ("silent", "servfail", "garbage", "wrong-id", "other-name", "cut")


class StubDns:
    def __init__(self, port: int = 0, address: str = "127.0.0.1"):
        self.records: dict[str, dict[str, list[str]]] = {}
        self.broken: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while True:
            try:
                wire, sender = self.socket.recvfrom(4096)
            except OSError:
                return
            if not wire:
                return
            for reply in self.replies(dns.message.from_wire(wire)):
                self.socket.sendto(reply, sender)

    def replies(self, query: dns.message.Message) -> list[bytes]:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        breakage = next(
            (self.broken[zone] for zone in self.broken if f".{name}".endswith(f".{zone}")), ""
        )
        if breakage == "silent":
            return []
        if breakage == "servfail":
            reply.set_rcode(dns.rcode.SERVFAIL)
        if breakage in ("garbage", "wrong-id", "other-name", "cut"):
            return [self.wrong(breakage, reply)]
        there = self.records.get(name)
        if there is None and not breakage:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        for text in (there or {}).get(kind, ()):
            reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, text))
        return [reply.to_wire()] if self.open.is_set() else []

    @staticmethod
    def wrong(breakage: str, reply: dns.message.Message) -> bytes:
        """An answer that is none, and would be a hit if it were believed."""
        owner = "elsewhere.example." if breakage == "other-name" else reply.question[0].name
        reply.answer.append(dns.rrset.from_text(owner, 0, "IN", "A", "127.0.0.2"))
        wire = reply.to_wire()
        if breakage == "garbage":
            return wire[:2] + bytes(255 - octet for octet in wire[2:])
        if breakage == "wrong-id":
            return bytes([wire[0] ^ 0xFF]) + wire[1:]
        return wire[:-3] if breakage == "cut" else wire

    def close(self) -> None:
        """The thread is woken: closing alone wouldn't."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()
