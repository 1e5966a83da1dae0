"""Calls to the stages: retries over replicas, and one backend per protocol."""
