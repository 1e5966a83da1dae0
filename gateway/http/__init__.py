"""The gateway's HTTP API: the OpenAI images API over the same executor as gRPC."""
