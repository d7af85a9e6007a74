"""Debian's courier-pop as shipped, then our package over it.

The same files, the same conversations, the same log lines, but for the differences that are listed
here. Both are real: real packages, dpkg, ports 110 and 995, authdaemond; in a copy of this system
that is thrown away (throwaway.py; the steps are in replace_courier_steps.py).
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.conftest import has_newer_courier, needs, needs_root

pytestmark = pytest.mark.timeout(300)  # each worker goes through the steps once

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent
NOT_ALLOWED = 77  # throwaway.py
PRIVATE = "/usr/lib/courier/python/bin"
EXPOSURE = {"courier-pop": 4.0, "courier-pop-ssl": 4.0}  # of 10; root, because users must be become
VIRTUAL_EXPOSURE = 2.0

# For a system that never had Courier, so has no authdaemond: here its files name a module.
ADDED_SETTING = 'AUTHMODULES="authpam"'

# What is not the same: in which conversation, and the lines that differ.
DIFFERENCES = {
    # courierctl says what it has done.
    ("start", "+NAME: started, pid N, port N"),
    ("stop", "+NAME: stopped"),
    # Courier's restart is a SIGHUP that changes nothing; ours checks the files, and restarts.
    ("restart", "+NAME: stopped"),
    ("restart", "+NAME: started, pid N, port N"),
}
# RFC 2595 section 4: STLS is a command of the AUTHORIZATION state, so it is announced there.
OF_PORT_110 = {
    ("capabilities after login", "-S: 'STLS\\r\\n'"),
}
# RFC 6856 section 3.2: a server with LANG announces it, as Courier does since Debian 13.
LANG = "+S: 'LANG\\r\\n'"
# Courier writes it whenever the client is the first to close.
SHUTDOWN_NOISE = "Unexpected SSL connection shutdown"


@pytest.fixture(scope="module")
def package() -> Path:
    """Our package, as `make deb` builds it."""
    needs("dpkg-deb")
    argv = [str(SOURCE / "packaging/build-deb"), sys.executable]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def replaced(package):
    """What came out of the steps."""
    needs_root()
    for program in ("courierlogger", "authdaemond", "unshare", "setpriv", "systemd-analyze"):
        needs(program)
    steps = [str(HERE / "throwaway.py"), str(HERE / "replace_courier_steps.py"), str(package)]
    argv = ["/usr/bin/python3", *steps, ADDED_SETTING]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280)
    if done.returncode == NOT_ALLOWED:
        pytest.skip("no namespaces or overlays here")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def plain(line: str) -> str:
    """A line without what is new in every run, and without the place of our programs."""
    line = re.sub(r"port=\[\d+\]", "port=[N]", line)
    line = re.sub(r"(started, pid|, port) \d+", r"\1 N", line)
    line = re.sub(r"^pop3d(-ssl)?:", "NAME:", line)
    line = line.removeprefix("/usr/bin/python3 -IB ")
    for name, folder in {
        "courierpop3": "/usr/lib/courier/courier",
        "couriertls": "/usr/bin",
        "courier": "/usr/sbin",
    }.items():
        line = line.replace(f"{PRIVATE}/{name}", f"{folder}/{name}")
    return line


def differences(replaced, port: str, kind: str) -> set[tuple[str, str]]:
    """("said" or "logged"): the conversation, and each line that is only before or only after."""
    found = set()
    before, after = replaced["before"][port], replaced["after"][port]
    for title in before:
        old, new = before[title][kind], after[title][kind]
        if isinstance(old, str):
            old, new = old.splitlines(), new.splitlines()
        pair = [
            [plain(line) for line in lines if SHUTDOWN_NOISE not in line] for lines in (old, new)
        ]
        changes = difflib.ndiff(*pair)
        found |= {(title, line[0] + line[2:]) for line in changes if line[0] in "+-"}
    return found


def ports(replaced) -> list[str]:
    return list(replaced["before"])


def files_of(package: Path) -> set[str]:
    argv = ["dpkg-deb", "--fsys-tarfile", str(package)]
    archive = subprocess.run(argv, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        return {member.name.removeprefix(".") for member in tar if not member.isdir()}


def test_every_manual_page_is_in_it(package):
    packed = {path.rpartition("/")[2] for path in files_of(package) if "/man/" in path}
    pages = {path.name.removesuffix(".rst") for path in (SOURCE / "docs/man").glob("*.rst")}
    taken = {"mkdhparams.8", "authenumerate.8"}  # packages that stay have pages of these names
    taken |= {"makeuserdb.8", "pw2userdb.8", "userdb.8", "userdbpw.8"}
    ours = {f"{name}courierpop3.gz" for name in taken}
    assert packed == {f"{name}.gz" for name in pages - taken} | ours


def test_no_file_of_it_is_one_of_the_packages_that_stay(package):
    needs("couriertcpd")
    needs("courierlogger")
    staying = ["courier-base", "courier-authlib", "courier-authlib-userdb", "courier-authdaemon"]
    listed = subprocess.run(["dpkg", "-L", *staying], capture_output=True, text=True).stdout
    assert "/usr/share/man/man8/mkdhparams.8.gz" in listed.splitlines()
    assert not files_of(package) & set(listed.splitlines())


def test_clients_see_the_same_but_for_what_is_listed(replaced):
    for port in ports(replaced):
        for name in ("before", "after"):
            pid = replaced[name][port].pop("pid")["said"]
            assert re.fullmatch(r"[1-9]\d*\n", pid)
        expected = set(DIFFERENCES)
        titles = ["capabilities", "capabilities after login"]
        if port == "110":
            expected |= OF_PORT_110
            titles.append("STLS")
        if not has_newer_courier():
            expected |= {(title, LANG) for title in titles}
        assert differences(replaced, port, "said") == expected


def test_row_57_the_log_and_the_processes_are_the_same(replaced):
    """Names, severities, fields and counts of each line; the programs' arguments (15.2)."""
    for port in ports(replaced):
        assert any("LOGIN FAILED" in m for m in replaced["after"][port]["wrong password"]["logged"])
        assert differences(replaced, port, "logged") == newer_login_lines(replaced, port)


