"""Debian's courierpop3d and ours, with the same commands on the same Maildirs.

What differs is in this file, with its reason: in octets_more(), as_we_send() and told_apart() for
messages, in READ_BETTER for lists, in DIFFERENT for replies, and in the tests of the log. An
original of Courier's 5.0 series (Debian 12) has no LANG yet, and no stls=1 in its LOGIN line.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from courierchain import handover
from courierpop3d import index
from courierpop3d.main import main
from tests.conftest import DEADLINE, ROOT, has_newer_courier, needs, wait_until
from tests.courierpop3d.conftest import USER, Box

ORIGINAL = "/usr/lib/courier/courier/courierpop3d"
ENV = {"AUTHENTICATED": "joe", "UTF8": "1"}

# Sent behind every command. The two replies to it are together not part of any other reply.
FENCE = b"FENCE\r\nNOOP\r\n"
FENCED = b"-ERR Invalid command.\r\n+OK Yup.\r\n"

QUIT = b"QUIT\r\n"
MAIL = b"Subject: x\n\nLine 1\n"


@pytest.fixture(scope="module", autouse=True)
def _the_original_is_here():
    needs(ORIGINAL)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A directory for mailboxes that hypothesis makes."""
    return tmp_path_factory.mktemp("homes")


# Without a search for the smallest example that fails, which would take minutes.
quickly = settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])


# The two servers


def original(maildir: str, env: dict[str, str]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(ORIGINAL, [ORIGINAL, maildir], env)


def ours(maildir: str, env: dict[str, str]) -> None:
    os._exit(handover.run(main, ["courierpop3d", maildir], env))


Server = Callable[[str, dict[str, str]], None]  # what a process becomes
SERVERS: tuple[Server, Server] = (original, ours)


def give_to_user(home: Path) -> None:
    """What is the user's already is left alone, as lchown(2) changes times."""
    for path in (home, *home.rglob("*")):
        if ROOT and path.lstat().st_uid != USER:
            os.lchown(path, USER, USER)


class Live:
    """A server at work on a mailbox, and its client, who may have said all that he has to say."""

    def __init__(
        self,
        server: Server,
        box: Box,
        script: bytes = b"",
        maildir: str = "./Maildir",
        **env: str | None,
    ):
        given = {name: value for name, value in {**ENV, **env}.items() if value is not None}
        self._log = tempfile.TemporaryFile()
        self.socket, connection = socket.socketpair()
        self.socket.settimeout(DEADLINE)
        self.file = self.socket.makefile("rb")
        if script:
            self.socket.sendall(script)
            self.socket.shutdown(socket.SHUT_WR)
        give_to_user(box.home)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._enter(box.home, connection.fileno())
                server(maildir, given)
            finally:
                os._exit(99)
        connection.close()

    def _enter(self, home: Path, connection: int) -> None:
        os.chdir(home)
        for number, descriptor in enumerate((connection, connection, self._log.fileno())):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        if ROOT:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)

    def ask(self, command: bytes) -> bytes:
        """The status line that answers a command."""
        self.socket.sendall(command + b"\r\n")
        return self.file.readline()

    def rest(self) -> bytes:
        """What comes until the server closes."""
        text = b""
        try:
            while more := self.file.read1():
                text += more
        except ConnectionResetError:
            pass  # closed with commands unread: nothing is lost of what came before
        return text

    def end(self) -> tuple[int, bytes]:
        """Exit status and log, once the server has ended."""
        self.file.close()
        self.socket.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._log.seek(0)
        with self._log:
            return status, self._log.read()


class Session:
    """What a server answers and logs, and what is in the Maildir behind it.

    The time is masked: time= is 0, and seconds since 1970, as in ids of new lists, are NOW, unless
    `shows_time`.
    """

    def __init__(
        self,
        server: Server,
        box: Box,
        *commands: bytes,
        ending: bytes = QUIT,
        shows_time: bool = False,
        **env: str | None,
    ):
        self._shows_time = shows_time
        self._begun = int(time.time())
        script = FENCE + b"".join(line + b"\r\n" + FENCE for line in commands) + ending
        live = Live(server, box, script, **env)
        output = live.rest()
        self.status, log = live.end()
        self._ended = int(time.time())
        self.greeting, *self.replies = self.timeless(output).split(FENCED)
        self._reply = dict(zip(commands, self.replies, strict=False))
        self.log = re.sub(rb"time=\d+", b"time=0", log).decode("latin-1").splitlines()
        cur = box.path / "cur"
        self.names = sorted(os.listdir(os.fsencode(cur))) if cur.exists() else []
        self.list = self.timeless(box.list.read_bytes()) if box.list.exists() else b""

    def __getitem__(self, command: bytes) -> bytes:
        return self._reply[command]

    def ids(self) -> list[bytes]:
        return [line.partition(b" ")[2] for line in self[b"UIDL"].split(b"\r\n")[1:-2]]

    def timeless(self, text: bytes) -> bytes:
        def mask(found: re.Match[bytes]) -> bytes:
            return b"NOW" if self._begun <= int(found[0]) <= self._ended else found[0]

        if self._shows_time:
            return text
        return re.sub(rb"\d{10}", mask, text)


def entries(text: bytes) -> list[tuple[bytes, int, bytes]]:
    """Name, size and id of the entries in a list. An id without U means to the original U = 0."""
    found = []
    for line in text.split(b"\n")[1:-1]:
        name, size, uid = line.rsplit(b" ", 2)
        found.append((name, int(size), uid if uid.count(b":") == 2 else uid + b":0"))
    return found


def unknown(text: bytes) -> set[bytes]:
    """The messages without U: nobody has looked into their headers yet."""
    return set(re.findall(rb"^(.*) \d+ \d+:[^:\n]+$", text, re.MULTILINE))


# Where a message differs


def octets_more(content: bytes) -> int:
    """What we count and Courier 5 doesn't: the line end that is added at the end (1939-24), and a
    CR before it. What Courier alone counts: the CR that it puts into a CRLF (ROB-11)."""
    more = -content.count(b"\r\n")
    if content and not content.endswith(b"\n"):
        more += 3 if content.endswith(b"\r") else 2
    return more


def as_we_send(theirs: bytes, content: bytes) -> bytes:
    """A stored CRLF is sent as CRLF, not as CR CR LF (ROB-11); a dot in the first place is doubled
    (1939-06); an empty message is sent as nothing, not as an empty line (1939-24)."""
    if not content:
        return b""
    sent = theirs.replace(b"\r\r\n", b"\r\n", content.count(b"\r\n"))
    return b"." + sent if content.startswith(b".") else sent


def has_same_top(content: bytes) -> bool:
    """Courier finds no end of the header if it is CRLF, or at the very beginning (1939-30)."""
    return b"\r" not in content and not content.startswith(b"\n")


