"""A CUDA device that does nothing, for machines without one. Knows nothing of the model."""
