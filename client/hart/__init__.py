"""hart: the Python client of HART cluster. Imports nothing until a name is used; knows no server room."""