def unwrapped(sent: bytes) -> bytes:
    """A wrapped message without its boundary, CR CR LF, and the address that has moved since."""
    sent = re.sub(rb"=_\d+-(\d+|NOW)", b"=_B", sent).replace(b"\r\r\n", b"\r\n")
    return re.sub(rb"see https://(tools|datatracker)\.ietf\.org/.*rfc6856(\.html)?", b"see", sent)


# Any mailbox


class Mailbox:
    """contents: by folder and name. listed: courierpop3dsizelist, if there is one."""

    def __init__(self, contents: dict[bytes, bytes], listed: bytes | None = None):
        self.contents = contents
        self.listed = listed
        self._by_base = {base(path[4:]): content for path, content in contents.items()}

    def __repr__(self) -> str:
        return f"Mailbox({self.contents!r}, {self.listed!r})"

    def content(self, name: bytes) -> bytes:
        return self._by_base[base(name)]

    def served(self, server: Server, place: Path, *commands: bytes, **env: str) -> Session:
        with tempfile.TemporaryDirectory(dir=place) as home:
            box = Box(Path(home))
            for path, content in self.contents.items():
                box.put(path, content)
            if self.listed is not None:
                box.list.write_bytes(self.listed)
            return Session(server, box, *commands, **env)


def base(name: bytes) -> bytes:
    return name.partition(b":")[0]


# Not in here: a line `CR CR LF` (to us it ends the header), and 8-bit octets in a last line without
# its end (the original overlooks them when it looks for Unicode headers).
TEXTS = (b"", b".", b"..", b".x", b"Line 1", b"x" * 3000, b"From x", b"a\0b", b"a\rb", b"S: y")
lines = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from([b"Subject: \xe9", b"\xd0\xb6"]),
    st.binary(max_size=12).map(lambda octets: octets.replace(b"\n", b"").rstrip(b"\r")),
)
ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n"])
contents = st.builds(
    lambda pairs, last: b"".join(line + end for line, end in pairs) + last,
    st.lists(st.tuples(lines, ends), max_size=6),
    st.sampled_from([b"", b"", b"", b"x", b".", b"x\r"]),
)

FRONTS = (
    *(b"", b"1", b"007", b"1600000001", b"-5", b"+3", b" 4", b"\t2", b"0x10"),
    *(b"9223372036854775807", b"18446744073709551616", b"9" * 25, b"-" + b"9" * 25),
)
MIDDLES = (
    *(b".a", b".M1P2.host", b".M1P2.host,S=12", b".M1P2.host,S=12,W=14", b".h,W=3", b".a b"),
    *(b".\xe9", b".'\"+", b"..", b"", b",", b"!", b".Q\x01", b"\x80", b"\xff\x7f"),
)
INFOS = (
    *(b"", b"", b":2,", b":2,", b":2,S", b":2,FS", b":2,T", b":2,Sab", b":1,x", b":1,S"),
    *(b":", b":3", b":2", b"::2,S", b":2,:S", b":2,x:2,S"),
)
middles = st.binary(max_size=6).map(lambda octets: octets.translate(None, b"/\0\n:"))
names = st.builds(
    lambda *parts: b"".join(parts),
    st.sampled_from(FRONTS),
    st.one_of(st.sampled_from(MIDDLES), middles),
    st.sampled_from(INFOS),
).filter(lambda name: name[:1] not in (b"", b".", b":"))


def told_apart(names: list[bytes]) -> list[bytes]:
    """Names that differ before the colon, as the original swaps the others' ids; and none without a
    colon that is the beginning of another, as we sort those as if they had flags already."""
    by_base = {base(name): name for name in names}
    return [
        name
        for name in by_base.values()
        if b":" in name or not any(other != name and other.startswith(name) for other in by_base)
    ]


FROM_LIST = 100_000  # sizes in lists; no message has as many octets
NOISE = (
    *(b"", b" ", b"x", b"garbage", b"a 5", b"a  1:2:0", b"a 5 x:1:0", b"a 5 1:", b"a x 1:2:0"),
    *(b"\0\0", b"/3 x 5", b"a 5 1", b"zz y 1:2:3", b"a 5 7::0", b"a 5 :9:0", b"a 5 1:2:x"),
)
FLAGS = (b":2,", b":2,S", b":2,TS", b":1,x", b":")
identities = st.tuples(st.integers(0, 19), st.sampled_from([99, 99, 0, 7]))


@st.composite
def lists(draw, kept: list[bytes]) -> bytes:
    """A list with some of the messages in it, messages that have gone, and lines that are none."""
    version = draw(st.sampled_from([b"2", b"3", b"3"]))
    gone = told_apart(kept + draw(st.lists(names, max_size=3)))[len(kept) :]
    listed = [name for name in kept if draw(st.booleans())]
    listed += [name for name in gone if b":" in name]
    given = draw(st.lists(identities, min_size=10, max_size=10, unique=True))
    text = []
    for name, (number, validity) in zip(listed, given, strict=False):
        flags = draw(st.sampled_from(FLAGS)) if b":" in name else b""
        size = draw(st.integers(FROM_LIST, 2 * FROM_LIST))
        unicode = draw(st.sampled_from([b"", b":0", b":1"])) if version == b"3" else b""
        text.append(b"%s %d %d:%d%s" % (base(name) + flags, size, number, validity, unicode))
    text = draw(st.permutations(text + draw(st.lists(st.sampled_from(NOISE), max_size=3))))
    validity = draw(st.sampled_from([b" 99", b" 99", b""]))
    first = b"/%s %d%s" % (version, draw(st.integers(20, 10**9)), validity)
    cut = draw(st.sampled_from([b"", b"", b"cut 5 1:2", b"1.a:2, 5 900:1:0"]))
    return b"\n".join([first, *text, cut])


@st.composite
def mailboxes(draw) -> Mailbox:
    stored = {}
    for name in told_apart(draw(st.lists(names, max_size=6))):
        stored[draw(st.sampled_from([b"new/", b"cur/"])) + name] = draw(contents)
    in_cur = [path[4:] if path[:4] == b"cur/" else path[4:] + b":" for path in stored]
    return Mailbox(stored, draw(st.none() | lists(in_cur)))


FETCHES = (b"TOP %d 0", b"TOP %d 1", b"RETR %d")


