"""The grammar of POP3: bytes to commands, replies to bytes. No IO, no clock, no user."""
