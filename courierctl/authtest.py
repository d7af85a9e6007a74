"""authtest - what is known about an account

    authtest [-s SERVICE] USERID                          look it up
    authtest [-s SERVICE] USERID PASSWORD                 check the password
    authtest [-s SERVICE] USERID PASSWORD NEWPASSWORD     change it
    authtest [-s SERVICE] USERID [PASSWORD] -chain MODULE...

Asks an authdaemond, at AUTHDAEMON_SOCKET, and prints what it says, as Courier's authtest does
(reference auth.md Part 3); SERVICE is login. With -chain, which is ours, each module is started as
in the chain, see `courierctl.chain`, and SERVICE is pop3; without PASSWORD as for who has proved
an identity by a certificate.

Exits 0; 1 after a failure, with a line on descriptor 2.
"""

from __future__ import annotations

import os
import sys
from errno import EINVAL, EIO, EPERM

from courierchain import authsocket, log
from courierchain.authsocket import Fields, NoAnswer
from courierchain.authtypes import EXTERNAL, LOGIN
from courierchain.request import BadRequest, encode
from courierchain.settings import Settings
from courierctl import chain

USAGE = "Usage: authtest [-s service] userid [ password [ newpassword ] ] [ -chain module... ]"


def main(argv: list[str], env: dict[str, str]) -> int:
    words, modules, in_chain = argv[1:], [], "-chain" in argv
    if in_chain:
        begin = words.index("-chain")
        words, modules = words[:begin], words[begin + 1 :]
    service = "pop3" if in_chain else "login"
    if words and words[0].startswith("-s"):
        service = words[0][2:] or (words[1] if len(words) > 1 else "")
        words = words[1 if words[0][2:] else 2 :]
    most = 2 if in_chain else 3
    if not 1 <= len(words) <= most or words[0].startswith("-") or in_chain > bool(modules):
        print(USAGE, file=sys.stderr)
        return 1
    octets = [os.fsencode(word) for word in (service, *words)]
    env = {"TCPREMOTEIP": "::1", **env}
    try:
        if in_chain:
            return ask_chain(octets, modules, env)
        return change(octets, env) if len(words) == most else ask_daemon(octets, env)
    except BadRequest:
        return failed(EINVAL)
    except (NoAnswer, ValueError) as why:
        log.err(f"authtest: {why}")
        return failed(EIO)
    finally:
        sys.stdout.flush()


def ask_daemon(words: list[bytes], env: dict[str, str]) -> int:
    """Raises BadRequest, NoAnswer and ValueError; so do the others."""
    service, user, *secret = words
    if secret:
        encode(service, LOGIN, user, *secret)
        question = authsocket.auth(service, LOGIN, b"\n".join((user, *secret)))
    else:
        question = authsocket.pre(service, user)
    question = authsocket.about(env["TCPREMOTEIP"]) + question
    fields = authsocket.fields(authsocket.ask(question, Settings(env)))
    if fields is None:
        return failed(EPERM)
    print("Authentication succeeded.\n")
    show(fields)
    return 0


def change(words: list[bytes], env: dict[str, str]) -> int:
    service, user, old, new = words
    if not all(words):
        return failed(EPERM)
    question = authsocket.passwd(service, user, old, new)
    if authsocket.ask(question, Settings(env)) != authsocket.OK:
        return failed(EPERM)
    print("Password change succeeded.", file=sys.stderr)
    return 0


def ask_chain(words: list[bytes], modules: list[str], env: dict[str, str]) -> int:
    service, user, *secret = words
    record = encode(service, LOGIN if secret else EXTERNAL, user, *secret)
    width = max(map(len, modules))
    fields = None
    reason = EPERM
    for name in modules:
        if fields or reason == EIO:
            print(f"{name:{width}}           not asked")
            continue
        verdict = chain.ask(name, record, env)
        print(f"{name:{width}}  {verdict.seconds:6.3f} s {verdict.answer}", flush=True)
        fields = verdict.fields
        reason = EPERM if verdict.answer == chain.REJECTED else EIO
    if not fields:
        return failed(reason)
    print()
    show(fields)
    return 0


def show(fields: Fields) -> None:
    """The account, as Courier's authtest shows it; without the passwords that nobody told."""
    shown = {name.decode("ascii", "replace"): os.fsdecode(value) for name, value in fields.items()}
    who = f"(uid {shown.get('UID')}, gid {shown.get('GID')})"
    if "USERNAME" in shown:
        who = f"(system username: {shown['USERNAME']})"
    for label, value in {
        "Authenticated": f"{shown.get('ADDRESS', '')}  {who}",
        "Home Directory": shown.get("HOME"),
        "Maildir": shown.get("MAILDIR"),
        "Quota": shown.get("QUOTA"),
        "Encrypted Password": shown.get("PASSWD"),
        "Cleartext Password": shown.get("PASSWD2"),
        "Options": shown.get("OPTIONS"),
    }.items():
        print(f"{label:>18}: {value or '(none)'}")


def failed(number: int) -> int:
    print(f"Authentication FAILED: {os.strerror(number)}", file=sys.stderr)
    return 1
