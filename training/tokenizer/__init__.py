"""Training of the hybrid tokenizer. Reads no captions."""
