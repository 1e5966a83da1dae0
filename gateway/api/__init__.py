"""The gateway's gRPC services: Images for callers, the external scaler for KEDA."""
