"""What the configuration files mean: which value wins, what is an error, and what is told of it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from courierctl import shell
from courierctl.instance import KINDS, load
from courierctl.layout import Layout
from tests.conftest import BIN, DEADLINE, has_newer_courier, needs
from tests.courierctl.conftest import TEMPLATES

# Reference couriertcpd.md 15.2, without the directories of the programs.
PLAIN = (
    "courierlogger -pid=/run/courier/pop3d.pid -start -name=pop3d couriertcpd -address=0 "
    "-maxprocs=40 -maxperip=4 -nodnslookup -noidentlookup 110 courierpop3login courierpop3d Maildir"
)
TLS = (
    "courierlogger -pid=/run/courier/pop3d-ssl.pid -start -name=pop3d-ssl couriertcpd -address=0 "
    "-maxprocs=40 -maxperip=4 -nodnslookup -noidentlookup 995 couriertls -server -tcpd "
    "-user=courier courierpop3login courierpop3d Maildir"
)
# 14.1, and what [D] has of it
POP3D_LABELS = """
    PIDFILE:0 MAXDAEMONS:0 MAXPERIP:4 POP3AUTH:1 POP3AUTH_ORIG:1 POP3AUTH_TLS:1 POP3AUTH_TLS_ORIG:0
    POP3_PROXY:0 PROXY_HOSTNAME:0 PORT:1 ADDRESS:0 AUTHSERVICE:0 TCPDOPTS:0 LOGGEROPTS:0 DEFDOMAIN:0
    POP3DSTART:0 POP3_LOG_DELETIONS:0 AUTH_MKHOMEDIR_SKEL:0 MAILDIRPATH:0
    MIME_UNICODE_MESSAGE_TYPE:0
""".split()
POP3D_SSL_LABELS = """
    SSLPORT:0 SSLADDRESS:0 SSLPIDFILE:0 SSLLOGGEROPTS:0 POP3DSSLSTART:0 POP3_STARTTLS:0
    POP3_TLS_REQUIRED:1 COURIERTLS:0 TLS_PRIORITY:0 TLS_PROTOCOL:0 TLS_STARTTLS_PROTOCOL:0
    TLS_CIPHER_LIST:0 TLS_MIN_DH_BITS:0 TLS_TIMEOUT:0 TLS_CERTFILE:0 TLS_PRIVATE_KEYFILE:0
    TLS_DHPARAMS:0 TLS_TRUSTCERTS:0 TLS_VERIFYPEER:0 TLS_EXTERNAL:0 TLS_CACHE:1 MAILDIRPATH:0
