"""The TLS relay: see main."""
