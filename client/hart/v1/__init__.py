"""The generated messages and stubs of package hart.v1, built from protos/ by `make protos`; nothing by hand."""
