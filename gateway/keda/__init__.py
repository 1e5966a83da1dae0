"""The generated stubs of KEDA's external scaler contract, built from protos/keda by `make protos`; nothing by hand."""
