"""Steps for throwaway.py: Debian's courier-pop as shipped, then our package in its place

    replace_courier_steps.py COURIERPOP3.deb SETTING

authdaemond runs, with authpam. Where it is gone, SETTING is added to our /etc/courier/pop3d.

Prints one JSON object: what the clients saw and what was logged, before and after; the files of the
configuration at each point; and the packages' states.

Ours is started within the limits of its systemd unit: its capabilities, nothing writable and
executable in memory, /usr and /etc read only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

PASSWORD = "right horse"
MAILDIR = Path("/home/john/Maildir")
CONFIGURATION = ("/etc/courier/pop3d", "/etc/courier/pop3d-ssl", "/etc/courier/pop3d.cnf")
CONFIGURATION += ("/etc/courier/pop3d.pem", "/etc/pam.d/pop3")
PATIENCE = 30.0

LOGIN = f"USER john\r\nPASS {PASSWORD}\r\n"
CONVERSATIONS = {
    "whole session": LOGIN + "STAT\r\nLIST\r\nUIDL\r\nUIDL 2\r\nRETR 1\r\nTOP 2 1\r\nRETR 9\r\n"
    "NOOP\r\nDELE 1\r\nRSET\r\nQUIT\r\n",
    "wrong password": "USER john\r\nPASS wrong\r\nQUIT\r\n",
    "nobody of that name": "USER mallory\r\nPASS wrong\r\nQUIT\r\n",
    "before login": "NOOP\r\nSTAT\r\nPASS x\r\nUSER\r\nQUIT\r\n",
    "capabilities": "CAPA\r\nQUIT\r\n",
    "capabilities after login": LOGIN + "CAPA\r\nQUIT\r\n",
}
STLS = {
    "STLS": "CAPA\r\nSTLS\r\nCAPA\r\n" + LOGIN + "STAT\r\nQUIT\r\n",
    "STLS and a wrong password": "STLS\r\nUSER john\r\nPASS wrong\r\nQUIT\r\n",
}


class Log:
    """The system's /dev/log."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self) -> None:
        while True:
            priority, _, rest = self.socket.recv(8192).decode(errors="replace").partition(">")
            self.messages.append(f"{priority}>{rest[16:]}")  # without the time

    def of(self, name: str) -> list[str]:
        return [message for message in self.messages if f">{name}: " in message]


LIMITED = """
libc = __import__("ctypes").CDLL(None)
libc.prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, Linux 6.3 and later
__import__("os").execvp(__import__("sys").argv[1], __import__("sys").argv[1:])
"""
READ_ONLY = """
for directory in /usr /etc; do
    mount --bind $directory $directory && mount -o remount,ro,bind $directory || exit 1
done
exec "$@"
"""


