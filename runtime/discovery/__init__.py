"""Where the replicas of a stage are: static lists, files, DNS, Kubernetes. Knows addresses alone."""
