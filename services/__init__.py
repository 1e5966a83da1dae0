"""One process per stage; strangers to one another."""