def run(*argv: str) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def prepare() -> None:
    Path("/usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # we start what we want
    os.chmod("/usr/sbin/policy-rc.d", 0o755)
    for name, mode in (("courier", 0o775), ("courier/authdaemon", 0o750)):
        os.makedirs(f"/run/{name}")
        os.chmod(f"/run/{name}", mode)
        shutil.chown(f"/run/{name}", "courier" if "/" in name else "root", "courier")
    run("useradd", "--create-home", "--uid", "4711", "john")
    hashed = run("openssl", "passwd", "-6", PASSWORD).strip()
    run("usermod", "--password", hashed, "john")
    for folder in ("new", "cur", "tmp"):
        (MAILDIR / folder).mkdir(parents=True)
    for number, text in enumerate(("one", "two\n.dots\n..more", "three\r\nCRLF"), 1):
        message = f"From: a@example.com\nSubject: {number}\n\n{text}\n"
        (MAILDIR / "new" / f"170000000{number}.m{number}.host").write_text(message)
    run("chown", "-R", "john:john", "/home/john")


def until(condition, what: str, log: Log | None = None):  # type: ignore[no-untyped-def]
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    logged = "\n".join(["", *log.messages[-20:]]) if log else ""
    sys.exit(f"not within {PATIENCE} s: {what}{logged}")


def is_listened_on(port: int) -> bool:
    everybody = f":{port:04X} {'0' * 32}:0000 0A "
    return everybody in Path("/proc/net/tcp6").read_text()


def talk(port: int, sent: str, tls: bool) -> str:
    """What the server says, command by command; after STLS, if that is granted, encrypted."""
    clear, stls, behind = sent.rpartition("STLS\r\n")
    if not stls:
        clear, behind = ("", sent) if tls else (sent, "")
    said = ""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        if not tls:
            said = converse(plain, ["", *(clear + stls).splitlines()])
        if tls or (stls and said.splitlines()[-1].startswith("S: '+OK")):
            with encrypted(plain) as client:
                said += converse(client, [*([""] if tls else []), *behind.splitlines()])
    return said


def encrypted(client: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(client)


def converse(client: socket.socket, commands: list[str]) -> str:
    """The first of them may be empty, for the greeting."""
    said = ""
    with client.makefile("rb") as file:
        for command in commands:
            client.sendall(f"{command}\r\n".encode() if command else b"")
            said += f"C: {command}\n" if command else ""
            said += reply(file, command)
    return said


def reply(file, command: str) -> str:  # type: ignore[no-untyped-def]
    status = file.readline().decode()
    lines = [status]
    long = command in ("LIST", "UIDL", "CAPA") or command[:4] in ("RETR", "TOP ")
    while status.startswith("+OK") and long and lines[-1] not in (".\r\n", ""):
        lines.append(file.readline().decode())
    return "".join(f"S: {line!r}\n" for line in lines)


def start(name: str) -> str:
    unit = Path(f"/lib/systemd/system/courier-{name.replace('pop3d', 'pop')}.service")
    sets = [line.partition("=") for line in unit.read_text().splitlines() if "Bounding" in line]
    if not sets:
        return run(f"/usr/sbin/{name}", "start")
    capabilities = ["+" + cap[4:].lower() for _, _, caps in sets for cap in caps.split()]
    limits = ["setpriv", "--no-new-privs", "--bounding-set", ",".join(["-all", *capabilities])]
    private = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh"]
    limited = ["/usr/bin/python3", "-c", LIMITED]
    return run(*private, *limits, *limited, f"/usr/sbin/{name}", "start")


def served(log: Log, name: str, port: int, tls: bool = False) -> dict[str, dict[str, object]]:
    """Start an instance, hold every conversation, stop it."""
    begun = start(name)
    until(lambda: is_listened_on(port), f"{port} is served")
    results: dict[str, dict[str, object]] = {}
    for title, sent in {
        **CONVERSATIONS,
        **({} if tls else STLS),
    }.items():
        before = len(log.of(name))
        said = talk(port, sent, tls)
        end = f"the last line of {title} on port {port} in the log; the client's view:\n{said}"
        until(lambda before=before: is_over(log.of(name)[before:]), end, log)
        results[title] = {"said": said, "logged": log.of(name)[before:]}
    results["start"] = {"said": begun, "logged": processes()}
    results["pid"] = {"said": Path(f"/run/courier/{name}.pid").read_text(), "logged": []}
    results["restart"] = {"said": run(f"/usr/sbin/{name}", "restart"), "logged": []}
    results["stop"] = {"said": run(f"/usr/sbin/{name}", "stop"), "logged": processes()}
    return results


def is_over(lines: list[str]) -> bool:
    """Whether there is the line that a session ends with."""
    return any("Disconnected, " in line or "LOGOUT, user=" in line for line in lines)


def processes() -> list[str]:
    """The command lines of the server's processes, but for those that have just ended."""
    lines = run("ps", "-eo", "args").splitlines()
    others = ("steps.py", "<defunct>")
    return [line for line in lines if "pop3" in line and not any(word in line for word in others)]


def both(log: Log) -> dict[str, object]:
    plain = served(log, "pop3d", 110)
    return {"110": plain, "995": served(log, "pop3d-ssl", 995, tls=True)}


def configuration() -> dict[str, str | None]:
    return {
        path: hashlib.md5(Path(path).read_bytes()).hexdigest() if os.path.exists(path) else None
        for path in CONFIGURATION
    }


def units() -> dict[str, dict[str, str]]:
    """What systemd says of each unit that we have installed."""
    result = {}
    for path in run("dpkg-query", "-L", "courierpop3").split():
        if path.endswith((".service", ".socket")):
            verified = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True
            )
            result[os.path.basename(path)] = {
                "verify": verified.stdout + verified.stderr,
                "security": exposure(path) if path.endswith(".service") else "",
            }
    return result


def exposure(path: str) -> str:
    """The last line: from 0 (nothing) to 10 (everything)."""
    text = run("systemd-analyze", "security", "--offline=yes", "--no-pager", path)
    return text.splitlines()[-1]


def modes(*paths: str) -> dict[str, str]:
    return {p: oct(os.stat(p).st_mode & 0o7777) for p in paths if os.path.exists(p)}


def append(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def states() -> list[str]:
    text = run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n", "courier*")
    return sorted(line.strip() for line in text.splitlines())


def virtual(log: Log) -> dict[str, object]:
    """The unit for virtual mailboxes, as far as it goes without a systemd that runs: its command,
    its user, its environment, no capabilities, a socket that was passed, and what it notifies."""
    run("useradd", "--system", "--home-dir", "/var/vmail", "vmail")
    for folder in ("new", "cur", "tmp"):
        os.makedirs(f"/var/vmail/jane/Maildir/{folder}")
    Path("/var/vmail/jane/Maildir/new/1700000009.m9.host").write_text("Subject: 9\n\nnine\n")
    ids = run("sh", "-c", "echo uid=$(id -u vmail)'|'gid=$(id -g vmail)").strip()
    hashed = run("openssl", "passwd", "-6", PASSWORD).strip()
    record = f"jane\t{ids}|home=/var/vmail/jane|systempw={hashed}\n"
    Path("/var/vmail/userdb").write_text(record)
    run("chown", "-R", "vmail:vmail", "/var/vmail")
    os.chmod("/var/vmail/userdb", 0o600)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind("/run/notify")
    os.chmod("/run/notify", 0o666)
    unit = Path("/lib/systemd/system/courier-pop-virtual.service").read_text().replace("\\\n", "")
    command = next(line[10:] for line in unit.splitlines() if line.startswith("ExecStart="))
    settings = [line[12:] for line in unit.splitlines() if line.startswith("Environment=")]
    argv = ["systemd-socket-activate", "-l", "[::]:110", "-E", "NOTIFY_SOCKET=/run/notify"]
    argv += [word for setting in settings for word in ("-E", setting)]
    argv += ["setpriv", "--reuid=vmail", "--regid=vmail", "--clear-groups", "--no-new-privs"]
    argv += ["--inh-caps=-all", "--bounding-set=-all"]
    process = subprocess.Popen([*argv, *command.split()], stderr=subprocess.PIPE, text=True)
    until(lambda: is_listened_on(110), "there is a socket to be passed")
    said = talk(110, f"USER jane\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n", tls=False)
    notified.settimeout(PATIENCE)
    told = notified.recv(4096).decode()
    until(lambda: is_over(log.of("pop3d")), "the session's last line")
    users = run("sh", "-c", "ps -eo user,args | grep '[c]ourierpop3login' | cut -d' ' -f1").split()
    process.terminate()
    ended = process.communicate(timeout=PATIENCE)[1]
    logged = log.of("pop3d")
    return {"said": said, "told": told, "logged": logged, "users": users, "stderr": ended}


def install(deb: str) -> str:
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    return run("dpkg", "-i", deb)


def fresh(log: Log) -> dict[str, object]:
    """Our package on a system that never had Courier, started by its init script."""
    run("sh", "-c", "dpkg --purge $(dpkg-query -f '${Package} ' -W 'courier-*' | tr ' ' '\\n' | "
        "while read -r p; do dpkg -s $p >/dev/null 2>&1 && echo $p; done)")  # fmt: skip
    run("sh", "-c", "rm -rf /etc/courier /var/lib/courier /run/courier; deluser --quiet courier")
    result: dict[str, object] = {"install": install(sys.argv[1])}
    result["modes"] = modes(*CONFIGURATION)
    script = "/etc/init.d/courier-pop"
    result["owners"] = [Path(path).group() for path in CONFIGURATION]
    log.messages.clear()
    with open("/etc/courier/pop3d") as file:
        text = "".join(line for line in file if not line.startswith("AUTHMODULES"))
    Path("/etc/courier/pop3d").write_text(f"{text}\n{sys.argv[-1]}\n")
    run(script, "start")
    until(lambda: is_listened_on(110), "110 is served")
    result["said"] = talk(110, f"{LOGIN}STAT\r\nQUIT\r\n", tls=False)
    result["running"] = run(script, "status")
    run(script, "stop")
    result["stopped"] = subprocess.run([script, "status"], capture_output=True).returncode
    return result


def main() -> None:
    log = Log()
    prepare()
    result: dict[str, object] = {"shipped": configuration()}
    result["conffiles"] = run("dpkg-query", "-W", "-f", "${Conffiles}", "courier-pop")
    run("/usr/sbin/authdaemond", "start")
    result["before"] = both(log)
    result["list before"] = (MAILDIR / "courierpop3dsizelist").read_text()
    append("/etc/courier/pop3d-ssl", "# the administrator's remark")
    append("/etc/pam.d/pop3", "# the administrator's remark")
    result["edited"] = configuration()
    result["install"] = install(sys.argv[1])
    result["installed"] = {"files": configuration(), "states": states()}
    scripts = ("/etc/init.d/courier-pop", "/etc/init.d/courier-pop-ssl")
    result["modes"] = modes(*CONFIGURATION, *scripts)
    result["not compiled"] = run(
        "sh", "-c", "cd /usr/lib/courier/python && find . -name '*.py' | wc -l; "
        "find . -name '*.pyc' | wc -l"
    )  # fmt: skip
    result["units"] = units()
    result["collisions"] = run("dpkg", "-V", "courier-base", "courier-authlib", "courierpop3")
    installed = configuration()
    result["after"] = both(log)
    result["list after"] = (MAILDIR / "courierpop3dsizelist").read_text()
    log.messages.clear()
    result["virtual"] = virtual(log)
    run("dpkg", "-i", sys.argv[1])
    result["again"] = configuration() == installed
    run("dpkg", "--purge", "courier-pop")
    result["courier-pop purged"] = {"same": configuration() == installed, "states": states()}
    result["enabled"] = sorted(os.listdir("/etc/systemd/system/multi-user.target.wants"))
    run("dpkg", "--remove", "courierpop3")
    result["removed"] = {"files": configuration() == installed, "states": states()}
    run("dpkg", "--purge", "courierpop3")
    places = ["/etc", "/lib/systemd", "/usr/lib/courier", "/usr/sbin", "/usr/share", "/var/lib"]
    left = run("find", *places, "-name", "*pop3d*", "-o", "-name", "courierpop3*").split()
    result["purged"] = {"files": configuration(), "left": left}
    result["fresh"] = fresh(log)
    print(json.dumps(result))


main()
