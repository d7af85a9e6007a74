"""mkpop3dcert and mkdhparams from outside, and the files that say what stands in a certificate."""

from __future__ import annotations

import os
import pwd
import re
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierchain.refusal import Refused
from courierctl import cnf
from courierctl.mkdhparams import FRESH
from tests.conftest import BIN, DEADLINE, ROOT, needs
from tests.courierctl.conftest import TEMPLATES

DEBIANS = """\
organization = "Courier Mail Server"
unit = "Automatically-generated POP3 SSL key"
locality = "New York"
state = "NY"
country = US
cn = "localhost"
serial = 001
expiration_days = 365
email = "postmaster@example.com"
"""
OPENSSLS = """\
RANDFILE = /nowhere/pop3d.rand

[ req ]
default_bits = 2048
encrypt_key = yes
distinguished_name = req_dn
x509_extensions = cert_type
prompt = no
default_md = sha1

[ req_dn ]
C=US
ST=NY
L=New York
O=Courier Mail Server
OU=Automatically-generated POP3 SSL key
CN=localhost
emailAddress=postmaster@example.com

[ cert_type ]
nsCertType = server
"""
SUBJECT = [
    ("C", "US"),
    ("ST", "NY"),
    ("L", "New York"),
    ("O", "Courier Mail Server"),
    ("OU", "Automatically-generated POP3 SSL key"),
    ("CN", "localhost"),
    ("emailAddress", "postmaster@example.com"),
]


def run(program: str, *arguments: str, **how) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / program), *arguments],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
        **{"env": {"PATH": "/usr/bin:/bin"}, **how},
    )


def openssl(*arguments: str) -> str:
    return subprocess.run(
        [needs("openssl"), *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("form", [DEBIANS, OPENSSLS, (TEMPLATES / "pop3d.cnf").read_text()])
def test_both_forms_of_pop3d_cnf_say_the_same(form):
    template = cnf.parse(form)
    assert template.subject == SUBJECT
    assert (template.names, template.days) == (["localhost"], 365)
    assert template.bits == (2048 if form == OPENSSLS else 0)


def test_debians_own_pop3d_cnf():
    needs("/usr/lib/courier/pop3d")
    try:
        text = Path("/etc/courier/pop3d.cnf").read_text()
    except PermissionError:
        pytest.skip("only root can read it")
    assert cnf.parse(text).subject == SUBJECT


def test_openssls_form_with_defaults_and_several_units():
    template = cnf.parse(
        "[req]\ndistinguished_name = dn # where\n[dn]\ncommonName = Name?\n"
        "commonName_default = 'pop.example.com'\n0.OU_default = A\n1.OU_default = B\n"
    )
    assert template.subject == [("commonName", "pop.example.com"), ("OU", "A"), ("OU", "B")]
    assert template.names == ["pop.example.com"]


@pytest.mark.parametrize(
    "text", ["", "cn =\n", "[req]\nprompt=no\n", "cn = x\nexpiration_days=0\n"]
)
def test_a_pop3d_cnf_that_is_no_use_is_refused(text):
    with pytest.raises(Refused):
        cnf.parse(text)


printable = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)


@given(printable.filter(lambda text: '"' not in text))
def test_a_quoted_value_is_read_as_it_is(value):
    assert cnf.parse(f'cn = "{value}"  # comment\n').names == [value]


@given(st.text())
def test_any_text_is_a_template_or_refused(text):
    try:
        cnf.request(cnf.parse(text))
    except Refused:
        pass


def test_CVE_31_no_moment_at_which_others_could_read_the_key(tmp_path):
    needs("openssl")
    (tmp_path / "x.cnf").write_text(DEBIANS)
    trace = tmp_path / "trace"
    calls = "trace=open,openat,creat,rename,renameat2,link,linkat,chmod,fchmod,fchmodat"
    done = subprocess.run(
        [needs("strace"), "-f", "-o", str(trace), "-e", calls]
        + [str(BIN / "mkpop3dcert"), str(tmp_path / "x")],
        umask=0,
        timeout=3 * DEADLINE,
        env={"PATH": "/usr/bin:/bin", "BITS": "2048"},
        check=False,
    )
    assert done.returncode == 0
    made = [line for line in trace.read_text().splitlines() if "O_CREAT" in line]
    assert len(made) == 1
    assert re.search(r"O_CREAT\|O_EXCL\|O_NOFOLLOW\S*, 0600\) = \d+$", made[0]), made
    assert "chmod" not in trace.read_text()
    assert sorted(os.listdir(tmp_path)) == ["trace", "x.cnf", "x.pem"]
    assert (tmp_path / "x.pem").stat().st_mode & 0o777 == 0o600


def test_the_certificate_and_its_key(tmp_path):
    needs("openssl")
    (tmp_path / "pop3d.cnf").write_text(
        "organization = \"A $HOME of #1 = \\\\ 'x'\"\ncn = pop.example.com\nexpiration_days = 30\n"
        "dns_name = mail.example.com\nip_address = 192.0.2.1\nserial = 001\n"
    )
    done = run("mkpop3dcert", str(tmp_path / "pop3d"))
    pem = tmp_path / "pop3d.pem"
    assert (done.returncode, done.stderr) == (0, "")
    names = "pop.example.com, mail.example.com, 192.0.2.1"
    assert done.stdout == f"{pem}: self-signed, for {names}, 30 days\n"
    text = pem.read_text()
    assert text.index("PRIVATE KEY-----") < text.index("-----BEGIN CERTIFICATE-----")
    shown = openssl("x509", "-in", str(pem), "-noout", "-text", "-nameopt", "utf8,sep_comma_plus")
    assert "Signature Algorithm: sha256WithRSAEncryption" in shown
    assert "Public-Key: (3072 bit)" in shown
    assert "DNS:pop.example.com, DNS:mail.example.com, IP Address:192.0.2.1" in shown
    assert "O=A $HOME of #1 = \\\\ 'x'" in shown
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)  # the key fits
    openssl("verify", "-verify_hostname", "mail.example.com", "-CAfile", str(pem), str(pem))
    if ROOT and "courier" in [entry.pw_name for entry in pwd.getpwall()]:
        assert pem.owner() == "courier"


