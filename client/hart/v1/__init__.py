"""The generated messages and stubs of package hart.v1, generated from protos/ by `make protos`; do not edit."""
