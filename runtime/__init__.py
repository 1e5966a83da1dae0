"""The base of every process: server, errors, queue, telemetry, TLS, tensors. It imports no service, model or torch."""
