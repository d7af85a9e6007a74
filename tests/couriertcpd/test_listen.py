"""PORTLIST, the sockets that come of it, and the text of addresses."""

from __future__ import annotations

import ipaddress
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couriertcpd.listen import address_bytes, endpoints, open_sockets, peer_name
from couriertcpd.options import Refused
from tests.conftest import free_port


def places(portlist: str, default: str = "0") -> list[tuple[str, int]]:
    return [(place.address, place.port) for place in endpoints(portlist, default)]


def complaint(portlist: str, default: str = "0") -> str:
    with pytest.raises(Refused) as caught:
        endpoints(portlist, default)
    return str(caught.value)


@pytest.fixture
def listening():
    """Open the sockets of a PORTLIST; closed after the test."""
    opened: list[socket.socket] = []

    def start(portlist: str) -> list[socket.socket]:
        opened.extend(open_sockets(endpoints(portlist)))
        return opened

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    "portlist, expected",
    [
        ("110", [("0", 110)]),
        ("0.110", [("0", 110)]),
        ("pop3", [("0", 110)]),
        ("127.0.0.1.110", [("127.0.0.1", 110)]),
        ("127.0.0.1.pop3", [("127.0.0.1", 110)]),
        ("::1.110", [("::1", 110)]),
        ("::.110", [("::", 110)]),
        ("::FFFF:127.0.0.1.110", [("::ffff:127.0.0.1", 110)]),
        ("1.2.3.21110", [("1.2.0.3", 21110)]),
        ("110,995", [("0", 110), ("0", 995)]),
        (",,110,", [("0", 110)]),
        (",", []),
        ("", []),
        ("45001x", [("0", 45001)]),
        (" +45001", [("0", 45001)]),
    ],
)
def test_row_05_an_element_is_divided_at_its_last_dot(portlist, expected):
    assert places(portlist) == expected


@pytest.mark.parametrize(
    "text", ["127.1", "0177.0.0.1", "2130706433", "017700000001", "127.0.0.01"]
)
def test_row_05_the_old_forms_of_an_ipv4_address_are_known(text):
    assert places(f"{text}.110") == [("127.0.0.1", 110)]


def test_the_default_address_is_for_elements_without_one():
    assert places("110,0.111,::1.112", "127.1") == [
        ("127.0.0.1", 110),
        ("127.0.0.1", 111),
        ("::1", 112),
    ]


def test_only_a_single_zero_is_every_address():
    assert places("0.0.0.0.110,00.111") == [("0.0.0.0", 110), ("0.0.0.0", 111)]


@pytest.mark.parametrize(
    "text", ["x", "0x50", "0", "70000", "-1", "", "POP3", "\udcff", "9" * 5000]
)
def test_a_port_is_a_service_or_1_to_65535(text):
    assert complaint(f"127.0.0.1.{text}") == f"Invalid port: {text}"


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "256.1.1.1",
        "1.2.3.4.5",
        "1..2",
        "08",
        "127.0x1",
        "127.65536.1",
        "4294967296",
        " 127.0.0.1",
        "127.0.0.1 ",
        "+127.1",
        "::1%lo",
        "[::1]",
        "::ffff:127.1",
        "\u0661",
        "\udcff",
    ],
)
def test_an_address_is_an_address_and_never_a_name(text):
    assert complaint(f"{text}.110") == f"Invalid IP address: {text}"
    assert complaint("110", text) == f"Invalid IP address: {text}"


def test_an_empty_address_is_none():
    assert complaint(".110") == "Invalid IP address: "
    assert complaint("110", "") == "Invalid IP address: "


def test_the_port_is_looked_at_before_the_address():
    assert complaint("foo.x,bar.110") == "Invalid port: x"


@given(st.text(alphabet="0123456789.:,af x\udc80", max_size=20))
def test_any_portlist_is_understood_or_refused(portlist):
    try:
        found = places(portlist)
    except Refused as why:
        assert str(why).startswith("Invalid ")
    else:
        assert len(found) == sum(1 for element in portlist.split(",") if element)
        for address, port in found:
            assert 1 <= port <= 65535
            assert address == "0" or ipaddress.ip_address(address)


@given(st.ip_addresses())
def test_every_address_in_its_usual_form_is_understood(address):
    ((found, port),) = places(f"{address}.110")
    assert ipaddress.ip_address(found) == address


