"""Fused operations, one a file: a Triton kernel for a GPU, its twin in plain torch, and one function that chooses.

A twin's float operations come in the order of the model's own; its kernel rounds where the twin rounds. On a CPU twins
run, and triton is not imported. Imports no other room.
"""
