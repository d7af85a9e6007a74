"""-block, -allow and host names, as a client and the next program see them, with a name server that
answers, doesn't, or says something else (reference couriertcpd.md 8)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from couriertcpd.lookups import of_command_line
from couriertcpd.options import parse
from couriertcpd.resolver import MOST
from tests.chain.test_access import connect, told
from tests.conftest import BIN, DEADLINE, Server, needs, needs_root, wait_until
from tests.dnsstub import BREAKAGES, StubDns

SOURCE = Path(__file__).parent.parent.parent
DUMP = "#!/bin/sh\nenv | grep -E '^(BLOCK|GOOD|ALLOW|TCP.*HOST)'\necho .\n"
LISTED = "1.0.0.127.bl.example"
NIBBLES = "1.0.0.0.0.0.f.7.f.f.f.f." + "0." * 20 + "bl.example"
HIT = {
    "BLOCK": "Blacklisted by bl.example",
    "BLOCK_ZONE": "bl.example",
    "BLOCK_IP": "127.0.0.2",
}


@pytest.fixture
def stub():
    server = StubDns()
    server.records[LISTED] = {"A": ["127.0.0.2"], "TXT": ['"see " "http://bl.example/"']}
    yield server
    server.close()


@pytest.fixture
def start(serve, script, stub):
    """Start a listener that asks the stub, with a program that shows the client what is known."""
    dump = script("dump", DUMP)

    def begin(*options: str, env=None) -> Server:
        return serve(f"-nameservers=127.0.0.1:{stub.port}", *options, stages=[dump], env=env)

    return begin


def shown(server: Server, address: str = "127.0.0.1") -> dict[str, str]:
    return read(connect(server, address))


def read(client: socket.socket) -> dict[str, str]:
    with client, client.makefile("rb") as file:
        data = file.read()
    assert data.endswith(b".\n"), data
    return dict(line.split("=", 1) for line in data.decode().splitlines()[:-1])


def test_row_38_a_client_on_a_block_list_has_the_variables(start, any_mode, stub):
    server = start("-block=bl.example", *any_mode)
    for _ in range(3):
        assert shown(server) == HIT
        assert shown(server, "127.0.0.9") == {}
    assert {name for name, _ in stub.asked} >= {LISTED, NIBBLES.replace("1", "9", 1)}
    assert NIBBLES not in {name for name, _ in stub.asked}
    assert {kind for _, kind in stub.asked} == {"A"}


def test_a_mapped_address_is_asked_for_in_its_ipv6_form_after_that(start, stub):
    stub.records[NIBBLES] = stub.records.pop(LISTED)
    assert shown(start("-block=bl.example")) == HIT
    assert [name for name, _ in stub.asked] == [LISTED, NIBBLES]


def test_an_ipv6_client_is_asked_for_by_nibbles(start, stub):
    name = "1." + "0." * 31 + "bl.example"
    stub.records[name] = {"A": ["127.0.0.2"]}
    server = start("-address=::1", "-block=bl.example,,@ is listed")
    client = socket.create_connection(("::1", server.port), DEADLINE)
    assert read(client) == {**HIT, "BLOCK": "::1 is listed"}
    assert stub.asked == [(name, "A")]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            "-block=bl.example=shown,,no, @",
            {"BLOCK": "no, ::ffff:127.0.0.1", "BLOCK_ZONE": "shown"},
        ),
        (
            "-block=bl.example,BLOCK,*",
            {"BLOCK": "see http://bl.example/", "BLOCK_TXT": "see http://bl.example/"},
        ),
        ("-block=bl.example,BLOCK/127.0.0.2,*", {"BLOCK": "*"}),
        ("-allow=bl.example", {"BLOCK": "", "ALLOW_0": "BLOCK"}),
        (
            "-allow=bl.example,BLOCK,",
            {"BLOCK": "", "ALLOW_0": "BLOCK", "BLOCK_TXT": "see http://bl.example/"},
        ),
    ],
)
def test_the_forms_of_a_list(start, option, expected):
    assert shown(start(option)) == {**HIT, **expected}


def test_an_explicit_address_must_be_the_answer_s(start):
    assert shown(start("-block=bl.example,BLOCK/127.0.0.3,*")) == {}


def test_lists_count_in_the_order_of_the_command_line(start, stub):
    stub.records["1.0.0.127.good.example"] = {"A": ["127.0.0.2"]}
    good = {**HIT, "BLOCK": "", "BLOCK_ZONE": "good.example", "ALLOW_0": "BLOCK"}
    lists = ["-allow=good.example", "-block=bl.example"]
    assert shown(start("-drop", *lists)) == good
    assert shown(start(*reversed(lists))) == HIT


@pytest.mark.parametrize("value", ["", "mine"])
def test_a_variable_that_is_set_keeps_its_value_and_its_lists_are_not_asked(
    start, stub, public, value
):
    access = public / "access"
    access.write_text(f"127\tallow,BLOCK={value}\n")
    assert shown(start("-block=bl.example", f"-access={access}")) == {"BLOCK": value}
    assert shown(start("-block=bl.example", env={"BLOCK": value})) == {"BLOCK": value}
    assert stub.asked == []


def test_who_is_listed_is_dropped_with_a_word_and_its_place_is_free_again(start, stub, any_mode):
    server = start("-block=bl.example", "-drop", "-denymsg=Go away", "-maxprocs=1", *any_mode)
    for count in range(1, 4):
        assert told(server) == b"Go away\n"
        assert server.lines().count("WARN: dropped blocked connection from ::ffff:127.0.0.1") == (
            count
        )
    assert shown(server, "127.0.0.9") == {}


def test_who_is_on_a_list_of_another_variable_is_not_dropped(start):
    assert shown(start("-block=bl.example,GOOD,x", "-drop"))["GOOD"] == "x"


def test_F_NET_7_a_name_server_that_hangs_delays_nobody_else(start, stub, public, any_mode):
    access = public / "access"
    access.write_text("127.0.0.9\tallow,BLOCK=\n")
    stub.open.clear()
    server = start("-block=bl.example", f"-access={access}", "-dnstimeout=60", *any_mode)
    with connect(server) as held:
        wait_until(lambda: stub.asked, "the list has been asked")
        for _ in range(3):
            assert shown(server, "127.0.0.9") == {"BLOCK": ""}
        held.setblocking(False)
        with pytest.raises(BlockingIOError):
            held.recv(1)
        held.settimeout(DEADLINE)
        stub.open.set()
        assert read(held) == HIT


def test_F_NET_7_time_is_limited_and_a_dead_list_silences_no_other(start, stub):
    stub.broken["dead.example"] = "silent"
    lists = ["-block=dead.example,GOOD", "-block=bl.example", "-block=dead.example"]
    assert shown(start("-dnstimeout=1", *lists)) == HIT


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_is_no_answer_puts_nobody_on_a_list(start, stub, breakage):
    stub.broken["bl.example"] = breakage
    del stub.records[LISTED]
    server = start("-dnstimeout=1", "-block=bl.example,BLOCK,*", "-drop")
    assert shown(server) == {}


def test_more_clients_than_are_looked_up_at_a_time(start, stub):
    stub.open.clear()
    server = start("-block=bl.example", "-dnstimeout=60", "-maxprocs=300", "-maxperip=300")
    clients = [connect(server) for _ in range(MOST + 20)]
    wait_until(lambda: len(stub.asked) >= MOST, "many are asked for at once")
    stub.open.set()
    assert all(read(client) == HIT for client in clients)


def resolver_of(server: Server) -> int:
    return wait_until(server.children, "the resolver runs")[0]


def test_who_waits_for_a_resolver_that_ends_goes_on_and_another_one_is_started(start, stub):
    server = start("-block=bl.example", "-dnstimeout=60")
    resolver = resolver_of(server)
    assert shown(server) == HIT
    stub.open.clear()
    stub.asked.clear()
    with connect(server) as client:
        wait_until(lambda: stub.asked, "the list has been asked")
        os.kill(resolver, signal.SIGKILL)
        assert read(client) == {}
    server.logged("ERR: the DNS resolver has ended; another one is started in 5 seconds")
    assert shown(server) == {}
    stub.open.set()
    wait_until(lambda: shown(server) == HIT, "another resolver")


def test_a_resolver_that_stands_still_holds_nobody_for_long(start):
    server = start("-block=bl.example", "-dnstimeout=1")
    assert shown(server) == HIT
    os.kill(resolver_of(server), signal.SIGSTOP)
    assert shown(server) == {}
    os.kill(resolver_of(server), signal.SIGCONT)
    assert shown(server) == HIT


def test_a_resolver_ends_with_its_listener(start):
    server = start("-block=bl.example")
    resolver = resolver_of(server)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not Path(f"/proc/{resolver}/exe").exists(), "the resolver has ended")


def test_the_resolver_is_nobody_and_has_nothing_of_the_listener_s(start):
    needs_root()
    server = start("-block=bl.example")
    with connect(server):
        assert shown(server) == HIT
        resolver = resolver_of(server)
        status = Path(f"/proc/{resolver}/status").read_text()
        assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
        listening = [
            os.readlink(f"/proc/{server.process.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{server.process.pid}/fd")
            if int(fd) > 2
        ]
        there = [
            os.readlink(f"/proc/{resolver}/fd/{fd}")
            for fd in (0, *range(3, 20))
            if os.path.lexists(f"/proc/{resolver}/fd/{fd}")
        ]
        own = {link for link in there if link.startswith(("socket:", "pipe:"))}
        assert own and not own & set(listening)


def test_the_listener_itself_loads_nothing_of_it():
    code = f"""
