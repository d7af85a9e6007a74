"""cyrus.conf: its grammar, and what its entries mean (cyrus-pop3d.md 4)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cyrusmaster import conf, services
from cyrusmaster.conf import BadConf

ENV = {"PATH": "/bin:/usr/bin"}


def parse(text: str) -> conf.Sections:
    return conf.parse(text, "cyrus.conf")


def service(line: str) -> services.Service:
    (found,) = services.running(parse(f"SERVICES {{\n{line}\n}}"), ENV)
    return found


def test_a_file_as_cyrus_ships_it():
    found = parse(
        "# a comment\n"
        "START {\n"
        '\trecover\t\tcmd="/usr/sbin/cyrus ctl_cyrusdb -r"\n'
        "}\n\n"
        "services {  # names of sections are taken in any case\n"
        '\tpop3\t\tcmd="pop3d -U 30" listen="pop3" prefork=0 maxchild=50\n'
        '\t#pop3s\t\tcmd="pop3d -s -U 30" listen="pop3s"\n'
        "}\n"
        "EVENTS {\n"
        '  checkpoint cmd="ctl_cyrusdb -c" period=30 # and here\n'
        "}\n"
        'DAEMON {\n  idled cmd="idled"\n}\n'
    )
    assert [entry.name for entry in found["START"]] == ["recover"]
    (pop3,) = found["SERVICES"]
    assert pop3.place == "cyrus.conf line 7"
    assert pop3.values == {
        **{"cmd": "pop3d -U 30", "listen": "pop3"},
        **{"prefork": "0", "maxchild": "50"},
    }
    assert found["EVENTS"][0].number("period", 0) == 30
    assert found["DAEMON"][0].text("cmd") == "idled"


def test_a_section_may_come_again_and_the_first_of_a_key_counts():
    found = parse("SERVICES {\n a x=1 x=2\n}\nSERVICES {\n b x=3\n}\n")
    assert [(entry.name, entry.text("x")) for entry in found["SERVICES"]] == [
        ("a", "1"),
        ("b", "3"),
    ]


def test_unknown_sections_are_passed_over_by_their_braces():
    text = "OTHER {\n what: ever {\n }\n not-a-name\n}\nSERVICES {\n a x=1\n}\n"
    assert len(parse(text)["SERVICES"]) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SERVICES {\n pop-3 cmd=x\n}\n", "bad character '-' in name on line 2"),
        ("SERVICES {\n pop3 max_child=1\n}\n", "bad character '_' in name on line 2"),
        ("SERVICES {\n pop3 cmd=x }\n", "bad character '}' in name on line 2"),
        ("SERVICES {\n pop3 cmd\n}\n", "no '=' after cmd on line 2"),
        ("SERVICES {\n pop3 =x\n}\n", "no name before '=' on line 2"),
        ('SERVICES {\n pop3 cmd="x\n}\n', "no quote ends the value on line 2"),
        ('SERVICES {\n pop3 cmd="x # y"\n}\n', "no quote ends the value on line 2"),
        ("SERVICES {\n pop3 cmd=x\n", "section SERVICES of line 1 has no end"),
        ("SERVICES\n{\n}\n", "no section begins on line 1"),
        ("SERVICES { pop3 cmd=x }\n", "no section begins on line 1"),
        ("SERVICES {\n} }\n", "text after '}' on line 2"),
        (f"SERVICES {{\n pop3 cmd={'x' * 4096}\n}}\n", "over 4095 octets on line 2"),
        (f"SERVICES {{\n pop3 {'x=1 ' * 65}\n}}\n", "over 64 values on line 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, complaint):
    with pytest.raises(BadConf) as refusal:
        parse(text)
    assert str(refusal.value).startswith("cyrus.conf: ")
    assert complaint in str(refusal.value)


@given(st.text(alphabet='SERVICEa1={}"# \t\n-', max_size=60))
@example('SERVICES {\n a x="1"y=2\n}\n')
def test_any_text_is_taken_or_refused_in_one_line(text):
    try:
        found = parse(text)
    except BadConf as why:
        assert "\n" not in str(why)
    else:
        for entry in found["SERVICES"]:
            assert entry.name.isalnum()
            assert all(key.isalnum() for key in entry.values)


NAME = st.text(alphabet="abcXYZ019", min_size=1, max_size=8)
VALUE = st.text(alphabet="ab =-/.:[]{}", max_size=12)


@given(st.lists(st.tuples(NAME, st.dictionaries(NAME, VALUE, max_size=4)), max_size=4))
def test_what_is_written_in_quotes_is_read_back(entries):
    lines = "".join(
        f"  {name} " + "\t".join(f'{key}="{value}"' for key, value in values.items()) + "\n"
        for name, values in entries
    )
    found = parse(f"DAEMON {{\n{lines}}}\n")["DAEMON"]
    assert [(entry.name, entry.values) for entry in found] == entries


def test_the_defaults_of_a_service():
    found = service("pop3 cmd=/bin/true listen=110")
    assert (found.argv, found.path, found.proto) == (["/bin/true"], "/bin/true", "tcp")
    assert (found.prefork, found.maxchild, found.maxforkrate) == (0, services.UNLIMITED, 0)
    assert (found.maxfds, found.babysit) == (0, False)


@pytest.mark.parametrize(
    ("keys", "prefork", "maxforkrate"),
    [
        ("babysit=yes", 1, 10),
        ("babysit=1 prefork=3 maxforkrate=2", 3, 2),
        ("babysit=no prefork=2", 2, 0),
        ("babysit=maybe prefork=x maxforkrate=-", 0, 0),  # no values: the defaults
        ("prefork=-4", 0, 0),
    ],
)
def test_babysit_implies_prefork_and_maxforkrate(keys, prefork, maxforkrate):
    found = service(f"pop3 cmd=/bin/true listen=110 {keys}")
    assert (found.prefork, found.maxforkrate) == (prefork, maxforkrate)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pop3 listen=110", "pop3: no cmd"),
        ("pop3 cmd=/bin/true", "pop3: no listen"),
        ('pop3 cmd="/no/such -x" listen=110', "cannot find executable /no/such"),
        ("pop3 cmd=/etc/passwd listen=110", "cannot find executable /etc/passwd"),
        ("pop3 cmd=/tmp listen=110", "cannot find executable /tmp"),
        ("pop3 cmd=bin/true listen=110", "cannot find executable bin/true"),
    ],
)
def test_a_service_that_cannot_be(line, complaint):
    with pytest.raises(BadConf) as refusal:
        service(line)
    assert str(refusal.value).startswith("cyrus.conf line 2: ")
    assert complaint in str(refusal.value)


def test_no_name_is_there_twice():
    with pytest.raises(BadConf, match=r"line 3: pop3 is also in cyrus\.conf line 2"):
        service("pop3 cmd=/bin/true listen=110\npop3 cmd=/bin/true listen=111")


def test_a_daemon_is_babysat_and_has_no_socket():
    (found,) = services.running(parse("DAEMON {\n idled cmd=/bin/true maxfds=99\n}"), ENV)
    assert (found.listen, found.babysit, found.prefork, found.maxchild) == ("", True, 1, 1)
    assert (found.maxforkrate, found.maxfds) == (10, 99)


def test_prefix(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/cyrus.conf").write_text("SERVICES {\n a x=1\n}\n")
    found = conf.read("/etc/cyrus.conf", {"CYRUS_PREFIX": str(tmp_path)})
    assert len(found["SERVICES"]) == 1
    with pytest.raises(BadConf, match="can't open configuration file /no/such: No such file"):
        conf.read("/no/such", {})
