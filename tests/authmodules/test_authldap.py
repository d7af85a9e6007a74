"""authldap with a slapd of its own: what Courier's authldaprc may say, and what may go wrong."""

from __future__ import annotations

import grp
import hmac
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.authmodules.asking import HOSTILE, NO_DELAY, apop, external
from tests.authmodules.asking import ask as ask  # a fixture
from tests.authmodules.asking import authdaemond as authdaemond  # a fixture
from tests.chain.test_scram import SHA_1, SHA_256, Dialogue
from tests.conftest import DEADLINE, ROOT, free_port, freeze, needs, needs_module, sha, wait_until

needs_module("ldap")
from authmodules.authldap import authldap  # noqa: E402
from authmodules.directory import escape  # noqa: E402
from courierchain import request, scram  # noqa: E402
from courierchain.authmodule import Rejected, TemporaryFailure  # noqa: E402
from courierchain.settings import Settings  # noqa: E402

SUFFIX = "dc=example,dc=com"
CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
allow bind_anon_cred bind_anon_dn
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
database mdb
suffix {suffix}
directory {folder}/data
rootdn cn=admin,{suffix}
rootpw rootsecret
access to attrs=userPassword by self write by anonymous auth
  by dn.exact=cn=reader,{suffix} read by * none
access to * by * read
"""
PERSON = """
dn: uid={uid},{suffix}
objectClass: inetOrgPerson
objectClass: posixAccount
objectClass: extensibleObject
cn: {uid} Doe
sn: Doe
uid: {uid}
mail: {mail}
uidNumber: {number}
gidNumber: {number}
homeDirectory: {home}
userPassword: {password}
{more}
"""


class Slapd:
    """A directory in a temporary folder; `stop` and `start` as often as one likes."""

    def __init__(self, folder: Path, certificate: trustme.LeafCert, authority: trustme.CA):
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self.uri = f"ldap://127.0.0.1:{self.port}"
        self.socket = f"ldapi://{str(folder / 'socket').replace('/', '%2F')}"
        (folder / "data").mkdir(exist_ok=True)
        (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
        (folder / "cert.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        text = CONFIGURATION.format(folder=folder, suffix=SUFFIX)
        (folder / "slapd.conf").write_text(text)

    def fill(self, entries: str) -> None:
        (self.folder / "entries").write_text(entries)
        subprocess.run(
            [needs("slapadd"), "-f", self.folder / "slapd.conf", "-l", self.folder / "entries"],
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        ports = ("ldap", self.port), ("ldaps", self.tls_port)
        listen = [f"{kind}://127.0.0.{n}:{port}/" for kind, port in ports for n in (1, 2)]
        listen.append(f"{self.socket}/")
        self.process = subprocess.Popen(
            [needs("slapd"), "-d", "0", "-f", self.folder / "slapd.conf", "-h", " ".join(listen)],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: answers(self.port) and answers(self.tls_port), "slapd listens")

    def connections(self) -> int:
        """How many clients it has."""
        here = {f"0100007F:{port:04X}" for port in (self.port, self.tls_port)}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(words[1] in here and words[3] == "01" for words in lines)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def person(uid: str, home: Path, number: int, mail: str = "", more: str = "", password="") -> str:
    return PERSON.format(
        uid=uid,
        mail=mail or f"{uid}@example.com",
        home=home,
        number=number,
        password=password or sha(f"secret of {uid}"),
        more=more,
        suffix=SUFFIX,
    )


@pytest.fixture(scope="module")
def homes():
    """john's and mary's home; every user may look into them."""
    folder = Path(tempfile.mkdtemp(prefix="courierpop3-ldap-", dir="/var/tmp"))
    folder.chmod(0o755)
    for name in ("john", "mary"):
        for part in ("new", "cur", "tmp"):
            (folder / name / "Maildir" / part).mkdir(parents=True)
        for path in (folder / name, *(folder / name).rglob("*")):
            os.chown(path, UID, UID)
    yield folder
    shutil.rmtree(folder)


UID = 20001 if ROOT else os.getuid()
SCRAM = scram.form(scram.secret_of("sha256", b"a secret", b"sixteen octets..", 4096)).decode()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def slapd(homes, authority):
    folder = Path(tempfile.mkdtemp(prefix="courierpop3-slapd-", dir="/tmp"))
    server = Slapd(folder, authority.issue_cert("127.0.0.1"), authority)
    options = "description: /m\nemployeeNumber: 1000S\nemployeeType: 1\nl: clear secret"
    server.fill(
        "\n".join(
            [
                f"dn: {SUFFIX}\nobjectClass: domain\ndc: example\n",
                f"dn: cn=reader,{SUFFIX}\nobjectClass: organizationalRole\n"
                f"objectClass: simpleSecurityObject\ncn: reader\nuserPassword: {sha('read')}\n",
                person("john", homes / "john", UID, more=options),
                person("mary", homes / "mary", UID, more="userPassword: " + sha("another")),
                person("pat", homes / "mary", UID, more="l: clear one"),
                person("comma", homes / "john", UID, more="employeeType: 0,disablepop3=1"),
                person("zero", homes / "john", 0),
                person("scram", homes / "john", UID, password=SCRAM),
                person("locked", homes / "john", UID, password="{CRYPT}!$6$x$y"),
                person("closed", homes / "john", UID, more="title: closed"),
                person("twin1", homes / "john", UID, mail="twin@example.com"),
                person("twin2", homes / "john", UID, mail="twin@example.com"),
                person("star", homes / "john", UID, mail="*"),
                f"dn: cn=map,{SUFFIX}\nobjectClass: device\nobjectClass: extensibleObject\n"
                "cn: map\nuid: jd\ndc: example.org\ndescription: john\n",
            ]
        )
    )
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


RC = {
    "LDAP_PROTOCOL_VERSION": "3",
    "LDAP_BASEDN": SUFFIX,
    "LDAP_BINDDN": f"cn=reader,{SUFFIX}",
    "LDAP_BINDPW": "read",
    "LDAP_INITBIND": "1",
    "LDAP_TIMEOUT": "2",
    "LDAP_MAIL": "mail",
    "LDAP_DOMAIN": "example.com",
    "LDAP_UID": "uidNumber",
    "LDAP_GID": "gidNumber",
    "LDAP_HOMEDIR": "homeDirectory",
    "LDAP_CRYPTPW": "userPassword",
}


@pytest.fixture
def rc(slapd, public):
    """rc(NAME=value): the path of an authldaprc; a value None leaves the setting out."""

    def write(**settings) -> str:
        all_of_them = {"LDAP_URI": slapd.uri, **RC, **settings}
        lines = ["##NAME: MARKER:0", "# a comment"]
        lines += [f"{name}\t\t{value}" for name, value in all_of_them.items() if value is not None]
        path = public / "authldaprc"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        return str(path)

    return write


class Answer:
    """What the module's function has said, and the environment of the account that it found."""

    def __init__(self, record: bytes, env: dict[str, str]):
        self.env: dict[str, str] = {}
        self.log = ""
        try:
            account = authldap.verify(request.parse(record), Settings(env))
        except Rejected:
            self.word = "rejected"
        except TemporaryFailure as why:
            self.word, self.log = "trouble", str(why)
        else:
            self.word, self.env = "accepted", account.environment()
            self.ids = account.uid, account.gid