""".split()


def loaded(folder, name: str, caller: dict[str, str] | None = None):
    return load(KINDS[name], str(folder), Layout(str(BIN / "courierctl")), caller or {})


def command_line(folder, name: str) -> str:
    words = loaded(folder, name).argv
    programs = [word.rpartition("/")[2] if os.access(word, os.X_OK) else word for word in words]
    return " ".join(programs)


@pytest.mark.parametrize("of", ["debian", "ours"])
@pytest.mark.parametrize(("name", "expected"), [("pop3d", PLAIN), ("pop3d-ssl", TLS)])
def test_row_56_command_lines_are_those_of_debian(of, name, expected):
    if of == "debian":
        needs("/usr/lib/courier/pop3d")
    if of == "debian" and has_newer_courier():
        expected = expected.replace(" -noidentlookup", "")
    assert command_line("/etc/courier" if of == "debian" else TEMPLATES, name) == expected


def test_our_files_have_the_values_of_debians():
    needs("/usr/lib/courier/pop3d")
    for name in KINDS:
        ours, theirs = loaded(TEMPLATES, name), loaded("/etc/courier", name)
        assert without_newer(ours.environment) == without_newer(theirs.environment)
        assert without_newer(ours.values) == without_newer(theirs.values)


def without_newer(values: dict[str, str]) -> dict[str, str]:
    """Ours are those of Debian 12, of which Debian 13 has changed these."""
    if not has_newer_courier():
        return values
    changed = ("TCPDOPTS", "TLS_ALPN", "TLS_CACHEFILE", "TLS_STARTTLS_PROTOCOL")
    return {name: value for name, value in values.items() if name not in changed}


def test_our_files_have_the_labels_of_sysconftool():
    for name, expected in (
        ("pop3d", [*POP3D_LABELS, "AUTHMODULES:0"]),
        ("pop3d-ssl", POP3D_SSL_LABELS),
    ):
        text = (TEMPLATES / name).read_text()
        assert sorted(re.findall(r"(?m)^##NAME: (.*)", text)) == sorted(expected)
        assert len(re.findall(r"(?m)^##VERSION: ", text)) == 1


def test_programs_are_found_beside_a_link_to_courierctl(site):
    """As in a package, where /usr/sbin has links."""
    assert site.argv()[0] == "courierlogger"
    (site.bin / "courierpop3d").unlink()
    assert f"{BIN.resolve()}/courierpop3d" in site.argv()


TWO_VALUES = [  # setting, its word on the command line; None for the environment
    ("MAXPERIP", "-maxperip={}"),
    ("MAXDAEMONS", "-maxprocs={}"),
    ("TCPDOPTS", "{}"),
    ("MAILDIRPATH", "{}"),
]


@pytest.mark.parametrize(("setting", "word"), TWO_VALUES)
def test_row_55_on_the_command_line_the_file_of_the_instance_wins(site, setting, word):
    site.set(**{setting: "11"})
    site.set("pop3d-ssl", **{setting: "22"})
    assert word.format("11") in loaded(site.etc, "pop3d").argv
    assert word.format("22") in loaded(site.etc, "pop3d-ssl").argv
    assert word.format("22") not in loaded(site.etc, "pop3d").argv
    assert word.format("11") not in loaded(site.etc, "pop3d-ssl").argv


@pytest.mark.parametrize("name", KINDS)
def test_row_55_in_the_environment_pop3d_ssl_wins(site, name):
    site.set(DEFDOMAIN="@one", MAILDIRPATH="One")
    site.set("pop3d-ssl", DEFDOMAIN="@two", MAILDIRPATH="Two")
    environment = loaded(site.etc, name).environment
    assert (environment["DEFDOMAIN"], environment["MAILDIRPATH"]) == ("@two", "Two")


def test_a_reference_sees_the_order_of_the_files(site):
    """The values of pop3d's command line are read in the other order."""
    site.set("pop3d-ssl", BASE="ssl")
    site.append('BASE="${BASE-first}+pop3d"')
    assert loaded(site.etc, "pop3d").values["BASE"] == "ssl+pop3d"
    assert loaded(site.etc, "pop3d-ssl").values["BASE"] == "ssl"
    site.append('TLS_PROTOCOL="TLSv1.2"', "pop3d-ssl")
    site.append('TLS_STARTTLS_PROTOCOL="$TLS_PROTOCOL"', "pop3d-ssl")
    assert loaded(site.etc, "pop3d").environment["TLS_STARTTLS_PROTOCOL"] == "TLSv1.2"


def test_of_the_callers_environment_two_variables_reach_the_instance_for_tls(site):
    caller = {"PATH": "/sbin", "SHELL": "/bin/zsh", "LANG": "xx", "AUTHMODULES": "x"}
    plain = loaded(site.etc, "pop3d", caller).environment
    tls = loaded(site.etc, "pop3d-ssl", caller).environment
    assert "PATH" not in plain and "SHELL" not in plain
    assert (tls["PATH"], tls["SHELL"]) == ("/sbin", "/bin/zsh")
    assert "LANG" not in tls and tls["AUTHMODULES"] == "authuserdb"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("\"-nodnslookup -denymsg='Go away'\"", ["-nodnslookup", "-denymsg=Go away"]),
        ("'-denymsg=\"Go away\"'", ["-denymsg=Go away"]),
        ("'-denymsg=a\\ b  -nodnslookup'", ["-denymsg=a b", "-nodnslookup"]),
        ("'-denymsg=$DEFDOMAIN'", ["-denymsg=@two"]),
        ("\"-denymsg='; # (no) & comment'\"", ["-denymsg=; # (no) & comment"]),
        ('"-nodnslookup\n-warn=3"', ["-nodnslookup", "-warn=3"]),
        ('""', []),
    ],
)
def test_values_are_split_by_a_second_shell(site, value, expected):
    site.set(DEFDOMAIN="@one")
    site.set("pop3d-ssl", DEFDOMAIN="@two")
    site.append(f"TCPDOPTS={value}")
    argv = site.argv()
    first = argv.index("-maxperip=4") + 1
    assert argv[first : argv.index(str(site.port))] == expected


