"""The command `hart`."""
