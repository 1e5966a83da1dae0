"""What every process stands on: server, health, errors, deadlines, queue, telemetry, TLS, wire tensors. Knows no service, no model, no torch."""