@pytest.mark.parametrize("value", ["-denymsg='open", "a;b", "a | b", "a & b", "a #b", "-x\\\\"])
def test_a_value_that_is_no_words_names_its_setting(site, value):
    number = site.append(f'TCPDOPTS="{value}"')
    assert site.refused("start").startswith(f"ERR: {site.etc}/pop3d line {number}: TCPDOPTS=")


@settings(max_examples=60)
@given(st.text("ab-= '\"\\", max_size=12))
@example("a'b c'\"d e\"\\ f")
def test_what_we_take_for_words_is_words_for_the_shell(value):
    outside, mark = shell.bare(value)
    try:
        words = shlex.split(value)
    except ValueError:
        assert mark
        return
    assert not mark
    assert shell.source([], {}, "/", value).words == words


def test_settings_that_are_not_there_have_the_values_courier_ships(site):
    for name in KINDS:
        (site.etc / name).write_text("")
    assert command_line(site.etc, "pop3d").startswith(
        "courierlogger -pid=/run/courier/pop3d.pid -start couriertcpd -address=0 -maxprocs=40 "
        "-maxperip=4 110 courierpop3login"
    )
    assert command_line(site.etc, "pop3d-ssl").endswith("courierpop3d Maildir")


def test_authmodules_stand_between_login_and_server(site, script):
    own = script("authown", "#!/bin/sh\n")
    site.set(AUTHMODULES=f"authpam {own}\tauthuserdb")
    assert site.argv()[-6:] == [
        *("courierpop3login", "authpam", own, "authuserdb", "courierpop3d", "Maildir")
    ]


def test_without_authmodules_the_login_program_asks_authdaemond(site):
    site.set(AUTHMODULES=None)
    assert site.argv()[-3:] == ["courierpop3login", "courierpop3d", "Maildir"]
    site.ok("start")


@pytest.mark.parametrize(
    ("text", "line", "setting", "what"),
    [
        ('PORT="110', 1, "PORT", "a quote is not closed"),
        ('PORT=\'110\nADDRESS=0\nDEFDOMAIN="@x"', 1, "PORT", "a quote is not closed"),
        ("PORT=110 # it's\nMAXPERIP='9", 2, "MAXPERIP", "a quote is not closed"),
        ("PORT=110)", 1, "PORT", 'Syntax error: ")" unexpected'),
        ("PORT=110\nTCPDOPTS=-x;;", 2, "TCPDOPTS", 'Syntax error: ";;" unexpected'),
    ],
)
def test_a_syntax_error_names_file_line_setting_and_remedy(site, text, line, setting, what):
    site.ok("start")
    first = site.append(text)
    for verb in ("start", "restart", "stop", "configtest", "reload"):
        said = site.refused(verb)
        assert said.startswith(f"ERR: {site.etc}/pop3d line {first + line - 1}: {setting}: ")
        if os.path.realpath("/bin/sh").endswith("dash"):
            assert what in said
        assert len(said.splitlines()) == 1
    subprocess.run(["kill", "-0", str(site.pid())], check=True)


def test_a_line_that_the_shell_cannot_obey_is_a_warning(site):
    number = site.append("MAXPERIP = 9")
    other = site.append("POP3AUTH=PLAIN LOGIN", "pop3d-ssl")
    said = site.ctl("start").stderr.splitlines()
    assert said == [
        f"WARN: {site.etc}/pop3d line {number}: MAXPERIP: not found "
        "(no blanks around =, and quotes around a value with blanks)",
        f"WARN: {site.etc}/pop3d-ssl line {other}: LOGIN: not found "
        "(no blanks around =, and quotes around a value with blanks)",
    ]


