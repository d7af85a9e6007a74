"""What Cyrus's own tests check of its POP3 server, checked of ours (cyrus-pop3d.md 8)."""

from __future__ import annotations

from tests.cyruspop3d.test_checklist import log_in


def deliver(cyrus, number: int) -> None:
    for serial in range(1, number + 1):
        cyrus.john.deliver(b"Subject: %d\n\nbody %d\n" % (serial, serial))


def test_top_args(cyrus):
    deliver(cyrus, 1)
    with cyrus.start() as client:
        log_in(cyrus, client)
        assert client.ask("TOP") == "-ERR Missing argument"
        assert client.ask("TOP 1") == "-ERR Missing argument"
        assert client.listing("TOP 1 2") == ["Subject: 1", "", "body 1"]
        assert client.ask("TOP xyz 2").startswith("-ERR")
        assert client.ask("TOP 1 xyz").startswith("-ERR")
        assert client.ask("TOP 1 2 3") == "-ERR Unexpected extra argument"


def test_subfolder_login(cyrus):
    cyrus.configure("popsubfolders: yes\naltnamespace: no\n")
    deliver(cyrus, 1)
    folder = cyrus.john.maildir / ".sub"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "cur/1700000001.a:2,").write_text("Subject: of sub\n\n")
    cyrus.john.own()
    for user, subject in (("john", "Subject: 1"), ("john+sub", "Subject: of sub")):
        with cyrus.start() as client:
            assert log_in(cyrus, client, user).startswith("+OK")
            assert client.ask("STAT").startswith("+OK 1 ")
            assert client.listing("TOP 1 0")[0] == subject


def test_dele(cyrus):
    """Two messages are left, which nobody has seen."""
    deliver(cyrus, 3)
    with cyrus.start() as client:
        log_in(cyrus, client)
        assert client.ask("DELE 2") == "+OK message deleted"
        assert client.ask("QUIT") == "+OK"
        client.end()
    kept = cyrus.john.files()
    assert [name.split(".")[1] for name in kept] == ["m1", "m3"]
    assert not [name for name in kept if name.endswith("S")]


def test_seen(cyrus):
    """With popuseimapflags the message that was fetched is seen, and no other."""
    cyrus.configure("popuseimapflags: yes\n")
    deliver(cyrus, 3)
    with cyrus.start() as client:
        log_in(cyrus, client)
        client.listing("RETR 2")
        assert client.ask("QUIT") == "+OK"
        client.end()
    seen = [name.split(".")[1] for name in cyrus.john.files() if name.endswith("S")]
    assert len(cyrus.john.files()) == 3 and seen == ["m2"]


def test_dots_in_a_user_name_and_their_internal_form(cyrus):
    cyrus.configure("popuseacl: yes\n")
    cyrus.accounts.add("john.smith")
    with cyrus.start() as client:
        assert log_in(cyrus, client, "john.smith", "secret of john.smith").startswith("+OK")
    with cyrus.start() as client:
        said = log_in(cyrus, client, "john^smith", "secret of john.smith")
        assert said == "-ERR [AUTH] Invalid login"
