"""courierctl from outside: start, stop, restart, reload, status."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

from tests.conftest import (
    BIN,
    DEADLINE,
    children_of,
    has_client,
    has_newer_courier,
    needs,
    needs_root,
    wait_until,
)
from tests.courierctl.conftest import TEMPLATES

PRINT_ENVIRONMENT = "#!/bin/sh\nexec 3<&-\n/usr/bin/env\n"
SCRIPTS = TEMPLATES.parent / "scripts"


def environment_of_a_session(site, port: int) -> dict[str, str]:
    """What a module finds in its environment, told to the client."""
    with site.client(port) as client:
        client.line()
        client.ask("USER john")
        client.send(b"PASS secret\r\n")
        lines = client.rest().decode().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_real_login_through_courierctl_start(site, john):
    said = site.ok("start")
    assert said == f"pop3d: started, pid {site.pid()}, port {site.port}\n"
    with site.client().login(john) as client:
        assert client.ask("STAT") == "+OK 0 0"
    assert site.ok("stop") == "pop3d: stopped\npop3d-ssl: not running\n"


def test_the_instance_for_tls_when_it_is_named(site, john):
    assert site.ok("start", "pop3d-ssl").startswith("pop3d-ssl: started, pid ")
    with site.client(site.ssl_port).login(john) as client:
        assert client.ask("QUIT") == "+OK Bye-bye."
    assert not site.pidfile.exists()


def test_start_takes_those_that_are_switched_on(site):
    site.set("pop3d-ssl", POP3DSSLSTART="yes")
    assert [line.split(":")[0] for line in site.ok("start").splitlines()] == ["pop3d", "pop3d-ssl"]
    site.ok("stop")
    site.set(POP3DSTART="NO")
    site.set("pop3d-ssl", POP3DSSLSTART="")
    done = site.ctl("start")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"WARN: {site.etc}: neither POP3DSTART nor POP3DSSLSTART is YES\n"


def test_row_54_a_custom_variable_reaches_the_session_and_little_else_does(site, script):
    site.set(AUTHMODULES=script("authenv", PRINT_ENVIRONMENT), SITE="Bonn am Rhein")
    site.append('OTHER="$SITE-2"')
    site.ok("start")
    found = environment_of_a_session(site, site.port)
    assert found["SITE"] == "Bonn am Rhein"
    assert found["OTHER"] == "Bonn am Rhein-2"
    assert found["PROXY_HOSTNAME"] == ""
    assert found["POP3_STARTTLS"] == "YES"
    assert found["sbindir"] == found["bindir"] == str(site.bin)
    assert found["prefix"] == found["exec_prefix"] == found["PWD"] == str(site.directory)
    assert "SHELL" not in found
    assert "_" not in found or found["_"].endswith("/env")


def test_tls_settles_three_settings_and_passes_path_and_shell_on(site, script):
    site.set("pop3d-ssl", POP3_TLS_REQUIRED=1)
    site.set(AUTHMODULES=script("authenv", PRINT_ENVIRONMENT))
    site.ok("start", "pop3d-ssl")
    found = environment_of_a_session(site, site.ssl_port)
    assert (found["POP3_TLS"], found["POP3_STARTTLS"], found["POP3_TLS_REQUIRED"]) == (
        "1",
        "NO",
        "0",
    )
    assert found["SHELL"] == "/bin/sh"
    assert found["PATH"].endswith(":/usr/bin:/bin")


def test_a_maildir_with_blanks_and_a_dollar(site, accounts):
    odd = accounts.add("odd")
    odd.maildir.rename(odd.home / "my $MAIL 'dir'")
    site.append("MAILDIRPATH=\"./my \\$MAIL 'dir'\"")
    site.ok("start")
    with site.client().login(odd) as client:
        assert client.ask("STAT") == "+OK 0 0"


def test_F_PID_1_a_second_start_says_so_and_harms_nobody(site, john):
    site.ok("start")
    pid = site.pid()
    with site.client().login(john) as client:
        assert site.refused("start") == f"pop3d: already running, pid {pid}\n"
        assert client.ask("NOOP") == "+OK Yup."
    assert site.pid() == pid


def test_F_PID_2_a_stale_pid_file_means_nothing(site):
    with subprocess.Popen(["sleep", "60"]) as other:
        site.pidfile.parent.mkdir()
        site.pidfile.write_text(f"{other.pid}\n")
        assert site.ok("stop", "pop3d") == "pop3d: not running\n"
        site.ok("start")
        site.pidfile.write_text(f"{other.pid}\n")
        site.ok("stop", "pop3d")
        assert other.poll() is None
        other.kill()


def test_status(site, john):
    done = site.ctl("status")
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        f"pop3d: stopped, ports {site.port}, {site.etc}/pop3d",
        f"pop3d-ssl: stopped, ports {site.ssl_port}, {site.etc}/pop3d-ssl, "
        "POP3DSSLSTART is not YES",
    ]
    site.set(TCPDOPTS="-nodnslookup -prefork=2")
    site.ok("start")
    with site.client().login(john):
        assert site.ok("status").splitlines()[0] == (
            f"pop3d: running, pid {site.pid()}, ports {site.port}, sessions 1, {site.etc}/pop3d"
        )
    assert site.ctl("status", "pop3d-ssl").returncode == 3


def test_status_on_a_terminal_is_a_table(site):
    master, terminal = pty.openpty()
    command = [str(site.bin / "courierctl"), "-C", str(site.etc), "status"]
    subprocess.run(command, stdout=terminal, timeout=DEADLINE, check=False)
    os.close(terminal)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "stopped" in shown and str(site.port) in shown


def test_restart_makes_new_settings_count(site, john):
    site.ok("start")
    before = site.pid()
    site.set(MAXPERIP=1)
    assert site.ok("restart").startswith("pop3d: stopped\npop3d: started, pid ")
    assert site.pid() != before
    with site.client().login(john), site.client() as second:
        assert second.line() == b""


def test_restart_stops_what_has_been_switched_off(site):
    site.ok("start", "pop3d", "pop3d-ssl")
    assert "pop3d-ssl: stopped\n" in site.ok("restart")
    assert "pop3d-ssl: stopped" in site.ok("status")


def test_restart_with_a_bad_configuration_leaves_the_running_one(site, john):
    site.ok("start")
    pid = site.pid()
    with site.client().login(john) as client:
        for setting, value in {
            "TCPDOPTS": "-nodnslokup",
            "AUTHMODULES": "authpma",
            "MAXPERIP": "none",
            "DEFDOMAIN": 'open"',
        }.items():
            before = (site.etc / "pop3d").read_text()
            site.set(**{setting: value})
            assert setting in site.refused("restart")
            (site.etc / "pop3d").write_text(before)
        assert client.ask("NOOP") == "+OK Yup."
    assert site.pid() == pid
    site.client().login(john).close()


def test_reload_reads_the_access_file_and_keeps_sessions(site, john):
    access = site.directory / "access"
    access.write_text("*\tallow\n")
    site.set(TCPDOPTS=f"-nodnslookup -access={access}")
    assert site.refused("reload", "pop3d") == "pop3d: not running\n"
    site.ok("start")
    with site.client().login(john) as client:
        access.write_text("127.0.0.1\tdeny\n")
        assert site.ok("reload") == "pop3d: reloaded\n"

        def is_denied():
            with site.client() as refused:
                return refused.line() == b""

        wait_until(is_denied, "the new access file counts")
        assert client.ask("NOOP") == "+OK Yup."


def test_a_port_in_use_names_setting_port_and_process(site):
    with socket.create_server(("127.0.0.1", site.port)):
        said = site.refused("start")
    line = site.etc / "pop3d"
    number = line.read_text().splitlines().index(f'PORT="{site.port}"') + 1
    assert said.startswith(f"ERR: {line} line {number}: PORT={site.port}: port {site.port}: ")
    assert f"address already in use by {Path('/proc/self/comm').read_text().strip()}" in said
    assert said.endswith(f", pid {os.getpid()}\n")
    assert not site.pidfile.exists()


def refuse_39_daemons(site) -> None:
    """A listener of somebody else's, that can't be asked beforehand."""
    tcpd = f"exec {BIN}/couriertcpd"
    site.replace(
        "couriertcpd", f'#!/bin/sh\ncase $* in *maxprocs=39*) exit 1;; esac\n{tcpd} "$@"\n'
    )
    site.set(MAXDAEMONS="39")
    site.set("pop3d-ssl", MAXDAEMONS="40")


def test_a_listener_that_ends_at_once_is_a_failure(site):
    refuse_39_daemons(site)
    said = site.refused("start")
    assert said.endswith("ERR: pop3d: the listener has ended; its log says why\n")


def test_one_that_does_not_start_keeps_no_other_from_starting(site, john):
    site.set("pop3d-ssl", POP3DSSLSTART="YES")
    refuse_39_daemons(site)
    done = site.ctl("start")
    assert done.returncode == 1
    assert done.stderr.endswith("ERR: pop3d: the listener has ended; its log says why\n")
    assert done.stdout.startswith("pop3d-ssl: started")
    site.client(site.ssl_port).login(john).close()


def test_the_cache_file_is_made_private_and_kept(site):
    cache = site.directory / "cache"
    site.set("pop3d-ssl", TLS_CACHEFILE=cache)
    os.umask(0)
    try:
        site.ok("start")
    finally:
        os.umask(0o022)
    assert cache.stat().st_mode & 0o777 == 0o600
    cache.write_text("sessions")
    site.ok("restart")
    assert cache.read_text() == "sessions"
    site.set("pop3d-ssl", TLS_CACHEFILE=site.directory / "nowhere" / "cache")
    site.ok("restart")


def test_killed_listener_is_stopped_for_status_once_the_logger_has_gone(site):
    site.ok("start")
    (listener,) = children_of(site.pid())
    os.kill(listener, signal.SIGKILL)
    wait_until(lambda: site.ctl("status").returncode == 3, "the logger ends with its listener")


def test_prefork_and_uses_are_options_like_others(site, john):
    site.set(TCPDOPTS="-nodnslookup -prefork=2 -uses=10")
    site.ok("start")
    (listener,) = children_of(site.pid())
    with site.client().login(john):
        wait_until(lambda: any(map(has_client, children_of(listener))), "a session")


def test_couriers_own_logger_and_listener_are_started_and_stopped_likewise(site, john):
    for program in ("courierlogger", "couriertcpd"):
        (site.bin / program).unlink()
        (site.bin / program).symlink_to(needs(f"/usr/sbin/{program}"))
    site.set(LOGGEROPTS="-name=pop3d")
    if has_newer_courier():
        site.set(TCPDOPTS="-nodnslookup")
    site.ok("start")
    with site.client().login(john):
        assert "sessions 1," in site.ok("status")
        assert "already running, pid" in site.refused("start")
    assert site.ok("stop", "pop3d") == "pop3d: stopped\n"


def scripted(site, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    ctl = site.directory / "ctl"
    ctl.write_text(f'#!/bin/sh\nexec {site.bin}/courierctl -C {site.etc} "$@"\n')
    ctl.chmod(0o755)
    return subprocess.run(
        [str(SCRIPTS / name), *words],
        env={"COURIERCTL": str(ctl), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )


def test_start_scripts_start_restart_and_stop_their_instance(site, john):
    for name, port, pidfile in (
        ("pop3d", site.port, site.pidfile),
        ("pop3d-ssl", site.ssl_port, site.ssl_pidfile),
    ):
        assert scripted(site, name, "start").returncode == 0
        site.client(port).login(john).close()
        before = site.pid(pidfile)
        assert scripted(site, name, "restart").returncode == 0
        assert site.pid(pidfile) != before
        assert scripted(site, name, "start").returncode == 1
        assert scripted(site, name, "stop").returncode == 0
        assert scripted(site, name, "stop").returncode == 0


def test_row_56_start_scripts_do_nothing_for_other_words(site):
    for words in ((), ("status",), ("reload",), ("",)):
        done = scripted(site, "pop3d", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_start_scripts_find_the_courierctl_of_their_installation(site):
    library = site.directory / "lib" / "courier"
    library.mkdir(parents=True)
    (site.directory / "sbin").mkdir()
    ctl = site.directory / "sbin" / "courierctl"
    ctl.write_text('#!/bin/sh\necho "$0 $*"\n')
    ctl.chmod(0o755)
    real = library / "pop3d-ssl"
    real.write_text((SCRIPTS / "pop3d-ssl").read_text())
    real.chmod(0o755)
    link = site.directory / "sbin" / "pop3d-ssl"
    link.symlink_to("../lib/courier/pop3d-ssl")
    done = subprocess.run([str(link), "stop"], capture_output=True, text=True, check=True)
    assert os.path.realpath(done.stdout.split()[0]) == str(ctl)
    assert done.stdout.split()[1:] == ["stop", "pop3d-ssl"]


def test_a_user_who_may_not_look_is_told_so(site):
    needs_root()
    site.ok("start")
    done = site.ctl("status", user=65534, group=65534, extra_groups=[])
    assert (done.returncode, done.stderr) == (4, f"ERR: {site.pidfile}.lock: Permission denied\n")