@pytest.fixture
def login(rc):
    """login(user, password, NAME=value): the Answer; `record` besides."""

    def login(user="john", password="secret of john", *, record=b"", **settings) -> Answer:
        user, password = (
            text.encode() if isinstance(text, str) else text for text in (user, password)
        )
        record = record or b"pop3\nlogin\n%s\n%s\n\n" % (user, password)
        return Answer(record, {"AUTHLDAP_RC": rc(**settings)})

    return login


@pytest.fixture
def program(ask, rc):
    """program(user, password, NAME=value): what the program does, with `env` in its environment."""

    def program(user="john", password="secret of john", *, env=None, **settings):
        return ask("authldap", user, password, AUTHLDAP_RC=rc(**settings), **(env or {}))

    return program


BIND = {"LDAP_AUTHBIND": "1", "LDAP_CRYPTPW": None}
CLEAR = {"LDAP_CLEARPW": "l"}
WAYS = pytest.mark.parametrize(
    "way, password",
    [({}, "secret of john"), (BIND, "secret of john"), (CLEAR, "clear secret")],
    ids=["crypt", "bind", "clear"],
)


@WAYS
def test_right_password_wrong_password_unknown_user(login, homes, way, password):
    found = login("john", password, **way)
    assert found.word == "accepted", found
    assert found.env["AUTHENTICATED"] == found.env["AUTHADDR"] == "john"
    assert found.env["HOME"] == str(homes / "john")
    assert found.ids == (UID, UID)
    assert login("john@example.com", password, **way).word == "accepted"
    for user, wrong in [("john", "x"), ("nobody", password), ("john@example.org", password)]:
        assert login(user, wrong, **way).word == "rejected"


