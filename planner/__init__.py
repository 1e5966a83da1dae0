"""How many replicas of what: a simulation of the cluster with the product's own decisions, and a search with it."""
