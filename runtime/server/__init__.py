"""One process's gRPC server: assembly, lifecycle, interceptor, health, limits."""
