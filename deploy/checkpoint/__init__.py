"""Downloads a checkpoint, and checks a folder before it is served: docs/models.md."""
