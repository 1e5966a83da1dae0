"""What benchmarks, drills and tests share: a cluster's processes, a small checkpoint, load, the end of a command."""