def test_every_attribute_has_its_place(login, homes):
    found = login(
        LDAP_MAILDIR="description",
        LDAP_MAILDIRQUOTA="employeeNumber",
        LDAP_FULLNAME="cn",
        LDAP_AUXOPTIONS="employeeType=disablewebmail,sn",
        LDAP_MAILROOT="/srv",
    )
    assert found.word == "accepted", found
    expected = {
        "MAILDIR": "/m",
        "MAILDIRQUOTA": "1000S",
        "AUTHFULLNAME": "john Doe",
        "OPTIONS": "disablewebmail=1,sn=Doe",
        "HOME": f"/srv/{homes}/john",
    }
    assert {name: found.env[name] for name in expected} == expected


def test_uid_and_gid_of_all_accounts(login):
    found = login(LDAP_UID=None, LDAP_GID=None, LDAP_GLOB_UID="20007", LDAP_GLOB_GID="daemon")
    assert found.ids == (20007, grp.getgrnam("daemon").gr_gid)
    assert "set LDAP_UID or LDAP_GLOB_UID" in login(LDAP_UID=None).log
    named = login(LDAP_GID=None, LDAP_GLOB_GID="no-such-group")
    assert "LDAP_GLOB_GID: no such name: no-such-group" in named.log


def test_the_program_becomes_the_user(program, homes):
    found = program()
    assert found.word == "accepted", found
    assert found.env["CWD"] == str(homes / "john")
    if ROOT:
        assert found.env["UID"] == found.env["GROUPS"] == str(UID)
    found = program(password="wrong")
    assert (found.word, found.log) == ("rejected", "")


def test_AUTHCHAIN_05_uid_0_is_refused(program):
    root = {"LDAP_UID": None, "LDAP_GLOB_UID": "root", "LDAP_GID": None, "LDAP_GLOB_GID": "root"}
    for found in (program("zero", "secret of zero"), program(**root)):
        assert (found.word, found.env["WHY"]) == ("trouble", "permanent")
        assert "uid 0, gid 0" in found.log


def test_a_disabled_account_and_a_locked_one(login):
    closed = {"LDAP_FILTER": "(&(objectClass=posixAccount)(!(title=closed)))"}
    assert login("closed", "secret of closed").word == "accepted"
    assert login("closed", "secret of closed", **closed).word == "rejected"
    assert login(**closed).word == "accepted"
    for way in ({}, BIND):
        assert login("locked", "!", **way).word == "rejected"
        assert login("locked", "$6$x$y", **way).word == "rejected"
    assert login(record=external(b"locked")).word == "rejected"
    assert login(record=external(b"john")).word == "accepted"
    assert login(record=external(b"nobody")).word == "rejected"
    assert login(record=external(b"closed"), **closed).word == "rejected"


@WAYS
def test_CVE_09_no_empty_password(login, slapd, way, password):
    """slapd is told to let in who binds with an empty one."""
    assert login("john", "", **way).word == "rejected"
    assert login(record=b"pop3\nlogin\njohn\n", **way).word == "rejected"


