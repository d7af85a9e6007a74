"""Cyrus's POP3 server command, `pop3d`, over Maildirs and the chain of programs.

What is Cyrus's here, and where it is:

    the command line, imapd.conf, the protocol of master      this package
    replies before the login                                  courierpop3login.cyrus
    replies after it                                          courierpop3d.cyrus
    the grammar of commands, and the texts of both            pop3proto.cyrus
    telemetry                                                 courierpop3d.telemetry

`pop3d` talks no POP3 itself. It turns its options and imapd.conf into the settings in the
environment that the chain reads anyway, POP3_DIALECT=cyrus among them, and becomes

    courierpop3login MODULE... courierpop3d ./Maildir

as `courierctl` turns Courier's configuration files into settings. So AUTH, STLS, the modules, the
hand-over to the account's uid, and all that concerns a Maildir (snapshot, UIDs, removal) are there
once, and whoever traces the chain sees the one that the README shows. A dialect is one subclass of
each session, imported only where it is spoken. Considered and left: a server of Cyrus's own over a
shared package of Maildir code, which would have two programs to be kept right.
"""
