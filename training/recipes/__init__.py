"""Data sets of our own, each with its captions, probes, evaluation and export."""
