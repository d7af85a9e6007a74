"""couriertls -server -tcpd: the handshake, the program behind it, and what may fail."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, needs, needs_root, wait_until
from tests.couriertls.conftest import RELAY, connected, descriptors_of, read_all

SHOW = ["/bin/sh", "-c", "env; echo fds: $(ls /proc/$$/fd); echo end"]


def shown(tls) -> dict[str, str]:
    lines = read_all(tls).decode().splitlines()
    assert lines[-1] == "end"
    return dict(line.partition("=")[::2] for line in lines)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_row_44_row_48_8314_01_the_program_starts_after_the_handshake_and_knows_of_it(
    program, files, version
):
    started = files.directory / "started"
    relay = program("/bin/sh", "-c", f"touch {started}; env; echo end", env={"TCPREMOTEIP": "::1"})
    relay.client.sendall(b"\x16\x03\x01")  # the first octets of a handshake
    assert not started.exists()
    relay.client.close()
    assert relay.ended() == (1, ["DEBUG: ip=[::1], Unexpected SSL connection shutdown."])
    assert not started.exists()

    wanted = ssl.TLSVersion[version]
    relay = program(*SHOW, env={"TCPREMOTEIP": "::1", "COLOUR": "blue"})
    tls = relay.hello(files.client(minimum_version=wanted, maximum_version=wanted))
    cipher, _, bits = tls.cipher()
    env = shown(tls)
    assert env["TLS_CONNECTED_PROTOCOL"] == f"{tls.version()},{bits}bits,{cipher}"
    assert (env["TCPREMOTEIP"], env["COLOUR"]) == ("::1", "blue")
    tls.close()
    assert relay.ended() == (0, [])


def test_the_program_has_three_descriptors_and_no_variables_of_another_client(program, files):
    with (files.directory / "x").open("w") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        relay = program(
            *(
                "/bin/sh",
                "-c",
                "ls -l /proc/$$/fd | grep -c socket:; ls /proc/$$/fd; env; echo end",
            ),
            env={"TLS_SUBJECT_CN": "root", "TLS_CONNECTED_PROTOCOL": "SSLv2", "TLS_DEBUG": ""},
            close_fds=False,
        )
        lines = read_all(relay.hello(files.client())).decode().splitlines()
    assert lines[:4] == ["2", "0", "1", "2"]
    assert not [line for line in lines if line.startswith("TLS_SUBJECT_")]
    assert "TLS_CONNECTED_PROTOCOL=SSLv2" not in lines


def test_our_directory_comes_first_when_the_program_has_a_bare_name(program, files):
    env = {"AUTHENTICATED": "me", "MAILDIR": str(files.directory), "PATH": "/nowhere"}
    relay = program("courierpop3login", "courierpop3d", env=env)
    tls = relay.hello(files.client())
    assert tls.recv(100) == b"+OK Hello there.\r\n"


def test_a_program_that_is_missing(program, files):
    relay = program("/nowhere/at-all")
    with relay.hello(files.client()) as tls:
        assert read_all(tls) == b""
    assert relay.ended() == (0, ["/nowhere/at-all: No such file or directory"])


def test_row_45_the_relay_becomes_the_user_and_the_program_stays_root(program, files):
    needs_root()
    relay = program("/bin/sh", "-c", "id -u; cat", options=["-tcpd", "-user=nobody"])
    tls = relay.hello(files.client())
    assert tls.recv(100) == b"0\n"
    status = wait_until(lambda: Path(f"/proc/{relay.process.pid}/status").read_text())
    ids = [line.split()[1:] for line in status.splitlines() if line[:4] in ("Uid:", "Gid:")]
    assert ids == [["65534"] * 4] * 2
    groups = next(line for line in status.splitlines() if line.startswith("Groups:"))
    assert groups.split()[1:] == ["65534"]
    # Neither a core file nor another process of nobody's shows the key.
    assert os.stat(f"/proc/{relay.process.pid}/environ").st_uid == 0


def test_an_unknown_user_is_said_before_anything_starts(program):
    relay = program("/bin/true", options=["-tcpd", "-user=nobody-of-that-name"])
    assert relay.ended() == (1, ["getpwnam: Success"])


def test_8996_01_tls_1_1_and_older_are_not_spoken(program, files):
    needs("openssl")
    for version in ("-tls1", "-tls1_1"):
        relay = program("/bin/echo", "hello")
        done = openssl_client(relay.client, version, "-cipher", "DEFAULT:@SECLEVEL=0")
        assert b"hello" not in done.stdout
        relay.client.close()
        code, lines = relay.ended()
        assert (code, lines) == (1, ["couriertls: accept: error:SSL routines:unsupported protocol"])


@pytest.mark.parametrize(
    "setting, option", [("TLSv1", "-tls1"), ("TLS1", "-tls1_1"), ("TLSv1.1++", "-tls1_1")]
)
def test_8996_01_unless_that_is_set_by_hand(program, files, setting, option):
    needs("openssl")
    relay = program("/bin/sh", "-c", "echo $TLS_CONNECTED_PROTOCOL", env={"TLS_PROTOCOL": setting})
    done = openssl_client(relay.client, option, "-cipher", "DEFAULT:@SECLEVEL=0")
    assert done.stdout.startswith(b"TLSv1.1," if option == "-tls1_1" else b"TLSv1,")


def openssl_client(network: socket.socket, *options: str) -> subprocess.CompletedProcess:
    """openssl s_client can't take a descriptor: it connects to a port that leads to `network`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        there, _ = listener.accept()
    with there:
        carry_both_ways(there, network)
    stdout, stderr = process.communicate(timeout=20)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def carry_both_ways(one: socket.socket, other: socket.socket) -> None:
    pairs = {one: other, other: one}
    while True:
        for side in select.select(list(pairs), [], [], 20)[0]:
            try:
                data = side.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return
            pairs[side].sendall(data)