@settings(quickly, max_examples=200)
@given(mailboxes(), st.sampled_from("01"))
def test_1939_39_any_mailbox_has_the_same_ids_order_names_and_list(place, mailbox, utf8):
    numbers = range(1, len(mailbox.contents) + 1)
    commands = [b"UIDL", b"LIST", b"STAT", *(fetch % n for fetch in FETCHES for n in numbers)]
    theirs, mine = [mailbox.served(each, place, *commands, UTF8=utf8) for each in SERVERS]
    assert (theirs.status, mine.status) == (0, 0)
    assert mine.greeting == theirs.greeting
    assert mine.names == theirs.names
    assert mine.ids() == theirs.ids()
    if mailbox.listed is not None and theirs.list == mailbox.listed:
        assert mine.list == theirs.list
        assert mine.replies[:3] == theirs.replies[:3]
    else:
        assert_same_list(mailbox, theirs, mine)
        assert_same_text(mailbox, theirs, mine, wraps=utf8 == "0")


def assert_same_list(mailbox: Mailbox, theirs: Session, mine: Session) -> None:
    """The same but for sizes that are measured now, and LIST and STAT are according to it."""
    assert mine.list.partition(b"\n")[0] == theirs.list.partition(b"\n")[0]
    expected = [
        (name, size if size >= FROM_LIST else size + octets_more(mailbox.content(name)), uid)
        for name, size, uid in entries(theirs.list)
    ]
    assert entries(mine.list) == expected
    lines = [b"%d %d\r\n" % (number, size) for number, (_, size, _) in enumerate(expected, 1)]
    assert mine[b"LIST"].partition(b"\r\n")[2] == b"".join(lines) + b".\r\n"
    assert mine[b"STAT"] == b"+OK %d %d\r\n" % (len(expected), sum(size for _, size, _ in expected))


def assert_same_text(mailbox: Mailbox, theirs: Session, mine: Session, *, wraps: bool) -> None:
    """RETR and TOP of all messages. A message without U only we look into, to wrap it (6856-05)."""
    left_out = unknown(mine.list) if wraps else set()
    listed = zip(entries(theirs.list), entries(mine.list), strict=True)
    for number, ((name, _, uid), (_, my_size, _)) in enumerate(listed, 1):
        if name in left_out:
            continue
        content = mailbox.content(name)
        is_wrapped = wraps and uid.endswith(b":1")
        for command in [fetch % number for fetch in FETCHES]:
            status, _, sent = theirs[command].partition(b"\r\n")
            my_status, _, my_sent = mine[command].partition(b"\r\n")
            assert sent.endswith(b".\r\n")
            if is_wrapped:
                assert unwrapped(my_sent) == unwrapped(sent)
            elif command.startswith(b"RETR") or has_same_top(content):
                assert my_sent == as_we_send(sent[:-3], content) + b".\r\n"
            if command.startswith(b"TOP"):
                assert my_status == status
            elif not is_wrapped:
                assert my_status == b"+OK %d octets follow." % my_size


# Unicode messages


TEXT_LINES = (b"text", b"", b"b\xe9dy", b"--x", b"-- ", b".", b"--B9", b"Subject: \xe9")
HEADERS = (
    *(b"Subject: x", b"X-A: b\n c", b"X: " + b"y" * 600, b"no colon here", b"Subject: y"),
    *(b"Content-Transfer-Encoding: 8bit", b"Content-Disposition: attachment; filename=boundary"),
)
EIGHT_BIT = (b"Subject: \xe9", b"X-A: b\n c\xc3\xa9", b"\xe9")
LEAVES = (b"text/plain", b"text/html; charset=utf-8", b"message/delivery-status")
MULTIPARTS = (
    *(b"multipart/mixed; boundary=%s", b'multipart/digest; boundary="%s"'),
    *(b'MULTIPART/ALTERNATIVE;\n boundary="%s"', b"Multipart/mixed ; boundary = %s"),
    *(b'multipart/x; charset=x; BOUNDARY="%s"; type=y', b"multipart/x; boundary=%s; boundary=z"),
)
MESSAGES = (b"message/rfc822", b"message/global", b"MESSAGE/RFC822; x=y")


@st.composite
def mime(draw, depth: int = 0, versions: tuple[bytes, ...] = (b"", b"Mime-Version: 1.0")) -> bytes:
    """A message or a part; a message in it has a Mime-Version, as only we look into it without."""

    def some(lines: tuple[bytes, ...], most: int) -> list[bytes]:
        return draw(st.lists(st.sampled_from(lines), max_size=most))

    kinds = (LEAVES, LEAVES, (b"",), MULTIPARTS, MULTIPARTS, MESSAGES)
    types = draw(st.sampled_from(kinds)) if depth < 4 else LEAVES
    kind = draw(st.sampled_from(types))
    boundary = b"B%d" % depth + draw(st.sampled_from([b"", b"a", b"=_x"]))
    headers = [draw(st.sampled_from(versions)), *some(HEADERS, 2), *some((*EIGHT_BIT, b""), 1)]
    headers += [b"Content-Type: " + (kind % boundary if b"%s" in kind else kind)] if kind else []
    head = [line for line in draw(st.permutations(headers)) if line] + [b""]
    if types is MESSAGES:
        inside = [draw(mime(depth + 1, (b"MIME-Version: 1.0 (x)", b"mime-version:1.0")))]
    else:
        inside = some(TEXT_LINES, 3)
    if types is MULTIPARTS:
        for _ in range(draw(st.integers(0, 3))):
            tail = draw(st.sampled_from([b"", b"", b" ", b"zz"]))
            inside += [b"--" + boundary + tail, draw(mime(depth + 1, (b"",)))]
        inside += draw(st.sampled_from([[], [b"--" + boundary + b"--", *some(TEXT_LINES, 3)]]))
    return b"\n".join(head + inside)


@settings(quickly, max_examples=60)
@given(st.lists(mime(), min_size=1, max_size=8), st.sampled_from([b"\n", b"\r\n"]))
def test_6856_04_6856_05_the_same_messages_are_unicode_messages(place, messages, end):
    stored = {
        b"cur/%d:2," % number: (text + b"\n").replace(b"\n", end)
        for number, text in enumerate(messages)
    }
    mailbox = Mailbox(stored)
    theirs, mine = [mailbox.served(server, place, b"LIST", b"STAT") for server in SERVERS]
    assert_same_list(mailbox, theirs, mine)


# What is larger, deeper, or not whole


def served(box: Box, server: Server, *commands: bytes, **env) -> Session:
    """A session on a copy of the box."""
    with tempfile.TemporaryDirectory(dir=box.home.parent) as home:
        copy = Box(Path(home))
        for folder in ("", "new/", "cur/", "tmp/"):
            for entry in os.scandir(os.path.join(box.path, folder)):
                if entry.is_file():
                    copy.put(folder + entry.name, Path(entry.path).read_bytes())
        return Session(server, copy, *commands, **env)


def both(box: Box, *commands: bytes, **env) -> tuple[Session, Session]:
    return served(box, original, *commands, **env), served(box, ours, *commands, **env)


