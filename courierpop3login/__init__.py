"""Everything before a password is proven."""
