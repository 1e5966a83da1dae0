"""What every process stands on: server, errors, queue, telemetry, TLS, tensors. Knows no service, model or torch."""