def test_any_value_of_a_password_attribute(login):
    assert login("mary", "secret of mary").word == "accepted"
    assert login("mary", "another").word == "accepted"
    assert login("mary", "").word == "rejected"
    assert login("mary", "clear", LDAP_CLEARPW="sn").word == "rejected"
    assert login("mary", "another", LDAP_CLEARPW="sn").word == "rejected"  # the clear one counts


@WAYS
@pytest.mark.parametrize("user", HOSTILE.values(), ids=HOSTILE.keys())
def test_CVE_05_hostile_userids_find_nobody(login, way, password, user):
    if user == b"*" and way == BIND:
        return  # star's password is another one
    assert login(user, password, **way).word == "rejected"
    assert login(user, password, LDAP_DOMAIN=None, LDAP_MAIL="uid", **way).word == "rejected"


def test_CVE_05_an_asterisk_is_an_asterisk(login):
    assert login("*", "secret of star", LDAP_DOMAIN=None).word == "accepted"
    assert login("*", "secret of john", LDAP_DOMAIN=None).word == "rejected"


def test_CVE_36_two_entries_are_nobody(login, capfd):
    for password in ("secret of twin1", "secret of twin2"):
        for way in ({}, BIND):
            found = login("twin", password, **way)
            assert found.word == "rejected"
            assert "several entries match user=twin" in capfd.readouterr().err


def test_a_value_with_a_comma_adds_no_option(login):
    found = login("comma", "secret of comma", LDAP_AUXOPTIONS="employeeType=disablepop3")
    assert found.word == "trouble"
    assert "employeeType has a comma in it" in found.log


def test_emailmap(login):
    settings = {
        "LDAP_EMAILMAP": "(&(uid=@user@)(dc=@realm@))",
        "LDAP_EMAILMAP_BASEDN": f"cn=map,{SUFFIX}",
        "LDAP_EMAILMAP_ATTRIBUTE": "description",
        "LDAP_EMAILMAP_MAIL": "uid",
    }
    found = login("jd@example.org", **settings)
    assert found.word == "accepted", found
    assert found.env["AUTHADDR"] == "jd@example.org"
    assert login("john", LDAP_DOMAIN=None, LDAP_MAIL="uid", **settings).word == "accepted"
    for user in ("john@example.com", "jd@example.net", "*@example.org", "@user@@example.org"):
        assert login(user, **settings).word == "rejected"
    assert login("jd@example.org", "wrong", **settings).word == "rejected"


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256"])
def test_CVE_43_cram_with_the_clear_password(login, name):
    def record(secret: bytes, user: bytes = b"john") -> bytes:
        digest = hmac.new(secret, b"<1.2@host>", name).hexdigest().encode()
        lines = (b64encode(b"<1.2@host>"), b64encode(user + b" " + digest))
        return b"pop3\ncram-%s\n%s\n%s\n\n" % (name.encode(), *lines)

    right = record(b"clear secret")
    assert login(record=right, **CLEAR).word == "accepted"
    assert login(record=record(b"wrong"), **CLEAR).word == "rejected"
    assert login(record=record(b""), **CLEAR).word == "rejected"
    assert login(record=record(b"", b"nobody"), **CLEAR).word == "rejected"
    assert login(record=right).word == "rejected"  # a hash can't answer
    assert login(record=right, **BIND).word == "rejected"


def test_apop_with_the_clear_password(login):
    assert login(record=apop(b"clear secret"), **CLEAR).word == "accepted"
    for record in (apop(b"wrong"), apop(b""), apop(b"", b"nobody")):
        assert login(record=record, **CLEAR).word == "rejected"
    assert login(record=apop(b"clear secret")).word == "rejected"  # a hash can't answer


@given(st.binary(max_size=40))
def test_escaped_octets_are_octets_of_a_value_and_nothing_else(octets):
    """RFC 4515 section 3, over every octet."""
    text = escape(octets)
    assert text.isascii() and not set(text) & set("*()\0")
    pieces = text.split("\\")
    plain = pieces[0].encode()
    rest = b"".join(bytes.fromhex(p[:2]) + p[2:].encode() for p in pieces[1:])
    assert plain + rest == octets


