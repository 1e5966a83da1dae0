"""How the cluster, or a part of it, is run elsewhere. Knows no service's inside."""
