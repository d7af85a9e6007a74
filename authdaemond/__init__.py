"""The daemon that mail programs ask about accounts, instead of asking modules themselves."""
