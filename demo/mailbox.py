"""mailbox.py HOME USER PASSWORD UID GID - make an account for authuserdb, and a Maildir with mail

Writes HOME/userdb and HOME/Maildir.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from email.message import EmailMessage
from email.utils import formatdate

LETTERS = {
    "Welcome": "This mailbox is served by courierpop3d, at the end of a chain of programs.\n",
    "Dots": "The next line begins with a dot, and arrives with just one:\n.like this\n",
}


def main(home: str, user: str, password: str, uid: str, gid: str) -> None:
    for folder in ("new", "cur", "tmp"):
        os.makedirs(f"{home}/Maildir/{folder}")
    for number, (subject, text) in enumerate(LETTERS.items(), 1):
        with open(f"{home}/Maildir/new/{1700000000 + number}.demo.localhost", "wb") as file:
            file.write(letter(subject, text, user))
    record = f"uid={uid}|gid={gid}|home={home}|systempw={hashed(password)}"
    descriptor = os.open(f"{home}/userdb", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(f"{user}\t{record}\n")


def letter(subject: str, text: str, user: str) -> bytes:
    message = EmailMessage()
    message["From"] = "Demo <demo@localhost>"
    message["To"] = f"{user}@localhost"
    message["Subject"] = subject
    message["Date"] = formatdate()
    message.set_content(text)
    return message.as_bytes()


def hashed(password: str) -> str:
    """In the form {SSHA}: SHA-1 of password and four octets of salt."""
    salt = os.urandom(4)
    digest = hashlib.sha1(password.encode() + salt).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
