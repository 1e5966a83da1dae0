"""Everything that prints a number quoted anywhere."""