# TLS


@pytest.fixture(scope="module")
def cn_only(slapd):
    """A slapd whose certificate has the address as its common name, and in no subjectAltName."""
    folder = Path(tempfile.mkdtemp(prefix="courierpop3-slapd-", dir="/tmp"))
    authority = trustme.CA()
    server = Slapd(folder, authority.issue_cert("127.0.0.1"), authority)
    subprocess.run(
        [
            *(
                needs("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-nodes",
                "-subj",
                "/CN=127.0.0.1",
            ),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"),
            *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    shutil.copy(folder / "cert.pem", folder / "ca.pem")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize("scheme", ["starttls", "ldaps"])
def test_9525_01_TLS_to_a_server_that_proves_its_name(program, slapd, cn_only, scheme):
    def tls(name: str, server=slapd, **env):
        trusted = {"LDAPTLS_CACERT": str(server.folder / "ca.pem")} | env
        if scheme == "ldaps":
            return program(LDAP_URI=f"ldaps://{name}:{server.tls_port}", env=trusted)
        return program(LDAP_URI=f"ldap://{name}:{server.port}", LDAP_TLS="1", env=trusted)

    assert (right := tls("127.0.0.1")).word == "accepted", right
    for outcome in (
        tls("127.0.0.2"),  # not a name in the certificate
        tls("127.0.0.1", LDAPTLS_CACERT=str(cn_only.folder / "ca.pem")),  # nobody's we trust
        tls("127.0.0.1", cn_only),
    ):
        assert (outcome.word, outcome.env["WHY"]) == ("trouble", "temporary")
        assert "no answer from ldap" in outcome.log


def test_over_a_unix_socket(login, slapd):
    assert login(LDAP_URI=slapd.socket).word == "accepted"


# Servers in trouble


@pytest.fixture
def silent():
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"LDAP_URI": "ldap://127.0.0.1:{port}"},
        {"LDAP_URI": "ldap://127.0.0.1:{port}", "LDAP_TLS": "1"},
        {"LDAP_URI": "ldaps://127.0.0.1:{port}"},
        {"LDAP_URI": "ldap://127.0.0.1:{port}", "LDAP_INITBIND": "0"},
    ],
    ids=["bind", "starttls", "handshake", "search"],
)
def test_3206_02_a_server_that_hangs_is_a_temporary_failure_in_time(login, silent, settings):
    settings = {name: value.format(port=silent) for name, value in settings.items()}
    found = login(LDAP_TIMEOUT="1", **settings)
    assert found.word == "trouble"
    assert "timed out" in found.log.lower() or "not within 3 seconds" in found.log


def test_the_next_server_is_asked(login, slapd, silent):
    dead = f"ldap://127.0.0.1:{free_port()}"
    assert login(LDAP_URI=f"{dead} {slapd.uri}").word == "accepted"
    assert login(LDAP_URI=f"{dead}, {slapd.uri}").word == "accepted"
    for scheme in ("ldap", "ldaps"):
        first = f"{scheme}://127.0.0.1:{silent}"
        assert login(LDAP_URI=f"{first},{slapd.uri}", LDAP_TIMEOUT="1").word == "accepted"
    found = login(LDAP_URI=f"{dead}/ {dead}")
    assert found.log.count("Can't contact LDAP server") == 2


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"LDAP_BINDPW": "wrong"}, "line 7: LDAP_BINDPW"),
        ({"LDAP_BINDPW": ""}, "line 7: LDAP_BINDPW is not set"),
        ({"LDAP_URI": None}, "LDAP_URI is not set"),
        ({"LDAP_URI": "http://localhost"}, "no answer from http://localhost: "),
        ({"LDAP_BASEDN": None}, "LDAP_BASEDN is not set"),
        ({"LDAP_BASEDN": "dc=nowhere"}, "cannot search 'dc=nowhere': No such object"),
        ({"LDAP_FILTER": "(broken"}, "Bad search filter"),
        ({"LDAP_DEREF": "sometimes"}, "LDAP_DEREF: not one of never, searching, finding, always"),
        ({"LDAP_TIMEOUT": "soon"}, "LDAP_TIMEOUT: 'soon' is not a number"),
        ({"LDAP_CRYPTPW": None}, "set LDAP_AUTHBIND 1, LDAP_CLEARPW or LDAP_CRYPTPW"),
        ({"LDAP_HOMEDIR": None}, "has no homeDir (LDAP_HOMEDIR)"),
        ({"LDAP_CRYPTPWD": "x"}, "LDAP_CRYPTPWD: no such setting (LDAP_CRYPTPW is meant?)"),
        ({"LDAP_UID": "cn"}, "LDAP_UID: 'john Doe' is not a number"),
    ],
)
def test_3206_02_what_is_wrong_with_the_settings_is_one_line(login, settings, said):
    found = login(**settings)
    assert found.word == "trouble"
    assert said in found.log
    assert len(found.log.splitlines()) == 1
    assert "secret of john" not in found.log


