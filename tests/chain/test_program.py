"""What the program behind couriertcpd finds: arguments, descriptors, environment, ids, its socket.

(Reference couriertcpd.md 8.1, 8.4 and 20.)
"""

from __future__ import annotations

import socket
import sys

import pytest

from tests.conftest import Client, needs_root

SHOW = f"""#!{sys.executable} -I
import os, socket, sys
links = {{fd: os.readlink(f"/proc/self/fd/{{fd}}") for fd in (0, 1, 2)}}
with socket.socket(fileno=os.dup(0)) as network:
    alive = network.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
lines = [f"argv={{sys.argv}}", f"keepalive={{alive}}", f"ids={{os.getuid()}},{{os.getgid()}}"]
lines += [f"{{fd}}={{link}}" for fd, link in links.items()]
lines += [f"open={{sorted(map(int, os.listdir('/proc/self/fd')))[:-1]}}"]
lines += [f"{{name}}={{value}}" for name, value in os.environ.items()]
os.write(1, ("\\n".join(lines) + "\\n").encode())
"""


@pytest.fixture
def program(script):
    return script("show", SHOW)


def shown(client: Client) -> dict[str, str]:
    lines = client.rest().decode().splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def test_row_17_row_18_row_19_row_20_row_25_what_a_program_finds(serve, mode, program):
    server = serve(*mode, stages=[program, "one", "two words"])
    client = server.client()
    address, port = client.socket.getsockname()
    found = shown(client)
    assert found["argv"] == str([program, "one", "two words"])
    assert found["0"] == found["1"] and found["0"].startswith("socket:")
    assert found["2"] == str(server.log)
    assert found["open"] == "[0, 1, 2]"
    assert found["keepalive"] == "1"
    assert found["TCPREMOTEIP"] == found["TCPLOCALIP"] == f"::ffff:{address}"
    assert found["TCPREMOTEPORT"] == str(port)
    assert found["TCPLOCALPORT"] == str(server.port)
    assert "TCPREMOTEHOST" not in found and "TCPLOCALHOST" not in found


def test_row_23_row_24_a_program_that_goes_away_is_told_and_the_client_hears_nothing(
    serve, mode, script
):
    program = script("gone", "#!/bin/sh\necho here\n")
    server = serve(*mode, stages=[program])
    assert server.client().rest() == b"here\n"
    (server.log.parent / "gone").unlink()
    assert server.client().rest() == b""
    server.logged(rf".*{program}: No such file or directory")


def test_row_42_the_program_runs_as_user_and_group(serve, mode, program):
    needs_root()
    found = shown(serve(*mode, "-user=20001", "-group=20002", stages=[program]).client())
    assert found["ids"] == "20001,20002"


def test_row_42_the_port_is_bound_before_rights_are_given_up(serve, mode, program):
    needs_root()
    port = next(number for number in range(700, 1000) if is_free(number))
    server = serve(*mode, "-user=20001", "-group=20002", stages=[program], port=port)
    assert shown(server.client())["TCPLOCALPORT"] == str(port)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
