"""The HART model in torch. It imports no gRPC and no protobuf, and reads no settings and no environment variables."""