def test_8314_04_plain_text_gets_an_alert_and_a_close(program, files):
    relay = program("/bin/echo", "hello", env={"TCPREMOTEIP": "192.0.2.7"})
    relay.client.sendall(b"USER john\r\nPASS secret\r\n")
    answer = read_all(relay.client)
    assert answer[0] == 0x15 and answer[5] == 2 and len(answer) == 7  # a fatal alert
    relay.client.close()
    code, lines = relay.ended()
    assert code == 1
    assert lines == ["ip=[192.0.2.7], couriertls: accept: error:SSL routines:wrong version number"]


def test_2595_09_a_handshake_has_a_time_limit(program, files):
    relay = program("/bin/echo", "hello", env={"TLS_HANDSHAKE_TIMEOUT": "1"})
    relay.client.sendall(b"\x16\x03\x01")
    assert read_all(relay.client) == b""
    relay.client.close()
    assert relay.ended() == (1, ["couriertls: accept: Connection timed out"])


def test_the_key_may_be_in_a_file_of_its_own(program, files):
    issued = files.authority.issue_cert("mail.example")
    files.put(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key = files.directory / "key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    relay = program("/bin/echo", "hello", env={"TLS_PRIVATE_KEYFILE": str(key)})
    assert read_all(relay.hello(files.client())) == b"hello\n"


def test_a_wrong_setting_is_one_line_and_nothing_starts(program, files):
    relay = program("/bin/true", env={"TLS_CERTFILE": "/nowhere"})
    said = "No such file or directory; name a PEM file that this user can read"
    assert relay.ended() == (1, [f"ERR: couriertls: TLS_CERTFILE=/nowhere: {said}"])


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-server", "-nosuch"], "couriertls: Invalid option: -nosuch"),
        (["-server", "--tcpd"], "couriertls: Invalid option: --tcpd"),
        (["-server", "/bin/true"], "couriertls: specify remote location."),
        (["-host=localhost", "/bin/true"], "couriertls: specify remote location."),
        (["-protocol=nntp"], "--protocol=nntp - unknown protocol."),
        (["-remotefd=x"], "couriertls: -remotefd=x: not the number of a descriptor"),
        (["-server", "-tcpd"], "couriertls: -tcpd needs a program to start, or -localfd"),
        (["-relay"], "couriertls: -relay needs -server, and starts no program"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, said):
    done = subprocess.run([RELAY, *arguments], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 1
    assert done.stderr == said.replace("couriertls:", f"{RELAY}:", 1) + "\n"


def test_row_49_statusfd_and_printx509_tell_of_success(program, files):
    status, status_end = os.pipe()
    text, text_end = os.pipe()
    ours, local = socket.socketpair()
    relay = program(
        options=[
            *("-tcpd", f"-statusfd={status_end}", f"-printx509={text_end}"),
            f"-localfd={local.fileno()}",
        ],
        pass_fds=(status_end, text_end, local.fileno()),
    )
    local.close()
    os.close(status_end)
    os.close(text_end)
    tls = relay.hello(files.client())
    assert os.read(status, 1000) == b""
    cipher, _, bits = tls.cipher()
    assert os.read(text, 1000).decode() == f"Version: TLSv1.3\nBits: {bits}\nCipher: {cipher}\n"
    assert os.read(text, 1000) == b""
    with ours:
        ours.sendall(b"hello")
        assert tls.recv(100) == b"hello"
    assert read_all(tls) == b""
    tls.close()
    assert relay.ended() == (0, [])
    os.close(status)
    os.close(text)


def test_row_50_statusfd_tells_of_failure_and_leaves_the_connection_to_its_owner(program, files):
    status, status_end = os.pipe()
    ours, local = socket.socketpair()
    client, network = connected()
    relay = program(
        options=["-tcpd", f"-statusfd={status_end}", f"-localfd={local.fileno()}"],
        env={"TCPREMOTEIP": "::ffff:9.9.9.9"},
        pass_fds=(status_end, local.fileno()),
        stdin=network,
    )
    local.close()
    os.close(status_end)
    client.sendall(b"NOOP\r\n")
    said = os.read(status, 1000).decode()
    expected = "couriertls: accept: error:SSL routines:wrong version number\n"
    assert said == f"ip=[::ffff:9.9.9.9], {expected}"
    assert relay.ended() == (1, [])
    assert client.recv(7)[0] == 0x15
    with ours, network:
        network.sendall(b"-ERR STARTTLS failed\r\n")
    assert read_all(client) == b"-ERR STARTTLS failed\r\n"
    client.close()
    os.close(status)


def test_statusfd_doesnt_tell_a_client_about_files(program, files):
    status, status_end = os.pipe()
    relay = program(
        "/bin/true",
        options=["-tcpd", f"-statusfd={status_end}"],
        env={"TLS_CERTFILE": "/nowhere"},
        pass_fds=(status_end,),
    )
    os.close(status_end)
    assert os.read(status, 1000) == b"couriertls: TLS is not set up here; the log says why\n"
    code, lines = relay.ended()
    assert code == 1 and "TLS_CERTFILE=/nowhere" in lines[0]
    os.close(status)


def test_cve_22_broken_handshakes_leave_no_process(serve, files):
    """Each connection has a couriertls of its own: with -coldexec no relay serves them all."""
    stages = ["couriertls", "-server", "-tcpd", "/bin/echo", "hello"]
    env = {"TLS_CERTFILE": str(files.file), "TLS_HANDSHAKE_TIMEOUT": "2"}
    server = serve("-coldexec", "-maxperip=40", stages=stages, env=env)
    before = descriptors_of(server.process.pid)
    clients = []
    for octets in (b"", b"USER x\r\n", b"\x16\x03\x01\x00\x80\x01", b"\x80\x2e\x01") * 4:
        client = server.client()
        client.send(octets)
        clients.append(client)
    for client in clients[::2]:
        client.close()
    for client in clients[1::2]:
        client.rest()
        client.close()
    wait_until(lambda: not server.children(), "no process left")
    assert descriptors_of(server.process.pid) == before


def test_couriertls_behind_our_couriertcpd(serve, mode, john, files):
    stages = ["couriertls", "-server", "-tcpd", "courierpop3login", "authuserdb", "courierpop3d"]
    server = serve(*mode, stages=[*stages, "./Maildir"], env={"TLS_CERTFILE": str(files.file)})
    john.deliver(b"Subject: x\n\nbody\n")
    client = server.client()
    client.socket = files.client().wrap_socket(client.socket, server_hostname="mail.example")
    client.file = client.socket.makefile("rb")
    with client.login(john):
        assert client.listing("RETR 1")[-1] == "body"
    assert BIN
