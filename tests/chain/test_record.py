"""Descriptor 3, byte for byte, and what else a program of the chain finds when it starts."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.conftest import BIN, DEADLINE, Client, free_port, needs_root, sha

ASKED = b"pop3\nlogin\njohn\nsecret\n\n"  # chain-protocol.md 13, request R


@pytest.fixture
def dump(script, public):
    """A program that writes descriptor 3, its ids, environment and descriptors into files."""
    return script(
        "dump",
        f"""#!/bin/sh
        ls -l /proc/self/fd > {public}/fds
        cat <&3 > {public}/record
        env > {public}/env
        pwd > {public}/cwd
        id -u > {public}/uid; id -G > {public}/groups
        echo "$0 $*" > {public}/argv
        echo $$ > {public}/pid
        printf '+OK dumped\\r\\n'
        """,
    )


def dumped(public) -> dict[str, str]:
    text = (public / "env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def ask(server, user="john", password="secret") -> bytes:
    with Client(server.port) as client:
        client.line()
        client.ask(f"USER {user}")
        client.send(f"PASS {password}\r\n".encode())
        return client.rest()


def test_the_request_is_byte_for_byte_the_documented_one(serve, any_mode, public, dump):
    server = serve(*any_mode, stages=["courierpop3login", dump, "courierpop3d", "./Maildir"])
    assert ask(server) == b"+OK dumped\r\n"
    assert (public / "record").read_bytes() == ASKED
    env = dumped(public)
    login = str(BIN / "courierpop3login")
    assert env["AUTHUSER"] == env["AUTHARGV0"] == login
    assert env["AUTHARGC"] == "4"
    assert [env[f"AUTHARGV{n}"] for n in (1, 2, 3)] == [dump, "courierpop3d", "./Maildir"]
    assert env["AUTHENTICATED"] == ""
    assert env["AUTHEXPIRE"].isdigit()
    assert env["TCPREMOTEIP"] == env["TCPLOCALIP"] == "::ffff:127.0.0.1"
    assert env["TCPLOCALPORT"] == str(server.port)
    assert "secret" not in (public / "env").read_text() + (public / "argv").read_text()


def test_descriptor_3_is_a_pipe_and_nothing_is_above_it(serve, any_mode, public, dump):
    server = serve(*any_mode, stages=["courierpop3login", dump])
    ask(server)
    links = [line.split()[-3:] for line in (public / "fds").read_text().splitlines()[1:]]
    targets = {int(number): target for number, _, target in links}
    assert targets[0].startswith("socket:")
    assert targets[3].startswith("pipe:")
    # 1 is the script's own redirection; 4 is ls looking.
    assert set(targets) <= {0, 1, 2, 3, 4}


def test_a_rejecting_module_passes_on_the_same_bytes_and_changes_nothing(
    serve, any_mode, public, dump, john
):
    stages = ["courierpop3login", "authuserdb", "authpwd", dump, "./Maildir"]
    server = serve(*any_mode, stages=stages)
    ask(server)
    assert (public / "record").read_bytes() == ASKED
    assert (public / "uid").read_text().strip() == str(os.getuid())
    assert (public / "cwd").read_text().strip() == os.getcwd()
    assert dumped(public)["AUTHENTICATED"] == ""


def test_an_accepting_module_answers_and_becomes_the_user(serve, any_mode, public, dump, accounts):
    public.chmod(0o777)
    account = accounts.add("john", gecos="John Doe", quota="1000S", options="x=1", mail="/m")
    server = serve(
        *any_mode, stages=["courierpop3login", "authuserdb", "authpwd", dump, "./Maildir"]
    )
    ask(server, password=account.password)
    assert (public / "record").read_bytes() == b"pop3\nauthenticated\njohn\n"
    env = dumped(public)
    expected = {
        "AUTHENTICATED": "john",
        "AUTHADDR": "john",
        "AUTHFULLNAME": "John Doe",
        "MAILDIR": "/m",
        "MAILDIRQUOTA": "1000S",
        "OPTIONS": "x=1",
        "HOME": str(account.home),
    }
    assert {name: env[name] for name in expected} == expected
    assert (public / "uid").read_text().strip() == str(account.uid)
    assert (public / "cwd").read_text().strip() == str(account.home)
    if os.geteuid() == 0:
        assert (public / "groups").read_text().split() == [str(account.gid)]


def test_variables_without_a_value_are_there_and_empty(serve, any_mode, public, dump, john):
    public.chmod(0o777)
    server = serve(*any_mode, stages=["courierpop3login", "authuserdb", dump, "./Maildir"])
    ask(server, password=john.password)
    env = dumped(public)
    assert [env[name] for name in ("MAILDIR", "MAILDIRQUOTA", "OPTIONS")] == ["", "", ""]


def test_authservice_of_the_port_names_the_service(serve, any_mode, public, dump):
    port = free_port()
    server = serve(
        *any_mode,
        stages=["courierpop3login", dump],
        env={f"AUTHSERVICE{port}": "mail"},
        port=port,
    )
    ask(server)
    assert (public / "record").read_bytes() == ASKED.replace(b"pop3", b"mail", 1)


@pytest.mark.parametrize(
    "settings, user, sent",
    [
        ({"DEFDOMAIN": "@example.com"}, "john", "john@example.com"),
        ({"DEFDOMAIN": "@example.com"}, "john@other", "john@other"),
        ({"DEFDOMAIN": "@example.com", "DOMAINSEP": "%@"}, "john%x", "john%x"),
        ({"DEFDOMAIN": "@example.com", "DOMAINSEP": "%"}, "john@x", "john@x@example.com"),
        ({}, "john", "john"),
    ],
)
def test_defdomain_is_appended_to_names_without_a_domain(serve, public, dump, settings, user, sent):
    server = serve(stages=["courierpop3login", dump], env=settings)
    ask(server, user=user)
    assert (public / "record").read_text().split("\n")[2] == sent


def stage(*argv, record: bytes | None = None, env=None, **more) -> subprocess.CompletedProcess:
    """Run one program cold, with `record` readable on descriptor 3, or 3 closed."""

    def descriptor_3() -> None:
        if record is None:
            return
        reader, writer = os.pipe()
        os.write(writer, record)
        os.close(writer)
        os.dup2(reader, 3)

    near, far = socket.socketpair()
    near.shutdown(socket.SHUT_WR)
    with near, far:
        done = subprocess.run(
            [str(word) for word in argv],
            env=env or {},
            stdin=far,
            stdout=far,
            stderr=subprocess.PIPE,
            preexec_fn=descriptor_3,
            close_fds=record is None,
            timeout=DEADLINE,
            check=False,
            **more,
        )
        far.close()
        done.stdout = near.recv(65536)
    return done


@pytest.mark.parametrize("module", ["authuserdb", "authpwd", "authshadow", "authpam"])
def test_a_module_without_a_request_says_authfailure(module):
    for record in (None, b""):
        done = stage(BIN / module, "/bin/true", record=record)
        assert (done.returncode, done.stderr) == (1, b"AUTHFAILURE\n")


def test_the_server_without_a_chain_says_authfailure():
    done = stage(BIN / "courierpop3d", "./Maildir")
    assert (done.returncode, done.stderr, done.stdout) == (1, b"AUTHFAILURE\n", b"")


def test_a_module_behind_an_accepting_one_becomes_the_next_at_once(script):
    show = script("show", '#!/bin/sh\necho "$AUTHENTICATED $*"\nls /proc/self/fd/3 2>&1\n')
    done = stage(BIN / "authuserdb", show, "a", "b", env={"AUTHENTICATED": "x"})
    assert done.returncode != 99
    assert done.stdout.startswith(b"x a b\n")
    assert b"No such file" in done.stdout


def test_a_temporary_failure_goes_back_to_the_login_program(script, public):
    """AUTHCHAIN-04: no further module is asked."""
    login = script("login", '#!/bin/sh\necho "again: $*"\n')
    env = {
        "AUTHUSER": login,
        "AUTHARGC": "3",
        "AUTHARGV0": login,
        "AUTHARGV1": "one",
        "AUTHARGV2": "two",
        "AUTHUSERDB_FILE": str(public / "missing"),
    }
    done = stage(BIN / "authuserdb", "/bin/false", record=ASKED, env=env)
    assert done.stdout == b"again: one two\n"
    assert b"ERR: authuserdb: cannot read" in done.stderr


@pytest.mark.parametrize("env", [{}, {"AUTHUSER": "/bin/sh"}, {"AUTHARGC": "2"}])
def test_a_temporary_failure_outside_a_chain_says_authfailure(env, public):
    env = {**env, "AUTHUSERDB_FILE": str(public / "missing")}
    done = stage(BIN / "authuserdb", "/bin/false", record=ASKED, env=env)
    assert done.returncode == 1
    assert done.stderr.endswith(b"AUTHFAILURE\n")


@pytest.mark.parametrize(
    "record",
    [
        b"pop3",
        b"pop3\nlogin",
        b"\n\n\n",
        b"pop3\nlogin\njohn\n",
        b"x" * 5000,
        b"pop3\nlogin\n\0\nx\n",
    ],
)
def test_AUTHCHAIN_02_a_broken_request_never_logs_in(record, accounts, environment, john, script):
    login = script("login", "#!/bin/sh\necho again\n")
    env = {**environment, "AUTHUSER": login, "AUTHARGC": "1", "AUTHARGV0": login}
    done = stage(BIN / "authuserdb", BIN / "courierpop3d", record=record, env=env)
    assert done.stdout == b"again\n"


def test_CVE_48_more_lines_than_userid_and_password_are_a_forgery(environment, john, script):
    login = script("login", "#!/bin/sh\necho again\n")
    env = {**environment, "AUTHUSER": login, "AUTHARGC": "1", "AUTHARGV0": login}
    forged = f"pop3\nlogin\njohn\n{john.password}\nmore\n\n".encode()
    done = stage(BIN / "authuserdb", BIN / "courierpop3d", record=forged, env=env)
    assert done.stdout == b"again\n"


SERVED = b"+OK logged in.\r\n"


@pytest.mark.parametrize(
    "record, authenticated, served",
    [
        (b"pop3\nauthenticated\njohn\n", "john", True),
        (b"pop3\nauthenticated\njohn\n", "mary", False),
        (b"pop3\nauthenticated\njohn\n", None, False),
        (ASKED, "john", False),
        (ASKED, None, False),
        (b"rubbish", "john", False),
        (b"", "john", True),
        (None, "john", True),
        (b"", None, False),
        (None, None, False),
    ],
)
def test_descriptor_3_says_who_is_logged_in(record, authenticated, served, john):
    """The table of the design, row by row."""
    env = {"AUTHENTICATED": authenticated} if authenticated else {}
    as_user = {"user": john.uid, "group": john.gid, "extra_groups": []} if not os.getuid() else {}
    done = stage(
        BIN / "courierpop3d", "./Maildir", record=record, env=env, cwd=john.home, **as_user
    )
    assert done.stdout.startswith(SERVED) == served
    if not served:
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.endswith(b"AUTHFAILURE\n")


def test_an_inherited_authenticated_logs_nobody_in(serve, any_mode, public, dump):
    server = serve(*any_mode, stages=["courierpop3login", dump], env={"AUTHENTICATED": "root"})
    ask(server)
    assert dumped(public)["AUTHENTICATED"] == ""


def test_a_relative_authuser_is_refused():
    done = stage(BIN / "courierpop3login", "authuserdb", env={"AUTHUSER": "foo"})
    assert done.returncode == 1
    expected = f"{BIN}/courierpop3login: AUTHUSER is not initialized to a complete path\n"
    assert done.stderr.decode() == expected


def test_the_login_program_without_a_chain_says_authfailure():
    done = stage(BIN / "courierpop3login")
    assert (done.returncode, done.stderr, done.stdout) == (1, b"AUTHFAILURE\n", b"")


def test_AUTHCHAIN_05_uid_and_gid_0_are_never_served(serve, any_mode, accounts):
    needs_root()
    for name, uid, gid in (("root1", 0, 100), ("root2", 100, 0), ("big", 2**40, 5)):
        accounts.record(name, uid=uid, gid=gid, home="/", systempw=sha("x"))
    server = serve(*any_mode)
    for name in ("root1", "root2", "big"):
        with server.client() as client:
            client.line()
            client.ask(f"USER {name}")
            answer = client.ask("PASS x")
            assert answer.startswith("-ERR")
