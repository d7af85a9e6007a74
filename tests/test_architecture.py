"""Who may import whom, and what the connection path may import (design: arrows point one way)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent
SHARED = {"courierchain": {"courierchain"}, "pop3proto": {"pop3proto"}}
PROGRAMS = {
    *("couriertcpd", "couriertls", "courierlogger", "courierpop3login", "authmodules"),
    *("courierpop3d", "courierpop3proxy", "courierctl", "makedat", "authdaemond", "cyruspop3d"),
    *("cyrusmaster", "userdb"),
}
OURS = PROGRAMS | set(SHARED)

# Each costs about as much as a session, or doubles the memory that every fork copies.
EXPENSIVE = {
    *(
        "asyncio",
        "logging",
        "argparse",
        "dataclasses",
        "re",
        "ssl",
        "passlib",
        "importlib.metadata",
    ),
    *("sqlite3", "pymysql", "psycopg", "ldap", "subprocess", "inspect", "typing", "email"),
}
PYTHON_PAM = {"re", "typing", "subprocess"}  # what python-pam brings along


def imports(path: Path) -> set[str]:
    """Top-level names of all that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_programs_import_the_shared_packages_and_never_each_other(package):
    allowed = SHARED.get(package, {package} | set(SHARED))
    files = list((SOURCE / package).glob("**/*.py"))
    assert files
    for file in files:
        assert imports(file) & OURS <= allowed, file


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


LOGIN = "import courierpop3login.main"
SERVER = "import courierpop3d.main"
PROXY = "import courierpop3proxy.main"
LISTENER = "import couriertcpd.main"
LOGGER = "import courierlogger.main"
MASTER = "import cyrusmaster.main"
RELAY = "import couriertls.main, courierchain.relay"
REHASH = "import courierchain.rehash"
CYRUS = "import cyruspop3d.main, courierpop3login.cyrus, courierpop3d.cyrus"
MODULES = "\n".join(
    f"import authmodules.auth{name}"
    for name in ("checkpassword", "custom", "oauth", "pipe", "pwd", "shadow", "userdb", "vchkpw")
)


@pytest.mark.parametrize(
    "stage", [LOGIN, SERVER, CYRUS, MODULES, LISTENER, LOGGER, MASTER, RELAY, REHASH]
)
def test_the_connection_path_imports_nothing_expensive(stage):
    assert not loaded_by(f"import courierchain.start\n{stage}") & EXPENSIVE


def test_a_whole_resident_chain_is_free_of_them_too():
    assert not loaded_by("\n".join([LISTENER, LOGIN, MODULES, SERVER])) & EXPENSIVE


def test_the_proxy_adds_what_ssl_needs_and_no_more():
    assert loaded_by(PROXY) & EXPENSIVE <= loaded_by("import ssl") & EXPENSIVE | {"ssl"}


def test_authpam_adds_what_python_pam_needs_and_no_more():
    assert loaded_by("import authmodules.authpam") & EXPENSIVE <= PYTHON_PAM


@pytest.mark.parametrize("stage", [LOGIN, SERVER, RELAY, "import authmodules.authuserdb"])
def test_a_stage_started_alone_does_without_enum_and_socket(stage):
    alone = loaded_by(f"import courierchain.start\n{stage}")
    assert not alone & {"socket", "selectors", "hashlib"}


def test_every_file_opens_with_a_manual_page():
    for package in OURS:
        for file in (SOURCE / package).glob("**/*.py"):
            assert ast.get_docstring(ast.parse(file.read_text())), file