def test_1939_24_a_message_of_many_parts_has_its_true_size_here(box):
    """The original stops counting lines somewhere beyond 300 parts."""
    parts = b"".join(b"--B\n\nx%d\n" % number for number in range(400))
    content = b"Mime-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n" + parts
    box.put("cur/1.a:2,", content)
    theirs, mine = both(box, b"STAT", b"RETR 1")
    octets = len(content) + content.count(b"\n")
    assert theirs[b"STAT"] == b"+OK 1 3846\r\n"
    assert mine[b"STAT"] == b"+OK 1 %d\r\n" % octets
    assert mine[b"RETR 1"].partition(b"\r\n")[2] == theirs[b"RETR 1"].partition(b"\r\n")[2]
    assert len(theirs[b"RETR 1"].partition(b"\r\n")[2]) == octets + len(b".\r\n")


def test_6856_05_many_names_with_sizes_in_them_give_the_same_ids_and_sizes(box):
    """But nobody has looked into their headers. Courier then believes that they are plain."""
    for number in range(150):
        content = b"Subject: \xe9\n\n" + b"x\n" * number
        sizes = len(content), len(content) + content.count(b"\n")
        box.put(b"new/%d.M1.host,S=%d,W=%d" % (1000 + number, *sizes), content)
    theirs, mine = both(box, b"UIDL", b"LIST", b"STAT", b"RETR 77")
    assert mine.replies == theirs.replies
    plain = [(name, size, uid[:-1] + b"0") for name, size, uid in entries(theirs.list)]
    assert entries(mine.list) == plain
    assert len(unknown(mine.list)) == 150


def test_6856_05_a_header_cut_off_in_an_8_bit_line_is_one_here(box):
    box.put("cur/1.a:2,", b"Subject: x\nX: \xe9")
    theirs, mine = both(box, b"UIDL")
    assert [entries(each.list)[0][2] for each in (theirs, mine)] == [b"1:NOW:0", b"1:NOW:1"]


def test_1939_37_an_id_made_of_a_name_is_the_same(box):
    name = bytes(octet for octet in range(1, 256) if octet not in b"\n/:")
    for number, part in enumerate((name[:120], name[120:]), 1):
        box.put(b"cur/%d%s:2," % (number, part), MAIL)
    box.list.write_bytes(
        b"/3 9 99\n1%s:2,S 22 0:99:0\n2%s:2, 22 0:0:0\n" % (name[:120], name[120:])
    )
    theirs, mine = both(box, b"UIDL")
    assert mine.ids() == theirs.ids()
    assert mine.ids()[0].startswith(b"1+01+02") and mine.ids()[1].endswith(b"+FE+FF")


def test_a_name_without_flags_comes_before_those_that_begin_like_it(box):
    for name in ("1.a", "1.a,S=5:2,", "1.a b:2,"):
        box.put("cur/" + name, MAIL)
    theirs, mine = both(box, b"UIDL")
    for each in (theirs, mine):
        listed = [name for name, _, _ in entries(each.list)]
        assert listed == [b"1.a", b"1.a b:2,", b"1.a,S=5:2,"]


def test_what_is_old_in_tmp_goes(box):
    for name, age in {"old": 49, "young": 47, ".old": 49, "1.M2P3_pop3.host": 1000}.items():
        box.put("tmp/" + name)
        then = time.time() - age * 3600
        os.utime(box.path / "tmp" / name, (then, then))
    left = []
    for server in SERVERS:
        Session(server, box)
        left.append(box.names("tmp"))
        box.put("tmp/old")
        os.utime(box.path / "tmp/old", (then, then))
    assert left == [[".old", "young"]] * 2


# Lists that are damaged, edited, or of other versions


ENTRY = b"\n1.a:2, 55 7:99:0\n"
READ_ALIKE = [
    *[
        first + ENTRY
        for first in (
            *(b"/3  9  99", b"/03 9 99", b"/ 3 9 99", b"/3\t9\t99", b"/3 9 99\r", b"/2 9 99"),
            *(b"/4 50 777", b"/0 7 8", b"3 9 99", b"\0/3 9 99", b"/3 9", b"/2 9"),
            b"/3 9999999999999999999 99",
        )
    ],
    *[
        b"/3 9 99\n1.a:2, %s\n" % fields
        for fields in (
            *(b"55 7:99:1", b"55 7:99", b"55 07:099:0", b"055 7:99:0", b"4294967297 7:99:0"),
            *(b"55 0:99:0", b"55 7:0:0", b"55 0:0:0", b"55 7:98:0", b"55 7 99:0"),
            *(b"55 7:99:x", b"55 7", b"55 7:", b"55 :99:0", b"55 7::0", b"5x 7:99:0", b" 7:99:0"),
            *(b"55 7:99:0 ", b"55  7:99:0", b"x 7:99:0"),
        )
    ],
    *[b"/3 9 99\n%s 55 7:99:0\n" % name for name in (b"1.a:1,x", b"1.a:", b"", b"1.a:2, ")],
    *[b"/3 9 99%s0.gone:2, 5 3:99:0\n" % ENTRY, b"/3 9 99\n1.a:2, 55 7:99:0"],
]

NOW2 = [b"UID1-NOW", b"UID2-NOW"]
READ_BETTER = {
    # Behind a first line without sense entries keep their ids (F-FILE-8).
    **{
        first + ENTRY: (NOW2, [b"UID7-99", b"UID1-NOW"])
        for first in (b"/3", b"/", b"", b"garbage", b"/3x 9 99")
    },
    # Lists of the versions before 2 have the meaning that they had then (1939-39).
    b"1.a:2, 55\n": (NOW2, [b"1.a", b"UID1-NOW"]),
    b"/1 50\n1.a:2, 55 7\n": ([b"UID50-NOW", b"UID51-NOW"], [b"UID7", b"UID50-NOW"]),
    # A number is 19 digits and nothing else; the original reads with sign, and modulo 2**64.
    b"/3 -1 99" + ENTRY: ([b"UID7-99", b"UID18446744073709551615-99"], [b"UID7-99", b"UID1-NOW"]),
    b"/3 9 99\n1.a:2, 55 -1:99:0\n": (
        [b"UID18446744073709551615-99", b"UID9-99"],
        [b"UID9-99", b"UID10-99"],
    ),
    # No number is given out twice, and none is 0 (1939-38, 1939-40).
    b"/3 7 99" + ENTRY: ([b"UID7-99", b"UID7-99"], [b"UID7-99", b"UID8-99"]),
    b"/3 0 99" + ENTRY: ([b"UID7-99", b"2.b"], [b"UID7-99", b"UID8-99"]),
    b"/3 9 99%s2.b:2, 55 7:99:0\n" % ENTRY: ([b"UID7-99"] * 2, [b"UID7-99", b"UID9-99"]),
    # A name is the same with flags and without (1939-41).
    b"/3 9 99\n1.a 55 7:99:0\n": ([b"UID9-99", b"UID10-99"], [b"UID7-99", b"UID9-99"]),
}


