r"""What a client says to Cyrus's pop3d and to ours; and in what their answers differ, and why

A conversation is a service of SERVICES, and its sessions: lines, each of which goes out with CRLF.
@LOGIN stands for USER, of the conversation's own, and PASS. All is sent at once (both announce
PIPELINING), and the client ends its side then. c10_NN in a name is a row of the checklist: see
tests/test_conformance_index.py.
"""

from __future__ import annotations

import re
from base64 import b64encode

SERVICES = {  # options of imapd.conf
    "plain": {},
    "minimal": {"serverinfo": "min", "uidl_format": "dovecot", "allowapop": "no"},
    "silent": {"serverinfo": "off", "allowplaintext": "no"},
    "courier": {"uidl_format": "courier", "popuseimapflags": "yes", "popexpiretime": "3"},
    "sub": {"popsubfolders": "yes", "uidl_format": "uidonly", "popminpoll": "5"},
    "dots": {"unixhierarchysep": "no", "username_tolower": "no", "readonly": "yes"},
    "secure": {"tls_required": "yes"},
    "limited": {"maxlogins_per_user": "1", "maxlogins_per_host": "9"},
}

MESSAGES = (
    b"Subject: short\r\n\r\nLine 1\r\nLine 2\r\nLine 3\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.one\r\n \r\n\r\n.\r\n",
    b"Subject: empty\r\n\r\n",
    b"Subject: \xe4\xff\r\nX-Long: " + b"x" * 900 + b"\r\n\r\n" + b"y" * 900 + b"\r\n\tz \r\n",
    b"Subject: no body at all\r\n",
)

RESPONSE = b64encode(b"\0nobody\0wrong").decode()
AGAIN = "@LOGIN\nSTAT\nUIDL\nQUIT"

CONVERSATIONS: dict[str, tuple[str, ...]] = {
    "c10_33 nothing": ("plain", ""),
    "c10_33 greeting": ("minimal", "QUIT"),
    "c10_33 silence": ("silent", "CAPA\nUSER x\nPASS x\nAUTH\nQUIT"),
    "before": (
        "plain",
        "CAPA\nCAPA x\nNOOP\nSTAT\nLIST\nRETR 1\nDELE 1\nRSET\nTOP 1 1\nUIDL\nLAST\nXSENDER 1\n"
        "UTF8\nLANG\nAPOP\n\n CAPA\ncapa \nUSER\nUSER \nPASS\nPASS \nQUIT x\nQUIT\nNOOP",
    ),
    "c10_39 passwords": (
        "plain",
        "PASS x\nUSER a/b\nUSER a%b\nUSER a*b\nUSER a:b\nUSER a?b\nUSER a&b\nUSER a b\nPASS x\n"
        "USER nobody\nUSER other\nPASS wrong\nPASS wrong\nUSER ..\nPASS x\nUSER NoBody\nPASS x\n"
        f"USER {'x' * 80}\nPASS x\nUSER {'x' * 81}\nUSER a\x7fb\nUSER \xe4\n"
        "USER anonymous\nPASS x\nUSER x\nQUIT",
    ),
    "c10_35 sasl": (
        "plain",
        f"AUTH\nAUTH \nAUTH PLAIN {RESPONSE}\nAUTH plain\n*\nAUTH PLAIN\n{RESPONSE}\nAUTH NOTHING\n"
        "AUTH PLAIN !!!!\nAUTH PLAIN =\nAUTH LOGIN\nbm9ib2R5\nd3Jvbmc=\nAUTH CRAM-MD5 bm9ib2R5\n"
        "QUIT",
    ),
    "c10_36 texts": (
        "plain",
        "@LOGIN\nSTAT\nSTAT x\nLIST\nLIST 2\nLIST 2 \nLIST 2 x\nLIST 2x\nLIST x\nLIST 0\nLIST 6\n"
        "LIST -1\nLIST 4294967295\nLIST 4294967296\nUIDL\nUIDL 1\nUIDL 9\nUIDL x\nRETR\nRETR x\n"
        "RETR 0\nRETR 6\nRETR 1 2\nTOP\nTOP 1\nTOP 1 \nTOP x 1\nTOP 1 x\nTOP 1xyz 2\nTOP 1 2xyz\n"
        "TOP 1 2 3\nTOP 1 2 \nTOP 9 1\nTOP 1 -1\nDELE\nDELE x\nDELE 9\nNOOP\nNOOP x\nRSET x\nRSET\n"
        "USER x\nPASS x\nAPOP x y\nAUTH PLAIN\nSTLS\nLAST\nXTND\nnoop\n\n NOOP\nCAPA\nCAPA x\n"
        "QUIT x\nQUIT\nSTAT",
    ),
    "c10_46 mail": (
        "plain",
        "@LOGIN\nRETR 1\nRETR 2\nRETR 3\nRETR 4\nRETR 5\nTOP 1 0\nTOP 1 1\nTOP 1 9\nTOP 2 2\n"
        "TOP 3 0\nTOP 3 5\nTOP 5 0\nTOP 5 1\nTOP 4 4294967295\nTOP 4 4294967296\nQUIT",
    ),
    "c10_48 removal": (
        "plain",
        "@LOGIN\nDELE 2\nDELE 2\nRETR 2\nLIST 2\nUIDL 2\nTOP 2 0\nSTAT\nLIST\nUIDL\nRSET\nSTAT\n"
        "DELE 1\nDELE 5\nDELE 3\nSTAT\nLIST\nUIDL\nQUIT",
        AGAIN,
    ),
    "c10_47 dropped": ("plain", "@LOGIN\nDELE 1\nDELE 2\nSTAT", AGAIN),
    "c10_45 ids of dovecot's": ("minimal", "@LOGIN\nUIDL\nUIDL 3\nCAPA\nQUIT"),
    "c10_45 flags": (
        "courier",
        "@LOGIN\nCAPA\nUIDL\nUIDL 2\nRETR 1\nTOP 2 1\nDELE 3\nRSET\nRETR 2\nQUIT",
        AGAIN,
    ),
    "c10_52 folder": ("sub", "USER @NAME+Lists\nPASS secret\nSTAT\nLIST\nUIDL\nQUIT"),
    "c10_52 no such folder": ("sub", "USER @NAME+Nothing/at/all\nPASS secret"),
    "c10_42 polls": ("sub", "@LOGIN\nCAPA\nUIDL\nNOOP\nQUIT", "@LOGIN"),
    "dots": ("dots", "USER a.b\nUSER A\nPASS x\n@LOGIN\nDELE 1\nSTAT\nQUIT"),
    "secure": ("secure", "CAPA\nUSER x\nPASS x\nAUTH PLAIN\nAUTH\nAPOP x y\nQUIT"),
    "digests": (
        "plain",
        "APOP\nAPOP x\nAPOP x y\nAPOP x \nAPOP  x y\nAPOP a/b 0123456789abcdef0123456789abcdef\n"
        "APOP nobody 0123456789abcdef0123456789abcdef\nAPOP @NAME 0123456789abcdef0123456789abcdef"
        "\nUSER x\nAPOP x y\nQUIT",
    ),
}

