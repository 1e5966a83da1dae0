"""The heavy parts of a picture on ONNX Runtime, for CPUs (docs/performance.md)."""
