"""The access file: who is let in, with which variables, and which files are refused."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.refusal import Refused
from couriertcpd import access
from couriertcpd.access import Access, Denied, in_text, is_key, read, variables
from couriertcpd.options import parse
from tests.conftest import needs_module

SIZE = 100_000  # CVE-45


def ip(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return (b"" if address.version == 6 else bytes(10) + b"\xff\xff") + address.packed


class Client:
    """As much of a connected socket as is looked at."""

    def __init__(self, address: str = "192.0.2.99", port: int = 110):
        self.local = (address, port)

    def getsockname(self) -> tuple:
        return self.local


@pytest.fixture(params=["database", "text"])
def make(request, tmp_path):
    """Write records to a file of either kind; its path."""

    def write(records: dict[str, str]) -> Path:
        path = tmp_path / "access"
        if request.param == "text":
            path.write_text("#\n" + "".join(f"{key}\t{records[key]}\n" for key in records))
        else:
            gnu = needs_module("dbm.gnu")
            with gnu.open(str(path), "n") as database:
                for key, value in records.items():
                    database[key] = value
        return path

    return write


def rules(path: Path, *options: str, env: dict[str, str] | None = None) -> Access:
    return Access(parse(["tcpd", f"-access={path}", *options, "110", "prog"]), env or {})


def admitted(path: Path, address: str, *options: str, client: Client | None = None) -> dict:
    return rules(path, *options).admit(ip(address), client or Client())  # type: ignore


def answer(path: Path, address: str, *options: str, client: Client | None = None) -> bytes:
    with pytest.raises(Denied) as caught:
        admitted(path, address, *options, client=client)
    return caught.value.reply


IPV4 = ["192.0.2.1", "192.0.2", "192.0", "192", "*"]
GROUPS = "2001:0db8:0000:0000:0000:0000:00ff:0001".split(":")
IPV6 = ["".join(f":{group}" for group in GROUPS[:count]) for count in range(8, 0, -1)] + ["*"]


@pytest.mark.parametrize(
    "address, keys",
    [("192.0.2.1", IPV4), ("::ffff:192.0.2.1", IPV4), ("2001:db8::ff:1", IPV6)],
)
def test_row_32_CVE_41_the_longest_prefix_counts_and_no_other(make, address, keys):
    while keys:
        path = make({key: f"allow,HIT={key},{'X' * len(key)}" for key in keys})
        found = admitted(path, address)
        assert found == {"HIT": keys[0], "X" * len(keys[0]): ""}
        keys = keys[1:]
    assert admitted(make({"10": "deny", ":2002": "deny"}), address) == {}


@pytest.mark.parametrize(
    "local, keys",
    [
        ("192.0.2.1", ["192.0.2.1.110", *IPV4[:-1], "*.110", "*"]),
        ("::ffff:192.0.2.1", ["192.0.2.1.110", *IPV4[:-1], "*.110", "*"]),
        ("2001:db8::ff:1", [f"{IPV6[0]}.110", *IPV6[:-1], "*.110", "*"]),
    ],
)
def test_accesslocal_looks_for_address_and_port_then_prefixes_then_the_port(make, local, keys):
    while keys:
        path = make({key: f"HIT={key}" for key in keys})
        found = admitted(path, "203.0.113.5", "-accesslocal", client=Client(local))
        assert found["HIT"] == ("*" if "*" in keys else keys[0])  # * is the client's record too
        without_star = make({key: f"HIT={key}" for key in keys if key != "*"})
        found = admitted(without_star, "203.0.113.5", "-accesslocal", client=Client(local))
        assert found.get("HIT") == next((key for key in keys if key != "*"), None)
        keys = keys[1:]


def test_the_client_s_record_is_stronger_than_the_local_one(make):
    path = make({"*.110": "A=local,B=local", "203.0.113": "A=remote"})
    found = admitted(path, "203.0.113.5", "-accesslocal")
    assert found == {"A": "remote", "B": "local"}
    assert admitted(path, "203.0.113.5") == {"A": "remote"}


def test_a_denied_client_reads_denymsg_and_a_lf_but_not_if_our_own_address_is_denied(make):
    path = make({"203.0.113": "deny", "*.110": "deny"})
    assert answer(path, "203.0.113.5") == b""
    assert answer(path, "203.0.113.5", "-denymsg=no, you don't") == b"no, you don't\n"
    assert answer(path, "203.0.113.5", "-denymsg=") == b"\n"
    assert answer(path, "198.51.100.1", "-denymsg=no", "-accesslocal") == b""


VALUES = {
    b"allow": {},
    b"allow,X=1": {"X": "1"},
    b"allow,,X=1": {"X": "1"},
    b"allowed,X=1": {"ed": "", "X": "1"},
    b"allow A=1": {"A": "1"},
    b" allow,A=1": {"allow": "", "A": "1"},
    b"FOO=bare": {"FOO": "bare"},
    b",A=1": {"A": "1"},
    b"1": {"1": ""},
    b"": {},
    b'allow,FOO="q,u",RELAYCLIENT': {"FOO": "q,u", "RELAYCLIENT": ""},
    b"allow,A='x\"y',B=\"it's\"": {"A": 'x"y', "B": "it's"},
    b'allow,A=x"y"z,B="x""y"': {"A": "xyz", "B": "xy"},
    b'allow,A="unterminated,B=1': {"A": "unterminated,B=1"},
    b'allow,A=" q "': {"A": " q"},
    b"allow, A = b ,\tC=d\r": {"A ": " b", "C": "d"},
    b'allow,"A"=1,"B=2"': {"A": "1", "B": "2"},
    b'allow,A=\\"x': {"A": "\\x"},
    b"allow,A=b=c": {"A": "b=c"},
    b"allow,A=1,A=2": {"A": "2"},
    b"allow,=x,B=1": {"B": "1"},
    b"allow,A=1\0,B=2": {"A": "1"},
    b"Deny": {"Deny": ""},
    b" deny": {"deny": ""},
    b"A=\xff": {"A": "\udcff"},
}


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_row_33_a_value_allows_and_assigns(value):
    assert variables(value, b"") == VALUES[value]


@pytest.mark.parametrize("value", [b"deny", b"denyfoo", b"deny,A=1", b"deny\r"])
def test_row_33_a_value_that_begins_with_deny_denies(value):
    with pytest.raises(Denied):
        variables(value, b"")


@given(st.binary(max_size=60) | st.text(alphabet="allow,deny=\"' A\0\t", max_size=40))
def test_any_value_denies_or_gives_variables_fit_for_an_environment(value):
    value = value if isinstance(value, bytes) else value.encode()
    try:
        found = variables(value, b"")
    except Denied:
        assert value.startswith(b"deny")
        return
    for name, text in found.items():
        assert name and "=" not in name and "\0" not in name + text
        os.fsencode(name + text)


@given(st.binary(max_size=200) | st.text(alphabet="0129a:./-*#\t\n ", max_size=60))
def test_any_text_is_read_or_refused_with_its_line(text):
    text = text if isinstance(text, bytes) else text.encode()
    try:
        table = in_text("FILE", text)
    except Refused as why:
        assert str(why).startswith("FILE") and str(why).isprintable()
    else:
        assert isinstance(table.find(ip("192.0.2.1"), 110), bytes)


@pytest.mark.parametrize("piece", [b"a", b",", b'"', b"',", b"a=b,", b" ", b"\xff"])
def test_CVE_45_large_values_take_no_time(piece):
    value = piece * (SIZE // len(piece))
    begin = process_time()
    variables(b"allow," + value, b"")
    assert process_time() - begin < 0.1


@pytest.mark.parametrize("piece", [b"a", b"1", b".", b":", b"1.", b":0000", b"-", b"/", b"*", b"#"])
def test_CVE_45_large_keys_take_no_time(piece):
    text = piece * (SIZE // len(piece))
    begin = process_time()
    for line in (text, text + b"\tdeny", b"1.2.3.4/" + text, b"1.2.3.4-" + text):
        try:
            in_text("FILE", line)
        except Refused as why:
            assert len(str(why)) < 500
    assert process_time() - begin < 0.1


# Text sources


def find(text: str, address: str) -> str:
    return in_text("FILE", text.encode()).find(ip(address)).decode()


@pytest.mark.parametrize(
    "key, inside, outside",
    [
        ("192.168.0.0/22", ["192.168.0.0", "192.168.3.255"], ["192.167.255.255", "192.168.4.0"]),
        ("192.168.1.77/22", ["192.168.0.0", "192.168.3.255"], ["192.168.4.0"]),
        ("192.0.2.7-192.0.2.19", ["192.0.2.7", "192.0.2.19"], ["192.0.2.6", "192.0.2.20"]),
        ("192.0.2.7-192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
        ("192.0.2.7/32", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.6"]),
        ("::ffff:192.0.2.0/121", ["192.0.2.0", "192.0.2.127"], ["192.0.2.128"]),
        ("::ffff:192.0.2.7", ["192.0.2.7"], ["192.0.2.8"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "2001:db8::1"]),
        ("0.0.0.0-255.255.255.255", ["0.0.0.0", "255.255.255.255"], ["::"]),
        ("::/0", ["::", "2001:db8::1"], ["192.0.2.1"]),
        ("2001:db8::/33", ["2001:db8:7fff::1"], ["2001:db8:8000::", "2001:db9::"]),
        ("2001:db8::1", ["2001:db8::1"], ["2001:db8::2"]),
        ("2001:DB8::-2001:db8::9", ["2001:db8::", "2001:db8::9"], ["2001:db8::a"]),
    ],
)
def test_a_text_may_name_networks_and_spans(key, inside, outside):
    for address in inside:
        assert find(f"{key}\tdeny\n", address) == "deny"
    for address in outside:
        assert find(f"{key}\tdeny\n", address) == ""


NETWORKS = st.one_of(
    st.builds(
        lambda low, bits: ipaddress.ip_network((0xC0000200 + low, bits), strict=False),
        st.integers(0, 255),
        st.integers(20, 32),
    ),
    st.builds(
        lambda low, bits: ipaddress.ip_network(((0x20010DB8 << 96) + low, bits), strict=False),
        st.integers(0, 2**18),
        st.integers(105, 128),
    ),
)


@given(st.lists(NETWORKS, unique=True, max_size=8), NETWORKS)
def test_the_smallest_network_counts(networks, where):
    text = "".join(f"{network}\t{network}\n" for network in networks) or "#"
    client = where.network_address
    around = [network for network in networks if client in network]
    expected = max(around, key=lambda network: network.prefixlen, default="")
    assert find(text, str(client)) == str(expected)


@given(st.integers(0, 2**12), st.integers(0, 2**12), st.integers(0, 2**12))
def test_a_span_is_all_addresses_from_the_first_to_the_last(one, other, probe):
    low, high = sorted((one, other))
    base = 0xC6336400
    text = f"{ipaddress.ip_address(base + low)}-{ipaddress.ip_address(base + high)}\tdeny"
    assert find(text, str(ipaddress.ip_address(base + probe))) == "deny" * (low <= probe <= high)


def test_a_text_has_comments_and_empty_lines_and_may_end_with_a_dot():
    text = "# hosts\n\n192.0.2.1\n192.0.2.2\t\n192.0.2.3\tdeny\n.\nwhatever\n"
    assert [find(text, f"192.0.2.{host}") for host in (1, 2, 3, 4)] == ["1", "1", "deny", ""]


WRONG = [
    "192.0.2.1 deny",
    "192.0.2.0/33\tdeny",
    "192.0.2.0/\tdeny",
    "192.0.2/24\tdeny",
    "192.0.2.0/024\tdeny",
    "192.0.2.9-192.0.2.1\tdeny",
    "192.0.2.9-2001:db8::1\tdeny",
    "192.0.2.0-\tdeny",
    "192.0.2.0/24-192.0.2.9\tdeny",
    "192.0.2.0-192.0.2.9/24\tdeny",
    "192.0.2.256\tdeny",
    "192.0.02\tdeny",
    "192.0.2.\tdeny",
    "192.0.2.1.65536\tdeny",
    "192.0.2.1.1.1\tdeny",
    "*.*\tdeny",
    "**\tdeny",
    ":2001:db8\tdeny",
    ":2001:0DB8\tdeny",
    ":2001.110\tdeny",
    "::ffff:0:0/90\tdeny",
    "2001:db8::/129\tdeny",
    "host.example.com\tdeny",
    "\tdeny",
    "\u00e4\tdeny",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_key_that_no_address_has_is_refused_with_its_line(line):
    with pytest.raises(Refused, match=r"^FILE, line 2: .*not an address \(.*TAB"):
        find(f"# first\n{line}\n", "192.0.2.1")


@pytest.mark.parametrize(
    "lines",
    [
        "192.0.2\tdeny\n192.0.2\tallow",
        "192.0.2\tdeny\n192.0.2.0/24\tallow",
        "192.0.2.0-192.0.2.5\tdeny\n192.0.2.4-192.0.2.5\tallow",
        "2001:db8::1\tdeny\n:2001:0db8:0000:0000:0000:0000:0000:0001\tallow",
    ],
)
def test_a_second_record_for_the_same_network_is_refused(lines):
    with pytest.raises(Refused, match="^FILE, line 2: .*: there is a record for it already"):
        find(lines, "192.0.2.1")


@pytest.mark.parametrize("key", [*IPV4, *IPV6, "0.0.0.0", "*.0", "1.2.3.4.65535", f"{IPV6[0]}.1"])
def test_courier_s_keys_are_known(key):
    assert is_key(key.encode())


# Files that are refused


def refused(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        read(str(path))
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


def test_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path / "no").startswith(": No such file or directory (")


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "file").write_text("*\tdeny\n")
    monkeypatch.setattr(access.os, "open", deny)
    assert refused(tmp_path / "file").startswith(": Permission denied (")


def test_what_is_not_a_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        assert refused(path).startswith(": not a regular file")
    assert refused(tmp_path).startswith(": Is a directory")


def test_an_empty_file_is_refused_but_a_comment_is_an_empty_list(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert refused(path).startswith(": empty (")
    path.write_bytes(b"# nobody\n")
    assert admitted(path, "192.0.2.1") == {}


def test_a_file_with_nuls_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"192.0.2.1\tdeny\0\n")
    assert refused(tmp_path / "file").startswith(": neither GDBM nor text (")


def test_a_damaged_database_is_refused_never_read_in_part(tmp_path):
    gnu = needs_module("dbm.gnu")
    path = tmp_path / "file"
    with gnu.open(str(path), "n") as database:
        for number in range(500):
            database[f"10.0.{number // 256}.{number % 256}"] = "deny"
    whole = path.read_bytes()
    for length in (*range(4, 64), *range(64, len(whole), 517)):
        path.write_bytes(whole[:length])
        try:
            table = read(str(path))
        except Refused as why:
            assert "broken (" in str(why)
        else:
            assert all(table.find(ip(f"10.0.0.{low}")) == b"deny" for low in range(256))


def test_without_gdbm_a_database_is_refused_with_the_package_s_name(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(0x13579ACF.to_bytes(4, sys.byteorder) + bytes(100))
    monkeypatch.setitem(sys.modules, "_gdbm", None)
    assert "python3-gdbm" in refused(tmp_path / "file")


# The options around the file


def test_sighup_reads_again_and_keeps_the_old_records_of_a_file_that_is_broken(make, capfd):
    path = make({"192.0.2.1": "deny"})
    chosen = rules(path)
    with pytest.raises(Denied):
        chosen.admit(ip("192.0.2.1"), Client())  # type: ignore
    path.unlink()
    make({"192.0.2.2": "deny"})
    chosen.reload()
    assert chosen.admit(ip("192.0.2.1"), Client()) == {}  # type: ignore
    assert capfd.readouterr().err == ""
    for spoil in (lambda: path.write_bytes(b""), path.unlink):
        spoil()
        chosen.reload()
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"ERR: {path}: ") and line.endswith("stay in force")
        with pytest.raises(Denied):
            chosen.admit(ip("192.0.2.2"), Client())  # type: ignore


def test_MAXCPERIP_of_the_record_then_of_the_environment_then_maxperip(make):
    path = make({"192": "MAXCPERIP=7", "193": "MAXCPERIP=0", "194": "MAXCPERIP=x", "195": "A=1"})
    for env, expected in (({}, [7, 3, 3, 3]), ({"MAXCPERIP": "9"}, [7, 3, 3, 9])):
        chosen = rules(path, "-maxperip=3", env=env)
        found = [chosen.admit(ip(f"{net}.0.0.1"), Client()) for net in range(192, 196)]  # type: ignore
        assert [chosen.maxperip(each) for each in found] == expected


def test_MAXCPERIP_of_the_environment_needs_no_file():
    chosen = Access(parse(["tcpd", "110", "prog"]), {"MAXCPERIP": "9"})
    assert chosen.maxperip(chosen.admit(ip("192.0.2.1"), Client())) == 9  # type: ignore


@pytest.mark.parametrize(
    "option, value, dropped",
    [
        ("-drop", "allow,BLOCK=x", True),
        ("-drop=", "allow,BLOCK=x", True),
        ("-drop", "allow,BLOCK=", False),
        ("-drop", "allow", False),
        ("-drop=SPAM", "allow,SPAM=1", True),
        ("-drop=SPAM", "allow,BLOCK=1", False),
        ("-drop=SPAM,BLOCK", "allow,BLOCK=1", False),
        ("-drop=SPAM,BLOCK", "allow,SPAM=1", True),
        ("-nodnslookup", "allow,BLOCK=x", False),
    ],
)
def test_who_has_the_variable_of_drop_is_dropped_with_a_warning(
    make, capfd, option, value, dropped
):
    path = make({"192.0.2": value})
    if dropped:
        assert answer(path, "192.0.2.1", option, "-denymsg=blocked") == b"blocked\n"
        line = "WARN: dropped blocked connection from ::ffff:192.0.2.1\n"
        assert capfd.readouterr().err == line
    else:
        admitted(path, "192.0.2.1", option)
        assert capfd.readouterr().err == ""


def test_drop_looks_at_the_inherited_environment_too_and_the_record_is_stronger(make):
    path = make({"192.0.2": "allow,BLOCK="})
    chosen = rules(path, "-drop", env={"BLOCK": "inherited"})
    assert chosen.admit(ip("192.0.2.1"), Client()) == {"BLOCK": ""}  # type: ignore
    with pytest.raises(Denied):
        chosen.admit(ip("192.0.3.1"), Client())  # type: ignore


def test_a_decision_among_many_records_takes_next_to_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("".join(f"10.{n >> 8}.{n & 255}.0/26\tdeny\n" for n in range(20_000)))
    chosen, client = rules(path), Client()
    begin = process_time()
    for _ in range(1000):
        chosen.admit(ip("192.0.2.1"), client)  # type: ignore
    assert process_time() - begin < 0.1  # 0.1 ms each; a fork takes 0.6


def test_a_real_socket_is_asked_for_its_own_end():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            port = client.getsockname()[1]
            table = in_text("FILE", f"127.0.0.1.{port}\tA=1\n".encode())
            chosen = Access(parse(["tcpd", "110", "prog"]), {})
            chosen._table, chosen._local = table, True
            assert chosen.admit(ip("192.0.2.1"), client) == {"A": "1"}
