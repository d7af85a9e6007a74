"""originals - install what the benchmark compares with, if it is missing

    install(NEEDED, "courier-pop")                        Debian's Courier and a C compiler
    install(NEEDED | DOVECOT, "courier-pop", "dovecot-pop3d")
    binds = in_place("courier-pop", folder)               what to bind where, to see its programs
    place = cyrus()                                       where Cyrus's programs are unpacked

Debian lets one POP3 server be installed, not two. So the packages that hold only the POP3 server,
if not installed, are unpacked below /var/cache/popbench, and copied from there to where a server
sees them. What runs from any place (Cyrus, popa3d) is unpacked in any case; popa3d, if the
distribution has it. No package is removed for another, and no service is started by an
installation: a benchmark opens no port to the network.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile

NEEDED = {
    "/usr/sbin/couriertcpd": "courier-base",
    "/usr/lib/courier/courier-authlib/authdaemond": "courier-authlib",
    "/usr/sbin/authdaemond": "courier-authdaemon",
    "/usr/sbin/makeuserdb": "courier-authlib-userdb",
    "/usr/bin/cc": "gcc",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/include/openssl/ssl.h": "libssl-dev",
    "/usr/bin/openssl": "openssl",
}
DOVECOT = {"/usr/sbin/dovecot": "dovecot-core"}
# what the programs of Cyrus that are used here need and what can be installed
CYRUS_NEEDED = {
    "/usr/lib/*/libjansson.so.4": "libjansson4",
    "/usr/lib/*/libpq.so.5": "libpq5",
    "/usr/lib/*/libsqlite3.so.0": "libsqlite3-0",
    "/usr/lib/*/libwrap.so.0": "libwrap0",
    "/usr/lib/*/libxml2.so.2": "libxml2",
    "/usr/lib/*/sasl2/libsasldb.so.2": "libsasl2-modules-db",
}
CYRUS_NEEDED_IN_12 = {"/usr/lib/*/libpcreposix.so.3": "libpcre3"}
CYRUS_NEEDED_IN_13 = {
    "/usr/lib/*/libpcre2-posix.so.3": "libpcre2-posix3",
    "/usr/lib/*/libclamav.so.12": "libclamav12",
    "/usr/lib/*/libzephyr.so.4": "libzephyr4",
}
POPA3D = "popa3d"
# the package whose version it must have, where its programs belong, one of them
POP3_PACKAGES = {
    "courier-pop": ("courier-base", "/usr/lib/courier/courier", "courierpop3d"),
    "dovecot-pop3d": ("dovecot-core", "/usr/lib/dovecot", "pop3"),
}
CYRUS = ("cyrus-common", "cyrus-pop3d", "sasl2-bin", "libxapian30", "libical3", "libical3t64")
CACHE = "/var/cache/popbench"
POLICY = "/usr/sbin/policy-rc.d"  # asked by Debian's packages before they start a service


def install(needed: dict[str, str], *packages: str) -> None:
    """`packages` are those to unpack; one that this distribution has not is left out."""
    missing = [package for path, package in needed.items() if not glob.glob(path)]
    if missing:
        install_packages(missing)
    for package in packages:
        if not is_installed(package) and not is_unpacked(package):
            unpack(package)


def install_packages(missing: list[str]) -> None:
    if not shutil.which("apt-get"):
        raise FileNotFoundError(f"no apt-get here, and missing: {' '.join(missing)}")
    print("installing", *missing, flush=True)
    had_policy = os.path.exists(POLICY)
    try:
        if not had_policy:
            forbid_services()
        apt_get("update")
        apt_get("install", "--yes", "--no-remove", "--no-install-recommends", *missing)
    finally:
        if not had_policy:
            os.unlink(POLICY)


def forbid_services() -> None:
    with open(POLICY, "w") as file:
        file.write("#!/bin/sh\nexit 101\n")
    os.chmod(POLICY, 0o755)


def is_installed(package: str) -> bool:
    if package not in POP3_PACKAGES:
        return False
    _, place, program = POP3_PACKAGES[package]
    return os.path.exists(f"{place}/{program}")


def is_unpacked(package: str) -> bool:
    return os.path.exists(unpacked(package))


def unpacked(package: str) -> str:
    """The folder with the package's files, each at its path below it."""
    return f"{CACHE}/{package}{version_for(package).replace('=', '_')}"


def version_for(package: str) -> str:
    """As apt-get takes it, `=VERSION`, for one that goes with another package; else nothing."""
    if package not in POP3_PACKAGES:
        return ""
    query = ["dpkg-query", "--show", "--showformat=${Version}", POP3_PACKAGES[package][0]]
    return "=" + subprocess.run(query, capture_output=True, text=True, check=True).stdout


def unpack(package: str) -> None:
    os.makedirs(CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        unsandboxed = ["-o", "APT::Sandbox::User=root"]  # _apt may not write here
        apt_get("update")
        if not is_offered(package):
            print(f"{package}: this distribution does not have it: left out", flush=True)
            return
        print("unpacking", package, flush=True)
        apt_get("download", *unsandboxed, package + version_for(package), cwd=folder)
        (file,) = os.listdir(folder)
        subprocess.run(["dpkg-deb", "-x", file, "files"], cwd=folder, check=True)
        os.rename(f"{folder}/files", unpacked(package))


def is_offered(package: str) -> bool:
    query = ["apt-cache", "show", "--no-all-versions", package]
    return subprocess.run(query, capture_output=True).returncode == 0


def cyrus_needed() -> dict[str, str]:
    with open("/etc/debian_version") as file:
        is_12 = file.read().startswith("12")
    return CYRUS_NEEDED | (CYRUS_NEEDED_IN_12 if is_12 else CYRUS_NEEDED_IN_13)


def cyrus() -> str:
    """Its programs run from wherever they are, with LD_LIBRARY_PATH for its own libraries."""
    place = f"{CACHE}/cyrus"
    if not os.path.exists(place):
        print("unpacking", *CYRUS, flush=True)
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            apt_get("update")
            offered = filter(is_offered, CYRUS)
            apt_get("download", "-o", "APT::Sandbox::User=root", *offered, cwd=folder)
            for file in os.listdir(folder):
                subprocess.run(["dpkg-deb", "-x", file, "files"], cwd=folder, check=True)
            os.chmod(folder, 0o755)
            os.rename(f"{folder}/files", place)
    return place


def in_place(package: str, folder: str) -> dict[str, str]:
    """If it is unpacked, a copy of the place with its programs, made in `folder`; else nothing."""
    if is_installed(package):
        return {}
    _, place, _ = POP3_PACKAGES[package]
    copy = f"{folder}/{package}"
    for source in (place, unpacked(package) + place):
        shutil.copytree(source, copy, symlinks=True, dirs_exist_ok=True)
    return {copy: place}


def apt_get(*arguments: str, cwd: str = "/") -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", *arguments], env=quiet, cwd=cwd, check=True)