@pytest.mark.parametrize("line", ["exit 0", "exit 3", ": ${GONE?is not set}"])
def test_a_file_that_ends_the_shell_is_an_error(site, line):
    site.append(line)
    said = site.refused("start")
    assert f"{site.etc}/pop3d" in said and "take out what ends it" in said


def test_a_command_that_does_not_end_is_an_error(site, monkeypatch):
    monkeypatch.setattr(shell, "PATIENCE", 0.5)
    site.append("sleep 1000")
    with pytest.raises(shell.Refused, match="a command in there does not end"):
        loaded(site.etc, "pop3d")


def test_what_a_file_prints_is_no_setting(site):
    site.append("echo PORT=1; printf 'MAXPERIP=7\\0'; echo noise >&2")
    assert loaded(site.etc, "pop3d").values["PORT"] == str(site.port)
    assert "-maxperip=4" in loaded(site.etc, "pop3d").argv


def test_another_shell_reads_the_same(site, tmp_path, monkeypatch):
    site.set(SITE="a b", TCPDOPTS="-nodnslookup -denymsg='Go away'")
    expected = loaded(site.etc, "pop3d")
    (tmp_path / "sh").symlink_to(needs("bash"))
    monkeypatch.setattr(shell, "SHELL", str(tmp_path / "sh"))
    found = loaded(site.etc, "pop3d")
    assert (found.argv, found.environment) == (expected.argv, expected.environment)
    number = site.append("DEFDOMAIN='@x\nPORT=110")
    with pytest.raises(shell.Refused, match=f"pop3d line {number}: DEFDOMAIN: a quote is not clos"):
        loaded(site.etc, "pop3d")
    site.append("'\nPORT=(")
    with pytest.raises(shell.Refused, match=f"pop3d line {number + 3}: PORT: unexpected EOF"):
        loaded(site.etc, "pop3d")


@pytest.mark.parametrize("name", KINDS)
def test_row_56_a_missing_file_is_told_in_couriers_words(site, name):
    (site.etc / name).unlink()
    for verb in ("start", "stop", "restart"):
        done = site.ctl(verb)
        assert (done.returncode, done.stderr) == (1, "")
        expected = f"{site.etc}/{name} does not exist, forgot make install-configure?\n"
        assert done.stdout == expected


@pytest.mark.parametrize(
    ("setting", "remark"),
    [
        (
            "MAXPERPI",
            "not a setting that we know; passed on to every session (did you mean MAXPERIP?)",
        ),
        (
            "TCPDOPT",
            "not a setting that we know; passed on to every session (did you mean TCPDOPTS?)",
        ),
        ("SITE", "not a setting that we know; passed on to every session"),
        ("TLS_PEERCERTS", "has no effect: TLS_TRUSTCERTS has taken its place"),
    ],
)
def test_configtest_tells_of_unknown_settings_and_start_does_not(site, setting, remark):
    number = site.append(f"{setting}=x")
    done = site.ctl("configtest")
    assert done.returncode == 0
    assert done.stderr == f"WARN: {site.etc}/pop3d line {number}: {setting}: {remark}\n"
    site.ok("start")


