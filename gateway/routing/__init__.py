"""The replicas of every stage: what they serve, which of them are compatible, the cluster as callers see it."""
