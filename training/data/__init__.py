"""Images and captions, read once and cached as arrays. Trains nothing."""
