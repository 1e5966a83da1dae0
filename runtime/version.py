"""The version of the server software. Knows nothing else."""

VERSION = "0.1.0"
