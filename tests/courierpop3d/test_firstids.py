"""The ids of a Maildir that had no list: numbers, file names, or what Dovecot has shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courierpop3d import dovecot, firstids
from tests.conftest import needs

DOVECOT = {"POP3_FIRST_UIDL": "dovecot"}
UIDLIST = b"""\
3 V1795447163 N15 G4229ff327b59046bdb28000083ecc375
1 W21 :1.a
2 P1234-abc W21 S20 :2.b:2,S
3 PUID7-1066500000 :3.c
4 PUID9 G00ff :4.d
5 P5.e :5.e
6 P1234-abc :6.f
7 P\xe9 :7.g
junk
8 :
9 P%s :9.i
""" % (b"x" * 71)


def fill(box, *names: str) -> None:
    for name in names:
        box.put(f"cur/{name}:2,")


def test_numbers_are_the_default(box, talk):
    fill(box, "1.a", "2.b")
    assert talk().ids() == [b"UID1-200", b"UID2-200"]
    assert box.list.read_bytes() == b"/3 3 200\n1.a:2, 22 1:200:0\n2.b:2, 22 2:200:0\n"


def test_file_names_on_request_and_numbers_for_what_comes_later(box, talk):
    """Numbers are passed over for names, as Courier 4 did (reference 3.4)."""
    fill(box, "1.a+b", "2.b,S=22")
    first = talk(POP3_FIRST_UIDL="filename")
    assert first.ids() == [b"1.a+2Bb", b"2.b,S=22"]
    assert box.list.read_bytes() == b"/3 3 200\n1.a+b:2, 22 0:200:0\n2.b,S=22:2, 22 0:200:0\n"
    fill(box, "3.c")
    for form in ("filename", "number"):
        again = talk(now=300, POP3_FIRST_UIDL=form)
        assert again.ids() == [b"1.a+2Bb", b"2.b,S=22", b"UID3-200"]


def test_1939_38_two_files_of_one_name_do_not_get_one_id(box, talk):
    box.put("cur/1.a:2,")
    box.put("cur/1.a:2,S")
    box.put("cur/:2,")
    session = talk(POP3_FIRST_UIDL="filename")
    assert sorted(session.ids()) == [b"1.a", b"UID1-200", b"UID3-200"]


def test_what_dovecot_has_shown_is_taken_over(box, talk):
    fill(box, "1.a", "2.b", "3.c", "4.d", "5.e", "6.f", "7.g", "8.h", "9.i")
    (box.path / "dovecot-uidlist").write_bytes(UIDLIST)
    ids = [
        *(b"000000016b04597b", b"1234-abc", b"UID7-1066500000", b"UID9", b"5.e"),
        *(b"UID3-200", b"UID4-200", b"UID5-200", b"UID6-200"),
    ]
    assert talk(**DOVECOT).ids() == ids
    lines = box.list.read_bytes().splitlines()
    assert lines[:6] == [
        b"/3 7 200",
        b"1.a:2, 22 1:200:0:=000000016b04597b",
        b"2.b:2, 22 2:200:0:=1234-abc",
        b"3.c:2, 22 7:1066500000:0",
        b"4.d:2, 22 9:0:0",
        b"5.e:2, 22 0:200:0",
    ]
    os.unlink("dovecot-uidlist")
    fill(box, "0.z")
    assert talk(now=300).ids() == [b"UID7-200", *ids]


def test_1939_40_an_id_of_dovecot_s_is_not_given_to_new_mail(box, talk):
    fill(box, "1.a", "2.b")
    (box.path / "dovecot-uidlist").write_bytes(b"3 V5 N2\n1 PUID1-200 :2.b\n")
    assert talk(**DOVECOT).ids() == [b"UID2-200", b"UID1-200"]


def test_without_dovecot_s_list_there_are_numbers(box, talk):
    fill(box, "1.a")
    assert talk(**DOVECOT).ids() == [b"UID1-200"]


@pytest.mark.parametrize(
    "env, content",
    [
        ({"POP3_FIRST_UIDL": "name"}, UIDLIST),
        (DOVECOT, b"1 5 2\n1 1.a\n"),
        (DOVECOT, b""),
        (DOVECOT, b"3 Vx\n"),
        ({**DOVECOT, "POP3_DOVECOT_UIDL_FORMAT": "%m"}, UIDLIST),
        ({**DOVECOT, "POP3_DOVECOT_UIDL_FORMAT": "%Xg"}, UIDLIST),
        ({**DOVECOT, "POP3_DOVECOT_UIDL_FORMAT": "%5u"}, UIDLIST),
        ({**DOVECOT, "POP3_DOVECOT_UIDL_FORMAT": "%0999999999u"}, UIDLIST),
        ({**DOVECOT, "POP3_DOVECOT_UIDL_FORMAT": "%"}, UIDLIST),
    ],
)
def test_what_can_not_be_followed_makes_no_list(box, talk, env, content):
    """Other ids than the administrator wanted would be there to stay."""
    fill(box, "1.a")
    (box.path / "dovecot-uidlist").write_bytes(content)
    with pytest.raises(firstids.Unusable):
        talk(**env)
    assert not box.list.exists()


def test_the_client_is_asked_to_come_back_and_the_log_says_why(box, program):
    fill(box, "1.a")
    server = program(POP3_FIRST_UIDL="dovecot", POP3_DOVECOT_UIDL_FORMAT="%q")
    assert server.line() == b"-ERR Temporary problem, please try again later\r\n"
    status, log = server.end()
    assert status == 1
    assert log[-1] == "ERR: POP3_DOVECOT_UIDL_FORMAT=%q: can't be followed, user=joe"


@given(st.binary())
def test_no_list_of_dovecot_s_whatsoever_disturbs(tmp_path_factory, content):
    os.chdir(tmp_path_factory.mktemp("maildir"))
    with open("dovecot-uidlist", "wb") as file:
        file.write(b"3 V5 N2\n" + content)
    assert all(isinstance(uidl, bytes) for uidl in dovecot.ids("%u").values())


@pytest.fixture
def open_home(box):
    """A home that its owner can reach by its path, as those of pytest's tmp_path can't be."""
    with tempfile.TemporaryDirectory() as path:
        box.own()
        shutil.chown(path, *[box.home.stat().st_uid] * 2)
        yield Path(path)


NEWER_FORMS = {  # of Dovecot 2.4, which has none with a width for decimal numbers
    "%08Xu%08Xv": "%{uid | hex(8)}%{uidvalidity | hex(8)}",
    "%v.%u": "%{uidvalidity}.%{uid}",
    "%g": "%{guid}",
    "%f": "%{filename}",
}


def dovecot_conf(maildir: str, form: str) -> str:
    """For Dovecot 2.3, or 2.4 where settings have other names."""
    done = subprocess.run([needs("dovecot"), "--version"], capture_output=True, text=True)
    version = done.stdout.split()[0]
    common = "mail_privileged_group =\nnamespace inbox {\n  inbox = yes\n}\n"
    if version.startswith("2.3."):
        return f"{common}mail_location = maildir:{maildir}\npop3_uidl_format = {form}\n"
    if form not in NEWER_FORMS:
        pytest.skip(f"Dovecot {version} has no such form")
    return (
        f"dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n{common}"
        f"mail_driver = maildir\nmail_path = {maildir}\npop3_uidl_format = {NEWER_FORMS[form]}\n"
    )


@pytest.mark.parametrize("form", ["%08Xu%08Xv", "%v.%u", "%g", "%f", "%u-%05u-%Xu"])
def test_a_client_of_dovecot_s_fetches_nothing_twice(box, talk, open_home, form):
    """The ids that Debian's Dovecot shows are those that ours shows after it."""
    server = needs("/var/cache/courierpop3-peers/usr/lib/dovecot/pop3")
    fill(box, *(f"17000000{number}.M1P{number}.host" for number in range(10, 32)))
    config = open_home / "dovecot.conf"
    config.write_text(dovecot_conf(f"{open_home}/Maildir", form))
    subprocess.run(["cp", "-a", box.path, open_home], check=True)
    run = subprocess.run(
        [server, "-c", config],
        input=b"UIDL\r\nQUIT\r\n",
        capture_output=True,
        env={"HOME": str(open_home), "USER": "joe", "DOVECOT_PRESERVE_ENVS": "HOME USER"},
        timeout=20,
        **box.as_owner(),
    )
    theirs = [line.split(b" ")[1] for line in run.stdout.split(b"\r\n") if line[:1].isdigit()]
    assert len(theirs) == 22, run
    shutil.copy(open_home / "Maildir" / "dovecot-uidlist", box.path)
    assert talk(POP3_FIRST_UIDL="dovecot", POP3_DOVECOT_UIDL_FORMAT=form).ids() == theirs
