"""makedat - databases from texts, as Courier's program of that name makes them: see main, prog."""