@pytest.mark.parametrize("listed", READ_ALIKE)
def test_F_FILE_8_a_strange_list_is_read_alike(box, listed):
    box.put("cur/1.a:2,", MAIL)
    box.put("new/2.b", MAIL)
    box.list.write_bytes(listed)
    theirs, mine = both(box, b"UIDL", b"LIST")
    assert mine.replies == theirs.replies
    assert mine.list.partition(b"\n")[0] == theirs.list.partition(b"\n")[0]
    assert entries(mine.list) == entries(theirs.list)


@pytest.mark.parametrize("listed", READ_BETTER)
def test_1939_38_1939_39_1939_40_F_FILE_8_a_strange_list_is_read_better(box, listed):
    box.put("cur/1.a:2,", MAIL)
    box.put("new/2.b", MAIL)
    box.list.write_bytes(listed)
    theirs, mine = both(box, b"UIDL")
    assert (theirs.ids(), mine.ids()) == READ_BETTER[listed]


def test_the_original_takes_what_stands_behind_the_third_part_of_an_id_and_drops_it(box):
    """What our ids from other servers rest on: `N:V:U:TEXT` is N:V:U to Courier."""
    box.put("cur/1.a:2,", MAIL)
    text = bytes(range(0x21, 0x7F))
    for behind in (b":=" + text[:70], b":?" + text[-70:], b":", b":1:2", b":="):
        box.list.write_bytes(b"/3 9 99\n1.a:2, 55 7:99:1%s\n" % behind)
        session = Session(original, box, b"UIDL", b"LIST")
        assert session.ids() == [b"UID7-99"]
        assert session[b"LIST"].endswith(b"\r\n1 55\r\n.\r\n")
        assert session.list == b"/3 9 99\n1.a:2, 55 7:99:1%s\n" % behind
    box.put("new/2.b", MAIL)
    session = Session(original, box, b"UIDL")
    assert session.ids() == [b"UID7-99", b"UID9-99"]
    assert session.list == b"/3 10 99\n1.a:2, 55 7:99:1\n2.b:2, 22 9:99:0\n"


# One mailbox, in turn


SETTLED = 20 * 10**6  # nanoseconds after which a directory's time tells of every change


class Life:
    """A mailbox over time, and which id its messages have had. `bare`: those without flags.

    pause       seconds before each session, in which times of files can become different
    """

    def __init__(self, box: Box, pause: float = 0):
        self.box = box
        self.pause = pause
        self.serial = 0
        self.bare: set[bytes] = set()
        self.id_of: dict[bytes, bytes] = {}
        self.message_of: dict[bytes, bytes] = {}

    def deliver(self, front: bytes, folder: bytes = b"new/") -> None:
        self.serial += 1
        is_bare = folder == b"cur/"
        place = (front, b"b" if is_bare else b"m", self.serial, [b"", b",S=15"][self.serial % 2])
        self.box.put(folder + b"%s.%s%d.host%s" % place, b"Subject: %d\n\nx\n" % self.serial)
        if is_bare:
            self.bare.add(b"%d" % self.serial)

    def files(self) -> dict[bytes, Path]:
        """The messages in cur/."""
        cur = (self.box.path / "cur").iterdir()
        return {path.read_bytes()[9:].partition(b"\n")[0]: path for path in cur}

    def with_flags(self, which: int) -> Path | None:
        files = [path for number, path in self.files().items() if number not in self.bare]
        return sorted(files)[which % len(files)] if files else None

    def change_flags(self, which: int, flags: str) -> None:
        if path := self.with_flags(which):
            path.rename(path.with_name(path.name.partition(":")[0] + flags))

    def remove(self, which: int) -> None:
        files = sorted(self.files().values())
        if files:
            files[which % len(files)].unlink()

    def session(self, server: Server, which: int, verbs: tuple[bytes, ...]) -> None:
        """Look at all ids; then do something with one message."""
        count = len(list((self.box.path / "new").iterdir())) + len(self.files())
        chosen = which % (count or 1) + 1
        if self.bare:
            verbs = tuple(verb for verb in verbs if verb != b"RETR")
        tops = [b"TOP %d 0" % number for number in range(1, count + 1)]
        commands = [b"UIDL", *tops, *(b"%s %d" % (verb, chosen) for verb in verbs if count)]
        give_to_user(self.box.home)
        time.sleep(self.pause)
        session = Session(server, self.box, *commands, shows_time=True)
        shown = [body(session[top])[9:].partition(b"\r\n")[0] for top in tops]
        for message, uid in zip(shown, session.ids(), strict=True):
            assert self.id_of.setdefault(message, uid) == uid
            assert self.message_of.setdefault(uid, message) == message
        gone = {shown[chosen - 1]} if count and b"DELE" in verbs else set()
        assert set(self.files()) == set(shown) - gone


def body(reply: bytes) -> bytes:
    assert reply.startswith(b"+OK ") and reply.endswith(b"\r\n.\r\n"), reply
    return reply.partition(b"\r\n")[2]


fronts = st.sampled_from([b"1", b"22", b"-3", b"1600000001", b"x"])
which = st.integers(0, 99)
events = st.one_of(
    st.tuples(st.just(Life.deliver), fronts),
    st.tuples(st.just(Life.deliver), fronts, st.just(b"cur/")),
    st.tuples(st.just(Life.change_flags), which, st.sampled_from([":2,", ":2,S", ":2,FT", ":1,x"])),
    st.tuples(st.just(Life.remove), which),
)
verbs = st.sampled_from([(), (b"RETR",), (b"DELE",), (b"RETR", b"DELE")])
FIRST_LISTS = (None, b"/2 1 99\n", b"/3 7\n1.m1.host,S=15:2, 900 6:99:0\n", b"/3 20 99\ncut")


@settings(quickly, max_examples=40)
@given(
    st.lists(st.tuples(st.lists(events, max_size=4), which, verbs), max_size=10),
    st.sampled_from(FIRST_LISTS),
    st.sampled_from([SERVERS, SERVERS[::-1]]),
    st.booleans(),
)
def test_1939_39_1939_40_1939_41_ids_last_when_both_serve_a_mailbox_in_turn(
    place, days, first_list, servers, indexed
):
    """But for a name without a colon that gets flags: the original then gives it a new id."""
    with tempfile.TemporaryDirectory(dir=place) as home, pytest.MonkeyPatch.context() as patch:
        life = Life(Box(Path(home)), SETTLED * 1.2e-9 if indexed else 0)
        if indexed:
            patch.setattr(index, "WORTH", 1)
            patch.setattr(index, "SETTLED", SETTLED)
        if first_list is not None:
            life.box.list.write_bytes(first_list)
        for day, (happened, chosen, verbs) in enumerate(days):
            for event, *arguments in happened:
                event(life, *arguments)
            life.session(servers[day % 2], chosen, verbs)


