"""The cluster under failure and overload, with real processes: `python -m benchmarks.drills NAME --minutes M`."""