def newer_login_lines(replaced, port: str) -> set[tuple[str, str]]:
    """Courier 5.2.6 and later, and ours, say stls=1 at LOGIN too; Debian 12's only at LOGOUT."""
    found: set[tuple[str, str]] = set()
    if has_newer_courier():
        return found
    for title, conversation in replaced["before"][port].items():
        lines = [plain(line) for line in conversation["logged"]]
        if any(": LOGOUT, user=" in line and line.endswith(", stls=1") for line in lines):
            logins = [line for line in lines if ": LOGIN, user=" in line]
            found |= {(title, f"-{line}") for line in logins}
            found |= {(title, f"+{line}, stls=1") for line in logins}
    return found


def test_uidls_and_sizes_are_kept(replaced):
    ports(replaced)
    assert replaced["list after"] == replaced["list before"]


def test_the_configuration_is_the_administrators(replaced):
    """Conffiles of courier-pop, shipped and edited: neither changed nor asked about."""
    for path in ("/etc/courier/pop3d", "/etc/courier/pop3d-ssl", "/etc/pam.d/pop3"):
        assert f"{path} {replaced['shipped'][path]}" in replaced["conffiles"]
    assert replaced["edited"] != replaced["shipped"]
    assert replaced["installed"]["files"] == replaced["edited"]
    assert "*** " not in replaced["install"]
    assert replaced["again"], "a second installation changes nothing"
    modes = replaced["modes"]
    assert (modes["/etc/courier/pop3d.cnf"], modes["/etc/courier/pop3d.pem"]) == ("0o600", "0o640")
    assert modes["/etc/init.d/courier-pop"] == modes["/etc/init.d/courier-pop-ssl"] == "0o755"


def test_other_packages_of_courier_stay_whole(replaced):
    states = replaced["installed"]["states"]
    assert {"courierpop3 ii", "courier-base ii", "courier-authlib ii"} <= set(states)
    assert "courier-pop ic" in states or "courier-pop rc" in states
    assert replaced["collisions"] == "", "no file of theirs is changed or missing"


def test_every_module_is_compiled(replaced):
    sources, compiled = map(int, replaced["not compiled"].split())
    assert sources == compiled > 50


def test_the_purge_of_courier_pop_takes_nothing_away(replaced):
    """Its conffiles are in use, and come back; the units of the same names stay enabled."""
    assert replaced["courier-pop purged"]["same"]
    assert {"courier-pop.service", "courier-pop-ssl.service"} <= set(replaced["enabled"])


def test_removed_it_leaves_the_configuration_and_purged_nothing(replaced):
    assert replaced["removed"]["files"]
    assert "courierpop3 rc" in replaced["removed"]["states"]
    assert set(replaced["purged"]["files"].values()) == {None}
    assert [path for path in replaced["purged"]["left"] if "dovecot" not in path] == []


def test_systemd_finds_no_fault_in_the_units(replaced):
    ports(replaced)
    assert len(replaced["units"]) == 6
    for unit, found in replaced["units"].items():
        assert found["verify"] == "", unit


def test_the_services_are_hardened(replaced):
    for unit, found in replaced["units"].items():
        name, _, kind = unit.rpartition(".")
        if kind == "service":
            exposure = float(re.search(r"([\d.]+) [A-Z]+", found["security"])[1])
            assert exposure <= EXPOSURE.get(name, VIRTUAL_EXPOSURE), (unit, exposure)


def test_virtual_mailboxes_are_served_without_root(replaced):
    found = replaced["virtual"]
    assert "S: '+OK logged in.\\r\\n'\nC: STAT\nS: '+OK 1 20\\r\\n'" in found["said"]
    assert "READY=1" in found["told"].splitlines()
    assert set(found["users"]) == {"vmail"}
    names = [re.sub(r", port=.*", "", line) for line in found["logged"]]
    peer = "ip=[::ffff:127.0.0.1]"
    assert names == [
        f"<23>pop3d: Connection, {peer}",
        f"<22>pop3d: LOGIN, user=jane, {peer}",
        f"<22>pop3d: LOGOUT, user=jane, {peer}",
    ]


def test_CVE_31_it_brings_all_it_needs_where_no_courier_was(replaced):
    ports(replaced)
    fresh = replaced["fresh"]
    assert fresh["modes"] == {
        "/etc/courier/pop3d": "0o644",
        "/etc/courier/pop3d-ssl": "0o644",
        "/etc/courier/pop3d.cnf": "0o600",
        "/etc/courier/pop3d.pem": "0o640",
        "/etc/pam.d/pop3": "0o644",
    }
    assert fresh["owners"] == ["root", "root", "root", "courier", "root"]
    assert fresh["said"].endswith(
        "C: STAT\nS: '+OK 3 144\\r\\n'\nC: QUIT\nS: '+OK Bye-bye.\\r\\n'\n"
    )
    assert "running" in fresh["running"]
    assert fresh["stopped"] == 3, "the LSB's exit status of a program that does not run"