def test_what_the_original_does_beside_our_index_is_not_missed(three, monkeypatch):
    monkeypatch.setattr(index, "WORTH", 1)
    monkeypatch.setattr(index, "SETTLED", SETTLED)

    def ids(server: Server, *commands: bytes) -> list[bytes]:
        give_to_user(three.home)
        time.sleep(SETTLED * 1.2e-9)
        found = Session(server, three, b"UIDL", *commands).ids()
        assert (three.path / index.FILE.decode()).exists()
        return found

    assert ids(ours) == ids(ours) == [b"UID1-99", b"UID2-99", b"UID3-99"]
    ids(original, b"DELE 2")
    assert ids(ours, b"DELE 1") == [b"UID1-99", b"UID3-99"]
    three.put("new/0.x", MAIL)
    assert ids(original) == [b"UID9-99", b"UID3-99"]
    assert ids(ours) == ids(original) == ids(ours)


def test_1939_41_a_name_that_gets_flags_keeps_its_id_here(box):
    box.put("cur/1.a", MAIL)
    box.list.write_bytes(b"/3 9 99\n1.a 55 7:99:0\n")
    for server, uid in zip(SERVERS, (b"UID9-99", b"UID7-99"), strict=True):
        assert served(box, server, b"UIDL", b"RETR 1").ids() == [b"UID7-99"]
        (box.path / "cur/1.a").rename(box.path / "cur/1.a:2,S")
        assert served(box, server, b"UIDL").ids() == [uid]
        (box.path / "cur/1.a:2,S").rename(box.path / "cur/1.a")


# Replies


INVALID = b"-ERR Invalid command.\r\n"
NO_SUCH = b"-ERR Invalid message number.\r\n"
FIRST = b"+OK 1 100\r\n"
TOP = b"+OK headers follow.\r\nSubject: a\r\nFrom: b\r\n\r\n"
TOP_LINES = (b"Line 1\r\n", b"..dot\r\n", b"Line 3\r\n")
YUP = b"+OK Yup.\r\n"
LANGUAGE = b"+OK en King's English\r\n"
LANGUAGES = b"+OK Language listing follows:\r\nen English\r\ni-default Default language\r\n.\r\n"

COMMANDS = (
    *(b"STAT", b"stat", b"StAt", b" STAT", b"\tSTAT", b"\rSTAT", b"STAT x", b"STAT\tx", b"STAT\rx"),
    *(b"\x0bSTAT", b"STAT\x0b", b"STAT\r", b"ST\rAT", b"STATX", b"STA", b"\xff\xfe", b"LIST\r\r"),
    *(b"LIST", b"LIST 1", b"LIST  1", b"LIST\t1", b"LIST 1 2", b"LIST 01", b"LIST 0", b"LIST 4"),
    *(b"LIST -1", b"LIST +1", b"LIST 1x", b"LIST x", b"LIST 1.5", b"LIST 4294967297", b"LIST \xb2"),
    *(b"LIST 18446744073709551617", b"LIST " + b"9" * 30, b"LIST " + b"0" * 39 + b"1"),
    *(b"LIST " + b"0" * 40 + b"1", b"LIST \x0b1", b"LIST " + b" " * 40, b"LIST 4294967296"),
    *(b"UIDL", b"UIDL 1", b"UIDL 0", b"UIDL 9", b"UIDL x", b"uidl 2 3", b"UIDL 1x"),
    *(b"RETR", b"RETR 0", b"RETR 4", b"RETR x", b"RETR 1", b"RETR 1 x", b"RETR 2", b"RETR 3"),
    *(b"TOP", b"TOP 1", b"TOP x", b"TOP 9 x", b"TOP 0 1", b"TOP 1 0", b"TOP 1 1", b"TOP 1 2"),
    *(b"TOP 1 3", b"TOP 1 4", b"TOP 1 99999999", b"TOP 1 -1", b"TOP 1 x", b"TOP 1 2x", b"TOP 1x 2"),
    *(b"TOP 1 2 3", b"TOP 1 +2", b"TOP 2 3", b"TOP 3 0", b"TOP 3 9", b"TOP 1 4294967296"),
    *(b"TOP 1 " + b"9" * 30, b"DELE", b"DELE 0", b"DELE 4", b"DELE x", b"DELE 2"),
    *(b"DELE 2", b"STAT", b"LIST", b"UIDL", b"LIST 2", b"UIDL 2", b"RETR 2", b"TOP 2 0"),
    *(b"DELE 1 3", b"LIST", b"UIDL", b"RSET", b"LIST", b"UIDL", b"RSET x", b"NOOP", b"NOOP x"),
    *(b"noop", b"", b" ", b"\r", b"LAST", b"AUTH", b"AUTH PLAIN", b"STLS", b"USER joe", b"PASS x"),
    *(b"APOP a b", b"XTND", b"RPOP", b"HELP", b"QUITX", b"CAPA", b"CAPA x", b"capa"),
    *(b"LANG", b"LANG en", b"LANG *", b"LANG xx", b"UTF8", b"UTF8 x"),
    *(b"NOOP " + b"x" * 8185, b"NOOP " + b"x" * 8187, b"NOOP " + b"x" * 9000, b"x" * 20000),
    *(b"DELE 3", b"STAT"),
)

DIFFERENT = {
    b"LIST +1": ("1939-42", FIRST, NO_SUCH),
    b"LIST 1x": ("1939-42", FIRST, NO_SUCH),
    b"LIST 1.5": ("1939-42", FIRST, NO_SUCH),
    b"LIST \x0b1": ("1939-42", FIRST, NO_SUCH),
    b"LIST 4294967297": ("1939-42", FIRST, NO_SUCH),
    b"LIST " + b"0" * 40 + b"1": ("1939-47", FIRST, NO_SUCH),
    b"UIDL 1x": ("1939-42", b"+OK 1 UID1-99\r\n", NO_SUCH),
    b"TOP 1 -1": ("1939-34", TOP + b"".join(TOP_LINES) + b".\r\n", INVALID),
    b"TOP 1 x": ("1939-34", TOP + b".\r\n", INVALID),
    b"TOP 1 2x": ("1939-34", TOP + b"".join(TOP_LINES[:2]) + b".\r\n", INVALID),
    b"TOP 1x 2": ("1939-34", TOP + b"".join(TOP_LINES[:2]) + b".\r\n", NO_SUCH),
    b"TOP 1 +2": ("1939-34", TOP + b"".join(TOP_LINES[:2]) + b".\r\n", INVALID),
    b"TOP 1 4294967296": ("1939-42", TOP + b".\r\n", TOP + b"".join(TOP_LINES) + b".\r\n"),
    b"NOOP " + b"x" * 8187: ("ROB-09", YUP, INVALID),
    b"NOOP " + b"x" * 9000: ("ROB-09", YUP, INVALID),
}
if not has_newer_courier():
    DIFFERENT |= {
        b"LANG": ("6856-02", INVALID, LANGUAGES),
        b"LANG en": ("6856-02", INVALID, LANGUAGE),
        b"LANG *": ("6856-03", INVALID, LANGUAGE),
        b"LANG xx": ("6856-03", INVALID, b"-ERR Language not available.\r\n"),
    }