def test_a_file_without_a_marker_open_to_all_or_missing(ask, rc):
    path = Path(rc())
    text = path.read_text()
    path.write_text(text.replace("MARKER", "MARK"))
    assert "no line ##NAME: MARKER:" in ask("authldap", "john", "x", AUTHLDAP_RC=path).log
    path.write_text(text)
    path.chmod(0o644)
    assert "is open to everybody" in ask("authldap", "john", "x", AUTHLDAP_RC=path).log
    path.unlink()
    found = ask("authldap", "john", "x", AUTHLDAP_RC=path)
    assert (found.word, "cannot read" in found.log) == ("trouble", True)


def test_5802_01_7677_01_scram_with_the_clear_password_or_a_form_of_its_own(serve, slapd, rc):
    stages = ["courierpop3login", "authldap", "courierpop3d", "./Maildir"]

    def answers(*logins: tuple[str, str], mechanism: str = SHA_256, **settings) -> list[str]:
        env = {**NO_DELAY, "AUTHLDAP_RC": rc(**settings), "POP3AUTH": f"{SHA_1} {SHA_256}"}
        server = serve("-uses=9", stages=stages, env=env)
        found = []
        for name, password in logins:
            with server.client() as client:
                client.line()
                found.append(Dialogue(client, name, password, mechanism).run())
        server.stop()
        return found

    served, refused = "+OK logged in.", "-ERR Login failed."
    clear = ("john", "clear secret"), ("john", "wrong"), ("nobody", "clear secret")
    assert answers(*clear, LDAP_CLEARPW="l") == [served, refused, refused]
    assert answers(*clear, LDAP_CLEARPW="l", mechanism=SHA_1) == [served, refused, refused]
    form = ("scram", "a secret"), ("scram", "wrong"), ("john", "secret of john")
    assert answers(*form) == [served, refused, refused]
    assert answers(*form, **BIND) == [refused] * 3


def test_DEREF_of_every_kind(login):
    for deref in ("never", "searching", "FINDING", "always"):
        assert login(LDAP_DEREF=deref).word == "accepted"


def test_the_whole_chain_while_the_server_goes_and_comes_back(serve, any_mode, slapd, rc, accounts):
    albert = accounts.add("albert")
    stages = ["courierpop3login", "authldap", "authuserdb", "courierpop3d", "./Maildir"]
    env = {**NO_DELAY, "AUTHLDAP_RC": rc(), "POP3_RESPONSE_CODES": "1"}
    server = serve(*any_mode, stages=stages, env=env)

    assert server.answer("john", "secret of john") == "+OK logged in."
    assert server.answer("mary@example.com", "another") == "+OK logged in."
    assert server.answer("albert", albert.password) == "+OK logged in."
    assert server.answer("john", "wrong") == "-ERR [AUTH] Login failed."
    slapd.stop()
    try:
        down = "-ERR [SYS/TEMP] Temporary problem, please try again later"
        assert server.answer("john", "secret of john") == down
        assert server.answer("albert", albert.password) == down  # AUTHCHAIN-04
    finally:
        slapd.start()
    assert server.answer("john", "secret of john") == "+OK logged in."


