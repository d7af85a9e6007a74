"""What sessions are told about their hosts' names, in a network and with an /etc of our own

    unshare --mount --net python privatenames.py COURIERTCPD ADDRESS...

prints JSON: for each of the clients' addresses, the variables of its session; for some also those
with an inherited TCPREMOTEHOST.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.dnsstub import StubDns  # noqa: E402

PORT = 11110
PLACE = "127.1.0.1"
RECORDS = {
    "good.example": "127.1.0.2",
    "other.example": "127.9.9.9",
    "two.example": "127.9.9.9 127.1.0.9",
    "_under-score.example": "127.1.0.12",
}
POINTERS = {  # by the last number of an address
    2: "good.example.",
    4: "nowhere.example.",
    5: "other.example.",
    7: "failing.example.",
    9: "two.example.",
    10: "a\\010b\\;id.example.",
    11: "\\(x\\)\\032y.example.",
    12: "_under-score.example.",
}


def main(tcpd: str, addresses: list[str]) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="names-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        put(folder, "/etc/hosts", f"{PLACE} from.hosts\n")
        put(folder, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        put(folder, "/etc/nsswitch.conf", "hosts: files dns\n")
        start_stub()
        told = ask(tcpd, {}, addresses)
        inherited = ask(tcpd, {"TCPREMOTEHOST": "inherited"}, ["127.1.0.2", "127.1.0.3"])
    print(json.dumps({**told, **{f"inherited {key}": inherited[key] for key in inherited}}))


def put(folder: str, path: str, text: str) -> None:
    copy = Path(folder, Path(path).name)
    copy.write_text(text)
    subprocess.run(["mount", "--bind", copy, path], check=True)


def start_stub() -> None:
    stub = StubDns(53)
    for name, values in RECORDS.items():
        stub.records[name] = {"A": values.split()}
    for number, name in POINTERS.items():
        stub.records[f"{number}.0.1.127.in-addr.arpa"] = {"PTR": [name]}
        stub.records.setdefault(name.removesuffix("."), {"A": [f"127.1.0.{number}"]})
    del stub.records["nowhere.example"]
    stub.broken["6.0.1.127.in-addr.arpa"] = "servfail"
    stub.broken["failing.example"] = "servfail"
    stub.broken["8.0.1.127.in-addr.arpa"] = "silent"


def ask(tcpd: str, env: dict[str, str], addresses: list[str]) -> dict[str, dict[str, str]]:
    command = "env | grep ^TCP; echo ."
    listener = subprocess.Popen(
        [tcpd, f"-address={PLACE}", "-dnstimeout=4", str(PORT), "/bin/sh", "-c", command],
        env={"PATH": "/usr/bin:/bin", **env},
    )
    try:
        return {address: told(address) for address in addresses}
    finally:
        listener.terminate()
        listener.wait()


def told(address: str) -> dict[str, str]:
    end = time.monotonic() + 20
    while True:
        try:
            client = socket.create_connection((PLACE, PORT), 20, (address, 0))
            break
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    with client, client.makefile() as file:
        lines = file.read().splitlines()
    assert lines[-1:] == ["."], lines
    return dict(line.split("=", 1) for line in lines[:-1])


main(sys.argv[1], sys.argv[2:])