def test_a_file_that_is_there_is_not_touched(tmp_path):
    pem = tmp_path / "pop3d.pem"
    pem.write_text("mine")
    done = run("mkpop3dcert", str(tmp_path / "pop3d"))
    assert (done.returncode, done.stdout) == (1, f"{pem} already exists.\n")
    assert pem.read_text() == "mine"
    pem.unlink()
    pem.symlink_to("nowhere")
    assert run("mkpop3dcert", str(tmp_path / "pop3d")).returncode == 1
    assert os.listdir(tmp_path) == ["pop3d.pem"]


def test_without_openssl_nothing_is_done_and_nothing_said(tmp_path):
    env = {"PATH": str(tmp_path), "TLS_DHPARAMS": str(tmp_path / "dh.pem")}
    # PATH is for programs; the launcher itself needs none.
    for program, arguments in (("mkpop3dcert", [str(tmp_path / "x")]), ("mkdhparams", [])):
        done = run(program, *arguments, env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("bits", "size"), [("2048", 2048), ("medium", 2048)])
def test_bits_of_the_environment(tmp_path, bits, size):
    needs("openssl")
    (tmp_path / "x.cnf").write_text(OPENSSLS.replace("2048", "3000"))
    env = {"PATH": "/usr/bin:/bin", "BITS": bits}
    assert run("mkpop3dcert", str(tmp_path / "x"), env=env).returncode == 0
    shown = openssl("x509", "-in", str(tmp_path / "x.pem"), "-noout", "-text")
    assert f"Public-Key: ({size} bit)" in shown


def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(tmp_path):
    needs("openssl")
    (tmp_path / "x.cnf").write_text(DEBIANS)
    too_long = "n" * 250  # with .pem and more behind it
    (tmp_path / f"{too_long}.cnf").symlink_to("x.cnf")
    for name, arguments, env, says in (
        ("mkpop3dcert", [str(tmp_path / "x")], {"BITS": "512"}, "mkpop3dcert: BITS=512: not a "),
        ("mkpop3dcert", [str(tmp_path / too_long)], {"BITS": "2048"}, f"mkpop3dcert: {tmp_path}"),
        ("mkdhparams", [], {"DH_BITS": "many"}, "mkdhparams: DH_BITS=many: not a number"),
    ):
        settings = {"PATH": "/usr/bin:/bin", "TLS_DHPARAMS": str(tmp_path / "dh"), **env}
        done = run(name, *arguments, env=settings)
        assert done.returncode == 1
        assert done.stderr.startswith(says) and len(done.stderr.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == [f"{too_long}.cnf", "x.cnf"]
    (tmp_path / "x.cnf").write_text('cn = "a"\ncountry = Germany\n')  # two letters, for openssl
    done = run("mkpop3dcert", str(tmp_path / "x"))
    assert done.returncode == 1 and "openssl req" in done.stderr
    assert sorted(os.listdir(tmp_path)) == [f"{too_long}.cnf", "x.cnf"]


@pytest.mark.parametrize(
    ("wanted", "group"), [({}, 3072), ({"DH_BITS": "2048"}, 2048), ({"DH_BITS": "3500"}, 4096)]
)
def test_parameters_are_a_group_of_rfc_7919(tmp_path, wanted, group):
    needs("openssl")
    file = tmp_path / "dhparams.pem"
    done = run("mkdhparams", env={"PATH": "/usr/bin:/bin", "TLS_DHPARAMS": str(file), **wanted})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert f"ffdhe{group}" in openssl("dhparam", "-in", str(file), "-noout", "-text")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_dh_params(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_parameters_are_made_again_after_25_days(tmp_path):
    needs("openssl")
    file = tmp_path / "dhparams.pem"
    file.write_text("old")
    env = {"PATH": "/usr/bin:/bin", "TLS_DHPARAMS": str(file)}
    old = time.time() - FRESH
    os.utime(file, (old + 60, old + 60))
    assert run("mkdhparams", env=env).returncode == 0
    assert file.read_text() == "old"
    os.utime(file, (old - 60, old - 60))
    assert run("mkdhparams", env=env).returncode == 0
    assert "BEGIN DH PARAMETERS" in file.read_text()
