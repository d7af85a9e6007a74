"""What programs write on descriptor 2, given to syslog: see main."""
