"""The manual pages in docs/man: complete, true where that can be compared, and sound as roff."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from courierchain import settings as chain_settings
from courierchain.programs import ENTRIES
from courierchain.syslog import FACILITIES
from courierctl import instance, known
from courierlogger import options as logger_options
from couriertcpd import options as tcpd_options
from couriertls import options as tls_options
from couriertls import settings as tls_settings
from docs.man import pages
from makedat.main import OPTIONS as MAKEDAT_OPTIONS
from tests.conftest import ROOT, needs, sha
from tests.test_readme import code_of

SOURCES = {"{}({})".format(*pages.name_of(source)): source for source in pages.sources()}

TCPD = {option.name: option.default for option in tcpd_options.TABLE}
OPTIONS: dict[str, set[str]] = {  # a program that isn't here has none
    "pop3d": set("CUTDXskp"),
    "cyrusmaster": {*"MlpdDLvVCj"},
    "couriertcpd": set(TCPD),
    "couriertls": {*tls_options.FLAGS, *tls_options.DESCRIPTORS, *tls_options.TEXTS},
    "courierlogger": {*logger_options.FLAGS, *logger_options.VALUES},
    "courierctl": {"C", "h"},
    "courierpop3login": {"front"},
    "makedat": {*MAKEDAT_OPTIONS, "cidr"},
    "authdaemond": {"rc"},
    "authtest": {"s", "chain"},
    "authenumerate": {"s", "o"},
    "authpasswd": {"scheme"},
    "makeuserdb": {"f"},
    "pw2userdb": {"passwd", "shadow", "domain", "noshadow", "nouid", "vpopuid"},
    "userdb": {"f", "show"},
    "userdbpw": {"md5", "hmac-md5", "hmac-sha1", "hmac-sha256"},
    "vchkpw2userdb": {"vpopmailhome", "todir"},
}
EVERY_OPTION = set().union(*OPTIONS.values())

SETTINGS = {**chain_settings.DEFAULTS, **tls_settings.DEFAULTS, **instance.SHIPPED}
FILES = ("pop3d(5)", "pop3d-ssl(5)")

# Pages of other people's that ours refer to.
FOREIGN = {
    *("crypt(5)", "execve(2)", "flock(2)", "mkpasswd(1)", "openssl(1)", "openssl-ciphers(1)"),
    "ldap.conf(5)",
    *("pam(7)", "pam.d(5)", "passwd(5)", "resolv.conf(5)", "shadow(5)", "syslog(3)"),
    "systemd.socket(5)",
    *("cyrus.conf(5)", "imapd.conf(5)", "master(8)", "saslauthd(8)"),
}


class Definition:
    """An entry of a definition list: what it defines, the default behind that, the text below."""

    def __init__(self, item: nodes.definition_list_item):
        term, *rest = item.children
        self.names = [literal.astext() for literal in term.findall(nodes.literal)]
        defaults = [node.astext() for node in rest if isinstance(node, nodes.classifier)]
        self.default = defaults[0] if defaults else None
        self.text = rest[-1]


@cache
def tree(page: str) -> nodes.document:
    return publish_doctree(pages.text_of(SOURCES[page]))


@cache
def definitions(page: str) -> list[Definition]:
    return [Definition(item) for item in tree(page).findall(nodes.definition_list_item)]


def described_options(page: str) -> dict[str, Definition]:
    """By name, without dashes."""
    options = {}
    for definition in definitions(page):
        for name in definition.names:
            if found := re.match(r"--?(\w[\w-]*)", name):
                assert found[1] not in options, f"{page} describes -{found[1]} twice"
                options[found[1]] = definition
    return options


def described_settings(page: str) -> dict[str, Definition]:
    return {
        name: definition
        for definition in definitions(page)
        for name in definition.names
        if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)
    }


def literals(page: str) -> list[str]:
    return [" ".join(literal.astext().split()) for literal in tree(page).findall(nodes.literal)]


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Each program with its arguments, in the examples of a page."""
    found = []
    for block in tree(page).findall(nodes.literal_block):
        for line in block.astext().replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line)
            except ValueError:
                continue  # a shell's script, or no command at all
            found += [(word, words[at + 1 :]) for at, word in enumerate(words) if word in ENTRIES]
    return found


def options_of(words: list[str]) -> list[str]:
    """The names of the options in front of the arguments."""
    options: list[str] = []
    for word in words:
        if word in ("-", "--") or not word.startswith("-"):
            break
        options.append(word.lstrip("-").partition("=")[0])
    return options


def test_every_program_has_a_page():
    assert {f"{name}(8)" for name in ENTRIES} <= SOURCES.keys()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_a_page_describes_every_option_and_no_other(name):
    assert described_options(f"{name}(8)").keys() == OPTIONS.get(name, set())


def test_the_defaults_of_couriertcpd_are_told():
    for name, definition in described_options("couriertcpd(8)").items():
        default = "" if TCPD[name] in (None, "") or TCPD[name] is False else str(TCPD[name])
        assert definition.default == (default or None), name


