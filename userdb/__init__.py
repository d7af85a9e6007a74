"""Courier's commands for the userdb: what is in it, and what it is made of."""
