"""`listen` and `proto`, as sockets (cyrus-pop3d.md 4)."""

from __future__ import annotations

import socket
import stat

import pytest

from cyrusmaster.conf import Entry
from cyrusmaster.places import Unusable, listening, places
from cyrusmaster.services import Service, service
from tests.conftest import free_port


def of(listen: str, proto: str = "tcp") -> Service:
    values = {"cmd": "/bin/true", "listen": listen, "proto": proto}
    return service(Entry("pop3", values, "cyrus.conf line 1"), {})


def shown(listen: str, proto: str = "tcp") -> list[tuple]:
    return [(place.shown, place.address[:2]) for place in places(of(listen, proto))]


def test_a_port_alone_is_every_address_of_both_families_each_with_its_socket():
    assert sorted(shown("1110")) == [
        ("pop3/ipv4", ("0.0.0.0", 1110)),
        ("pop3/ipv6", ("::", 1110)),
    ]
    assert shown("1110", "tcp4") == [("pop3/ipv4", ("0.0.0.0", 1110))]
    assert shown(":1110", "tcp6") == [("pop3/ipv6", ("::", 1110))]


def test_a_host_and_the_name_of_a_port():
    assert shown("127.0.0.1:pop3") == [("pop3/ipv4", ("127.0.0.1", 110))]
    assert shown("[::1]:995") == [("pop3/ipv6", ("::1", 995))]


@pytest.mark.parametrize(
    ("listen", "proto", "complaint"),
    [
        ("110", "udp", "proto=udp: only tcp is served here"),
        ("110", "udp6", "proto=udp6: only tcp is served here"),
        ("110", "sctp", "unknown proto sctp; write tcp, tcp4 or tcp6"),
        ("127.0.0.1:", "tcp", "no port; write `host:port`"),
        ("nosuchservice", "tcp", "listen=nosuchservice: "),
        ("[::1]:110", "tcp4", "listen=[::1]:110: "),
        ("host.invalid:110", "tcp", "listen=host.invalid:110: "),
    ],
)
def test_what_cannot_be_listened_at(listen, proto, complaint):
    with pytest.raises(Unusable) as refusal:
        places(of(listen, proto))
    assert str(refusal.value).startswith("cyrus.conf line 1: pop3: ")
    assert complaint in str(refusal.value)


def test_both_families_at_one_port():
    port = free_port()
    sockets = []
    for text in (f"127.0.0.1:{port}", f"[::1]:{port}"):
        (place,) = places(of(text))
        sockets.append(listening(place, 5))
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as client:
            client.connect((address, port))
    assert all(sock.fileno() > 4 and not sock.get_inheritable() for sock in sockets)
    for sock in sockets:
        sock.close()


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (place,) = places(of(f"127.0.0.1:{port}"))
        text = f"unable to bind to pop3/ipv4 socket: 127.0.0.1 port {port}: Address already in use"
        with pytest.raises(Unusable, match=text):
            listening(place, 5)


def test_a_unix_socket_takes_the_place_of_an_old_one(tmp_path):
    path = tmp_path / "pop3"
    (place,) = places(of(str(path)))
    assert place.shown == "pop3/unix"
    for _ in range(2):
        with listening(place, 5):
            assert stat.S_IMODE(path.stat().st_mode) == 0o777
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))


def test_what_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "pop3"
    path.write_text("precious")
    (place,) = places(of(str(path)))
    with pytest.raises(Unusable, match="Address already in use"):
        listening(place, 5)
    assert path.read_text() == "precious"
