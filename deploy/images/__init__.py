"""What the container images install, pinned by hash."""