def test_row_07_a_wildcard_has_the_clients_of_both_families_on_one_port(listening):
    port = free_port()
    opened = listening(str(port))
    assert opened[0].family == socket.AF_INET6
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=5):
            pass


def test_without_ipv6_a_wildcard_is_one_ipv4_socket(listening, monkeypatch):
    class OnlyIPv4(socket.socket):
        def __init__(self, family=-1, *arguments, **words):
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *arguments, **words)

    monkeypatch.setattr(socket, "socket", OnlyIPv4)
    (only,) = listening(str(free_port()))
    assert only.getsockname()[0] == "0.0.0.0"


def test_sockets_are_ready_for_a_forking_listener(listening):
    port = free_port()
    for each in listening(f"127.0.0.1.{port},::1.{port}"):
        assert not each.getblocking()
        assert not os.get_inheritable(each.fileno())
        assert each.fileno() >= 10  # 3 belongs to the chain's record
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_sockets_come_in_reverse_order(listening):
    first, second = free_port(), free_port()
    opened = listening(f"127.0.0.1.{first},127.0.0.1.{second}")
    assert [each.getsockname()[1] for each in opened] == [second, first]


def test_an_address_that_the_host_has_not_got_yet_can_be_bound(listening):
    (opened,) = listening(f"192.0.2.77.{free_port()}")
    assert opened.getsockname()[0] == "192.0.2.77"


def test_nothing_at_all_is_listened_to_if_the_list_says_so(listening):
    assert listening(",") == []


def test_a_taken_port_is_refused_and_nothing_stays_open():
    taken, other = free_port(), free_port()
    with socket.create_server(("127.0.0.1", taken)):
        before = os.listdir("/proc/self/fd")
        with pytest.raises(Refused, match="^bind: Address already in use$"):
            open_sockets(endpoints(f"127.0.0.1.{taken},127.0.0.1.{other}"))
        assert os.listdir("/proc/self/fd") == before
    with socket.create_server(("127.0.0.1", other)):
        pass


def test_the_same_port_twice_is_refused():
    port = free_port()
    with pytest.raises(Refused, match="^bind: Address already in use$"):
        open_sockets(endpoints(f"{port},{port}"))


def test_a_failed_option_is_reported_and_harmless(listening, monkeypatch, capfd):
    monkeypatch.setattr("couriertcpd.listen.IP_FREEBIND", 9999)
    assert listening(f"127.0.0.1.{free_port()}")
    assert capfd.readouterr().err == "setsockopt(IP_FREEBIND): Protocol not available\n"


def test_no_socket_at_all_is_a_refusal_with_the_reason(monkeypatch):
    def none_left(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("couriertcpd.listen.socket.socket", none_left)
    with pytest.raises(Refused, match="^socket: Too many open files$"):
        open_sockets(endpoints("127.0.0.1.110"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_accepted_clients_have_the_names_that_log_filters_know(listening, host):
    port = free_port()
    for each in listening(str(port)):
        each.setblocking(True)
    with socket.create_connection((host, port), timeout=5) as client:
        accepted, sockaddr = listening(",")[0].accept()
        with accepted:
            expected = "::1" if host == "::1" else "::ffff:127.0.0.1"
            assert peer_name(sockaddr) == expected
            assert peer_name(accepted.getsockname()) == expected
            assert sockaddr[1] == client.getsockname()[1]


def test_ipv4_and_its_mapped_form_are_one_address():
    assert address_bytes(("192.0.2.1", 1)) == address_bytes(("::ffff:192.0.2.1", 1, 0, 0))
    assert peer_name(("192.0.2.1", 1)) == "::ffff:192.0.2.1"


def test_ipv6_is_short_and_in_lower_case():
    assert peer_name(("2001:DB8:0:0:0:0:0:A", 1, 0, 0)) == "2001:db8::a"
    assert peer_name(("fe80::1%lo", 1, 0, 1)) == "fe80::1"


@given(st.ip_addresses())
def test_name_and_bytes_of_an_address_agree(address):
    octets = address_bytes((str(address), 110))
    assert len(octets) == 16
    assert socket.inet_pton(socket.AF_INET6, peer_name((str(address), 110))) == octets
