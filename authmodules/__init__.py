"""One file, one way to know a user."""
