"""throwaway - run this system once more, as a copy that is thrown away

    python3 throwaway.py STEPS.py [ARGUMENT...]     as root; in new namespaces of its own

Everything on the root file system is there, and can be written: packages can be installed, users
made, ports 110 and 995 taken. The writes go to memory, the network is one loopback device, and all
processes end with the first. STEPS.py is executed there; what it prints is the result. Exits 77
where namespaces or overlays are not allowed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

NEWNS, NEWPID, NEWNET, NEWIPC = 0x00020000, 0x20000000, 0x40000000, 0x08000000
NOT_ALLOWED = 77
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def main() -> int:
    steps, *arguments = sys.argv[1:]
    files = {path: read(path) for path in (steps, *filter(os.path.isfile, arguments))}
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWNS | NEWPID | NEWNET | NEWIPC):
        return NOT_ALLOWED
    child = os.fork()  # the first process of the new namespace
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not mounted():
        return NOT_ALLOWED
    os.makedirs("/root/given", exist_ok=True)
    for path, content in files.items():
        with open(f"/root/given/{os.path.basename(path)}", "wb") as file:
            file.write(content)
    given = [
        f"/root/given/{os.path.basename(path)}" if path in files else path for path in sys.argv
    ]
    os.chdir("/")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    process = subprocess.Popen(["/usr/bin/python3", *given[1:]], env=environment)
    while True:  # as the first process we also bury whom others have left
        pid, status = os.wait()
        if pid == process.pid:
            return os.waitstatus_to_exitcode(status)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def mounted() -> bool:
    """Whether the copy has become the root."""
    new = "/mnt"
    layers = f"lowerdir=/,upperdir={new}/upper,workdir={new}/work"
    commands = [
        "mount --make-rprivate /",
        f"mount -t tmpfs tmpfs {new}",
        f"mkdir {new}/upper {new}/work {new}/root",
        f"mount -t overlay overlay -o {layers} {new}/root",
        f"mount -t proc proc {new}/root/proc",
        f"mount -t tmpfs tmpfs {new}/root/dev",
        f"mkdir {new}/root/dev/shm",
        f"mount -t tmpfs tmpfs {new}/root/tmp",
        f"mount -t tmpfs tmpfs {new}/root/run",
    ]
    for name in DEVICES:
        commands += [f"touch {new}/root/dev/{name}"]
        commands += [f"mount --bind /dev/{name} {new}/root/dev/{name}"]
    commands += [f"ln -s /proc/self/fd {new}/root/dev/fd"]
    for command in commands:
        if subprocess.run(command.split(), stderr=sys.stderr).returncode:
            return False
    os.chroot(f"{new}/root")
    os.chdir("/")
    os.chmod("/tmp", 0o1777)
    return subprocess.run(["ip", "link", "set", "lo", "up"]).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