import sys; sys.path += {sys.path!r}
from couriertcpd import main, lookups, options
lookups.of_command_line(options.parse(["tcpd", "-block=a", "110", "x"]), {{}})
print(*sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "couriertcpd.lookups" in loaded
    assert not loaded & {"dns", "asyncio", "concurrent", "threading", "couriertcpd.resolver"}


def test_without_dnspython_a_list_is_refused_and_the_remedy_said(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:2])
    chosen = parse(["tcpd", "-block=a", "110", "x"])
    with pytest.raises(Exception, match="need dnspython, which is not installed .*pip install"):
        of_command_line(chosen, {})
    assert of_command_line(parse(["tcpd", "110", "x"]), {})  # host names don't need it


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("-block=,X", "-block=,X: no zone (zen.example.org is one)"),
        ("-allow=a,B/1", "-allow=a,B/1: Invalid IP address: 1"),
        ("-block=a,1x", "-block=a,1x: 1x can't be the name of a variable"),
        ("-nameservers=dns", "-nameservers=dns: Invalid IP address: dns"),
        ("-nameservers=::1,127.0.0.1:0", "-nameservers=127.0.0.1:0: Invalid port: 0"),
        ("-nameservers=::1,[::1]:54", "-nameservers=::1,[::1]:54: an address is there twice"),
        ("-nameservers=[::1]:x", "-nameservers=[::1]:x: Invalid port: x"),
        ("-dnstimeout=0", "Invalid -dnstimeout option."),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_one_line(option, complaint):
    done = subprocess.run(
        [BIN / "couriertcpd", option, "1", "/bin/true"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, complaint + "\n")


NAMES = [
    ("127.1.0.1", "from.hosts"),  # of /etc/hosts
    ("127.1.0.2", "good.example"),
    ("127.1.0.3", None),  # no PTR
    ("127.1.0.4", None),  # a name that has no address
    ("127.1.0.5", None),  # a name that has another address
    ("127.1.0.6", "softdnserr"),  # the server fails to say the name
    ("127.1.0.7", "softdnserr"),  # or the address of the name
    ("127.1.0.8", "softdnserr"),  # silence
    ("127.1.0.9", "two.example"),  # several addresses
    ("127.1.0.10", None),  # CVE-40
    ("127.1.0.11", None),
    ("127.1.0.12", "_under-score.example"),
]


@pytest.fixture(scope="module")
def hosts():
    """What clients with various names in the DNS are told, from a listener in a network of its own
    (tests/privatenames.py)."""
    needs_root()
    needs("unshare")
    needs("ip")
    done = subprocess.run(
        ["unshare", "--mount", "--net", sys.executable, SOURCE / "tests/privatenames.py"]
        + [str(BIN / "couriertcpd"), *(address for address, _ in NAMES)],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(("address", "name"), NAMES)
def test_row_22_CVE_40_a_host_name_leads_back_or_is_not_set(hosts, address, name):
    assert hosts[address].get("TCPREMOTEHOST") == name
    assert hosts[address].get("TCPLOCALHOST") == "from.hosts"


def test_row_22_without_nodnslookup_an_inherited_name_stays_if_there_is_none(hosts):
    assert hosts["inherited 127.1.0.3"]["TCPREMOTEHOST"] == "inherited"
    assert hosts["inherited 127.1.0.2"]["TCPREMOTEHOST"] == "good.example"


def test_row_21_with_nodnslookup_no_name_is_set_and_an_inherited_one_stays(start):
    assert shown(start(env={"TCPREMOTEHOST": "mine"})) == {"TCPREMOTEHOST": "mine"}


def test_a_resolver_that_ends_before_it_has_answered_is_started_a_minute_later(start):
    server = start("-block=bl.example")
    os.kill(resolver_of(server), signal.SIGKILL)
    server.logged("ERR: the DNS resolver has ended; another one is started in 60 seconds")
    assert shown(server) == {}
