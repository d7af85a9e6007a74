"""layout - where the programs of an installation are

Each is looked for beside courierctl, then in its place in Debian (reference couriertcpd.md 16); a
program of ours goes before another's of the same name, who may be installed there as well.
Authentication modules are looked for in the same places, in AUTHLIB, and in the standard PATH.
"""

from __future__ import annotations

import os

from courierchain import programs

DEBIAN = {
    "courierlogger": "/usr/sbin",
    "couriertcpd": "/usr/sbin",
    "couriertls": "/usr/bin",
    "courierpop3login": "/usr/lib/courier/courier",
    "courierpop3d": "/usr/lib/courier/courier",
}
AUTHLIB = ("/usr/lib/courier/authlib", "/usr/lib/courier/courier")


class Layout:
    """argv0: the name under which courierctl was called."""

    __slots__ = ("beside", "real")

    def __init__(self, argv0: str):
        self.beside = os.path.dirname(os.path.abspath(argv0))
        self.real = os.path.dirname(os.path.realpath(argv0))

    def find(self, name: str) -> str | None:
        """The path of a program of the server."""
        debian = f"{DEBIAN[name]}/{name}"
        places = [f"{self.beside}/{name}", f"{self.real}/{name}", debian]
        if is_ours(debian):
            places.insert(1, debian)
        return next(filter(_is_executable, places), None)

    def find_module(self, name: str) -> str | None:
        """The path of an authentication module; `name` may be a path already."""
        if "/" in name:
            return name if name.startswith("/") and _is_executable(name) else None
        places = [f"{folder}/{name}" for folder in self.module_folders()]
        return next(filter(_is_executable, places), None)

    def module_folders(self) -> list[str]:
        folders = [self.beside, self.real, *AUTHLIB, *programs.STANDARD_PATH.split(":")]
        return list(dict.fromkeys(folders))

    def exports(self) -> dict[str, str]:
        """The variables that tell the files, and all sessions, where things are (15.1)."""
        tcpd = self.find("couriertcpd") or f"{DEBIAN['couriertcpd']}/couriertcpd"
        folder = os.path.dirname(tcpd)
        prefix = os.path.dirname(folder)
        debian = folder == DEBIAN["couriertcpd"]
        return {
            "prefix": prefix,
            "exec_prefix": prefix,
            "sbindir": folder,
            "bindir": "/usr/bin" if debian else folder,
            "libexecdir": "/usr/lib/courier" if debian else folder,
        }


def is_ours(path: str) -> bool:
    """Whether the file is the launcher of our programs."""
    try:
        with open(path, "rb") as file:
            return programs.LAUNCHER_MARK in file.read(4096)
    except OSError:
        return False


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