@pytest.fixture
def three(box) -> Box:
    """Three messages, and sizes that are nobody's but the list's."""
    box.put("cur/1.a:2,", b"Subject: a\nFrom: b\n\nLine 1\n.dot\nLine 3\n")
    box.put("cur/2.b:2,S", b"Subject: b\n\n" + b"y\n" * 10)
    box.put("cur/3.c:2,", b"Subject: c\nno blank line\n")
    box.list.write_bytes(b"/3 9 99\n1.a:2, 100 1:99:0\n2.b:2, 200 2:99:0\n3.c:2, 300 3:99:0\n")
    return box


def test_replies_are_the_same_or_known_to_be_different(three):
    theirs, mine = both(three, *COMMANDS)
    assert mine.greeting == theirs.greeting
    replies = zip((*COMMANDS, QUIT), theirs.replies, mine.replies, strict=True)
    met = set()
    for command, reply, my_reply in replies:
        if command.upper().startswith(b"CAPA") and not has_newer_courier():
            reply = reply.replace(b"UTF8 USER\r\n", b"UTF8 USER\r\nLANG\r\n")  # 6856-02
        known, *expected = DIFFERENT.get(command, ("", reply, reply))
        assert [reply, my_reply] == expected, (known, command)
        met.add(command)
    assert met >= set(DIFFERENT)
    assert mine.names == theirs.names == [b"1.a:2,S", b"2.b:2,S"]


def test_CVE_06_a_nul_is_an_error_here_and_hides_the_next_line_there(three):
    theirs, mine = both(three, b"NO\0OP\r\nDELE 1\r\nSTAT")
    assert theirs.replies[0] == INVALID + b"+OK 3 600\r\n"
    assert mine.replies[0] == INVALID + b"+OK Deleted.\r\n" + b"+OK 2 500\r\n"


def test_ROB_05_a_quit_without_its_line_end_deletes_nothing_here(three):
    theirs, mine = both(three, b"DELE 1", ending=b"QUIT")
    assert theirs.replies[-1] == b"+OK Bye-bye.\r\n"
    assert theirs.names == [b"2.b:2,S", b"3.c:2,"]
    assert mine.replies[-1] == b""
    assert mine.names == [b"1.a:2,", b"2.b:2,S", b"3.c:2,"]


def test_1939_52_F_DISK_2_what_can_not_be_removed_is_said_here(three):
    cur = three.path / "cur"
    cur.chmod(0o555)
    replies = [Session(server, three, b"DELE 1").replies[-1] for server in SERVERS]
    cur.chmod(0o755)
    assert replies == [b"+OK Bye-bye.\r\n", b"-ERR Some deleted messages not removed.\r\n"]
    assert len(three.names()) == 3


@pytest.mark.parametrize("server", SERVERS)
def test_F_CONC_3_a_message_that_is_renamed_is_found_again_here(three, server):
    live = Live(server, three)
    assert live.file.readline() == b"+OK logged in.\r\n"
    (three.path / "cur/1.a:2,").rename(three.path / "cur/1.a:2,F")
    found = live.ask(b"RETR 1")
    live.socket.sendall(b"DELE 1\r\n" + QUIT)
    assert live.rest().endswith(b"+OK Bye-bye.\r\n")
    live.end()
    if server is original:
        assert found == b"-ERR Can't open the message file - it's gone!\r\n"
        assert three.names() == ["1.a:2,F", "2.b:2,S", "3.c:2,"]
    else:
        assert found == b"+OK 100 octets follow.\r\n"
        assert three.names() == ["2.b:2,S", "3.c:2,"]


@pytest.mark.parametrize(
    "env",
    [
        *[{"UTF8": value} for value in (None, "", "0", "1", "2", "-1", "01", "x")],
        {"UTF8": "0", "MIME_UNICODE_MESSAGE_TYPE": "text/plain"},
    ],
)
def test_6856_05_a_unicode_message_is_wrapped_alike(box, env):
    """But for its octets: here they are those that are sent."""
    box.put("cur/1.a:2,", b"Subject: \xe9\n\nx\n.\n")
    commands = (b"TOP 1 0", b"TOP 1 30", b"RETR 1", b"UTF8", b"TOP 1 9")
    theirs, mine = both(box, *commands, shows_time=True, **env)
    is_wrapped = env["UTF8"] in ("", "0", "x")
    assert (b"Delivery" in theirs.replies[0]) is is_wrapped
    for reply, my_reply in zip(theirs.replies, mine.replies, strict=True):
        assert unwrapped(my_reply).partition(b"\n")[2] == unwrapped(reply).partition(b"\n")[2]
    octets = len(mine[b"RETR 1"].partition(b"\n")[2].removesuffix(b".\r\n")) - len(b".")
    assert mine[b"RETR 1"].startswith(b"+OK %d octets" % octets)
    assert theirs[b"RETR 1"].startswith(b"+OK %d octets" % octets) is not is_wrapped


# The log


PEER = {"TCPREMOTEIP": "::ffff:192.0.2.7", "TCPREMOTEPORT": "4711"}
WHO = "user=joe, ip=[::ffff:192.0.2.7], port=[4711]"
WORK = (
    *(b"STAT", b"LIST", b"UIDL", b"CAPA", b"TOP 1 0", b"TOP 1 2", b"TOP 2 99", b"RETR 1"),
    *(b"RETR 3", b"RETR 1", b"LIST 2", b"NOPE", b"LIST 9", b"DELE 2", b"RETR 2", b"RSET"),
    b"x" * 8000,
)


@pytest.mark.parametrize("ending", [QUIT, b""])
@pytest.mark.parametrize("tls", [None, "0", "1"])
def test_login_and_end_are_logged_alike(three, ending, tls):
    """But for stls=1, which newer Couriers than this original have in the LOGIN line as well."""
    theirs, mine = both(three, *WORK, ending=ending, POP3_TLS=tls, **PEER)
    stls = ", stls=1" if tls == "1" else ""
    login, end = theirs.log
    assert mine.log == [f"INFO: LOGIN, {WHO}{stls}", end]
    assert login == f"INFO: LOGIN, {WHO}{stls if has_newer_courier() else ''}"
    event = "LOGOUT" if ending == QUIT else "DISCONNECTED"
    assert re.fullmatch(
        re.escape(f"INFO: {event}, {WHO}") + rf", top=[1-9]\d+, retr=[1-9]\d+, rcvd=[1-9]\d+, "
        rf"sent=[1-9]\d+, time=0{stls}",
        end,
    )


