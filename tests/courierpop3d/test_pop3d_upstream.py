"""The eight cases of Courier's own test of its POP3 server (courierpop3d.md 9), in a row."""

from __future__ import annotations

import os
import re

from courierpop3d import sizelist

BODY = b"Subject: test%s\nFrom: nobody@example.com\n\nLine 1\nLine 2\nLine 3\n"
CYRILLIC = "Subject: сообщение6\nFrom: nobody@example.com\n\n".encode()


def sent(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def test_the_cases_of_upstream(box, talk, monkeypatch):
    def put(number: int) -> None:
        box.put(f"new/msg{number}", BODY % (b" %d" % number if number > 1 else b""))

    def fail(*_):
        raise OSError(28, "No space left on device")

    # 1
    put(1)
    session = talk()
    assert session.say("STAT") == b"+OK 1 67\r\n"
    assert session.lines("UIDL") == [b"1 UID1-200"]
    assert session.say("RETR 1") == b"+OK 67 octets follow.\r\n" + sent(BODY % b"") + b".\r\n"
    assert session.body("TOP 1 1") == sent(BODY % b"")[:-16]
    # 2
    put(2)
    session = talk()
    assert session.say("STAT") == b"+OK 2 136\r\n"
    assert session.say("UIDL 1") == b"+OK 1 UID1-200\r\n"
    assert session.say("UIDL 2") == b"+OK 2 UID2-200\r\n"
    assert session.body("TOP 1 0") == sent(BODY % b"")[:-24]
    # 3
    os.rename("cur/msg2:2,", "cur/msg2:2,S")
    os.unlink("cur/msg1:2,S")
    put(3)
    session = talk()
    assert session.say("STAT") == b"+OK 2 138\r\n"
    assert session.lines("UIDL") == [b"1 UID2-200", b"2 UID3-200"]
    assert session.body("TOP 1 0") == sent(BODY % b" 2")[:-24]
    assert session.body("TOP 2 0") == sent(BODY % b" 3")[:-24]
    # 4
    os.unlink("cur/msg3:2,")
    session = talk()
    assert session.say("STAT") == b"+OK 1 69\r\n"
    assert box.list.read_bytes() == b"/3 4 200\nmsg2:2,S 69 2:200:0\n"
    # 5
    put(4)
    with monkeypatch.context() as patched:
        patched.setattr(sizelist, "save", fail)
        session = talk()
        assert session.say("STAT") == b"+OK 1 69\r\n"
        assert session.lines("UIDL") == [b"1 UID2-200"]
        assert session.say("DELE 1") == b"+OK Deleted.\r\n"
        assert session.say("RSET") == b"+OK Resurrected.\r\n"
        assert box.names() == ["msg2:2,S", "msg4:2,"]
        # 6
        for name in box.names():
            os.unlink("cur/" + name)
        put(5)
        session = talk()
        assert session.say("STAT") == b"+OK 1 69\r\n"
        assert re.fullmatch(rb"1 ENOMEM(-[0-9A-F]{16}){3}", session.lines("UIDL")[0])
        assert session.say("DELE 1") == b"+OK Deleted.\r\n"
        assert session.say("QUIT") == b"+OK Bye-bye.\r\n"
        assert box.names() == []
    # 7
    box.put("new/msg6", CYRILLIC + b"Line 1\nLine 2\nLine 3\n")
    session = talk()
    assert session.say("LIST 1") == b"+OK 1 82\r\n"
    # 8
    put(7)
    session = talk(utf8=False)
    assert session.lines("LIST") == [b"1 82", b"2 69"]
    assert session.body("RETR 1").startswith(b"From: Mail Delivery Subsystem <postmaster>\r\n")
    assert session.say("UTF8") == b"+OK UTF8 enabled\r\n"
    assert session.body("RETR 1") == sent(CYRILLIC) + b"Line 1\r\nLine 2\r\nLine 3\r\n"
