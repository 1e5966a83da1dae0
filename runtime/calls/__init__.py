"""Calls to other processes: pool, replicas, retry budget."""
