"""imapd.conf: what is read, by whom, and what is said of mistakes (cyrus-pop3d.md 6)."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyruspop3d import values
from cyruspop3d.config import BadConfig, entries, read
from cyruspop3d.options import KINDS, TABLE

LEAST = "configdirectory: /var/imap\n"
KEYS = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=12)
VALUES = st.text(st.characters(exclude_characters="\n\r\0\\", codec="latin-1"), min_size=1).filter(
    lambda text: text.strip(" \t\r\v\f") == text
)


@pytest.fixture
def conf(tmp_path):
    """Read a file with this text, as a service sees it."""
    path = tmp_path / "imapd.conf"

    def written(text: str, service: str = "pop3", env: dict[str, str] | None = None):
        path.write_text(LEAST + text)
        return read(str(path), service, env or {})

    return written


def test_defaults(conf):
    config = conf("")
    assert config.number("poptimeout") == 600
    assert config.number("popexpiretime") == -86400
    assert not config.is_on("allowplaintext")
    assert config.choice("uidl_format") == "cyrus"
    assert config.ignored == []


def test_blanks_comments_case_and_joined_lines(conf):
    config = conf(
        "  # a: comment\n\n  ServerName :\t mail.example # no comment \t\npopmin\\\npoll:5"
    )
    assert config.text("servername") == "mail.example # no comment"
    assert config.number("popminpoll") == 300


@pytest.mark.parametrize("first", [0, 1])
def test_the_services_own_option_beats_the_common_one_in_either_order(conf, first):
    lines = ["pop3_serverinfo: off\n", "serverinfo: min\n"]
    text = lines[first] + lines[1 - first]
    assert conf(text).choice("serverinfo") == "off"
    assert conf(text, "pop3s").choice("serverinfo") == "min"


def test_options_of_the_chain(conf):
    config = conf("courier_modules: a b\npop3_courier_authuserdb_file: /x\ncourier_defdomain: @y\n")
    assert config.chain == {"MODULES": "a b", "AUTHUSERDB_FILE": "/x", "DEFDOMAIN": "@y"}


def test_older_names_count_if_the_newer_is_not_there(conf):
    assert conf("tls_cert_file: /old\n").text("tls_server_cert") == "/old"
    assert conf("tls_cert_file: /old\ntls_server_cert: /n\n").text("tls_server_cert") == "/n"


def test_configdirectory_is_put_in_front(conf):
    assert conf("tls_server_key: {configdirectory}/key\n").text("tls_server_key") == "/var/imap/key"


def test_included_files_and_the_prefix(conf, tmp_path):
    (tmp_path / "more").write_text("servername: included\n")
    assert conf(f"@include: {tmp_path}/more\n").text("servername") == "included"
    found = read("/imapd.conf", "pop3", {"CYRUS_PREFIX": str(tmp_path)})
    assert found.text("servername") == "included"
    with pytest.raises(BadConfig, match="included twice"):
        conf(f"@include: {tmp_path}/more\n@include: {tmp_path}/more\n")


def test_options_without_effect_are_named_and_unknown_ones_are_not(conf):
    assert conf("statuscache: yes\nnobody_knows: x\n").ignored == ["statuscache"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("servername\n", "invalid option name on line 2"),
        ("server name: x\n", "invalid option name on line 2"),
        (": x\n", "invalid option name on line 2"),
        ("\n\nservername:  \n", "empty option value on line 4"),
        ("servername: a\nServername: b\n", r"line 3: servername: was set in .* line 2"),
        ("allowplaintext: maybe\n", r"line 2: allowplaintext: 'maybe' is not a switch"),
        ("allowplaintext: Yes\n", "is not a switch"),
        ("poppollpadding: many\n", "is not a number"),
        ("poptimeout: 5x\n", "is not a duration"),
        ("uidl_format: new\n", "is not one of uidonly, cyrus, dovecot, courier"),
        ("pop3_serverinfo: loud\n", "line 2: serverinfo: 'loud' is not one of"),
        ("@include: /nowhere/at/all\n", "can't open configuration file /nowhere/at/all: No such"),
    ],
)
def test_mistakes_are_named_with_their_line(conf, text, message):
    with pytest.raises(BadConfig, match=message) as caught:
        conf(text)
    assert "\n" not in str(caught.value)


def test_configdirectory_must_be_there(tmp_path):
    (tmp_path / "conf").write_text("servername: x\n")
    with pytest.raises(BadConfig, match="no configdirectory"):
        read(str(tmp_path / "conf"), "pop3", {})
    with pytest.raises(BadConfig, match="can't open configuration file"):
        read(str(tmp_path / "none"), "pop3", {})


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_what_is_written_is_read(options):
    text = "".join(f"{key}: {value}\n" for key, value in options.items())
    assert {key: value for _, key, value in entries(text, "f")} == options


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        for _, key, value in entries(text, "f"):
            assert key and value
    except BadConfig as why:
        assert str(why).startswith("f: ")


@pytest.mark.parametrize(
    ("text", "value"), [("0x10", 16), ("010", 8), ("-7", -7), ("0", 0), ("+3", 3)]
)
def test_integers_are_read_as_in_c(text, value):
    assert values.integer(text) == value


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 300), ("1h30m", 5400), ("90s", 90), ("2d", 172800), ("-1", -60)]
)
def test_durations(text, seconds):
    assert values.duration(text, "m") == seconds


@pytest.mark.parametrize("text", ["", "-", "m", "5 5", "1h-1", "--1", "٣"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is not a duration"):
        values.duration(text, "m")


@given(st.text(max_size=12), st.sampled_from(sorted(KINDS)))
def test_a_value_is_taken_or_refused(text, kind):
    try:
        assert isinstance(KINDS[kind](text), int)
    except ValueError as why:
        assert repr(text) in str(why)


def test_every_default_is_a_value_of_its_type():
    for row in TABLE.values():
        if row.choices:
            assert values.choice(row.default, row.choices) == row.default
        elif row.kind in KINDS:
            KINDS[row.kind](row.default)
