"""Stages on the Triton Inference Server: a model repository, and a launcher for the server from a PyPI package."""