# Where connections stay.


@pytest.fixture
def daemon(authdaemond, slapd, rc, accounts):
    """daemon(NAME=value): an authdaemond of one process, authuserdb behind authldap."""
    wait_until(lambda: not slapd.connections(), "connections of other tests have gone")

    def daemon(env=None, **settings):
        env = {"AUTHLDAP_RC": rc(**{"LDAP_TIMEOUT": "10", **settings}), **(env or {})}
        return authdaemond(authmodulelist="authldap authuserdb", **env)

    return daemon


@pytest.mark.parametrize("way, connections", [({}, 1), (BIND, 2)], ids=["crypt", "bind"])
def test_authdaemond_asks_all_on_one_connection_and_binds_on_another(
    daemon, slapd, way, connections
):
    running = daemon(**way)
    for _ in range(2):
        assert b"\nADDRESS=john\n" in running.login("john", "secret of john")
        assert running.login("john", "wrong") == running.login("nobody", "x") == b"FAIL\n"
        assert b"\nADDRESS=mary\n" in running.login("mary", "another")
    wait_until(lambda: slapd.connections() == connections, f"there are {connections}")


@pytest.mark.parametrize("way", [{}, BIND], ids=["crypt", "bind"])
def test_3206_02_authdaemond_while_the_server_is_down_hangs_and_comes_back(
    daemon, slapd, accounts, way
):
    """authuserdb, which knows albert, is not asked. A restart is nothing that one hears of."""
    albert = accounts.add("albert")
    running = daemon(**way, LDAP_TIMEOUT="3")
    right = running.login("john", "secret of john")
    assert right.endswith(b".\n")
    slapd.stop()
    slapd.start()
    assert running.login("john", "secret of john") == right
    assert "ERR" not in running.log.read_text()
    slapd.stop()
    try:
        assert running.login("albert", albert.password) == b""
    finally:
        slapd.start()
    assert running.login("john", "secret of john") == right
    freeze(slapd.process.pid)
    try:
        assert running.login("john", "secret of john") == b""
        assert running.login("albert", albert.password) == b""
    finally:
        slapd.process.send_signal(signal.SIGCONT)
    wait_until(lambda: running.login("john", "secret of john") == right, "it answers again")
    assert running.login("albert", albert.password).endswith(b".\n")


@pytest.mark.parametrize("scheme", ["starttls", "ldaps"])
def test_authdaemond_talks_tls_with_what_its_file_says(daemon, slapd, homes, scheme):
    trusted = {"LDAPTLS_CACERT": str(slapd.folder / "ca.pem")}
    settings = {"LDAP_URI": f"ldaps://127.0.0.1:{slapd.tls_port}"}
    if scheme == "starttls":
        settings = {"LDAP_TLS": "1"}
    running = daemon(trusted, **settings)
    for _ in range(2):
        assert running.login("john", "secret of john").endswith(b".\n")
        assert running.login("john", "wrong") == b"FAIL\n"
    wait_until(lambda: slapd.connections() == 1, "there is one")
    assert daemon(**settings).login("john", "secret of john") == b""  # nobody's we trust


MANAGER = {"LDAP_BINDDN": f"cn=admin,{SUFFIX}", "LDAP_BINDPW": "rootsecret"}


@pytest.mark.parametrize(
    "way, was",
    [(MANAGER, "secret of pat"), (BIND, "secret of pat"), ({**MANAGER, **CLEAR}, "clear one")],
    ids=["crypt", "bind", "clear"],
)
def test_a_password_is_changed(login, rc, way, was):
    def change(old: str, new: str, user: str = "pat") -> None:
        question = request.parse(f"pop3\nlogin\n{user}\n{old}\n\n".encode())
        authldap.change(question, new.encode(), Settings({"AUTHLDAP_RC": rc(**way)}))

    change(was, "another sécret")
    assert login("pat", "another sécret", **way).word == "accepted"
    assert login("pat", was, **way).word == "rejected"
    for user, old, new in [("pat", was, "x"), ("nobody", "x", "y"), ("pat", "x", "")]:
        with pytest.raises(Rejected):
            change(old, new, user)
    change("another sécret", was)
    assert login("pat", was, **way).word == "accepted"


