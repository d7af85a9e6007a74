"""The listener: see main."""
