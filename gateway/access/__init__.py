"""Authentication of callers and their rate limits."""
