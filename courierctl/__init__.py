"""Start and stop from Courier's configuration files, see main; and mkpop3dcert, mkdhparams."""