def test_who_may_not_write_changes_nothing(login, rc):
    question = request.parse(b"pop3\nlogin\njohn\nsecret of john\n\n")
    with pytest.raises(TemporaryFailure, match="cannot change the password of uid=john,.*access"):
        authldap.change(question, b"new", Settings({"AUTHLDAP_RC": rc()}))
    assert login().word == "accepted"


ON = {"PASSWORD_REHASH": "1", "PASSWORD_SCHEME": "sha256_crypt rounds=1000"}


def hashes(slapd, user: str) -> list[bytes]:
    """What an entry has in userPassword."""
    import ldap

    connection = ldap.initialize(slapd.uri)
    connection.simple_bind_s(MANAGER["LDAP_BINDDN"], MANAGER["LDAP_BINDPW"])
    ((_, entry),) = connection.search_s(SUFFIX, ldap.SCOPE_SUBTREE, f"(uid={user})")
    connection.unbind_s()
    return sorted(entry["userPassword"])


def test_a_login_rehashes(program, login, slapd, rc):
    """mary has two passwords."""
    mine, other = sha("secret of mary").encode(), sha("another").encode()
    done = "INFO: authldap: password rehashed, user=mary\n"
    found = program("mary", "secret of mary", env=ON, **MANAGER)
    assert (found.word, found.log) == ("accepted", done)
    fresh, kept = hashes(slapd, "mary")
    assert kept == other and fresh.startswith(b"{CRYPT}$5$rounds=1000$")
    found = program("mary", "secret of mary", env=ON, **MANAGER)
    assert (found.word, found.log) == ("accepted", "")
    assert login("mary", "secret of mary", **BIND).word == "accepted"  # slapd takes it too
    settings = Settings({"PASSWORD_SCHEME": "SHA", "AUTHLDAP_RC": rc(**MANAGER)})
    question = request.parse(b"pop3\nlogin\nmary\nsecret of mary\n\n")
    with pytest.raises(Rejected):
        authldap.rehash(question, mine, settings)  # that one isn't there any more
    assert hashes(slapd, "mary") == [fresh, kept]
    authldap.rehash(question, fresh, settings)
    assert hashes(slapd, "mary") == sorted([mine, other])


def test_a_rehash_in_the_form_of_the_directory(login, slapd, rc):
    question = request.parse(b"pop3\nlogin\nclosed\nsecret of closed\n\n")
    path = rc(**MANAGER)
    for scheme, begin in {
        "SCRAM-SHA-256": b"{SCRAM-SHA-256}4096,",
        "sha512_crypt rounds=1000": b"{CRYPT}$6$",
        "SHA": b"{SHA}",
    }.items():
        (stored,) = hashes(slapd, "closed")
        settings = Settings({"PASSWORD_SCHEME": scheme, "AUTHLDAP_RC": path})
        authldap.rehash(question, stored, settings)
        (fresh,) = hashes(slapd, "closed")
        assert fresh.startswith(begin)
        assert login("closed", "secret of closed", **MANAGER).word == "accepted"


def test_who_binds_and_who_has_a_clear_password_is_not_rehashed(program, slapd):
    before = hashes(slapd, "john")
    for way, password in ((BIND, "secret of john"), (CLEAR, "clear secret")):
        found = program("john", password, env=ON, **{**MANAGER, **way})
        assert (found.word, found.log) == ("accepted", "")
    assert hashes(slapd, "john") == before


def test_a_rehash_that_may_not_write_is_one_line(program, slapd):
    before = hashes(slapd, "john")
    found = program(env=ON)
    assert found.word == "accepted"
    (line,) = found.log.splitlines()
    assert line.startswith("WARN: authldap: no new hash, user=john: ldap://")
    assert "cannot change the password of uid=john," in line
    assert hashes(slapd, "john") == before
