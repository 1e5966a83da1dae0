"""One request: validation, admission, the pipeline through the stages, shared execution and idempotency."""