@pytest.mark.parametrize(
    "env",
    [
        *[{"AUTHADDR": "j@d"}, {"AUTHADDR": ""}, {"TCPREMOTEIP": "", "TCPREMOTEPORT": ""}, {}],
        *[{"AUTHENTICATED": "j.doe@example.com"}, {"AUTHADDR": "a", "AUTHENTICATED": "b"}],
    ],
)
def test_the_user_and_the_peer_are_logged_alike(three, env):
    theirs, mine = both(three, b"RETR 1", **env)
    assert mine.log == theirs.log


@pytest.mark.parametrize("setting", [None, "1", "", "0", "0x", "no"])
def test_deletions_are_logged_alike(box, setting):
    for name in ("1.a", "2.M1P2.host,S=9:2,FS", "3.c:2,", "4.d"):
        box.put("cur/" + name, MAIL)
    commands = (b"DELE 3", b"RSET", b"RETR 4", b"DELE 4", b"DELE 2", b"DELE 1")
    theirs, mine = both(box, *commands, POP3_LOG_DELETIONS=setting, **PEER)
    assert mine.names == theirs.names == [b"3.c:2,"]
    assert mine.log == theirs.log
    assert len(mine.log) == (2 if setting in (None, "0", "0x") else 5)


def test_CVE_38_what_could_forge_a_log_line_is_a_dot_here(box):
    box.put("cur/1.a, ip=[x]\xe9:2,S T".encode("latin-1"), MAIL)
    theirs, mine = both(box, b"DELE 1", POP3_LOG_DELETIONS="1", **PEER)
    deleted = f"INFO: DELETED, {WHO}, filename=cur/"
    assert theirs.log[1] == deleted + "1.a, ip=[x]\xe9:2,S T"
    assert mine.log[1] == deleted + "1.a,.ip=.x..:2,S.T"
    assert [*mine.log[:1], *mine.log[2:]] == [*theirs.log[:1], *theirs.log[2:]]


def is_waiting(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_1939_53_a_timeout_is_logged_alike(three):
    """The original's comes after 300 seconds, or when its alarm is rung."""
    logs = []
    for server in SERVERS:
        live = Live(server, three, POP3_IDLE_TIMEOUT="1", **PEER)
        assert live.file.readline() == b"+OK logged in.\r\n"
        assert live.ask(b"DELE 1") == b"+OK Deleted.\r\n"
        live.socket.sendall(b"NOOP")
        if server is original:
            # Rung before it waits again, it says its last reply once more.
            wait_until(lambda pid=live.pid: is_waiting(pid), "the original waits")
            os.kill(live.pid, signal.SIGALRM)
        assert live.rest() == b""
        status, log = live.end()
        assert status == 0
        logs.append(re.sub(rb"time=\d+", b"time=0", log).decode().splitlines())
    assert logs[1] == logs[0]
    assert logs[0][1] == f"INFO: TIMEOUT, {WHO}, top=0, retr=0, rcvd=8, sent=30, time=0"
    assert len(three.names()) == 3


@pytest.mark.parametrize(
    "env, reply",
    [
        ({"OPTIONS": "disablepop3=1"}, b"-ERR POP3 access disabled for this account.\r\n"),
        (
            {"OPTIONS": "x=1,disableinsecurepop3=1", "POP3_TLS": "0"},
            b"-ERR POP3 access disabled via insecure connection.\r\n",
        ),
    ],
)
def test_a_disabled_account_is_refused_alike(three, env, reply):
    theirs, mine = both(three, **env)
    assert (mine.status, mine.greeting, mine.log) == (theirs.status, theirs.greeting, theirs.log)
    assert (mine.status, mine.greeting, mine.log) == (1, reply, [])


def test_F_FILE_7_F_FILE_13_what_is_not_there_or_locked_is_refused_alike(three):
    """But for a whole line end behind `chdir failed`."""

    def ends() -> list[tuple]:
        sessions = [Session(server, three, **PEER, maildir=maildir) for server in SERVERS]
        return [(each.status, each.greeting, each.log) for each in sessions]

    maildir = "./Nowhere"
    theirs, mine = ends()
    assert theirs[1] == b"-ERR chdir ./Nowhere failed\n"
    assert mine == (theirs[0], b"-ERR chdir ./Nowhere failed\r\n", theirs[2])
    maildir = "./Maildir"
    three.home.chmod(0o1700)
    theirs, mine = ends()
    assert mine == theirs
    assert mine[2] == [f"INFO: LOCKED, {WHO}"]
    three.home.chmod(0o700)
    (three.path / "cur").rename(three.path / "old")
    theirs, mine = ends()
    assert mine == theirs
    assert mine[1] == b"-ERR Maildir invalid (no 'cur' directory)\r\n"


def test_F_DISK_1_a_list_that_can_not_be_saved_has_the_same_consequences(box):
    """Our log line says why, besides."""
    (box.path / "tmp").rmdir()
    for name in ("cur/1.a:2,", "new/2.b"):
        box.put(name, MAIL)
    commands = (b"UIDL", b"STAT", b"LIST", b"TOP 1 0")
    theirs, mine = [Session(server, box, *commands) for server in SERVERS]
    assert mine.replies == theirs.replies
    assert re.fullmatch(rb"ENOMEM(-[0-9A-F]{16}){3}", mine.ids()[0])
    assert theirs.log[1] == "ERR: Error while saving courierpop3dsizelist, user=joe"
    login, failed, end = mine.log
    assert [login, failed.partition(", error=")[0], end] == theirs.log
    box.list.write_bytes(b"/3 9 99\n2.b:2, 55 7:99:0\n")
    theirs, mine = [Session(server, box, b"UIDL", b"STAT") for server in SERVERS]
    assert mine.replies == theirs.replies
    assert mine.ids() == [b"UID7-99"]


def test_F_DISK_2_mail_that_can_not_be_taken_in_has_the_same_consequences(box):
    """Our log line names the user, besides."""
    box.put("cur/1.a:2,", MAIL)
    box.put("new/2.b", MAIL)
    (box.path / "cur").chmod(0o555)
    theirs, mine = [Session(server, box, b"UIDL", b"LIST", b"RETR 1") for server in SERVERS]
    (box.path / "cur").chmod(0o755)
    assert mine.replies == theirs.replies
    text = "ERR: rename(./new/2.b,./cur/2.b:2,) failed: Permission denied"
    assert theirs.log[1] == text
    assert mine.log == [theirs.log[0], f"{text}, user=joe", theirs.log[2]]
