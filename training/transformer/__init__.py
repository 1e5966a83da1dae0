"""Training of the transformer and its residual head on tokens."""
