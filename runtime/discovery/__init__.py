"""Service discovery: static lists, files, DNS, Kubernetes."""
