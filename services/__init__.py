"""The stages. Each runs as its own process and imports no other stage."""

from common.cpus import bound_spin

bound_spin()  # OpenMP reads it when torch is imported
