"""A program of the chain: serves an account whose mailbox is on another host."""
