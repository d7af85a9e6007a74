"""originals - install what the benchmark compares with, if it is missing

Debian's courier-pop, courier-authdaemon and its userdb module, and a C compiler, by apt-get. No
service is started by the installation: a benchmark opens no port to the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess

NEEDED = {
    "/usr/lib/courier/courier/courierpop3d": "courier-pop",
    "/usr/lib/courier/courier-authlib/authdaemond": "courier-authlib",
    "/usr/sbin/authdaemond": "courier-authdaemon",
    "/usr/sbin/makeuserdb": "courier-authlib-userdb",
    "/usr/bin/cc": "gcc",
    "/usr/include/stdio.h": "libc6-dev",
}
POLICY = "/usr/sbin/policy-rc.d"  # asked by Debian's packages before they start a service


def install() -> None:
    missing = [package for path, package in NEEDED.items() if not os.path.exists(path)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise FileNotFoundError(f"no apt-get here, and missing: {' '.join(missing)}")
    print("installing", *missing, flush=True)
    had_policy = os.path.exists(POLICY)
    try:
        if not had_policy:
            forbid_services()
        apt_get("update")
        apt_get("install", "--yes", "--no-install-recommends", *missing)
    finally:
        if not had_policy:
            os.unlink(POLICY)


def forbid_services() -> None:
    with open(POLICY, "w") as file:
        file.write("#!/bin/sh\nexit 101\n")
    os.chmod(POLICY, 0o755)


def apt_get(*arguments: str) -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", *arguments], env=quiet, check=True)
