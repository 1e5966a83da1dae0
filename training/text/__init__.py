"""Training of the small text encoder. Reads no images."""
