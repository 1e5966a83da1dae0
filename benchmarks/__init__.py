"""Everything that prints a number quoted anywhere."""

from common.cpus import bound_spin

bound_spin()  # OpenMP reads it when torch is imported
