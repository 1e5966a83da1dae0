"""HART itself: torch in, torch out. Knows nothing of gRPC, protobuf, settings or the environment."""
