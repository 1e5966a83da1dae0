"""Facts that the server rooms share, each of them once. Imports the standard library alone."""