# What is not the same twice, or names the product.
CHANGING = (
    (r"Cyrus POP3 \S+|courierpop3", "PRODUCT"),
    (r"SESSIONID=<mail\.example(-\d+){4}>", "SESSIONID=<...>"),
    (r"^(\+OK )?(\d+) \d{10}([.-]\d+)$", r"\1\2 VALIDITY\3"),
    (r"^(\+OK )?(\d+) (0000000\d)[0-9a-f]{8}$", r"\1\2 \3VALIDITY"),
    (r"<\d+\.\d+@mail\.example>", "<CHALLENGE>"),
    (r"^USAGE (\S+) user: \d+\.\d{6} sys: \d+\.\d{6}$", r"USAGE \1 ..."),
)

# Conversation, what Cyrus's says, what ours says, and why.
DIFFERENCES = (
    (
        "c10_35 sasl",
        "-ERR [AUTH] authenticating: bad protocol / cancel",
        "-ERR [AUTH] authenticating: authentication failure",
        "an initial response to a mechanism that begins with a challenge is a guess, not a mistake",
    ),
    (
        "c10_52 no such folder",
        "-ERR [SYS/TEMP] Unable to open maildrop: Mailbox already exists",
        "-ERR [SYS/TEMP] Unable to open maildrop: Mailbox does not exist",
        "3.6 with autocreate says what isn't true",
    ),
)

# What is logged: a pattern of Cyrus's text, ours, and why. Both are compared after that.
LOGGED = (
    (r"localhost \[127", "[127", "names are looked up by couriertcpd, or not at all"),
    (r"user not found|authentication failure", "REFUSED", "no module says which it was"),
    (
        r"(PLAIN|LOGIN) \(.*\) \[.*REFUSED.*\]$",
        r"\1 REFUSED",
        "a login by AUTH that is refused is named in the words of one by PASS, with its user",
    ),
    (
        r"CRAM-MD5 \(-notset-\) \[.*\]$",
        r"CRAM-MD5 REFUSED",
        "as in the reply: see the table of differences",
    ),
    (
        r"(APOP .* SASL\(-13\):) .*",
        r"\1 ...",
        "Cyrus's says how its library failed, ours whom the digest was for",
    ),
    (r"\((a b|a\^\?b|d|a\.b|\.)\)", "(ODD)", "a blank or a control byte is a dot in a log line"),
    (r"^autocreateinbox: .*", "", "nobody creates mailboxes at a login"),
    (r"^Unable to open maildrop.*", "Unable to open maildrop", "the name is in the line before"),
    (r"^user\.\S+: Logins must be.*", "", "the client is told"),
    (r"^USAGE .*", "", "is compared where there was a session; Cyrus has one for who never was in"),
    (r"^(Connection|Disconnected), .*", "", "debugging lines of the chain"),
    (r".*: no effect over Maildirs: .*", "", "ours says once which options do nothing"),
)


def plain(text: str, rules: tuple[tuple[str, ...], ...]) -> str:
    for pattern, replacement, *_ in rules:
        text = re.sub(pattern, replacement, text)
    return text