def test_shipped_files_give_no_warning(site):
    for folder in (TEMPLATES, "/etc/courier"):
        if folder != TEMPLATES:
            needs("/usr/lib/courier/pop3d")
        for name in KINDS:
            (site.etc / name).write_text(open(f"{folder}/{name}").read())
        site.set(PORT=site.port, PIDFILE=site.pidfile)
        site.set(
            "pop3d-ssl",
            COURIERTLS=site.bin / "couriertls",
            TLS_CERTFILE=site.directory / "pop3d.pem",
        )
        assert site.ctl("configtest", "pop3d").stderr == ""


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("MAXDAEMONS", "many", "MAXDAEMONS=many: not a number of 1 or more"),
        ("PORT", "pop9", "PORT=pop9: pop9 is no port from 1 to 65535"),
        ("PORT", "110, 995", "PORT=110, 995: "),
        ("PORT", "0", "PORT=0: 0 is no port from 1 to 65535"),
        ("ADDRESS", "localhost", "ADDRESS=localhost: neither an address nor 0"),
        ("PORT", "localhost.110", "PORT=localhost.110: localhost is no address"),
        ("PIDFILE", "pop3d.pid", "PIDFILE=pop3d.pid: not a path from /"),
        ("PIDFILE", "/dev/null/pop3d.pid", "PIDFILE=/dev/null/pop3d.pid: /dev/null is not a direc"),
        ("AUTHMODULES", "authuserdb authnone", "AUTHMODULES: authnone: no such program in "),
        ("AUTHMODULES", "/etc/passwd", "AUTHMODULES: /etc/passwd: not an executable file"),
        (
            "TCPDOPTS",
            "-nodnslokup",
            "TCPDOPTS, or the chain: couriertcpd: Invalid option: -nodnslo",
        ),
        ("TCPDOPTS", "-prefork=x", "TCPDOPTS, or the chain: couriertcpd: Invalid -prefork option."),
        ("TCPDOPTS", "-access=/nowhere", "TCPDOPTS, or the chain: couriertcpd: "),
        ("TCPDOPTS", "-user=nowho", "TCPDOPTS, or the chain: couriertcpd: getpwnam: Success"),
        ("TCPDOPTS", "-pid=/tmp/x", "TCPDOPTS: -pid: take it out"),
        ("POP3_EXCLUSIVE", "yes", "POP3_EXCLUSIVE=yes: not one of 0, 1"),
        ("POP3_LOGIN_TIMEOUT", "1m", "POP3_LOGIN_TIMEOUT=1m: not a number of seconds"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_anything_starts(site, setting, value, says):
    site.set(**{setting: value})
    said = site.refused("start")
    number = len((site.etc / "pop3d").read_text().splitlines())
    assert said.startswith(f"ERR: {site.etc}/pop3d line {number}: {says}"), said
    assert not site.pidfile.exists()


def test_couriertls_is_asked_about_the_certificates(site):
    mark = "# from courierchain.start import program\n"
    complain = "echo 'WARN: old'; echo 'no key in there'; exit 1\n"
    site.replace("couriertls", f'#!/bin/sh\n{mark}[ "$1" = -check ] || exit 9\n{complain}')
    assert site.refused("start", "pop3d-ssl") == (
        "WARN: couriertls: old\nERR: couriertls: no key in there\n"
    )
    done = site.ctl("start", "pop3d")  # STLS alone is not worth a refusal
    assert (done.returncode, done.stderr) == (
        0,
        "WARN: couriertls: old\nWARN: couriertls: no key in there (STLS will fail)\n",
    )


def test_8314_07_a_key_that_others_can_read_is_warned_of(site):
    pem = site.directory / "pop3d.pem"
    pem.chmod(0o644)
    done = site.ctl("start", "pop3d-ssl")
    assert done.returncode == 0
    assert "TLS_CERTFILE=" in done.stderr
    assert f"everybody on this machine can read the private key (chmod o= {pem})" in done.stderr


def test_a_certificate_without_a_key_or_none_at_all_is_refused(site):
    pem = site.directory / "pop3d.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    assert "no private key in there" in site.refused("start", "pop3d-ssl")
    pem.unlink()
    assert "mkpop3dcert makes one" in site.refused("start", "pop3d-ssl")
    key = site.directory / "key"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    key.chmod(0o600)
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    site.set("pop3d-ssl", TLS_PRIVATE_KEYFILE=key)
    site.ok("start", "pop3d-ssl")


def test_a_wrong_command_line_is_told():
    for words in ([], ["begin"], ["start", "imapd"]):
        done = subprocess.run(
            [str(BIN / "courierctl"), *words], capture_output=True, text=True, timeout=DEADLINE
        )
        assert done.returncode == 2 and "usage: courierctl" in done.stderr
