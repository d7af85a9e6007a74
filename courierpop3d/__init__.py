"""Everything after a login: the messages of one Maildir, told to one client."""
