"""The Open Inference Protocol: a facade over any model description, and a client. Knows no model."""