def test_the_help_of_courierctl_knows_the_same_options():
    program = Path(sys.executable).parent / "courierctl"
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\[-(\w+)", said)) == OPTIONS["courierctl"]


def test_facilities_of_courierlogger():
    facility = described_options("courierlogger(8)")["facility"]
    named = {literal.astext() for literal in facility.text.findall(nodes.literal)}
    numbered = {f"local{number}" for number in range(1, 7)}  # `local0` to `local7`
    assert named | numbered == set(FACILITIES)
    assert facility.default == logger_options.Options().facility


@pytest.mark.parametrize("page", SOURCES)
def test_no_page_names_an_option_that_does_not_exist(page):
    for literal in literals(page):
        if found := re.match(r"-([a-z][\w-]*)", literal):
            assert found[1] in EVERY_OPTION, literal
        program, *words = literal.split()[:2] if " -" in literal else [""]
        if program in ENTRIES:
            assert set(options_of(words)) <= OPTIONS[program], literal
    for program, words in commands(page):
        assert set(options_of(words)) <= OPTIONS.get(program, set()), (program, words)


def test_the_examples_are_looked_at():
    assert ("couriertls", ["-host=mail.example", "-port=110", "-protocol=pop3"]) in commands(
        "couriertls(8)"
    )


def test_every_setting_is_described_with_its_default():
    told: dict[str, set[str]] = {}
    for page in SOURCES:
        for name, definition in described_settings(page).items():
            told.setdefault(name, set()).add(definition.default or "")
    for name in (*SETTINGS, *known.COURIER):
        assert str(SETTINGS.get(name, "")) in told.get(name, ()), name


@pytest.mark.parametrize("page", SOURCES)
def test_no_default_of_a_setting_is_another_one(page):
    for name, definition in described_settings(page).items():
        if definition.default is not None or page in FILES:
            default = str(SETTINGS.get(name, "")) if name != "BITS" else "3072"
            assert definition.default == (default or None), name


@pytest.mark.parametrize("page", FILES)
def test_configtest_knows_what_the_pages_of_the_files_describe(page):
    for name in described_settings(page):
        assert known.remark(name) is None or name in known.RETIRED, name


def references(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+\([1-8]\)", text))


@pytest.mark.parametrize("page", SOURCES)
def test_what_a_page_refers_to_exists(page):
    text = tree(page).astext()
    assert references(text) <= {*SOURCES, *FOREIGN}
    assert page not in references(text[text.rindex("SEE ALSO") :])


@pytest.mark.parametrize("page", SOURCES)
def test_a_page_has_the_usual_parts(page):
    sections = [node.astext() for node in tree(page).findall(nodes.title)][1:]
    assert sections[:2] in (["SYNOPSIS", "DESCRIPTION"], ["DESCRIPTION", "DESCRIPTORS"])
    assert sections[-1] == "SEE ALSO"
    if page.endswith("(8)"):
        assert "EXIT STATUS" in sections


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The pages, as `make man` makes them."""
    directory = tmp_path_factory.mktemp("manual") / "man"
    build = [pages.HERE / "build", sys.executable, directory]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return directory


def test_all_are_made_without_a_warning(made):
    assert {f"{path.stem}({path.suffix[1:]})" for path in made.rglob("*.?")} == SOURCES.keys()


def test_man_shows_them_without_a_warning(made):
    needs("man")
    for path in sorted(made.rglob("*.?")):
        done = show(path)
        assert (done.returncode, done.stderr) == (0, ""), path
        first = done.stdout.splitlines()[0]
        assert first.lower().startswith(f"{path.stem}({path.suffix[1:]}) "), path
        assert f" NAME {path.stem} - " in " ".join(done.stdout.split()), path


def test_man_would_tell_of_what_is_wrong(tmp_path):
    needs("man")
    broken = tmp_path / "broken.8"
    broken.write_text(".TH broken 8\n.SH NAME\nbroken \\- it is\n.nosuchrequest\n")
    assert "nosuchrequest" in show(broken).stderr


def show(path: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    argv = ["man", "--warnings", "-l", str(path)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def block(page: str, part: str) -> str:
    (found,) = [
        block.astext() for block in tree(page).findall(nodes.literal_block) if part in str(block)
    ]
    return found


def test_the_module_in_shell_is_the_one_of_the_readme():
    assert block("courier-chain(7)", "#!/bin/sh") == code_of("authguest").strip("\n")


@pytest.mark.parametrize("password, accepted", [("right", True), ("wrong", False)])
def test_the_module_in_python_works(password, accepted, public, script):
    code = block("courier-chain(7)", "authguest.run()")
    uid, gid = (20001, 20001) if ROOT else (os.getuid(), os.getgid())
    for shown, here in {
        "/opt/courierpop3/bin/python3": sys.executable,
        "uid=5000, gid=5000": f"uid={uid}, gid={gid}",
        "/srv/guest": str(public),
        "$6$...": sha("right"),
    }.items():
        assert shown in code
        code = code.replace(shown, here)
    record = f"pop3\nlogin\nguest\n{password}\n\n"
    module = ["/bin/sh", "-c", 'exec "$0" "$@" 3<&0 </dev/null', script("authguest", code)]
    following = ["/bin/sh", "-c", 'echo "$AUTHENTICATED"; id -u; pwd; cat <&3']
    argv = [*module, *following]
    done = subprocess.run(argv, input=record, capture_output=True, text=True, check=False)
    if accepted:
        assert done.stdout == f"guest\n{uid}\n{public}\npop3\nauthenticated\nguest\n"
    else:
        assert done.stdout.startswith("\n")
        assert done.stdout.endswith(record)
