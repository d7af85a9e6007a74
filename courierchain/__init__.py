"""What the programs of the chain share: the record on descriptor 3, and how they hand over."""
